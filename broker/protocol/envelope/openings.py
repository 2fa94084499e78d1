"""The requests of one client of `envelope.v1.json` that open sessions, or have them told once more."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from broker.errors import BrokerError
from broker.protocol.dialect import Later, Reaction
from broker.protocol.envelope.answers import Asked
from broker.protocol.envelope.session import Followed
from broker.protocol.outgoing import Request
from broker.protocol.refusals import pause

__all__ = ["MOST", "MOST_BYTES", "Openings"]

MOST: Final = 64
"""Sessions that one connection may be opening at the same time (PROTOCOL P7)."""
MOST_BYTES: Final = 1 << 20
"""Bytes that these requests may have together; a single one may have more."""

A = TypeVar("A")


class Openings:
    """Those that are under way: each is counted until it is answered, here and by its session."""

    def __init__(self) -> None:
        self._count = 0
        self._bytes = 0

    def check(self, size: int) -> None:
        """Refuse one more of so many bytes, if there are too many.

        Raises:
            BrokerError: `overloaded`.
        """
        if self._count and (self._count >= MOST or self._bytes + size > MOST_BYTES):
            raise BrokerError("overloaded", "Too many sessions are being opened already.", retry_after=1.0)

    def ask(self, session: Followed, action: str, payload: bytes, asked: Asked, kind: str = "") -> Request:
        """Return a request that is counted, and made again for as long as it is refused for a moment only."""
        self._count_one(session, payload, 1)
        tries = 0

        def ended(take: Callable[[A], Iterable[Reaction]]) -> Callable[[A], Iterable[Reaction]]:
            def answered(answer: A) -> Iterable[Reaction]:
                self._count_one(session, payload, -1)
                return take(answer)

            return answered

        def refused(error: BrokerError) -> Iterator[Reaction]:
            nonlocal tries
            seconds = pause(error, tries)
            if seconds is None:
                yield from ended(asked.refused)(error)
                return
            tries += 1
            yield Later(seconds, request)

        handled = None if asked.handled is None else ended(asked.handled)
        request = Request(action, payload, Asked(asked.id, ended(asked.then), refused, handled), kind)
        return request

    def _count_one(self, session: Followed, payload: bytes, one: int) -> None:
        session.opens += one
        self._count += one
        self._bytes += one * len(payload)
