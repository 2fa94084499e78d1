"""An actor that owns a log: what sessions and rooms have in common.

It numbers records, has them made durable, and shows them to its followers only afterwards, so that
what is live and what is replayed are the same records (PROTOCOL P1-P3). A follower is *live* when it
is told each commit as it happens; otherwise it pulls pages from the log at its own speed, and the
actor makes it live in the same step in which it hands out the last page: no gap, no double.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final

import attrs
import pykka

from broker.actors.following import Follow, LogFailed, LogUnreadable, Page, Pause, Pull, Unfollow
from broker.actors.futures import ReplyTo
from broker.actors.loop import LoopActor, handles
from broker.actors.options import LogOptions
from broker.actors.ref import LoopRef
from broker.actors.store import Committed, WriteFailed
from broker.errors import BrokerError
from broker.messages import Record, SessionRow, TurnRow, Write
from broker.protocol.outgoing import Outgoing, Parcel

__all__ = ["LogActor", "Position"]

TAIL: Final = 256
"""Newest records kept in memory, so that most who come back need not ask the disk."""
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


class _Pending:
    """What waits for one commit."""

    __slots__ = ("effects", "records", "replies", "since")

    def __init__(self) -> None:
        self.since = 0.0
        self.records: tuple[Record, ...] = ()
        self.replies: list[tuple[ReplyTo, Any]] = []
        self.effects: list[Callable[[], None]] = []


class LogActor(LoopActor):
    """The base of `Session` and `Room`."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (BrokerError,)

    def __init__(self, log: str, options: LogOptions) -> None:
        super().__init__(options.mailbox)
        self.log = log
        self.epoch = ""
        self.head = 0
        self.floor = 1
        self._store = options.store
        self._clock = options.clock
        self._stats = options.stats
        self._on_committed = options.on_committed
        self._durable_head = 0
        self._tail: deque[Record] = deque(maxlen=TAIL)
        self._followers: dict[LoopRef[Any], bool] = {}  # the connection -> whether it is live
        self._newcomers: set[LoopRef[Any]] = set()  # to be told when they have caught up
        self._drafts: list[Record] = []
        self._session_row: SessionRow | None = None
        self._turn_rows: dict[str, TurnRow] = {}
        self._create: str | None = None
        self._new_floor: int | None = None
        self._delete = False
        self._draft = _Pending()
        self._pending: deque[_Pending] = deque()

    @abstractmethod
    def present(self, record: Record) -> Outgoing:
        """Return the record as followers are told it."""

    # -- writing ------------------------------------------------------------------------------------

    def write(self, kind: str, data: bytes, turn_id: str | None = None, author: bytes | None = None) -> int:
        """Append a record and return its number; it is shown once it is durable."""
        self.head += 1
        self._drafts.append(Record(self.head, self._clock.now(), kind, data, turn_id, author))
        return self.head

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Do this once everything written so far is durable, and never if that fails."""
        self._draft.effects.append(effect)

    def reply_after_commit(self, value: Any) -> None:
        """Answer the message in hand once everything written so far is durable (P1)."""
        self._draft.replies.append((self.answer_later(), value))

    def on_drained(self) -> None:
        """Send what this burst of messages has written to the store as one write."""
        draft = self._draft
        if self._drafts or self._session_row or self._turn_rows or self._create or self._new_floor or self._delete:
            draft.records = tuple(self._drafts)
            self._draft = _Pending()
            draft.since = self._clock.monotonic()
            self._pending.append(draft)
            self._store.append(self._take_write(draft.records), self.actor_ref, draft)
        elif draft.replies or draft.effects:
            self._draft = _Pending()
            if self._pending:  # nothing of its own, but it may tell of what is not durable yet
                last = self._pending[-1]
                last.replies += draft.replies
                last.effects += draft.effects
            else:
                self._release(draft)

    def _take_write(self, records: tuple[Record, ...]) -> Write:
        write = Write(
            log=self.log,
            at=self._clock.now(),
            records=records,
            create=self._create,
            session=self._session_row,
            turns=tuple(self._turn_rows.values()),
            floor=self._new_floor,
            delete=self._delete,
        )
        self._drafts = []
        self._turn_rows = {}
        self._session_row = self._create = self._new_floor = None
        self._delete = False
        return write

    @handles(Committed, WriteFailed)
    def take_commit(self, message: Committed | WriteFailed) -> None:
        """Go on with what waited for a commit.

        Raises:
            BrokerError: the store refused; this actor's state is ahead of the log, so it has to start anew.
        """
        if not self._pending or self._pending[0] is not message.ticket:
            return  # meant for an earlier incarnation of this actor
        if isinstance(message, WriteFailed):
            raise message.error
        self._release(self._pending.popleft())

    def durably(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer that says accepted; with a store that may forget, it says that too (P1)."""
        return answer if self._store.durable else {**answer, "durable": False}

    @property
    def settled(self) -> bool:
        """Whether everything written is durable."""
        return not self._pending and not self._drafts

    def _release(self, done: _Pending) -> None:
        for reply_to, value in done.replies:
            reply_to.set(value)
        if done.records:
            self._durable_head = done.records[-1].seq
            self._tail.extend(done.records)
            self._show(done.records)
            self._stats.delivery_seconds.observe(self._clock.monotonic() - done.since)
            self._on_committed(self.log, done.records)
        for effect in done.effects:
            effect()

    def _show(self, records: tuple[Record, ...]) -> None:
        if not self._followers:
            return
        parcel = Parcel(tuple([self.present(record) for record in records]))
        page = Page(self.log, parcel, records[0].seq, records[-1].seq, live=True, pushed=True)
        for follower, live in list(self._followers.items()):
            if live:
                self._tell(follower, page)

    # -- followers ----------------------------------------------------------------------------------

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
    def take_follower(self, message: Pull | Follow) -> Coroutine[Any, Any, None] | None:
        """Serve a follower the next page; the last one makes it live."""
        if isinstance(message, Pull) and message.follower not in self._followers:
            return None  # it left meanwhile
        if isinstance(message, Follow) and message.newcomer:
            self._newcomers.add(message.follower)
        return self.serve(message.follower, message.after)

    def serve(
        self, follower: LoopRef[Any], after: int, first: tuple[Outgoing, ...] = ()
    ) -> Coroutine[Any, Any, None] | None:
        """Tell a follower the records after `after`, as far as one page goes; from memory at once, else awaited.

        Args:
            follower: the connection.
            after: where it stands.
            first: what it is told before.
        """
        tail = self._tail
        if after < self._durable_head and (not tail or tail[0].seq > after + 1):
            return self._serve_from_store(follower, after, first)
        self._hand_out(follower, after, first, _some(tail, after))
        return None

    async def _serve_from_store(self, follower: LoopRef[Any], after: int, first: tuple[Outgoing, ...]) -> None:
        try:
            page = await self._store.read("records_after", self.log, after, limit=PAGE_RECORDS, max_bytes=PAGE_BYTES)
        except BrokerError:
            self.forget_follower(follower)
            self._tell(follower, LogUnreadable(self.log))
            return
        # What was committed while this waited has not been shown to the live followers yet: it comes by itself.
        self._hand_out(follower, after, first, [record for record in page if record.seq <= self._durable_head])

    def _hand_out(self, follower: LoopRef[Any], after: int, first: tuple[Outgoing, ...], records: list[Record]) -> None:
        at = records[-1].seq if records else after
        live = at >= self._durable_head
        items = (*first, *(self.present(record) for record in records))
        if live and follower in self._newcomers:
            self._newcomers.discard(follower)
            items = (*items, *self.caught_up())
        self._followers[follower] = live
        self._tell(follower, Page(self.log, Parcel(items), records[0].seq if records else 0, at, live))

    @handles(Unfollow)
    def _leave_follower(self, message: Unfollow) -> None:
        self.forget_follower(message.follower)

    @handles(Pause)
    def _pause_follower(self, message: Pause) -> None:
        if message.follower in self._followers:
            self._followers[message.follower] = False

    def caught_up(self) -> tuple[Outgoing, ...]:
        """Return what a follower is told when it has caught up."""
        return ()

    def forget_follower(self, follower: LoopRef[Any]) -> None:
        """Let go of a follower."""
        self._followers.pop(follower, None)
        self._newcomers.discard(follower)

    def _tell(self, follower: LoopRef[Any], message: Any) -> None:
        try:
            follower.tell(message, urgent=True)  # the follower bounds itself, in bytes
        except pykka.ActorDeadError:
            self.forget_follower(follower)

    # -- failure ------------------------------------------------------------------------------------

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Answer whoever waits for a commit that they may not count on it, and send the followers round again."""
        error = exception_value
        if not isinstance(error, BrokerError):
            error = BrokerError("unavailable", "The session failed and starts again; send it once more.")
        for pending in (*self._pending, self._draft):
            for reply_to, _ in pending.replies:
                reply_to.set_exception((BrokerError, error, None))
        for follower in list(self._followers):
            self._tell(follower, LogFailed(self.log, newcomer=follower in self._newcomers))


def _some(tail: deque[Record], after: int) -> list[Record]:
    """Return a page of the newest records, those above `after`."""
    page: list[Record] = []
    start = len(tail) if not tail else after + 1 - tail[0].seq
    size = 0
    for i in range(start, len(tail)):
        record = tail[i]
        size += len(record.data)
        if page and (size > PAGE_BYTES or len(page) == PAGE_RECORDS):
            break
        page.append(record)
    return page
