"""What a session and a room have in common for a client: a log that is followed over any number of links.

After each reconnect it is entered again from where it was. What came twice is dropped; where something is missing it
is entered again; and what cannot be continued is told as a reset (PROTOCOL P3).
"""

import asyncio
import logging
import weakref
from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from broker.client.caller import Caller
from broker.client.errors import BrokerError, Closed, Refused, TimedOut
from broker.client.reader import Reader

__all__ = ["Followed"]

T = TypeVar("T")

log = logging.getLogger("broker.client")

PAGE: Final = 200
"""Items asked for at once by who reads on from the log."""


class Followed(ABC, Generic[T]):
    """A log that is followed as long as somebody has this.

    Args:
        caller: asks the broker.
        name: for people.

    Attributes:
        epoch: which log it is; None until it was entered.
        seq: the number up to which all that came live was handed on.
        head: that of the newest item it was known to have when it was entered.
        floor: that of the oldest, as far as that is known.
    """

    def __init__(self, caller: Caller, name: str) -> None:
        self.name = name
        self.epoch: str | None = None
        self.seq = self.head = 0
        self.floor = 1
        self._caller = caller
        self._readers: weakref.WeakSet[Reader[T]] = weakref.WeakSet()
        self._entering: asyncio.Task[None] | None = None
        self._wanted = False
        self._inside = False
        self._why: Exception = Closed()
        self._mended = -1
        self._sparse = False
        self._anew = False

    # -- for who reads ----------------------------------------------------------------------------------

    async def enter(self, *, afresh: bool = False, within: float | None = None) -> None:
        """See that the log is followed: now, and from now on after each reconnect.

        Args:
            afresh: whether to enter it once more, from where it is, to learn how it stands.
            within: seconds to wait for that; None for as long as it takes. It goes on either way.

        Raises:
            BrokerError: it cannot be, says the broker.
            TimedOut: not by now.
            Refused: there is no connection any more.
        """
        if afresh:
            self._inside = False
        if not self._inside:
            entering = self.follow()
            await asyncio.wait({entering}, timeout=within)
            if not entering.done():
                raise TimedOut("timeout", f"{self.name} could not be followed within {within:g} s.")
            if entering.cancelled():
                raise self._why
            entering.result()

    def register(self, reader: Reader[T]) -> None:
        """Hand on to `reader` what comes, for as long as there is somebody who has it."""
        self._readers.add(reader)
        if self._inside:
            reader.place()

    async def page(self, after: int) -> list[tuple[int, T]]:
        """Return the next items above `after` with their numbers, oldest first; none if none are kept.

        Raises:
            BrokerError, Refused: it cannot be read.
        """
        limit = PAGE
        while True:  # a page ends where it is told to, and is cut at its beginning if it gets too large
            page = [pair for pair in await self._history(after + 1 + limit, limit) if pair[0] > after]
            if not page and self.seq > after + 1:
                return await self.page(await self._first(after + limit) - 1)
            if not page or page[0][0] == after + 1 or limit == 1:
                return page
            limit = max(1, min(limit // 2, len(page)))

    async def _first(self, after: int) -> int:
        """Return the number of the oldest item that is kept, which is above `after`; of the newest, if none is."""
        known, low = self.seq, min(after, self.seq - 1)
        while known - low > 1:
            middle = (known + low) // 2
            found = await self._history(middle + 1, 1)
            if found and found[0][0] > low:
                known = found[0][0]
            else:
                low = middle
        return known

    # -- for the connection -----------------------------------------------------------------------------

    def linked(self) -> None:
        """Enter again, over the new link."""
        if self._wanted:
            self.follow()

    def unlinked(self) -> None:
        """Take nothing more for what comes next, until it was entered again."""
        self._inside = False

    def end(self, trouble: Exception) -> None:
        """Follow no more: what is iterated over this ends, or raises `trouble`."""
        self._wanted = self._inside = False
        self._why = trouble
        if self._entering is not None:
            self._entering.cancel()
        for reader in list(self._readers):
            reader.end(trouble)

    @property
    def entering(self) -> "asyncio.Task[None] | None":
        """The task that enters, while there is one."""
        return self._entering

    # -- for who inherits -------------------------------------------------------------------------------

    def follow(self) -> "asyncio.Task[None]":
        """Begin to follow, if that has not begun; the task ends when it is followed, or raises."""
        if self._entering is None or self._entering.done():
            self._wanted = True
            self._entering = asyncio.get_running_loop().create_task(self._enter(), name=f"enter {self.name}")
            self._entering.add_done_callback(self._done)
        return self._entering

    async def _enter(self) -> None:
        while not self._inside:
            await self._ask()

    def _done(self, entering: "asyncio.Task[None]") -> None:
        if self._entering is entering:
            self._entering = None
        if not entering.cancelled() and (error := entering.exception()) is not None:
            if not isinstance(error, BrokerError | Refused):
                log.error("could not follow %s", self.name, exc_info=error)
            self.end(error if isinstance(error, Exception) else Closed())

    @abstractmethod
    async def _ask(self) -> None:
        """Ask to follow, from where it is if it was followed before; the answer goes to `_entered` as it lands.

        Raises:
            BrokerError, Refused: the answer is no.
        """

    @abstractmethod
    async def _history(self, before: int, limit: int) -> list[tuple[int, T]]:
        """Return at most `limit` items below number `before`, the newest of them, oldest first.

        Raises:
            BrokerError, Refused: the answer is no.
        """

    def _entered(self, epoch: str, seq: int, head: int) -> None:
        """Take what comes from now on, after number `seq`; there is more already if that is not `head`."""
        self.epoch, self.seq, self.head, self._inside = epoch, seq, head, True
        for reader in list(self._readers):
            reader.place()

    def _restart(self, after: int, *, somewhere: bool = False) -> None:
        """Begin anew behind number `after`, or somewhere behind it, and tell everybody."""
        self.seq, self._anew = after, somewhere
        for reader in list(self._readers):
            reader.reset(after)

    def _take(self, seq: int, item: T, size: int) -> None:
        """Hand on what is new; where something is missing, ask for it once, and then go on without."""
        if not self._inside or seq <= self.seq:
            return
        if seq > self.seq + 1 and not (self._sparse or self._anew):
            if self._mended != self.seq:
                self._mended, self._inside = self.seq, False
                log.warning("%s: %d is missing; asking again", self.name, self.seq + 1)
                self.follow()
                return
            log.error("%s: %d to %d are missing", self.name, self.seq + 1, seq - 1)
            self._restart(seq - 1)
        self.seq, self._anew = seq, False
        for reader in list(self._readers):
            reader.take(seq, item, size)

    def _take_loose(self, item: T, size: int) -> None:
        for reader in list(self._readers):
            reader.take_loose(item, size)
