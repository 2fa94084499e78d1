"""What comes and is in no log, for whoever wants to see it: a little of it is kept (PROTOCOL P7)."""

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

__all__ = ["BYTES", "ITEMS", "Inbox"]

T = TypeVar("T")

ITEMS: Final = 500
"""What is kept for one consumer ..."""
BYTES: Final = 1 << 20
"""... and as many bytes of it; one that is larger is kept alone."""


class Inbox(Generic[T]):
    """An iterator over what comes from its making on; it ends with the connection.

    Of what comes while nobody reads, the newest is kept, and the rest counted.

    Attributes:
        missed: how many there was no room for.
    """

    def __init__(self) -> None:
        self.missed = 0
        self._kept: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._over = False
        self._trouble: Exception | None = None
        self._wake = asyncio.Event()

    def __aiter__(self) -> "Inbox[T]":
        return self

    async def __anext__(self) -> T:
        while not self._kept:
            if self._trouble is not None:
                trouble, self._trouble = self._trouble, None
                raise trouble
            if self._over:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        item, size = self._kept.popleft()
        self._bytes -= size
        return item

    def take(self, item: T, size: int) -> None:
        """Take one."""
        while self._kept and (len(self._kept) >= ITEMS or self._bytes + size > BYTES):
            self._bytes -= self._kept.popleft()[1]
            self.missed += 1
        self._kept.append((item, size))
        self._bytes += size
        self._wake.set()

    def end(self, trouble: Exception | None = None) -> None:
        """Give nothing more behind what is kept; then raise `trouble`, if there is any."""
        self._over, self._trouble = True, trouble
        self._wake.set()
