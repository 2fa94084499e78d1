"""P2 and P3 under any interleaving: whoever reads a log ends up with all of it, in order, no gap and no double.

The store is a port here, worked by hand: hypothesis decides what happens between which two ticks of the loop.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.actors.connection import Connection
from broker.actors.connection_mail import ConnectionOptions
from broker.actors.futures import NO_ONE
from broker.actors.options import SessionOptions
from broker.actors.ref import LoopRef
from broker.actors.reply import SocketReply
from broker.actors.session import Session
from broker.actors.store import Committed, WriteFailed
from broker.actors.supervisor import Supervisor
from broker.errors import BrokerError, CloseCode
from broker.hooks import Peer
from broker.messages import Principal, Record, SessionRow, Write
from broker.operations import Attach, Update
from broker.protocol.native import NATIVE
from broker.protocol.outgoing import Failure
from broker.stats import Stats
from broker.store.memory import MemoryEngine
from broker.store.port import StoreError
from broker.testing import FakeTransport, ManualClock
from broker.traces import Traces

ANN = Principal("ann")
READERS = 3


class StepStore:
    """A store whose commits and reads happen when the test says; what it holds is held by a real engine."""

    durable = True

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.waiting: deque[tuple[Write, LoopRef[Any], object]] = deque()
        self.committed = asyncio.Event()
        self.taken: deque[tuple[LoopRef[Any], Committed | WriteFailed]] = deque()
        self.reads: deque[asyncio.Future[None]] = deque()

    def append(self, write: Write, owner: LoopRef[Any], ticket: object) -> None:
        self.waiting.append((write, owner, ticket))

    async def read(self, method: str, *args: Any, **kwargs: Any) -> Any:
        allowed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reads.append(allowed)
        await allowed
        return getattr(self.engine.reader(), method)(*args, **kwargs)

    async def flush(self) -> None:
        while self.waiting:
            self.committed.clear()
            await self.committed.wait()

    def commit(self, *, fail: bool = False) -> None:
        """Take a write, and tell its owner."""
        self.take(fail=fail)
        while self.taken:
            owner, outcome = self.taken.popleft()
            owner.tell(outcome, urgent=True)

    def take(self, *, fail: bool = False) -> None:
        """Take a write, of which its owner is only told with the next `commit`: who reads may see it sooner."""
        if not self.waiting:
            return
        write, owner, ticket = self.waiting.popleft()
        self.committed.set()
        taken = not fail
        if taken:
            try:
                self.engine.write([write])
            except StoreError:  # it follows on what was refused before, and would make a gap
                taken = False
        self.taken.append((owner, Committed(ticket) if taken else WriteFailed(ticket, BrokerError("unavailable"))))

    def allow_read(self) -> None:
        if self.reads:
            self.reads.popleft().set_result(None)


class Reader:
    """A client that reads the log, and comes back where it was whenever it is cut."""

    def __init__(self, name: str, world: "World") -> None:
        self.name = name
        self.world = world
        self.log: list[tuple[int, Any]] = []
        self.live = True
        self._taken = 0
        self.connect()

    def connect(self) -> None:
        self.socket = FakeTransport()
        self.caught_up = 0
        self._taken = 0
        peer = Peer(self.name, ANN, "127.0.0.1", NATIVE.name)
        self.ref = Connection.start(peer, NATIVE, self.socket, 0, self.world.connection)
        reply = SocketReply(self.ref, "attach", msgspec.json.encode, self._refuse)
        # What has come is what it has: a reader that stalled has not seen what still lies in its socket.
        self.world.session.request(Attach(ANN, self.ref, len(self.log), self.world.epoch), reply)

    @staticmethod
    def _refuse(request_id: str | None, error: BaseException, connection_id: str) -> Failure:
        return Failure(request_id, BrokerError("internal", repr(error)))

    def reconnect(self) -> None:
        self.take()
        self.socket.abort()
        if self.ref.actor is not None:
            self.ref.actor.stop()
        self.connect()

    def take(self) -> None:
        """Take what has come, and check it the moment it comes."""
        messages = self.socket.messages
        for message in messages[self._taken :]:
            if "seq" in message:
                assert message["seq"] == len(self.log) + 1, f"{self.name}: {message['seq']} after {len(self.log)}"
                self.log.append((message["seq"], message["data"]))
            elif message.get("event") == "session.caught_up":
                self.caught_up += 1
                assert message["data"]["head"] == len(self.log)
            else:
                assert message["type"] == "response", message
        self._taken = len(messages)

    @property
    def was_cut(self) -> bool:
        return self.ref.actor is None or self.ref.actor.close_code is not None


class World:
    """One session, its store, its readers, and what can happen to them."""

    def __init__(self, held: int = 0) -> None:
        """Begin with a new session, or with one taken up from a store that holds so many of its records."""
        self.clock = ManualClock()
        self.store = StepStore()
        self.supervisor = Supervisor(self.clock)
        self.connection = ConnectionOptions(
            self.clock, outbox_bytes=800, patience=10.0, stats=Stats(), traces=Traces(self.clock.now)
        )
        options = SessionOptions(
            store=self.store,
            clock=self.clock,
            agents={},
            traces=Traces(self.clock.now),
            registry=lambda gone: None,
            on_turn_ended=lambda *told: None,
            stats=Stats(),
            on_committed=lambda *told: None,
        )
        first = [SessionRow("s", "ann", "fake", None, None, b"{}", False, 0, 0)]
        if held:
            records = tuple(Record(seq, 0, "session.changed", b'{"title":null}') for seq in range(1, held + 1))
            self.store.engine.write([Write("session:s", 0, records, create="epoch", session=first.pop())])
        self.session = self.supervisor.start(lambda: Session("s", options, first.pop() if first else None))
        self.epoch: str | None = None
        self.titles = iter(range(1_000_000))

    async def open(self) -> None:
        for _ in range(4):
            await self.tick(2)
            self.store.commit()
            self.store.allow_read()
        await self.tick(2)
        assert self.session.actor is not None
        self.epoch = self.session.actor.epoch
        self.readers = [Reader(f"reader {number}", self) for number in range(READERS)]

    async def tick(self, times: int = 1) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    async def do(self, step: tuple[str, int]) -> None:
        """Let one thing happen; `number` says how much of it, or to which reader."""
        what, number = step
        reader = self.readers[number % READERS]
        happen: dict[str, Callable[[], object]] = {
            "append": partial(self.append, number + 1),
            "commit": self.store.commit,
            "take": self.store.take,
            "refuse": self.refuse,
            "read": self.store.allow_read,
            "tick": lambda: None,
            "stall": reader.socket.stall,
            "resume": reader.socket.resume,
            "sip": partial(reader.socket.read, 100),
            "wait": partial(self.clock.advance, 0.05),
            "reconnect": reader.reconnect,
        }
        happen[what]()
        if what == "tick":
            await self.tick(number)
        for each in self.readers:
            each.take()

    def append(self, count: int) -> None:
        for _ in range(count):
            self.session.request(Update(ANN, f"title {next(self.titles)}", None), NO_ONE)

    def refuse(self) -> None:
        self.clock.advance(61)  # so that the restarts do not use up their budget
        self.store.commit(fail=True)

    async def finish(self) -> None:
        """Let everything that is under way come to its end."""
        for _ in range(200):
            while self.store.waiting or self.store.taken:
                self.store.commit()
            while self.store.reads:
                self.store.allow_read()
            for reader in self.readers:
                reader.socket.resume()
                reader.take()
                if reader.was_cut:
                    reader.reconnect()
            self.clock.advance(0.05)
            await self.tick(3)
            if all(len(reader.log) == self.head and reader.caught_up for reader in self.readers):
                break
        await self.tick(20)

    @property
    def head(self) -> int:
        log = self.store.engine.reader().log("session:s")
        assert log is not None
        return log.head

    def check(self) -> None:
        records = self.store.engine.reader().records_after("session:s", 0, limit=10_000, max_bytes=1 << 40)
        kept = [(record.seq, msgspec.json.decode(record.data)) for record in records]
        for reader in self.readers:
            reader.take()
            assert reader.log == kept, reader.name
            assert reader.caught_up == 1, reader.name


async def play(steps: list[tuple[str, int]], held: int = 0) -> None:
    world = World(held)
    await world.open()
    for step in steps:
        await world.do(step)
    await world.finish()
    world.check()


@pytest.fixture(autouse=True)
def narrow() -> Any:
    """Make the tail and the pages short, so that a few records need several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("broker.actors.tail.RECORDS", 3)
        patch.setattr("broker.actors.followed.PAGE_RECORDS", 5)
        yield


