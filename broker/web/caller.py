"""The reading half of a client's socket: from a message to the actor that answers it."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NoReturn

import attrs

from broker.actors.connection import Connection
from broker.actors.connection_mail import Hang
from broker.actors.futures import ReplyTo
from broker.actors.ref import LoopRef
from broker.actors.reply import SocketReply
from broker.actors.requests import ToRoom, ToSession
from broker.clock import Timer
from broker.errors import BrokerError, CloseCode
from broker.extensions.offers import Action
from broker.hooks import Content, Inbound, Peer, Permission, TurnRequest
from broker.protocol.dialect import Ear
from broker.protocol.outgoing import Request, RequestId, Response
from broker.protocol.payloads import Edit, Start, decode
from broker.tasks import spawn
from broker.vitals.load import GUARDED
from broker.web.admission import Guest
from broker.web.content import Said
from broker.web.identity import ending
from broker.web.reader import Reader
from broker.web.refusal import GOOD_BYE_SECONDS
from broker.web.services import Encode, Services, to_json
from broker.web.tracing import SOCKET, refuse
from broker.web.watch import Watch

__all__ = ["ActionRow", "Caller"]

CONCURRENT: Final = 64
"""Requests of one connection that may wait for a plugin at the same time."""
FOLLOWED: Final = 1000
"""Sessions and rooms that one connection may follow at the same time."""
ERROR_WINDOW: Final = 60.0
SPEAKING: Final = (Start, Edit)
"""Payloads that say something to an agent, and so pass the gates for turns."""

Step = Callable[["ActionRow", Any, Request], None]
"""One step on the way of a request."""


@attrs.frozen(eq=False)
class ActionRow:
    """One of the broker's own actions.

    Attributes:
        name: what clients call it.
        run: does it: takes the caller, the payload and the request's id.
        decode: makes the payload of JSON.
        resource: tells what it is about, for the permission gates.
        free: whether everybody may do it who is let in, so that the permission gates are not asked.
        says: tells what somebody says with it, for the content gates; None where nothing is said.
    """

    name: str
    run: Callable[["Caller", Any, RequestId | None], Awaitable[None] | None]
    decode: Callable[[bytes], Any]
    resource: Callable[[Any], str | None]
    free: bool = False
    says: Said | None = None


class Caller:
    """One client that asks for things.

    Args:
        services: the broker's parts.
        actions: the broker's own actions by name.
        peer: who it is.
        ear: reads its messages.
        ref: its connection, where answers go.
        guest: how it is counted until it is known who it is; None if it is not.

    Attributes:
        deadline: closes one that was let in to say who it is, and has not; None for everybody else. Until then its
            first message has to be `auth`, and whatever is refused to it ends its connection.
        authenticating: whether a token that it has shown is being looked at.
        reader: reads its socket; None before that is so.
        watch: knows what it has asked for, where a plugin wants to see what becomes of it.
    """

    __slots__ = (
        *("_actions", "_ear", "_errors", "_errors_since", "_waiting"),
        *("authenticating", "deadline", "guest", "peer", "reader", "ref", "sender", "services", "watch"),
    )

    def __init__(
        self,
        services: Services,
        actions: dict[str, ActionRow],
        peer: Peer,
        ear: Ear,
        ref: LoopRef[Connection],
        guest: Guest | None = None,
    ) -> None:
        self.services = services
        self.ref = ref
        self.guest = guest
        self.deadline: Timer | None = None
        self.authenticating = False
        self.reader: Reader | None = None
        self.watch = Watch(services.hooks) if services.hooks.answered else None
        self.become(peer)
        self._actions = actions
        self._ear = ear
        self._waiting = 0
        self._errors = 0
        self._errors_since = 0.0

    def become(self, peer: Peer) -> None:
        """Be this peer from now on: what is asked for next is asked for by it."""
        self.peer = peer
        self.sender = to_json({"connection_id": peer.connection_id, "user": peer.principal.user})

    def take(self, text: bytes) -> None:
        """Take one message: whatever is wrong with it is told to its sender alone, and the connection stays."""
        services = self.services
        services.stats.messages_in += 1
        services.stats.bytes_in += len(text)
        try:
            request = self._ear.decode(text)
        except BrokerError as e:
            self._take_rubbish(text, e)
            return
        request.text = text
        try:
            if self.watch is not None:
                self.watch.asked(request)
            if self.deadline is not None:
                self._check_first(request)
            if services.hooks.message:
                action = request.action
                kind = request.kind or action
                inbound = Inbound(self.peer, action, len(text), kind, request.payload, text, request.id)
                waiting = services.hooks.run_gates(services.hooks.message, inbound)
                if waiting is not None:
                    self._later(_then(waiting, self._act, request), request)
                    return
            self._act(request)
        except Exception as e:  # noqa: BLE001 - one client's message must not end anything but itself
            self._refuse(request, e)

    def ask(self, request: Request) -> None:
        """Ask for what the client's format wants next, in its name; the gates for messages saw what it began with."""
        try:
            if self.watch is not None:
                self.watch.asked(request)
            if self.deadline is not None:
                self._check_first(request)
            self._act(request)
        except Exception as e:  # noqa: BLE001 - as in take
            self._refuse(request, e)

    def refuse(self, request_id: RequestId | None, error: BaseException) -> None:
        """Tell the client that its request was refused, and why."""
        if self.ref.actor_stopped.is_set():
            return
        failure = self.services.failure(request_id, error, self.peer.connection_id)
        self.ref.tell(failure, urgent=True)
        if self.deadline is not None:
            self.hang(ending(failure.error))

    def expire(self) -> None:
        """Send the client away: what it was let in with has expired; called by `Expiry`."""
        self.hang(CloseCode.TOKEN_EXPIRED)

    def hang(self, code: CloseCode, reason: str | None = None) -> None:
        """Send the client away, after all that it was told before; soon, if it has not said who it is."""
        if self.deadline is None:
            hang = Hang(code, reason)
        else:
            hang = Hang(code, reason, last=True, within=GOOD_BYE_SECONDS)
            if self.reader is not None:
                self.reader.stop()
        if self.ref.is_alive():
            self.ref.tell(hang, urgent=True)

    # -- for the actions ----------------------------------------------------------------------------

    def respond(self, request_id: RequestId | None, data: bytes) -> None:
        """Send a response; `data` is JSON."""
        if request_id is not None and not self.ref.actor_stopped.is_set():
            self.ref.tell(Response(request_id, data), urgent=True)

    def reply(self, request_id: RequestId | None, encode: Encode = to_json) -> SocketReply:
        """Return where an actor's answer to a request goes."""
        return SocketReply(self.ref, request_id, encode, self.services.failure)

    def may_follow(self) -> None:
        """Refuse to follow one more log than a connection may (P7).

        Raises:
            BrokerError: `overloaded`.
        """
        connection = self.ref.actor
        if connection is not None and len(connection.followed()) >= FOLLOWED:
            raise BrokerError("overloaded", f"One connection follows at most {FOLLOWED} sessions and rooms.")

    def to_session(
        self, session_id: str, operation: Any, request_id: RequestId | None, encode: Encode = to_json
    ) -> None:
        """Hand an operation to a session: directly if this connection follows it, else by the registry."""
        self.hand_to_session(session_id, operation, self.reply(request_id, encode))

    def hand_to_session(self, session_id: str, operation: Any, reply_to: ReplyTo) -> None:
        """Hand an operation to a session, whose answer goes somewhere else than straight to the client."""
        place = self._place_of(f"session:{session_id}")
        message = ToSession(session_id, operation) if place is None else operation
        (place or self.services.registry).request(message, reply_to)

    def to_room(self, room: str, operation: Any, request_id: RequestId | None, encode: Encode = to_json) -> None:
        """Hand an operation to a room; as `to_session`."""
        self.hand_to_room(room, operation, self.reply(request_id, encode))

    def hand_to_room(self, room: str, operation: Any, reply_to: ReplyTo) -> None:
        """Hand an operation to a room; as `hand_to_session`."""
        place = self._place_of(f"room:{room}")
        message = ToRoom(room, operation) if place is None else operation
        (place or self.services.registry).request(message, reply_to)

    def to_registry(self, message: Any, request_id: RequestId | None, encode: Encode = to_json) -> None:
        """Ask the registry."""
        self.services.registry.request(message, self.reply(request_id, encode))

    def _place_of(self, log: str) -> LoopRef[Any] | None:
        connection = self.ref.actor
        place = None if connection is None else connection.place_of(log)
        return place if place is not None and place.is_alive() else None

    # -- the way of a request -----------------------------------------------------------------------

    def _take_rubbish(self, text: bytes, error: BrokerError) -> None:
        """Refuse what cannot be read, if the gates for messages do not: it has cost as much as any message."""
        request, hooks = Request("", b"", self._ear.salvage_id(text)), self.services.hooks
        try:
            waiting = hooks.run_gates(hooks.message, Inbound(self.peer, "", len(text), text=text))
            if waiting is None:
                _raise(error)
            self._later(_then(waiting, _raise, error), request)
        except Exception as e:  # noqa: BLE001 - as in take
            self._refuse(request, e)
        self._count_error()

    def _check_first(self, request: Request) -> None:
        if request.action != "auth" or self.authenticating:
            raise BrokerError("unauthenticated", "Say who you are first, by `auth`, and wait for its answer.")

    def _act(self, request: Request) -> None:
        if request.held:
            self.respond(request.id, b"{}")
            return
        row = self._actions.get(request.action)
        if row is None or (request.kind and request.kind in self.services.hooks.actions):
            self._act_by_plugin(request)
            return
        payload = row.decode(request.payload)
        if isinstance(payload, Start):
            user, traces = self.peer.principal.user, self.services.traces
            traces.receive(SOCKET, session_id=payload.session_id, client_msg_id=payload.client_msg_id, user=user)
        self._judge(row, payload, request)

    def _judge(self, row: ActionRow, payload: Any, request: Request) -> None:
        hooks = self.services.hooks
        if hooks.permission and not row.free:
            check = Permission(self.peer.principal, row.name, row.resource(payload))
            waiting = hooks.run_gates(hooks.permission, check)
            if waiting is not None:
                self._once(waiting, self._permitted, row, payload, request)
                return
        self._permitted(row, payload, request)

    def _permitted(self, row: ActionRow, payload: Any, request: Request) -> None:
        hooks = self.services.hooks
        if hooks.content and row.says is not None:
            said = row.says.of(payload)
            filtered = hooks.run_filters(Content(self.peer.principal, row.name, row.resource(payload), said))
            if not isinstance(filtered, bytes):
                self._later(self._filtered(filtered, row, payload, request), request)
                return
            if filtered is not said:
                payload = row.says.instead(payload, filtered)
        self._approved(row, payload, request)

    async def _filtered(self, waiting: Awaitable[bytes], row: ActionRow, payload: Any, request: Request) -> None:
        judged = self.peer.principal
        said = await waiting
        if row.says is not None:
            payload = row.says.instead(payload, said)
        (self._approved if self.peer.principal is judged else self._judge)(row, payload, request)

    def _approved(self, row: ActionRow, payload: Any, request: Request) -> None:
        hooks = self.services.hooks
        if hooks.turn and isinstance(payload, SPEAKING):
            asked = TurnRequest(payload.session_id, self.peer.principal, bytes(payload.content))
            waiting = hooks.run_gates(hooks.turn, asked)
            if waiting is not None:
                self._once(waiting, self._run, row, payload, request)
                return
        self._run(row, payload, request)

    def _once(self, waiting: Awaitable[None], go_on: Step, row: ActionRow, payload: Any, request: Request) -> None:
        """Go on once the gates have let it pass; what they let somebody else do than it is by then is judged anew."""
        judged = self.peer.principal

        def resume() -> None:
            (go_on if self.peer.principal is judged else self._judge)(row, payload, request)

        self._later(_then(waiting, resume), request)

    def _run(self, row: ActionRow, payload: Any, request: Request) -> None:
        if row.name in GUARDED:
            self.services.load.check(row.name, row.resource(payload))
        work = row.run(self, payload, request.id)
        if work is not None:
            self._later(work, request)

    def _act_by_plugin(self, request: Request) -> None:
        actions = self.services.hooks.actions
        action = actions.get(request.kind or request.action) or actions.get(request.action)
        if action is None:
            raise BrokerError("unknown_action", f"unknown action: {(request.kind or request.action)[:128]}")
        self._later(self._answer_by_plugin(action, request), request)

    async def _answer_by_plugin(self, action: Action, request: Request) -> None:
        hooks, began = self.services.hooks, monotonic()
        judged = None
        while self.peer.principal is not judged:  # as in _once
            judged = self.peer.principal
            waiting = hooks.run_gates(hooks.permission, Permission(judged, action.name))
            if waiting is not None:
                await waiting
        payload = request.text if action.whole else request.payload
        answer = await hooks.act(action, self.peer, payload)
        self.services.stats.request_seconds.observe(monotonic() - began)
        self.respond(request.id, answer)

    def _later(self, work: Awaitable[None], request: Request) -> None:
        """See a request through that has to wait; only so many of one connection at a time (P7)."""
        if self._waiting >= CONCURRENT:
            if hasattr(work, "close"):
                work.close()
            raise BrokerError("overloaded", f"{CONCURRENT} requests of this connection wait already.", retry_after=1.0)
        self._waiting += 1
        spawn(self._see_through(work, request), name=f"a request of {self.peer.connection_id}")

    async def _see_through(self, work: Awaitable[None], request: Request) -> None:
        try:
            await work
        except Exception as e:  # noqa: BLE001 - as in take
            self._refuse(request, e)
        finally:
            self._waiting -= 1

    def _refuse(self, request: Request, error: BaseException) -> None:
        if request.action == "turn.start":
            with suppress(BrokerError):  # one that cannot be read has no id to be found by
                refuse(self.services.traces, decode(Start, request.payload), self.peer.principal.user, error)
        self.refuse(request.id, error)

    def _count_error(self) -> None:
        """Close a connection that sends rubbish without end (PROTOCOL section 2)."""
        now = self.services.clock.monotonic()
        if now - self._errors_since > ERROR_WINDOW:
            self._errors_since, self._errors = now, 0
        self._errors += 1
        if self._errors > self.services.settings.limits.errors_per_minute:
            self.hang(CloseCode.PROTOCOL_ABUSE)


def _raise(error: BrokerError) -> NoReturn:
    raise error


async def _then(waiting: Awaitable[None], go_on: Callable[..., None], *args: Any) -> None:
    """Go on once the gates that had to be waited for have let it pass."""
    await waiting
    go_on(*args)
