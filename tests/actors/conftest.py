"""A broker's actors without its sockets: real ones all, over an engine in memory that can be made to fail."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgspec
import pytest

from broker.actors.agent_bridge import start_bridge
from broker.actors.connection import Connection
from broker.actors.connection_mail import ConnectionOptions
from broker.actors.lifecycle import StopSession
from broker.actors.options import AgentOptions, OnDispatch, RoomOptions, SessionOptions
from broker.actors.project import make_room
from broker.actors.ref import LoopRef
from broker.actors.registry import Registry, RegistryOptions
from broker.actors.reply import SocketReply
from broker.actors.requests import Connected, CreateSession, Disconnected, ToRoom, ToSession, Wake
from broker.actors.session import Session
from broker.actors.store import Store, StoreHandle
from broker.actors.supervisor import Supervisor
from broker.config.profiles import Deadlines
from broker.errors import BrokerError
from broker.hooks import Peer
from broker.ids import new_id
from broker.messages import ANONYMOUS, Principal, Record, SessionRow, Write
from broker.operations import Attach, Join, Operation, Publish, Start, Update
from broker.protocol.native import NATIVE
from broker.protocol.outgoing import Failure
from broker.stats import Stats
from broker.store.memory import MemoryEngine
from broker.store.port import Engine, StoreError
from broker.testing import FakeAgent, FakeTransport, ManualClock, until
from broker.traces import Traces
from broker.turns import TurnRules

NOBODY = ANONYMOUS
to_json = msgspec.json.encode


class Disk(MemoryEngine):
    """The engine in memory, except that it can fail and be held up.

    Attributes:
        fault: what every write is refused with, if set.
        unreadable: what every read is refused with, if set.
        gate: cleared, writes wait for it.
        reading: cleared, reads wait for it.
        batches: the writes of each transaction that was begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fault: str | None = None
        self.unreadable: str | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.reading = threading.Event()
        self.reading.set()
        self.batches: list[Sequence[Write]] = []

    def write(self, writes: Sequence[Write]) -> None:
        self.batches.append(writes)
        self.gate.wait(10)
        if self.fault is not None:
            raise StoreError(self.fault)
        super().write(writes)

    def reader(self) -> Any:
        return DiskReader(self, super().reader())

    def records(self, log: str) -> list[Record]:
        return super().reader().records_after(log, 0, limit=1_000_000, max_bytes=1 << 40)


class DiskReader:
    """Reads what a `Disk` holds, as long as it can be read."""

    def __init__(self, disk: Disk, reader: Any) -> None:
        self._disk = disk
        self._reader = reader

    def __getattr__(self, method: str) -> Any:
        self._disk.reading.wait(10)
        if self._disk.unreadable is not None:
            raise StoreError(self._disk.unreadable)
        return getattr(self._reader, method)


class Client:
    """A client: its connection's actor and the far end of its socket."""

    def __init__(self, house: "House", user: str | None, transport: FakeTransport) -> None:
        self.house = house
        self.peer = Peer(new_id(), Principal(user, frozenset()), "127.0.0.1", NATIVE.name)
        self.socket = transport
        self.ref = Connection.start(self.peer, NATIVE, transport, 0, house.connection)
        self._numbers = iter(range(1_000_000))
        house.clients.append(self)
        house.registry.tell(Connected(self.ref, self.peer, house.clock.now()), urgent=True)

    @property
    def by(self) -> Principal:
        return self.peer.principal

    def send_to_session(self, session_id: str, operation: Operation) -> str:
        """Ask a session as the reading half of a socket does, and return the request's id."""
        return self._send(f"session:{session_id}", operation, ToSession(session_id, operation))

    def send_to_room(self, room: str, operation: Operation) -> str:
        return self._send(f"room:{room}", operation, ToRoom(room, operation))

    def _send(self, log: str, operation: Operation, by_registry: Any) -> str:
        request_id = f"r{next(self._numbers)}"
        reply = SocketReply(self.ref, request_id, to_json, self._refuse)
        place = self.ref.actor.place_of(log) if self.ref.actor else None
        if place is not None and place.is_alive():
            place.request(operation, reply)
        else:
            self.house.registry.request(by_registry, reply)
        return request_id

    @staticmethod
    def _refuse(request_id: str | None, error: BaseException, connection_id: str) -> Failure:
        return Failure(request_id, error if isinstance(error, BrokerError) else BrokerError("internal", repr(error)))

    async def session(self, session_id: str, operation: Operation) -> Any:
        """Ask a session and wait for the answer; its `data`, or a `BrokerError` with its code."""
        return self._data(await self.socket.message(id=self.send_to_session(session_id, operation)))

    async def room(self, room: str, operation: Operation) -> Any:
        return self._data(await self.socket.message(id=self.send_to_room(room, operation)))

    @staticmethod
    def _data(answer: Any) -> Any:
        if answer["type"] == "error":
            raise BrokerError(answer["data"]["code"], answer["data"]["message"])
        return answer["data"]

    async def attach(self, session_id: str, after_seq: int = 0, epoch: str | None = None) -> Any:
        return await self.session(session_id, Attach(self.by, self.ref, after_seq, epoch))

    async def join(self, room: str, after_seq: int | None = None, epoch: str | None = None) -> Any:
        return await self.room(room, Join(self.by, self.ref, self.peer.connection_id, after_seq, epoch))

    async def publish(self, room: str, data: Any, event: str = "message") -> Any:
        return await self.room(room, Publish(self.by, to_json(self.peer.connection_id), event, to_json(data)))

    def seqs(self, event: str | None = None) -> list[int]:
        """Return the numbers of the records, or of those of this kind, in the order in which they came."""
        return [m["seq"] for m in self.socket.messages if "seq" in m and event in {None, m["event"]}]

    def events(self, session_id: str | None = None) -> list[str]:
        return [
            m["event"]
            for m in self.socket.messages
            if m["type"] == "notification" and session_id in {None, m.get("session_id")}
        ]

    async def hang_up(self) -> None:
        """End the connection as the socket's reading half does."""
        self.socket.close()
        self.house.registry.tell(Disconnected(self.peer), urgent=True)
        await self.ref.stop()


