"""The store: one thread that writes, one that reads, and an actor that gathers what waits.

While one transaction is on its way to the disk, everything that arrives is gathered for the next:
tens to hundreds of records share an fsync, and nobody is told before it is done (PROTOCOL P1).
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

import attrs
import pykka
from loguru import logger
from pykka.messages import ProxyCall

from broker.actors.futures import ReplyTo, ask_thread
from broker.actors.loop import LoopActor, handles
from broker.actors.ref import LoopRef
from broker.clock import Clock, Deadline, Timer
from broker.errors import BrokerError
from broker.ids import new_id
from broker.logs import limited
from broker.messages import Write
from broker.stats import Stats
from broker.store.port import Engine, Reader, StoreError, UnstorableError

__all__ = [
    "CLOSE_SECONDS",
    "Append",
    "Committed",
    "Expire",
    "Flush",
    "Store",
    "StoreHandle",
    "StorePort",
    "WriteFailed",
]

MAX_BATCH = 2000
"""Writes in one transaction: enough to share an fsync, few enough that nobody waits long for it."""
BACKLOG_WRITES = 100_000
"""Writes that may wait for the disk before nothing more is accepted ..."""
BACKLOG_BYTES = 64 << 20
"""... and bytes of records in them. What is under way already, such as what agents say, is written all the same."""
STUCK_SECONDS = 10.0
"""How long one transaction may take before the store counts as one that takes no writes."""
PROBE_SECONDS = 1.0
"""How often a store that failed is tried again."""
CLOSE_SECONDS = 10.0


@attrs.define
class Append:
    """Make this durable and then tell its owner, with the ticket it gave."""

    write: Write
    owner: LoopRef[Any]
    ticket: object

    @property
    def size(self) -> int:
        """Bytes that it takes while it waits, as far as they can be many."""
        session = self.write.session
        return sum(len(record.data) for record in self.write.records) + (len(session.variables) if session else 0)


@attrs.define
class Committed:
    """The write with this ticket is durable."""

    ticket: object


@attrs.define
class WriteFailed:
    """The write with this ticket is not in the store; nothing of it was kept."""

    ticket: object
    error: BrokerError


@attrs.define
class Expire:
    """Drop what is past keeping; the arguments are those of `Engine.expire`."""

    sessions_before: int
    rooms_before: int
    room_history: int
    live: frozenset[str]


@attrs.frozen
class Flush:
    """Answer once every write that was given before this is in the store, or refused."""


@attrs.define
class _Batch:
    appends: Sequence[Append]
    began: float


@attrs.define
class _Written:
    batch: _Batch
    failures: dict[int, StoreError]


class _Writer(pykka.ThreadingActor):
    """The one thread, with the one connection, that writes and checkpoints."""

    use_daemon_thread = True

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Expire):
            return self._engine.expire(
                sessions_before=message.sessions_before,
                rooms_before=message.rooms_before,
                room_history=message.room_history,
                live=message.live,
            )
        batch, home = message
        written = _Written(batch, self._write(batch.appends))
        with suppress(pykka.ActorDeadError):  # the broker is stopping, nobody waits for it any more
            home.tell(written, urgent=True)
        return None

    def _write(self, appends: Sequence[Append]) -> dict[int, StoreError]:
        """Write a batch; if it is refused as a whole, each write by itself, so that one cannot fail the others."""
        try:
            self._engine.write([append.write for append in appends])
        except StoreError as e:
            if len(appends) == 1:
                return {0: e}
        else:
            return {}
        failures: dict[int, StoreError] = {}
        for i, append in enumerate(appends):
            try:
                self._engine.write([append.write])
            except StoreError as e:
                failures[i] = e
        return failures

    def close(self) -> None:
        self._engine.close()


class _Reading(pykka.ThreadingActor):
    """The thread that reads what is committed; asked by `ProxyCall`."""

    use_daemon_thread = True

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.reader: Reader = engine.reader()

    def close(self) -> None:
        self.reader.close()


class StorePort(Protocol):
    """What log actors need of the store."""

    durable: bool

    def append(self, write: Write, owner: LoopRef[Any], ticket: object) -> None:
        """Have `owner` told `Committed` or `WriteFailed` with this ticket, in the order of the calls."""

    async def read(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of `broker.store.port.Reader` in the reading thread."""

    async def flush(self) -> None:
        """Return once every write given before is in the store, or refused, so that a read sees how it ended."""


