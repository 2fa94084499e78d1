"""The registry: who is connected, and where each session and room lives.

It is asked at connect, attach, join, leave, broadcast and send; never on the way of a turn, since a
connection knows the actors of the logs it follows.
"""

from collections.abc import Callable, Iterator
from functools import partial
from heapq import nsmallest
from typing import Any, Final

import attrs

from broker.actors.connection import Connection
from broker.actors.connection_mail import Hang
from broker.actors.following import LogUnreadable
from broker.actors.futures import ReplyTo
from broker.actors.lifecycle import Gone
from broker.actors.log import LogActor
from broker.actors.loop import LoopActor, handles
from broker.actors.places import Places, Stopped
from broker.actors.ref import LoopRef
from broker.actors.requests import (
    Aside,
    Connected,
    Connections,
    CreateSession,
    Disconnected,
    Everybody,
    HangSome,
    Live,
    OpenSession,
    Peers,
    Renewed,
    SendTo,
    ToAll,
    ToRoom,
    ToSession,
    Wake,
)
from broker.actors.room import Room
from broker.actors.session import Session
from broker.actors.supervisor import Supervisor
from broker.clock import Clock, Timer, rfc3339
from broker.errors import BrokerError
from broker.hooks import Peer
from broker.messages import SessionRow
from broker.operations import Created
from broker.protocol.outgoing import Broadcast, Direct, Outgoing
from broker.protocol.parcel import Parcel
from broker.stats import Stats

__all__ = ["Registry", "RegistryOptions"]

SWEEP_SECONDS: Final = 30.0
"""How often sessions and rooms are asked whether they can leave memory."""
RETRY_SECONDS: Final = 5.0
"""When a session that failed too often is taken up again, so that its turns end soon after what broke it is mended."""


