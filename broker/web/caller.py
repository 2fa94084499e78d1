"""A client that asks for things: who it is, where its answers go, and how its requests reach the actors."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from broker.actors.connection import Connection
from broker.actors.connection_mail import Hang
from broker.actors.futures import ReplyTo
from broker.actors.ref import LoopRef
from broker.actors.reply import SocketReply
from broker.actors.requests import ToRoom, ToSession
from broker.clock import Timer
from broker.errors import BrokerError, CloseCode
from broker.hooks import Peer
from broker.protocol.outgoing import RequestId, Response
from broker.web.admission import Guest
from broker.web.content import Said
from broker.web.identity import ending
from broker.web.reader import Reader
from broker.web.refusal import GOOD_BYE_SECONDS
from broker.web.services import Encode, Services, to_json

__all__ = ["ActionRow", "Caller"]

FOLLOWED: Final = 1000
"""Sessions and rooms that one connection may follow, or have made for itself alone, at the same time."""


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
        asks: what the permission gates are asked for, where that is not its name.
    """

    name: str
    run: Callable[["Caller", Any, RequestId | None], Awaitable[None] | None]
    decode: Callable[[bytes], Any]
    resource: Callable[[Any], str | None]
    free: bool = False
    says: Said | None = None
    asks: str | None = None

    def about(self, payload: Any) -> str:
        """Return what it is about, so that what somebody asks about one thing keeps its order."""
        return self.resource(payload) or self.name


class Caller:
    """One client that asks for things.

    Args:
        services: the broker's parts.
        peer: who it is.
        ref: its connection, where answers go.
        guest: how it is counted until it is known who it is; None if it is not.

    Attributes:
        deadline: closes one that was let in to say who it is, and has not; None for everybody else. Until then its
            first message has to be `auth`, and whatever is refused to it ends its connection.
        authenticating: whether a token that it has shown is being looked at.
        reader: reads its socket; None before that is so.
        watch: knows what it has asked for, where a plugin wants to see what becomes of it.
    """

    __slots__ = ("authenticating", "deadline", "guest", "peer", "reader", "ref", "sender", "services")

    def __init__(self, services: Services, peer: Peer, ref: LoopRef[Connection], guest: Guest | None = None) -> None:
        self.services = services
        self.ref = ref
        self.guest = guest
        self.deadline: Timer | None = None
        self.authenticating = False
        self.reader: Reader | None = None
        self.become(peer)

    def become(self, peer: Peer) -> None:
        """Be this peer from now on: what is asked for next is asked for by it."""
        self.peer = peer
        self.sender = to_json({"connection_id": peer.connection_id, "user": peer.principal.user})

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

    def respond(self, request_id: RequestId | None, data: bytes, *, handled: bool = False) -> None:
        """Send a response; `data` is JSON, `handled` whether it is a plugin's or the host's."""
        if request_id is not None and not self.ref.actor_stopped.is_set():
            self.ref.tell(Response(request_id, data, handled), urgent=True)

    def reply(self, request_id: RequestId | None, encode: Encode = to_json) -> SocketReply:
        """Return where an actor's answer to a request goes."""
        return SocketReply(self.ref, request_id, encode, self.services.failure)

    def may_follow(self) -> None:
        """Refuse to follow one more log than a connection may (P7).

        Raises:
            BrokerError: `overloaded`.
        """
        connection = self.ref.actor
        if connection is not None and connection.holds() >= FOLLOWED:
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
