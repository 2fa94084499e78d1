"""The registry: who is connected, and where each session and room lives.

It is asked at connect, attach, join, leave, broadcast and send; never on the way of a turn, since a
connection knows the actors of the logs it follows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
import pykka

from broker.actors.connection import Connection, Hang
from broker.actors.futures import ReplyTo
from broker.actors.log import LogActor, LogUnreadable
from broker.actors.loop import LoopActor, handles
from broker.actors.ref import InboxFull, LoopRef
from broker.actors.room import Room
from broker.actors.session import Gone, MayStop, Session, Sweep
from broker.actors.supervisor import Supervisor
from broker.clock import Clock, Timer, rfc3339
from broker.errors import BrokerError, CloseCode
from broker.hooks import Peer
from broker.messages import Principal, SessionRow
from broker.operations import Created
from broker.protocol.outgoing import Broadcast, Direct, Outgoing, Parcel
from broker.stats import Stats
from broker.tasks import spawn

__all__ = [
    "Connected",
    "Connections",
    "CreateSession",
    "Disconnected",
    "HangAll",
    "Live",
    "Peers",
    "Registry",
    "RegistryOptions",
    "SendTo",
    "ToAll",
    "ToRoom",
    "ToSession",
    "Wake",
]

SWEEP_SECONDS: Final = 30.0
"""How often sessions and rooms are asked whether they can leave memory."""
RETRY_SECONDS: Final = 60.0
"""When a session that failed too often is taken up again: its budget of failures is then as good as new."""
ROOM_IDLE: Final = 60.0
"""Seconds an empty room stays in memory."""


@attrs.frozen
class Connected:
    """A connection is open."""

    ref: LoopRef[Connection]
    peer: Peer
    at: int


@attrs.frozen
class Disconnected:
    """A connection is gone."""

    peer: Peer


@attrs.frozen
class ToSession:
    """Hand an operation to a session, taking it up from the store if need be."""

    session_id: str
    operation: Any


@attrs.frozen
class CreateSession:
    """Make a session of this row."""

    row: SessionRow
    chosen: bool
    by: Principal
    follower: LoopRef[Any] | None


@attrs.frozen
class ToRoom:
    """Hand an operation to a room."""

    room: str
    operation: Any


@attrs.frozen
class ToAll:
    """Broadcast; `sender` and `data` are JSON. Answered with the number of receivers."""

    sender: bytes
    data: bytes


@attrs.frozen
class SendTo:
    """Send to connections and users; `sender` and `data` are JSON. Answered with the number of receivers."""

    connections: tuple[str, ...]
    users: tuple[str, ...]
    sender: bytes
    data: bytes


@attrs.frozen
class Connections:
    """Return how many connections there are, and if `detailed` which."""

    detailed: bool


@attrs.frozen
class Peers:
    """Return the peers that are connected."""


@attrs.frozen
class Live:
    """Return the actors of the live sessions and rooms, by the name of their log."""


@attrs.frozen
class HangAll:
    """Close every connection with this code."""

    code: CloseCode


@attrs.frozen
class Wake:
    """Take up a session from the store: it has turns that have to go on or to end."""

    session_id: str


class _SweepAll:
    """It is time to look who can leave memory."""


@attrs.frozen
class _Stopped:
    """A session or room has left memory, or has turned out to be needed."""

    log: str
    gone: bool


@attrs.define(eq=False)
class _Place:
    """Where a log's actor lives; while it is being let go, what comes for it is held."""

    ref: LoopRef[Any]
    held: list[tuple[Any, ReplyTo]] | None = None


@attrs.frozen
class RegistryOptions:
    """What the registry needs.

    Attributes:
        supervisor: starts the actors of sessions and rooms.
        clock: time.
        stats: the broker's counters.
        session: returns a session actor: of this id, new with this row or to be loaded.
        room: returns a room actor of this name.
        idle_after: seconds without viewers and turns after which a session leaves memory.
    """

    supervisor: Supervisor
    clock: Clock
    stats: Stats
    session: Callable[[str, SessionRow | None, bool], Session]
    room: Callable[[str], Room]
    idle_after: float


