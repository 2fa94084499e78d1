"""Messages of a client of `chat.v1.json` that wait until their sessions are open, in their order.

What one connection may have under way is bounded in number and bytes (PROTOCOL P7).
"""

from collections import Counter
from typing import Final

import attrs

from broker.errors import BrokerError
from broker.protocol.chat.asked import Opening, session_of
from broker.protocol.outgoing import Request

__all__ = ["HELD", "HELD_BYTES", "Budget", "Hall", "Waiting"]

HELD: Final = 64
"""Messages of one connection that may wait, and sessions that may be being opened."""
HELD_BYTES: Final = 1 << 20
"""Bytes that these may have together; a single one may have more."""


class Budget:
    """How much there is of what is bounded."""

    def __init__(self) -> None:
        self._count = 0
        self._bytes = 0

    def take(self, size: int) -> None:
        """Count one more of so many bytes.

        Raises:
            BrokerError: `overloaded`.
        """
        if self._count and (self._count >= HELD or self._bytes + size > HELD_BYTES):
            raise BrokerError("overloaded", "Too much waits for sessions that are being opened.", retry_after=1.0)
        self._count += 1
        self._bytes += size

    def give_back(self, size: int) -> None:
        """Count one of so many bytes no more."""
        self._count -= 1
        self._bytes -= size


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
        self._budget = Budget()

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._counts

    def expect(self, waiting: Waiting) -> None:
        """Count one that will wait.

        Raises:
            BrokerError: `overloaded`.
        """
        self._budget.take(len(waiting.request.text))
        self._counts[waiting.session_id] += 1

    def hold(self, waiting: Waiting) -> None:
        """Keep one."""
        self._held.setdefault(waiting.session_id, []).append(waiting)

    def let_go(self, waiting: Waiting) -> Request:
        """Return what one asks for, and count it no more."""
        self._budget.give_back(len(waiting.request.text))
        self._counts[waiting.session_id] -= 1
        if not self._counts[waiting.session_id]:
            del self._counts[waiting.session_id]
        return waiting.request

    def kept(self, session_id: str) -> list[Waiting]:
        """Return all that were kept for a session, in their order: to be let go, or kept again."""
        return self._held.pop(session_id, [])