class House:
    """The actors of one broker."""

    def __init__(
        self,
        disk: Any,
        clock: ManualClock,
        *,
        queued_turns: int = 16,
        room_history: int = 1000,
        agent: FakeAgent | None = None,
        others: Mapping[str, FakeAgent] | None = None,
        on_dispatch: OnDispatch | None = None,
        deadlines: Deadlines | None = None,
        quota: int = 0,
        **profile: Any,
    ) -> None:
        self.disk = disk
        self.clock = clock
        self.stats = Stats()
        self.clients: list[Client] = []
        self.ended: list[tuple[str, str, str, str, float, bool]] = []
        self.committed: list[tuple[str, tuple[Record, ...]]] = []
        self.store = Store(disk, clock, self.stats)
        self.store.begin()
        self.handle = StoreHandle(self.store, durable=disk.durable)
        self.supervisor = Supervisor(clock)
        self.traces = Traces(clock.now)
        self.agent = agent or FakeAgent()
        agents = {
            name: AgentOptions(
                bridge=start_bridge(self.supervisor, name, kind, clock, self.traces),
                rules=TurnRules(
                    agent=name,
                    queue_limit=queued_turns,
                    deadlines=deadlines or Deadlines(),
                    limited=kind.capacity is not None,
                ),
                **profile,
            )
            for name, kind in {"fake": self.agent, **(others or {})}.items()
        }
        self.bridge = agents["fake"].bridge
        self.connection = ConnectionOptions(
            clock, outbox_bytes=10_000, patience=10.0, stats=self.stats, traces=self.traces
        )
        self.sessions = SessionOptions(
            store=self.handle,
            clock=clock,
            agents=agents,
            on_dispatch=on_dispatch,
            quota=quota,
            traces=self.traces,
            registry=self._tell_registry,
            on_turn_ended=lambda *told: self.ended.append(told),
            stats=self.stats,
            on_committed=lambda *told: self.committed.append(told),
        )
        self.rooms = RoomOptions(
            store=self.handle,
            clock=clock,
            stats=self.stats,
            history=room_history,
            registry=self._tell_registry,
            on_committed=lambda *told: self.committed.append(told),
        )
        options = RegistryOptions(
            supervisor=self.supervisor,
            clock=clock,
            stats=self.stats,
            session=lambda session_id, row, chosen: Session(session_id, self.sessions, row, chosen=chosen),
            room=lambda name: make_room(name, self.rooms),
            idle_after=3600.0,
        )
        self.registry = self.supervisor.start(lambda: Registry(options))

    def _tell_registry(self, message: Any) -> None:
        if self.registry.is_alive():
            self.registry.tell(message, urgent=True)

    def connect(self, user: str | None = None) -> Client:
        return Client(self, user, FakeTransport())

    def place(self, log: str) -> LoopRef[Any] | None:
        """Return the actor of a log, None if it is not in memory."""
        registry = self.registry.actor
        assert registry is not None
        place = registry._places._places.get(log)
        return None if place is None else place.ref

    async def create(self, client: Client | None = None, session_id: str | None = None, **row: Any) -> str:
        """Create a session, followed by `client` if there is one, and return its id."""
        now = self.clock.now()
        by = NOBODY if client is None else client.by
        new = SessionRow(session_id or new_id(), by.user, "fake", None, None, b"{}", False, now, now)
        new = attrs.evolve(new, **row)
        message = CreateSession(new, session_id is not None, by, client and client.ref)
        if client is None:
            await self.registry.ask(message, timeout=10)
        else:
            request_id = f"create {new.session_id} {next(client._numbers)}"
            self.registry.request(message, SocketReply(client.ref, request_id, to_json, client._refuse))
            client._data(await client.socket.message(id=request_id))
        return new.session_id

    async def ask(self, session_id: str, operation: Operation) -> Any:
        return await self.registry.ask(ToSession(session_id, operation), timeout=10)

    def ask_later(self, session_id: str, operation: Operation) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.ask(session_id, operation))

    async def update(self, session_id: str, title: str, *, by: Principal = NOBODY) -> Any:
        """Append one record to a session's log."""
        return await self.ask(session_id, Update(by, title, None))

    async def start(self, session_id: str, content: str = "hi", *, by: Principal = NOBODY, **more: Any) -> Any:
        """Start a turn and return the answer."""
        client_msg_id = more.get("client_msg_id") or new_id()
        start = Start(by, client_msg_id, to_json(content), more.get("if_busy", "queue"), more.get("retry_of"))
        return await self.ask(session_id, start)

    def start_later(self, session_id: str, by: Principal, client_msg_id: str) -> asyncio.Task[Any]:
        """Start a turn without waiting for the answer."""
        return asyncio.ensure_future(self.start(session_id, by=by, client_msg_id=client_msg_id))

    def update_later(self, session_id: str, title: str, by: Principal) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.update(session_id, title, by=by))

    async def wake(self) -> None:
        """Take up the sessions whose turns are open, as the broker does when it starts."""
        for session_id in await self.handle.read("unfinished_sessions"):
            self.registry.tell(Wake(session_id))
        await self.settle()

    async def stop_session(self, session_id: str) -> None:
        place = self.place(f"session:{session_id}")
        assert place is not None
        await place.ask(StopSession(), timeout=10)

    async def tick(self, times: int = 1) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Return once nothing moves any more: no mail, no write on its way, nobody waiting for an answer."""
        await until(lambda: not self._is_moving())

    async def pass_time(self, seconds: float, step: float = 0.4) -> None:
        """Let time pass, step by step, with all that happens meanwhile."""
        await self.settle()
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            await self.settle()

    def _is_moving(self) -> bool:
        registry = self.registry.actor
        letting_go = registry is not None and any(p.held is not None for p in registry._places._places.values())
        refs = [*self.supervisor._children, *(client.ref for client in self.clients), self.store.actor_ref]
        alive = [ref for ref in refs if ref.actor is not None and not ref.actor.actor_stopped.is_set()]
        busy = any(ref.actor_inbox or ref._held or ref._queued for ref in alive)  # others wait for the clock
        reading = any(getattr(ref.actor, "_reads", None) for ref in alive)
        return busy or reading or letting_go or self.store._writing or bool(self.store._waiting)

    async def kill(self) -> None:
        """End at once, as `kill -9` would: nothing more is written, nobody is told."""
        self.disk.gate.set()
        self.disk.reading.set()
        for client in self.clients:
            client.socket.abort()
        self.disk.fault = "killed"
        await self.stop()
        self.disk.fault = None
        self.disk.unreadable = None

    async def stop(self) -> None:
        if isinstance(self.disk, Disk):
            self.disk.gate.set()
            self.disk.reading.set()
            self.disk.unreadable = None
        await self.supervisor.stop()
        for client in self.clients:
            await client.ref.stop()
        await self.store.close()


@pytest.fixture(autouse=True)
def switch_interval() -> Iterator[None]:
    """Let the store's threads have the interpreter as soon as the broker itself does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def make_house(disk: Disk, clock: ManualClock) -> AsyncIterator[Callable[..., House]]:
    """Make a broker's actors over the one disk; another one is its restart."""
    houses: list[House] = []

    def make(engine: Engine | None = None, **settings: Any) -> House:
        houses.append(House(engine or disk, clock, **settings))
        return houses[-1]

    yield make
    for house in houses:
        if not house.store.actor_stopped.is_set():
            await house.stop()


@pytest.fixture
async def house(make_house: Callable[..., House]) -> House:
    return make_house()