STEPS = st.tuples(
    st.sampled_from("append commit take read tick stall resume sip wait reconnect".split()),  # noqa: SIM905
    st.integers(0, 5),
)
FAULTS = st.tuples(st.just("refuse"), st.just(0))


def steps_of(text: str) -> list[tuple[str, int]]:
    """Read steps from words such as `append3`."""
    return [(word.rstrip("0123456789"), int(word.lstrip("abcdefghijklmnopqrstuvwxyz") or 0)) for word in text.split()]


TWO_AT_ONCE = "tick5 stall append5 tick3 commit tick3 append tick3 append tick3 commit commit tick5"
"""The first of two pages in one burst finds the outbox full, so that the second must not be told either."""

SEEN_EARLY = "append tick3 take read tick9 commit tick9"
"""A page holds a record of which the session does not know yet that it is durable."""

NEWCOMERS = f"stall tick3 {'read tick5 ' * 8} append tick3 reconnect tick3 read tick5 refuse read tick9"
"""The session fails while a reader has still to be told that it has caught up."""


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=60), st.integers(0, 9))
@example(steps_of(TWO_AT_ONCE), 0)
@example(steps_of(SEEN_EARLY), 3)
def test_no_gap_and_no_double_whatever_happens_between_which_ticks(steps: list[tuple[str, int]], held: int) -> None:
    asyncio.run(play(steps, held))


