"""What iterates over a log: a little of what comes live is kept, and who falls behind reads on from the log itself.

So a consumer that is slow, or does not read at all, costs a bounded amount of memory, and holds up nobody: neither
the pings of its connection nor what else is read (PROTOCOL P3, P7).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from broker.client.errors import BrokerError, Closed, LogReset, Refused
from broker.client.inbox import BYTES, ITEMS

__all__ = ["Log", "Reader"]

T = TypeVar("T")


class Log(Protocol[T]):
    """A log that is followed.

    Attributes:
        name: for people.
        epoch: which log it is; None until it was entered.
        seq: the number up to which all that came live was handed on.
        head: that of the newest item it was known to have when it was entered.
        floor: that of the oldest.
    """

    name: str
    epoch: str | None
    seq: int
    head: int
    floor: int

    async def enter(self, *, afresh: bool = False) -> None:
        """See that the log is followed; if need be, once more, to learn how far it has come.

        Raises:
            BrokerError, Refused: it cannot be.
        """

    async def page(self, after: int) -> list[tuple[int, T]]:
        """Return the next items above `after` with their numbers, oldest first; none if none are kept.

        Raises:
            BrokerError, Refused: it cannot be read.
        """

    def register(self, reader: "Reader[T]") -> None:
        """Hand on to `reader` what comes, for as long as there is somebody who has it."""


class Reader(Generic[T]):
    """An iterator over a log. It may be left and taken up again; it ends if the log is let go of at this end.

    Args:
        log: what is read.
        after: the number up to which it is known; -1 for all there is by now.
        epoch: the log that it was known of; None for whichever there is.
        wants: which items are given.
        last: which item is the last one that is wanted; then the iterator ends, and not before.
        sure: whether the log is known to reach up to `after`, or soon will.
    """

    def __init__(
        self,
        log: Log[T],
        after: int,
        *,
        epoch: str | None = None,
        wants: Callable[[T], bool] | None = None,
        last: Callable[[T], bool] | None = None,
        sure: bool = False,
    ) -> None:
        self._log = log
        self._seq = after
        self._epoch = epoch
        self._wants = wants
        self._last = last
        self._sure = sure
        self._kept: deque[tuple[T | LogReset, int]] = deque()
        self._bytes = 0
        self._placed = False
        self._behind = False
        self._ended = False
        self._trouble: Exception | None = None
        self._wake = asyncio.Event()
        self._reading = False
        log.register(self)

    # -- for who reads ----------------------------------------------------------------------------------

    def __aiter__(self) -> "Reader[T]":
        return self

    async def __anext__(self) -> T:
        if self._reading:
            raise RuntimeError("somebody else is waiting for the next item of this iterator")
        self._reading = True
        try:
            item = await self._next()
        finally:
            self._reading = False
        if isinstance(item, LogReset):
            raise item
        if self._last is not None and self._last(item):
            self._kept.clear()
            self.end()
        return item

    async def _next(self) -> T | LogReset:
        while True:
            if self._kept:
                item, size = self._kept.popleft()
                self._bytes -= size
                return item
            if self._trouble is not None:
                trouble, self._trouble = self._trouble, None
                raise trouble
            if self._ended:
                raise StopAsyncIteration
            if self._placed and not self._behind:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                await (self._catch_up() if self._placed else self._enter())
            except (BrokerError, Refused):
                if not self._ended:  # else it was let go of meanwhile, which says more
                    raise

    async def _enter(self) -> None:
        await self._log.enter()
        if not self.place():
            await self._log.enter(afresh=True)  # it may have come that far since it was entered
            self._place()

    async def _catch_up(self) -> None:
        """Read on from the log, until that has nothing more than what comes live from now on."""
        live, before = self._log.seq, self._seq
        if live > before:
            items = await self._log.page(before)
            if self._seq != before or not self._behind:
                return  # it was reset meanwhile, or ended
            if not items or items[0][0] > before + 1:
                self.reset(items[0][0] - 1 if items else live)
            for seq, item in items:
                self._seq = seq
                self._keep(item, 0)
        self._behind = self._seq < self._log.seq

    # -- for the log ------------------------------------------------------------------------------------

    def place(self) -> bool:
        """Take a place in the log, which is followed now; tell whether it reaches that far."""
        if not self._placed and not self._sure and self._seq > self._log.head:
            return False
        self._place()
        return True

    def _place(self) -> None:
        """Take a place: live, or behind, or at the beginning, if the log does not continue what is known."""
        if self._placed or self._ended:
            return
        log, self._placed = self._log, True
        if self._seq < 0:
            self._seq = log.seq
        elif (
            (self._epoch or log.epoch) != log.epoch
            or (self._seq > log.head and not self._sure)
            or 0 < self._seq < log.floor - 1
        ):
            self.reset(log.floor - 1)
        else:
            self._seq = max(self._seq, log.floor - 1)
        self._behind = self._seq < log.seq

    def take(self, seq: int, item: T, size: int) -> None:
        """Take what comes live."""
        if not self._placed or self._behind or self._ended or seq <= self._seq:
            return
        if self._is_full(size) and self._is_wanted(item):
            self._behind = True
            return
        self._seq = seq
        self._keep(item, size)

    def take_loose(self, item: T, size: int) -> None:
        """Take what comes live and is in no log; what there is no room for is missed, and that is told."""
        if not self._placed or self._ended or not self._is_wanted(item):
            return
        if not self._behind and not self._is_full(size):
            self._keep(item, size)
        elif not self._kept or not isinstance(self._kept[-1][0], LogReset):
            self._kept.append((self._missed(), 0))

    def reset(self, after: int) -> None:
        """Forget everything, say so, and go on with what comes after number `after`."""
        if self._placed and not self._ended:
            self._kept.clear()
            self._kept.append((self._missed(), 0))
            self._bytes = 0
            self._behind = False
            self._seq = after
            self._wake.set()

    def end(self, trouble: Exception | None = None) -> None:
        """Give nothing more behind what is kept; then raise `trouble`, if there is any."""
        if not self._ended:
            self._ended, self._behind = True, False
            # Who lets go of a log has what he wants; but of a turn he may still wait for the end.
            self._trouble = None if isinstance(trouble, Closed) and self._last is None else trouble
            self._wake.set()

    def _keep(self, item: T, size: int) -> None:
        if self._is_wanted(item):
            self._kept.append((item, size))
            self._bytes += size
            self._wake.set()

    def _is_wanted(self, item: T) -> bool:
        return self._wants is None or self._wants(item)

    def _is_full(self, size: int) -> bool:
        return len(self._kept) >= ITEMS or (bool(self._kept) and self._bytes + size > BYTES)

    def _missed(self) -> LogReset:
        return LogReset(self._log.name, self._log.epoch, self._log.floor, max(self._log.head, self._log.seq))
