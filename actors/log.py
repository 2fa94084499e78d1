"""An actor that owns a log: what sessions and rooms have in common.

It numbers records, has them made durable, and only afterwards answers, shows and acts on them
(PROTOCOL P1, P2; ARCHITECTURE section 3).
"""

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

from broker.actors.followed import FollowedLog, Position
from broker.actors.futures import ReplyTo
from broker.actors.loop import handles
from broker.actors.options import LogOptions
from broker.actors.store import Committed, WriteFailed
from broker.errors import BrokerError
from broker.messages import Record, SessionRow, TurnRow, Write

__all__ = ["HISTORY_BYTES", "LogActor", "Position"]

HISTORY_BYTES: Final = 1 << 20
"""Data in one answer that reads a log from its end, unless a single record has more: see PROTOCOL P7."""


class _Pending:
    """What waits for one commit."""

    __slots__ = ("at", "effects", "records", "replies", "since", "written_bytes")

    def __init__(self) -> None:
        self.at = 0
        self.since = 0.0
        self.written_bytes = 0
        self.records: tuple[Record, ...] = ()
        self.replies: list[tuple[ReplyTo, Any]] = []
        self.effects: list[Callable[[], None]] = []


class _InTurn:
    """Has somebody answer when it is time to, and refuses where that time never comes."""

    __slots__ = ("_answer", "set_exception")

    def __init__(self, reply_to: ReplyTo, answer: Callable[[], None]) -> None:
        self._answer = answer
        self.set_exception = reply_to.set_exception

    def set(self, value: Any = None, /) -> None:
        """Leave the answer to whoever has it."""
        self._answer()


def _nothing() -> None:
    """Answer nothing yet."""


class LogActor(FollowedLog):
    """The base of `Session` and `Room`.

    Attributes:
        written_bytes: data of all records ever written to the log.
        durable_bytes: as much of that as the store has taken.
        updated_at: when that was.
        turn_rows: the latest state of turns, by id, to be kept with the next write.
    """

    refusals: ClassVar[tuple[type[Exception], ...]] = (BrokerError,)

    def __init__(self, log: str, options: LogOptions) -> None:
        super().__init__(log, options)
        self.written_bytes = 0
        self.durable_bytes = 0
        self.updated_at = 0
        self._clock = options.clock
        self._stats = options.stats
        self._on_committed = options.on_committed
        self._drafts: list[Record] = []
        self._session_row: SessionRow | None = None
        self.turn_rows: dict[str, TurnRow] = {}
        self._create: str | None = None
        self._new_floor: int | None = None
        self._delete = False
        self._draft = _Pending()
        self._pending: deque[_Pending] = deque()

    def write(self, kind: str, data: bytes, turn_id: str | None = None, author: bytes | None = None) -> int:
        """Append a record and return its number; it is shown once it is durable."""
        self.head += 1
        self.written_bytes += len(data)
        self._drafts.append(Record(self.head, self._clock.now(), kind, data, turn_id, author))
        return self.head

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Do this once everything written so far is durable, and never if that fails."""
        self._draft.effects.append(effect)

    def reply_after_commit(self, value: Any) -> None:
        """Answer the message in hand once everything written so far is durable (P1)."""
        self._draft.replies.append((self.answer_later(), value))

    def answer_in_turn(self, reply_to: ReplyTo, answer: Callable[[], None]) -> None:
        """Have `answer` answer as `reply_after_commit` would: in its turn, and before what is written is shown."""
        self._draft.replies.append((_InTurn(reply_to, answer), None))

    def answer_after_commit(self, reply_to: ReplyTo, answer: Callable[[], None]) -> None:
        """Have `answer` answer once everything written so far is durable and known to be; if that fails, refuse."""
        self.answer_in_turn(reply_to, _nothing)
        self.after_commit(answer)

    def refuse(self, reply_to: ReplyTo, error: Exception) -> None:
        """Refuse once everything written so far is durable, since a refusal may tell of it as an answer does (P1)."""
        if self.settled and not self._delete:
            super().refuse(reply_to, error)
        else:
            self._draft.replies.append((reply_to, error))

    def on_drained(self) -> None:
        """Send what this burst of messages has written to the store as one write."""
        draft = self._draft
        if self._drafts or self._session_row or self.turn_rows or self._create or self._new_floor or self._delete:
            draft.records = tuple(self._drafts)
            draft.written_bytes = self.written_bytes
            self._draft = _Pending()
            draft.since = self._clock.monotonic()
            self._pending.append(draft)
            write = self._take_write(draft.records)
            draft.at = write.at
            self._store.append(write, self.actor_ref, draft)
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
            turns=tuple(self.turn_rows.values()),
            floor=self._new_floor,
            delete=self._delete,
        )
        self._drafts = []
        self.turn_rows = {}
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
            self.on_refused(self._pending[0].records, message.error)
            raise message.error
        self._release(self._pending.popleft())

    def durably(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer that says accepted; with a store that may forget, it says that too (P1)."""
        return answer if self._store.durable else {**answer, "durable": False}

    @property
    def settled(self) -> bool:
        """Whether everything written is durable."""
        return not self._pending and not self._drafts

    def on_durable(self, records: tuple[Record, ...]) -> None:
        """Run for records that have become durable, before anybody is told."""

    def on_refused(self, records: tuple[Record, ...], error: BrokerError) -> None:
        """Run for records that the store refused, before this actor starts anew."""

    def _release(self, done: _Pending) -> None:
        self.updated_at = max(self.updated_at, done.at)
        if done.records:
            self.on_durable(done.records)
        for reply_to, value in done.replies:
            if isinstance(value, BrokerError):
                reply_to.set_exception((BrokerError, value, value.__traceback__))
            else:
                reply_to.set(value)
        if done.records:
            self.durable_bytes = done.written_bytes
            self.advance(done.records)
            self._stats.delivery_seconds.observe(self._clock.monotonic() - done.since)
            self._on_committed(self.log, done.records)
        for effect in done.effects:
            effect()

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Answer whoever waits for a commit that they may not count on it, and send the followers round again."""
        error = exception_value
        if not isinstance(error, BrokerError):
            error = BrokerError("unavailable", "The session failed and starts again; send it once more.")
        for pending in (*self._pending, self._draft):
            for reply_to, _ in pending.replies:
                reply_to.set_exception((BrokerError, error, None))
        self.send_round()