class Registry(LoopActor):
    """The one registry of a broker."""

    inbox_limit = 100_000

    def __init__(self, options: RegistryOptions) -> None:
        super().__init__()
        self._options = options
        self._connections: dict[str, tuple[LoopRef[Connection], Connected]] = {}
        self._users: dict[str, set[str]] = {}
        self._places: dict[str, _Place] = {}
        self._broadcasts: list[Outgoing] = []
        self._timer: Timer | None = None

    def on_start(self) -> None:
        """Look now and then who can leave memory."""
        self._timer = self._options.clock.call_later(SWEEP_SECONDS, self._remind)

    def on_stop(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()

    def on_drained(self) -> None:
        """Tell everybody what this burst of messages broadcast, encoded once and in one write each."""
        if not self._broadcasts:
            return
        parcel = Parcel(tuple(self._broadcasts))
        self._broadcasts.clear()
        for ref, _ in self._connections.values():
            if not ref.actor_stopped.is_set():
                ref.tell(parcel, urgent=True)

    def outbox_bytes(self) -> int:
        """Return the bytes that wait for all clients together; for a look at it on the same loop."""
        return sum(ref.actor.outbox_bytes() for ref, _ in self._connections.values() if ref.actor is not None)

    # -- connections --------------------------------------------------------------------------------

    @handles(Connected)
    def _connected(self, message: Connected) -> None:
        peer = message.peer
        self._connections[peer.connection_id] = (message.ref, message)
        if peer.principal.user is not None:
            self._users.setdefault(peer.principal.user, set()).add(peer.connection_id)

    @handles(Disconnected)
    def _disconnected(self, message: Disconnected) -> None:
        peer = message.peer
        self._connections.pop(peer.connection_id, None)
        mine = self._users.get(peer.principal.user or "")
        if mine is not None:
            mine.discard(peer.connection_id)
            if not mine:
                del self._users[peer.principal.user or ""]

    @handles(ToAll)
    def _broadcast(self, message: ToAll) -> int:
        self._broadcasts.append(Broadcast(message.sender, message.data))
        return len(self._connections)

    @handles(SendTo)
    def _send(self, message: SendTo) -> int:
        targets = set(message.connections)
        for user in message.users:
            targets |= self._users.get(user, set())
        parcel = Parcel((Direct(message.sender, message.data),))
        delivered = 0
        for connection_id in targets:
            known = self._connections.get(connection_id)
            if known is not None and known[0].is_alive():
                known[0].tell(parcel, urgent=True)
                delivered += 1
        return delivered

    @handles(Connections)
    def _list(self, message: Connections) -> dict[str, Any]:
        answer: dict[str, Any] = {"count": len(self._connections)}
        if message.detailed:
            answer["connections"] = [_connection_data(*known) for known in self._connections.values()]
        return answer

    @handles(Peers)
    def _peers(self, message: Peers) -> list[Peer]:
        return [known.peer for _, known in self._connections.values()]

    @handles(HangAll)
    def _hang_all(self, message: HangAll) -> None:
        for ref, _ in self._connections.values():
            if ref.is_alive():
                ref.tell(Hang(message.code), urgent=True)

    # -- sessions and rooms -------------------------------------------------------------------------

    @handles(ToSession)
    def _to_session(self, message: ToSession) -> None:
        make = partial(self._options.session, message.session_id, None, False)
        self._forward(f"session:{message.session_id}", make, message.operation)

    @handles(CreateSession)
    def _create_session(self, message: CreateSession) -> None:
        session_id = message.row.session_id
        log = f"session:{session_id}"
        if log in self._places:
            raise BrokerError("session_exists", field="$.payload.session_id")
        first = [message.row]

        def make() -> Session:  # only the first incarnation begins the log; a later one takes it up
            return self._options.session(session_id, first.pop() if first else None, message.chosen)

        self._forward(log, make, Created(message.by, message.follower))

    @handles(ToRoom)
    def _to_room(self, message: ToRoom) -> None:
        self._forward(f"room:{message.room}", partial(self._options.room, message.room), message.operation)

    @handles(Wake)
    def _wake(self, message: Wake) -> None:
        log = f"session:{message.session_id}"
        if log not in self._places:
            self._place(log, partial(self._options.session, message.session_id, None, False))

    def _forward(self, log: str, make: Callable[[], LogActor], operation: Any) -> None:
        place = self._places.get(log)
        reply_to = self.answer_later()
        if place is None:
            place = self._place(log, make)
        if place.held is not None:
            place.held.append((operation, reply_to))
            return
        _hand(place.ref, operation, reply_to)

    def _place(self, log: str, make: Callable[[], LogActor]) -> _Place:
        ref = self._options.supervisor.start(make, on_death=partial(self._died, log))
        place = self._places[log] = _Place(ref)
        self._count()
        return place

    def _died(self, log: str) -> None:
        """Let go of an actor that failed too often; a session is tried again later, since its turn has to end (P5)."""
        place = self._places.pop(log, None)
        self._count()
        for _, reply_to in (place and place.held) or ():
            error = BrokerError("unavailable", "It failed; try again.", retry_after=1.0)
            reply_to.set_exception((BrokerError, error, None))
        for ref, _ in self._connections.values():
            if ref.is_alive():
                ref.tell(LogUnreadable(log), urgent=True)
        kind, _, session_id = log.partition(":")
        if kind == "session":
            self._options.clock.call_later(RETRY_SECONDS, partial(self._wake_later, session_id))

    def _wake_later(self, session_id: str) -> None:
        if not self.actor_stopped.is_set():
            self.actor_ref.tell(Wake(session_id), urgent=True)

    def _count(self) -> None:
        rooms = sum(log.startswith("room:") for log in self._places)
        self._options.stats.rooms = rooms
        self._options.stats.sessions = len(self._places) - rooms

    @handles(Live)
    def _live(self, message: Live) -> dict[str, LoopRef[Any]]:
        return {log: place.ref for log, place in self._places.items()}

    # -- leaving memory -----------------------------------------------------------------------------

    def _remind(self) -> None:
        self._timer = self._options.clock.call_later(SWEEP_SECONDS, self._remind)
        self.actor_ref.tell(_SweepAll(), urgent=True)

    @handles(_SweepAll)
    def _sweep(self, _: _SweepAll) -> None:
        session, room = Sweep(self._options.idle_after), Sweep(min(ROOM_IDLE, self._options.idle_after))
        for log, place in self._places.items():
            if place.held is None and place.ref.is_alive():
                place.ref.tell(room if log.startswith("room:") else session, urgent=True)

    @handles(Gone)
    def _let_go(self, message: Gone) -> None:
        place = self._places.get(message.log)
        if place is not None and place.ref is message.ref and place.held is None:
            place.held = []
            spawn(self._ask_to_stop(message), name=f"let go of {message.log}")

    async def _ask_to_stop(self, message: Gone) -> None:
        try:
            gone = await message.ref.ask(MayStop())
            if gone:
                await message.ref.stop()
        except pykka.ActorDeadError:
            gone = True
        except InboxFull:
            gone = False
        if not self.actor_stopped.is_set():
            self.actor_ref.tell(_Stopped(message.log, gone), urgent=True)

    @handles(_Stopped)
    def _stopped(self, message: _Stopped) -> None:
        place = self._places.get(message.log)
        if place is None:
            return
        held, place.held = place.held or [], None
        if message.gone:
            self._options.supervisor.forget(place.ref)
            del self._places[message.log]
            self._count()
        for operation, reply_to in held:
            self._resume(message.log, operation, reply_to)

    def _resume(self, log: str, operation: Any, reply_to: ReplyTo) -> None:
        place = self._places.get(log)
        if place is None:
            kind, _, name = log.partition(":")
            options = self._options
            make = partial(options.room, name) if kind == "room" else partial(options.session, name, None, False)
            place = self._place(log, make)
        _hand(place.ref, operation, reply_to)


def _hand(ref: LoopRef[Any], operation: Any, reply_to: ReplyTo) -> None:
    """Hand an operation on; where there is no room, its sender is told (P8)."""
    error: BrokerError
    try:
        ref.request(operation, reply_to)
    except InboxFull:
        error = BrokerError("overloaded", "Too much is waiting there already.", retry_after=1.0)
    except pykka.ActorDeadError:
        error = BrokerError("unavailable", "It is being stopped; try again.", retry_after=1.0)
    else:
        return
    reply_to.set_exception((BrokerError, error, None))


def _connection_data(ref: LoopRef[Connection], known: Connected) -> dict[str, Any]:
    peer = known.peer
    connection = ref.actor
    logs = [] if connection is None else connection.followed()
    return {
        "connection_id": peer.connection_id,
        "user": peer.principal.user,
        "protocol": peer.protocol,
        "address": peer.address,
        "connected_at": rfc3339(known.at),
        "rooms": [log.removeprefix("room:") for log in logs if log.startswith("room:")],
        "sessions": [log.removeprefix("session:") for log in logs if log.startswith("session:")],
    }