class _SweepAll:
    """It is time to look who can leave memory."""


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
        self._aside: dict[str, Aside] = {}
        self._places = Places(options.supervisor, options.stats, self._make, self._lost, self._remind_of)
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

    def outboxes(self) -> Iterator[int]:
        """Yield the bytes that wait for each client; may be walked on the loop while clients come and go."""
        for ref, _ in list(self._connections.values()):
            if ref.actor is not None:
                yield ref.actor.outbox_bytes()

    def holds(self, log: str) -> bool:
        """Tell whether the actor of a log is in memory; for a look on the same loop."""
        return log in self._places

    # -- connections --------------------------------------------------------------------------------

    @handles(Connected)
    def _connected(self, message: Connected) -> None:
        peer = message.peer
        self._aside.pop(peer.connection_id, None)
        self._connections[peer.connection_id] = (message.ref, message)
        if peer.principal.user is not None:
            self._users.setdefault(peer.principal.user, set()).add(peer.connection_id)

    @handles(Renewed)
    def _renewed(self, message: Renewed) -> None:
        connection_id = message.peer.connection_id
        if connection_id in self._connections:
            ref, known = self._connections[connection_id]
            self._connections[connection_id] = (ref, attrs.evolve(known, peer=message.peer))

    @handles(Aside)
    def _stands_aside(self, message: Aside) -> None:
        self._aside[message.peer.connection_id] = message

    @handles(Disconnected)
    def _disconnected(self, message: Disconnected) -> None:
        peer = message.peer
        self._aside.pop(peer.connection_id, None)
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
        among = self._connections.keys() if message.user is None else self._users.get(message.user, set())
        answer: dict[str, Any] = {"count": len(among)}
        if message.detailed:
            wanted = [connection_id for connection_id in among if connection_id > message.after]
            chosen = nsmallest(message.limit, wanted)
            answer["connections"] = [_connection_data(*self._connections[each]) for each in chosen]
        return answer

    @handles(Peers)
    def _peers(self, message: Peers) -> list[Peer]:
        return [known.peer for _, known in self._connections.values()]

    @handles(Everybody)
    def _everybody(self, _: Everybody) -> tuple[list[LoopRef[Connection]], list[Aside]]:
        return [ref for ref, _ in self._connections.values()], list(self._aside.values())

    @handles(HangSome)
    def _hang_some(self, message: HangSome) -> int:
        meant = _fenced(message.whom)
        chosen = [ref for ref, known in self._connections.values() if meant(known.peer)]
        aside = [one for one in self._aside.values() if meant(one.peer)]
        for ref in chosen:
            if ref.is_alive():
                ref.tell(Hang(message.code, message.reason), urgent=True)
        for one in aside:
            one.hang(message.code, message.reason)
        return len(chosen) + len(aside)

    # -- sessions and rooms -------------------------------------------------------------------------

    @handles(ToSession)
    def _to_session(self, message: ToSession) -> None:
        self._places.forward(f"session:{message.session_id}", message.operation, self.answer_later())

    @handles(ToRoom)
    def _to_room(self, message: ToRoom) -> None:
        self._places.forward(f"room:{message.room}", message.operation, self.answer_later())

    @handles(CreateSession)
    def _create_session(self, message: CreateSession) -> None:
        self._create(message, self.answer_later())

    def _create(self, message: CreateSession, reply_to: ReplyTo) -> None:
        """Begin a session; behind one of that id which is leaving memory, having been deleted perhaps."""
        log = f"session:{message.row.session_id}"
        if self._places.wait(log, partial(self._create, message, reply_to), reply_to):
            return
        if log in self._places:
            error = BrokerError("session_exists", field="$.payload.session_id")
            reply_to.set_exception((BrokerError, error, None))
            return
        maker = message.maker if message.row.ephemeral else None
        self._begin(log, message.row, chosen=message.chosen, maker=maker)
        follower = message.maker if message.attach else None
        self._places.forward(log, Created(message.by, follower), reply_to)

    @handles(OpenSession)
    def _open_session(self, message: OpenSession) -> None:
        self._open(message, self.answer_later())

    def _open(self, message: OpenSession, reply_to: ReplyTo) -> None:
        log = f"session:{message.row.session_id}"
        if self._places.wait(log, partial(self._open, message, reply_to), reply_to):
            return
        if log not in self._places:
            self._begin(log, message.row, chosen=True)
        self._places.forward(log, message.opening, reply_to)

    def _begin(self, log: str, row: SessionRow, *, chosen: bool, maker: LoopRef[Any] | None = None) -> None:
        first = [row]

        def make() -> Session:  # only the first incarnation begins the log; a later one takes it up
            session = self._options.session(row.session_id, first.pop() if first else None, chosen)
            session.maker = maker
            return session

        self._places.open(log, make)

    @handles(Wake)
    def _wake(self, message: Wake) -> None:
        log = f"session:{message.session_id}"
        if log not in self._places:
            self._places.open(log)

    def _make(self, log: str) -> LogActor:
        kind, _, name = log.partition(":")
        return self._options.room(name) if kind == "room" else self._options.session(name, None, False)

    def _lost(self, log: str) -> None:
        """Tell followers of an actor that failed too often, and try a session again: its turn has to end (P5)."""
        for ref, _ in self._connections.values():
            if ref.is_alive():
                ref.tell(LogUnreadable(log), urgent=True)
        kind, _, session_id = log.partition(":")
        if kind == "session":
            self._options.clock.call_later(RETRY_SECONDS, partial(self._remind_of, Wake(session_id)))

    @handles(Live)
    def _live(self, _: Live) -> dict[str, LoopRef[Any]]:
        return self._places.live()

    # -- leaving memory -----------------------------------------------------------------------------

    def _remind(self) -> None:
        self._timer = self._options.clock.call_later(SWEEP_SECONDS, self._remind)
        self._remind_of(_SweepAll())

    def _remind_of(self, message: Any) -> None:
        if not self.actor_stopped.is_set():
            self.actor_ref.tell(message, urgent=True)

    @handles(_SweepAll)
    def _sweep(self, _: _SweepAll) -> None:
        self._places.sweep(self._options.idle_after)

    @handles(Gone)
    def _let_go(self, message: Gone) -> None:
        self._places.let_go(message)

    @handles(Stopped)
    def _stopped(self, message: Stopped) -> None:
        self._places.stopped(message)


def _fenced(whom: Callable[[Peer], bool]) -> Callable[[Peer], bool]:
    """Return a plugin's choice as one that cannot end the event loop, as a SystemExit in an actor does."""

    def meant(peer: Peer) -> bool:
        try:
            return whom(peer)
        except Exception:
            raise  # to whoever asked, and the registry goes on
        except BaseException as e:
            raise RuntimeError(f"it raised {type(e).__name__}") from e

    return meant


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
        "outbox_bytes": 0 if connection is None else connection.outbox_bytes(),
        "rooms": [log.removeprefix("room:") for log in logs if log.startswith("room:")],
        "sessions": [log.removeprefix("session:") for log in logs if log.startswith("session:")],
    }
