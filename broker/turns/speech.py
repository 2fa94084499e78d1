"""What the agent is saying: deltas merged into few records, and the whole message at its end (PROTOCOL 3a)."""

from math import inf
from typing import Final

import attrs
import msgspec

from broker.ids import new_id
from broker.messages import TextDelta, TurnRow
from broker.turns.commands import Command, Out

__all__ = ["MERGE_BYTES", "MERGE_SECONDS", "MESSAGE_BYTES", "Speech"]

MERGE_SECONDS: Final = 0.040
"""How long adjacent deltas of one message may wait for each other (PROTOCOL 3a)."""
MERGE_BYTES: Final = 4096
"""How much text may wait (PROTOCOL 3a)."""
MESSAGE_BYTES: Final = 1 << 20
"""How long a message may grow; what comes after that is another message, since each is kept whole in memory."""
_encode: Final = msgspec.json.Encoder().encode


@attrs.define
class _Message:
    """The message being written: all of its text in the log, and the part that is not there yet."""

    message_id: str
    thought: bool
    agents_id: str | None
    written: list[str] = attrs.Factory(list)
    written_bytes: int = 0
    waiting: list[str] = attrs.Factory(list)
    waiting_bytes: int = 0


class Speech:
    """The text of the running turn, in front of the port by which everything else leaves the machine.

    It is an `Out` itself: whatever record is written through it, the text that waits goes first.

    Attributes:
        flush_at: when the text that waits has to be written, on the clock of `add`; infinity if none waits.
    """

    def __init__(self, out: Out) -> None:
        self.flush_at = inf
        self._out = out
        self._turn_id = ""
        self._message: _Message | None = None

    def add(self, delta: TextDelta, now: float) -> None:
        """Take some more text. The first of a message never waits; another kind or id begins another message."""
        self._turn_id = delta.turn_id
        message = self._message
        if message is None or message.thought != delta.thought or message.agents_id != delta.message_id:
            self.complete()
            message = self._message = _Message(new_id(), delta.thought, delta.message_id)
        message.waiting.append(delta.text)
        message.waiting_bytes += len(delta.text) if delta.text.isascii() else len(delta.text.encode())
        if not message.written_bytes or message.waiting_bytes >= MERGE_BYTES:
            self.flush()
            if message.written_bytes >= MESSAGE_BYTES:
                self.complete()
        elif self.flush_at == inf:
            self.flush_at = now + MERGE_SECONDS

    def flush(self) -> None:
        """Write the text that waits."""
        self.flush_at = inf
        message = self._message
        if message is None or not message.waiting:
            return
        text = "".join(message.waiting)
        if not message.thought:
            message.written.append(text)
        message.written_bytes += message.waiting_bytes
        message.waiting.clear()
        message.waiting_bytes = 0
        kind = "thought.delta" if message.thought else "message.delta"
        data = _encode({"message_id": message.message_id, "role": "assistant", "text": text})
        self._out.write(kind, data, self._turn_id)

    def complete(self) -> None:
        """Write the message as a whole, if there is one; what comes next is another message."""
        self.flush()
        message, self._message = self._message, None
        if message is None or message.thought:
            return
        content = {"message_id": message.message_id, "role": "assistant", "content": "".join(message.written)}
        self._out.write("message.completed", _encode(content), self._turn_id)

    # -- everything else ----------------------------------------------------------------------------

    def write(self, kind: str, data: bytes, turn_id: str | None = None) -> int:
        """Write any other record, after the text that waits, and return its number."""
        if self.flush_at != inf:
            self.flush()
        return self._out.write(kind, data, turn_id)

    def wall(self) -> int:
        """Return the wall clock's milliseconds since the epoch."""
        return self._out.wall()

    def save(self, row: TurnRow) -> None:
        """Keep the latest state of a turn."""
        self._out.save(row)

    def command(self, command: Command) -> None:
        """Have this carried out."""
        self._out.command(command)
