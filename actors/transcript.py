"""What was said in a session so far, for agents that are told it with each turn (PROTOCOL section 4).

A fold of the session's own records, the same over those being written and over those read back: prompts
that were really dispatched, with the content they then had, and answers that were completed.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

import attrs
import msgspec

from broker.messages import Record

__all__ = ["KINDS", "MESSAGES", "SIZE", "Transcript"]

KINDS: Final = ("user.message", "turn.edited", "turn.started", "message.completed", "turn.ended")
"""The records it is made of."""
MESSAGES: Final = 200
"""Messages that are told."""
SIZE: Final = 1 << 20
"""Bytes of JSON that are told."""


class _Said(msgspec.Struct):
    """What `user.message`, `turn.edited` and `message.completed` have in common."""

    content: msgspec.Raw


@attrs.frozen
class _Message:
    turn_id: str | None
    role: str
    json: bytes


_read: Final = msgspec.json.Decoder(_Said).decode


class Transcript:
    """The newest messages of one session: at most `MESSAGES` and `SIZE`, beginning with a person's."""

    def __init__(self) -> None:
        self._messages: deque[_Message] = deque()
        self._size = 0
        self._prompts: dict[str, bytes] = {}  # of turns that were accepted and have neither started nor ended

    def extend(self, records: Iterable[Record]) -> None:
        """Take records that were written before, oldest first."""
        for record in records:
            self.add(record.kind, record.data, record.turn_id)

    def add(self, kind: str, data: bytes, turn_id: str | None) -> None:
        """Take one record."""
        match kind:
            case "user.message":
                self._prompts[turn_id or ""] = bytes(_read(data).content)
            case "turn.edited" if turn_id in self._prompts:
                self._prompts[turn_id] = bytes(_read(data).content)
            case "turn.started" if turn_id in self._prompts:
                self._say(turn_id, "user", self._prompts.pop(turn_id))
            case "message.completed":
                self._say(turn_id, "assistant", bytes(_read(data).content))
            case "turn.ended":
                self._prompts.pop(turn_id or "", None)

    def before(self, turn_id: str) -> bytes:
        """Return the JSON array of `{role, content}` of what was said before this turn, oldest first."""
        return b"[%s]" % b",".join([message.json for message in self._messages if message.turn_id != turn_id])

    def _say(self, turn_id: str | None, role: str, content: bytes) -> None:
        message = _Message(turn_id, role, b'{"role":"%s","content":%s}' % (role.encode(), content))
        self._messages.append(message)
        self._size += len(message.json)
        while self._messages and (
            len(self._messages) > MESSAGES or self._size > SIZE or self._messages[0].role != "user"
        ):
            self._size -= len(self._messages.popleft().json)
