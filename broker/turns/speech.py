"""What the agent is saying: deltas merged into few records, and the whole message at its end (PROTOCOL 3a)."""

from typing import Final

import attrs
import msgspec

from broker.ids import new_id
from broker.messages import TextDelta
from broker.turns.commands import Out

__all__ = ["MERGE_BYTES", "MERGE_SECONDS", "Speech"]

MERGE_SECONDS: Final = 0.040
"""How long adjacent deltas of one message may wait for each other (PROTOCOL 3a)."""
MERGE_BYTES: Final = 4096
"""How much text may wait (PROTOCOL 3a)."""
_encode: Final = msgspec.json.Encoder().encode


@attrs.define
class _Message:
    """The message being written: all of its text in the log, and the part that is not there yet."""

    message_id: str
    thought: bool
    agents_id: str | None
    written: list[str] = attrs.Factory(list)
    waiting: list[str] = attrs.Factory(list)
    waiting_bytes: int = 0


class Speech:
    """The text of one running turn.

    Attributes:
        flush_at: when the text that waits has to be written, on the clock of `add`; None if none waits.
    """

    def __init__(self, out: Out) -> None:
        self.flush_at: float | None = None
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
        if not message.written or message.waiting_bytes >= MERGE_BYTES:
            self.flush()
        elif self.flush_at is None:
            self.flush_at = now + MERGE_SECONDS

    def flush(self) -> None:
        """Write the text that waits; to be called before any other record."""
        self.flush_at = None
        message = self._message
        if message is None or not message.waiting:
            return
        text = "".join(message.waiting)
        message.written.append(text)
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
