"""A log as those who follow it see it: where they start, what they are handed, and when they become live.

A follower is *live* when it is told each commit as it happens; otherwise it pulls pages from the log at
its own speed, and the actor makes it live in the same step in which it hands out the last page: no gap,
no double (PROTOCOL P3). What is live and what is replayed are the same records.
"""

from abc import abstractmethod
from contextlib import suppress
from typing import Any, Final

import attrs
import pykka

from broker.actors.following import Follow, LogFailed, LogUnreadable, Page, PageRead, Pause, Pull, Unfollow
from broker.actors.loop import LoopActor, handles
from broker.actors.options import LogOptions
from broker.actors.ref import LoopRef
from broker.actors.tail import Tail
from broker.errors import BrokerError
from broker.messages import Record
from broker.protocol.outgoing import Outgoing
from broker.protocol.parcel import Parcel
from broker.tasks import spawn

__all__ = ["FollowedLog", "Position"]

PAGE_RECORDS: Final = 256
PAGE_BYTES: Final = 256 * 1024
"""A page of replay: small enough to fit any outbox, large enough to be worth a read."""


@attrs.frozen
class Position:
    """Where an attaching client starts.

    Attributes:
        after: the number after which it wants records.
        recovered: whether that continues what it had.
    """

    after: int
    recovered: bool


class FollowedLog(LoopActor):
    """The reading half of `LogActor`.

    Attributes:
        log: the log's name.
        epoch: which log of that name it is.
        head: the highest number given.
        floor: the lowest number held.
    """

    def __init__(self, log: str, options: LogOptions) -> None:
        super().__init__(options.mailbox)
        self.log = log
        self.epoch = ""
        self.head = 0
        self.floor = 1
        self._store = options.store
        self._durable_head = 0
        self._tail = Tail()
        self._followers: dict[LoopRef[Any], bool] = {}  # the connection -> whether it is live
        self._newcomers: set[LoopRef[Any]] = set()  # to be told when they have caught up
        self._reads: dict[LoopRef[Any], PageRead] = {}  # what is being read for whom

    @abstractmethod
    def present(self, record: Record) -> Outgoing:
        """Return the record as followers are told it."""

    def caught_up(self) -> tuple[Outgoing, ...]:
        """Return what a follower is told when it has caught up."""
        return ()

    @property
    def watched(self) -> int:
        """How many follow the log."""
        return len(self._followers)

    def locate(self, after: int | None, epoch: str | None) -> Position:
        """Return where a client starts that has everything up to `after` of `epoch` (PROTOCOL 2a)."""
        start = Position(self.floor - 1, recovered=False)
        if after == -1:
            return Position(self._durable_head, recovered=True)
        if epoch is not None and epoch != self.epoch:
            return start
        if not after:
            return Position(self.floor - 1, recovered=self.floor == 1)
        if after > self._durable_head or after < self.floor - 1:
            return start
        return Position(after, recovered=True)

    @handles(Pull, Follow)
    def take_follower(self, message: Pull | Follow) -> None:
        """Serve a follower the next page; the last one makes it live."""
        follower = message.follower
        if isinstance(message, Pull) and (follower not in self._followers or follower in self._reads):
            return  # it left meanwhile, or has attached anew since it pulled
        if isinstance(message, Follow) and message.newcomer:
            self._newcomers.add(follower)
        self.serve(follower, message.after)

    def serve(self, follower: LoopRef[Any], after: int, first: tuple[Outgoing, ...] = ()) -> None:
        """Tell a follower the records after `after`, as far as one page goes; from memory at once, else once read.

        Args:
            follower: the connection.
            after: where it stands.
            first: what it is told before.
        """
        if after < self._durable_head and not self._tail.reaches(after):
            self._followers[follower] = False
            read = self._reads[follower] = PageRead(follower, after, first)
            spawn(self._read_page(read), name=f"{self.log} reads a page")
            return
        self._reads.pop(follower, None)
        self._hand_out(follower, after, first, self._tail.page(after, limit=PAGE_RECORDS, max_bytes=PAGE_BYTES))

    async def _read_page(self, read: PageRead) -> None:
        """Read in a task of its own: a slow disk must hold up neither the turns nor the other followers."""
        with suppress(BrokerError):
            read.records = await self._store.read(
                "records_after", self.log, read.after, limit=PAGE_RECORDS, max_bytes=PAGE_BYTES
            )
        with suppress(pykka.ActorDeadError):
            self.actor_ref.tell(read, urgent=True)  # at most one for each that follows or has followed

    @handles(PageRead)
    def _hand_out_read(self, read: PageRead) -> None:
        follower = read.follower
        if self._reads.get(follower) is not read:
            return  # it left, was served anew, or an earlier incarnation of this actor asked
        del self._reads[follower]
        if read.records is None:
            self.forget_follower(follower)
            self._tell(follower, LogUnreadable(self.log))
            return
        # What was committed meanwhile, but is not known here to be durable, has not been shown to anybody yet.
        known = [record for record in read.records if record.seq <= self._durable_head]
        self._hand_out(follower, read.after, read.first, known)

    def _hand_out(self, follower: LoopRef[Any], after: int, first: tuple[Outgoing, ...], records: list[Record]) -> None:
        at = records[-1].seq if records else after
        live = at >= self._durable_head
        items = (*first, *(self.present(record) for record in records))
        if live and follower in self._newcomers:
            self._newcomers.discard(follower)
            items = (*items, *self.caught_up())
        self._followers[follower] = live
        self._tell(follower, Page(self.log, Parcel(items), records[0].seq if records else 0, at, live))

    def advance(self, records: tuple[Record, ...]) -> None:
        """Take what has become durable: it may be handed out from now on, and those who are live are told it."""
        self._durable_head = records[-1].seq
        self._tail.extend(records)
        if self._followers:
            self._show(records)

    def _show(self, records: tuple[Record, ...]) -> None:
        parcel = Parcel(tuple([self.present(record) for record in records]))
        page = Page(self.log, parcel, records[0].seq, records[-1].seq, live=True, pushed=True)
        for follower, live in list(self._followers.items()):
            if live:
                self._tell(follower, page)

    @handles(Unfollow)
    def _leave_follower(self, message: Unfollow) -> None:
        self.forget_follower(message.follower)

    @handles(Pause)
    def _pause_follower(self, message: Pause) -> None:
        if message.follower in self._followers:
            self._followers[message.follower] = False

    def forget_follower(self, follower: LoopRef[Any]) -> None:
        """Let go of a follower."""
        self._followers.pop(follower, None)
        self._newcomers.discard(follower)
        self._reads.pop(follower, None)

    def forget_dead(self) -> None:
        """Let go of followers whose connections have ended; they say so, but what fails may not come to that."""
        for follower in [follower for follower in self._followers if not follower.is_alive()]:
            self.forget_follower(follower)

    def send_round(self) -> None:
        """Have the followers ask the next incarnation of this actor for what comes after what they have."""
        for follower in list(self._followers):
            self._tell(follower, LogFailed(self.log, newcomer=follower in self._newcomers))

    def _tell(self, follower: LoopRef[Any], message: Any) -> None:
        try:
            follower.tell(message, urgent=True)  # the follower bounds itself, in bytes
        except pykka.ActorDeadError:
            self.forget_follower(follower)