@settings(max_examples=75, deadline=None)
@given(st.lists(STEPS | FAULTS, max_size=60), st.integers(0, 9))
@example(steps_of(NEWCOMERS), 14)
def test_no_gap_and_no_double_although_the_store_refuses_and_the_session_starts_anew(
    steps: list[tuple[str, int]], held: int
) -> None:
    asyncio.run(play(steps, held))


@pytest.mark.parametrize("fault", ["twice", "never"])
def test_the_checker_sees_a_record_that_is_told_twice_or_never(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    show = Session._show

    def wrong(self: Session, records: tuple[Any, ...]) -> None:
        for _ in range(2 if fault == "twice" else len(records) % 2):
            show(self, records)

    monkeypatch.setattr(Session, "_show", wrong)
    with pytest.raises((AssertionError, ExceptionGroup)), contextlib.suppress(KeyError):
        asyncio.run(play([("tick", 5), ("append", 1), ("tick", 5), ("commit", 0), ("tick", 5)]))


def test_a_reader_that_does_not_read_is_cut_with_4002_and_resumes_where_it_was() -> None:
    async def cut() -> None:
        world = World()
        await world.open()
        await world.tick(5)
        reader = world.readers[0]
        reader.socket.stall()
        for _ in range(10):
            await world.do(("append", 5))
            await world.tick(2)
            world.store.commit()
            await world.tick(2)
        assert not reader.was_cut
        world.clock.advance(5)
        await world.tick(3)
        assert not reader.was_cut
        for _ in range(3):
            world.clock.advance(5)
            await world.tick(3)
        assert reader.ref.actor is not None
        assert reader.ref.actor.close_code == CloseCode.TOO_SLOW
        assert reader.socket.get_write_buffer_size() < 3 * world.connection.outbox_bytes
        reader.socket.resume()
        assert reader.socket.close_code == CloseCode.TOO_SLOW
        await world.finish()
        world.check()

    asyncio.run(cut())
