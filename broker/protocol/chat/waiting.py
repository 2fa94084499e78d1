"""Messages of a client of `chat.v1.json` that wait until their sessions are open, in their order and within bounds."""

from collections import Counter
from typing import Final

import attrs

from broker.errors import BrokerError
from broker.protocol.chat.asked import Opening, session_of
from broker.protocol.outgoing import Request

__all__ = ["Hall", "Waiting"]

HELD: Final = 64
"""Messages of one connection that may wait."""
HELD_BYTES: Final = 1 << 20
"""Bytes that these may have together; a single one may have more."""


@attrs.frozen
class Waiting:
    """The tag of a message whose session has to be opened before.

    Attributes:
        request: what it asks for, once that is done.
        opening: opens its session, unless that is under way.
    """

    request: Request
    opening: Opening

    def __str__(self) -> str:
        return str(self.opening)

    @property
    def session_id(self) -> str:
        """The session."""
        return session_of(self.opening.tag)


class Hall:
    """Where they wait. Each is counted from when it is read until it is let go, also while gates look at it."""

    def __init__(self) -> None:
        self._held: dict[str, list[Waiting]] = {}
        self._counts: Counter[str] = Counter()
        self._bytes = 0

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._counts

    def expect(self, waiting: Waiting) -> None:
        """Count one that will wait.

        Raises:
            BrokerError: `overloaded`.
        """
        size = len(waiting.request.text)
        if self._counts and (self._counts.total() >= HELD or self._bytes + size > HELD_BYTES):
            raise BrokerError("overloaded", "Too much waits for sessions that are being opened.", retry_after=1.0)
        self._counts[waiting.session_id] += 1
        self._bytes += size

    def hold(self, waiting: Waiting) -> None:
        """Keep one."""
        self._held.setdefault(waiting.session_id, []).append(waiting)

    def let_go(self, waiting: Waiting) -> Request:
        """Return what one asks for, and count it no more."""
        self._bytes -= len(waiting.request.text)
        self._counts[waiting.session_id] -= 1
        if not self._counts[waiting.session_id]:
            del self._counts[waiting.session_id]
        return waiting.request

    def clear(self, session_id: str) -> list[Request]:
        """Let go all that were kept for a session, in their order."""
        return [self.let_go(waiting) for waiting in self._held.pop(session_id, ())]