class Store(LoopActor):
    """Gathers writes on the loop and hands them to the writing thread, one transaction at a time."""

    inbox_limit = 1_000_000  # every append is one actor's, and those are bounded

    def __init__(self, engine: Engine, clock: Clock, stats: Stats) -> None:
        super().__init__()
        self._engine = engine
        self._clock = clock
        self._stats = stats
        self._waiting: list[Append] = []
        self._writing = False
        self._began = 0.0  # when the transaction did that is on its way
        self._given = 0  # writes that were ever given, and of those ...
        self._settled = 0  # ... how many are in the store, or refused
        self._bytes = 0  # of the records in those that are neither
        self._flushes: deque[tuple[int, ReplyTo]] = deque()  # who waits until so many are
        self._probe: Timer | None = None
        self.healthy = True
        stats.store_backlog = lambda: len(self._waiting)

    @property
    def behind(self) -> bool:
        """Whether so much waits for the disk that nothing more is to be accepted."""
        return self._given - self._settled > BACKLOG_WRITES or self._bytes > BACKLOG_BYTES

    @property
    def stuck(self) -> bool:
        """Whether the disk has not answered for long."""
        return self._writing and self._clock.monotonic() - self._began > STUCK_SECONDS

    def on_start(self) -> None:
        """Start the two threads."""
        self._writer = _Writer.start(self._engine)
        self._reading = _Reading.start(self._engine)

    @handles(Append)
    def _gather(self, append: Append) -> None:
        self._waiting.append(append)
        self._given += 1
        self._bytes += append.size

    @handles(Flush)
    def _flush(self, _: Flush) -> None:
        if self._settled == self._given:
            return
        self._flushes.append((self._given, self.answer_later()))

    @handles(Committed, WriteFailed)
    def _hear_of_probe(self, _: Committed | WriteFailed) -> None:
        """Do nothing: the batch of our own probe has already told how the store is."""

    def on_drained(self) -> None:
        """Send what has gathered, unless a transaction is on its way: what comes meanwhile shares the next."""
        if self._writing or not self._waiting:
            return
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        self._writing = True
        self._began = self._clock.monotonic()
        self._writer.tell((_Batch(batch, self._began), self.actor_ref))

    def on_stop(self) -> None:
        """Let nobody wait for what is written only after this actor."""
        error = pykka.ActorDeadError("the store has stopped")
        for _, reply_to in self._flushes:
            reply_to.set_exception((pykka.ActorDeadError, error, None))

    async def read(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the reader in its thread.

        Raises:
            BrokerError: `unavailable` if the store cannot be read.
        """
        try:
            return await ask_thread(self._reading, ProxyCall(("reader", method), args, kwargs), timeout=30)
        except (StoreError, pykka.Timeout, pykka.ActorDeadError) as e:
            limited("the store is read").error("the store cannot be read: {}", e)
            raise BrokerError("unavailable", "The store cannot be read right now.", retry_after=1.0) from e

    async def expire(self, message: Expire) -> list[str]:
        """Drop what is past keeping, in the writing thread, and return the names of the logs that are gone.

        Raises:
            StoreError: nothing was dropped.
        """
        return cast("list[str]", await ask_thread(self._writer, message, timeout=60))

    @handles(_Written)
    def _announce(self, written: _Written) -> None:
        batch, failures = written.batch, written.failures
        self._writing = False
        if len(failures) < len(batch.appends):  # it took some; what it refused is no sickness of the store's
            self._mark_well()
            self._stats.commits += 1
        elif trouble := [e for e in failures.values() if not isinstance(e, UnstorableError)]:
            self._mark_sick(str(trouble[0]))
        self._stats.commit_seconds.observe(self._clock.monotonic() - batch.began)
        for i, append in enumerate(batch.appends):
            if append.owner.actor_stopped.is_set():
                continue
            if i in failures:
                error = BrokerError("unavailable", "The store did not take it; nothing was accepted.", retry_after=1.0)
                append.owner.tell(WriteFailed(append.ticket, error), urgent=True)
            else:
                self._stats.records += len(append.write.records)
                append.owner.tell(Committed(append.ticket), urgent=True)
        self._settled += len(batch.appends)
        self._bytes -= sum(append.size for append in batch.appends)
        while self._flushes and self._flushes[0][0] <= self._settled:
            self._flushes.popleft()[1].set(None)

    def _mark_sick(self, why: str) -> None:
        if self.healthy:
            logger.error("the store does not take writes, nothing is accepted until it does: {}", why)
        self.healthy = False
        if self._probe is None:
            self._probe = self._clock.call_later(PROBE_SECONDS, self._try_again)

    def _mark_well(self) -> None:
        if not self.healthy:
            logger.info("the store takes writes again")
        self.healthy = True

    def _try_again(self) -> None:
        """Write a log and drop it again: nobody's write has to be the one that finds out."""
        self._probe = None
        if self.healthy or self.actor_stopped.is_set():
            return
        now = self._clock.now()
        for probe in (Write("probe:", now, create=new_id()), Write("probe:", now, delete=True)):
            self.actor_ref.tell(Append(probe, self.actor_ref, None), urgent=True)

    async def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Stop after everything that was given to the store is durable; the engine is closed by its own thread.

        Args:
            seconds: how long that may take; what is not written then is not acknowledged either.

        Returns:
            Whether it is closed.
        """
        deadline = Deadline(self._clock, seconds)
        await self.actor_ref.stop()
        if self._probe is not None:
            self._probe.cancel()
        if self._waiting:
            self._writer.tell((_Batch(self._waiting, self._clock.monotonic()), self.actor_ref))
        try:
            await _end(self._reading, deadline.share(CLOSE_SECONDS))
            await _end(self._writer, deadline.left())
        except pykka.Timeout:
            left = self._given - self._settled
            logger.error("the store was not closed in time: {} writes may be lost, none was acknowledged", left)
            return False
        return True


async def _end(thread: pykka.ActorRef[Any], seconds: float) -> None:
    """Close what a thread has open, and end it."""
    await ask_thread(thread, ProxyCall(("close",), (), {}), timeout=seconds)
    thread.stop(block=False)


class StoreHandle:
    """The store as its users hold it."""

    def __init__(self, actor: Store, *, durable: bool) -> None:
        self._actor = actor
        self._ref = actor.actor_ref
        self.durable = durable

    @property
    def healthy(self) -> bool:
        """Whether the last write was taken, and the next one is not long overdue."""
        return self._actor.healthy and not self._actor.stuck and not self._ref.actor_stopped.is_set()

    @property
    def behind(self) -> bool:
        """Whether so much waits to be written that nothing more is to be accepted (PROTOCOL P8)."""
        return self._actor.behind

    def append(self, write: Write, owner: LoopRef[Any], ticket: object) -> None:
        """See `StorePort`."""
        self._ref.tell(Append(write, owner, ticket), urgent=True)

    async def read(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """See `StorePort`."""
        return await self._actor.read(method, *args, **kwargs)

    async def flush(self) -> None:
        """See `StorePort`.

        Raises:
            BrokerError: `unavailable` if the store has stopped.
        """
        try:
            await self._ref.ask(Flush())
        except pykka.ActorDeadError as e:
            raise BrokerError("unavailable", "The store has stopped.", retry_after=1.0) from e

    async def expire(self, message: Expire) -> list[str]:
        """Drop what is past keeping and return the names of the logs that are gone."""
        return await self._actor.expire(message)
