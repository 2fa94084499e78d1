"""What the agent is saying: deltas merged into few records, and the whole message at its end (PROTOCOL 3a)."""

from math import inf
from typing import Final

import attrs
import msgspec

from broker.ids import new_id
from broker.messages import TextDelta, TextReplaced, TurnRow
from broker.turns.commands import Command, Out

__all__ = ["MERGE_BYTES", "MERGE_SECONDS", "MESSAGES_LIMIT", "MESSAGE_BYTES", "Speech"]

MERGE_SECONDS: Final = 0.040
"""How long adjacent deltas of one message may wait for each other (PROTOCOL 3a)."""
MERGE_BYTES: Final = 4096
"""How much text may wait (PROTOCOL 3a)."""
MESSAGE_BYTES: Final = 1 << 20
"""How long a message may grow; what comes after that is another message, since each is kept whole in memory."""
MESSAGES_LIMIT: Final = 256
"""Messages of one turn that can still be replaced; of more the first is forgotten first."""
_encode: Final = msgspec.json.Encoder().encode

_Known = tuple[str | None, bool]
"""What an agent calls a message: its own id of it, and whether it is a thought."""


@attrs.define
class _Message:
    """The message being written: all of its text in the log, and the part that is not there yet.

    Attributes:
        message_id: the broker's id of it, which the log has.
        known: the agent's.
        whole: whether the log has it as a whole, as it is now.
    """

    message_id: str
    known: _Known
    whole: bool = False
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
        self._known: dict[str, _Known] = {}  # the turn's messages by the broker's ids, in their order

    def add(self, delta: TextDelta, now: float) -> None:
        """Take some more text. The first of a message never waits; another kind or id begins another message."""
        self._turn_id = delta.turn_id
        message = self._message
        if message is None or message.known != (delta.message_id, delta.thought):
            message = self._begin((delta.message_id, delta.thought))
        message.waiting.append(delta.text)
        message.waiting_bytes += _size_of(delta.text)
        if not message.written_bytes or message.waiting_bytes >= MERGE_BYTES:
            self.flush()
            if message.written_bytes >= MESSAGE_BYTES:
                self.complete()
        elif self.flush_at == inf:
            self.flush_at = now + MERGE_SECONDS

    def replace(self, event: TextReplaced, turn_id: str, now: float) -> None:
        """Put other text in the place of a message of this turn, under the id that the log has of it.

        What comes next goes on from there. Where the message stands in parts, because others came in between or
        for its size, the first part has all of its text then and the others none. One that the turn does not
        know begins with it.
        """
        known = event.message_id, event.thought
        parts = [message_id for message_id, of in self._known.items() if of == known]
        if not parts:
            if event.text:
                self.add(TextDelta(turn_id, event.text, event.thought, event.message_id), now)
            return
        self._turn_id = turn_id
        self.flush()
        open_id = None if self._message is None else self._message.message_id
        if open_id != parts[0]:
            self.complete()
        for part in parts[1:]:
            del self._known[part]
            self._write_replaced(part, "", thought=event.thought)
        self._write_replaced(parts[0], event.text, thought=event.thought)
        # A message that was completed before is completed once more only if it goes on.
        self._message = _Message(
            parts[0], known, whole=open_id != parts[0], written=[event.text], written_bytes=_size_of(event.text)
        )

    def flush(self) -> None:
        """Write the text that waits."""
        self.flush_at = inf
        message = self._message
        if message is None or not message.waiting:
            return
        text = "".join(message.waiting)
        thought = message.known[1]
        if not thought:
            message.written.append(text)
        message.written_bytes += message.waiting_bytes
        message.waiting.clear()
        message.waiting_bytes = 0
        message.whole = False
        kind = "thought.delta" if thought else "message.delta"
        data = _encode({"message_id": message.message_id, "role": "assistant", "text": text})
        self._out.write(kind, data, self._turn_id)

    def complete(self) -> None:
        """Write the message as a whole, if there is one; what comes next is another message."""
        self.flush()
        message, self._message = self._message, None
        if message is None or message.whole or message.known[1]:
            return
        content = {"message_id": message.message_id, "role": "assistant", "content": "".join(message.written)}
        self._out.write("message.completed", _encode(content), self._turn_id)

    def end(self) -> None:
        """Write the message as a whole: the turn ends, and nothing of it can be replaced any more."""
        self.complete()
        self._known.clear()

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

    # -- inside -------------------------------------------------------------------------------------

    def _begin(self, known: _Known) -> _Message:
        self.complete()
        message = self._message = _Message(new_id(), known)
        self._known[message.message_id] = known
        if len(self._known) > MESSAGES_LIMIT:
            del self._known[next(iter(self._known))]
        return message

    def _write_replaced(self, message_id: str, text: str, *, thought: bool) -> None:
        data = {"message_id": message_id, "role": "assistant", "thought": thought, "content": text}
        self._out.write("message.replaced", _encode(data), self._turn_id)


def _size_of(text: str) -> int:
    """Return how many bytes a text takes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
