"""Who a client is while it is connected: let in to say so, known, known anew, and no longer (PROTOCOL 2a `auth`)."""

from functools import partial
from typing import Any, Final

import attrs
import pykka
from loguru import logger

from broker import operations as ops
from broker.actors.connection_mail import Followed
from broker.actors.following import FollowAnswer, Following, Unfollow, Unfollowing
from broker.actors.ref import InboxFull, LoopRef
from broker.actors.requests import Aside, Connected, Disconnected, Renewed
from broker.clock import rfc3339
from broker.errors import BrokerError, CloseCode
from broker.hooks import Auth, Permission
from broker.logs import limited
from broker.messages import Principal
from broker.protocol.outgoing import Entered, RequestId, RoomLeft, SessionDetached
from broker.protocol.parcel import Parcel
from broker.tasks import spawn
from broker.web.caller import Caller
from broker.web.identity import check_fresh, permit, redeem
from broker.web.services import to_json

__all__ = ["NOBODY", "FollowReply", "authenticate", "enter", "leave", "wait"]

NOBODY: Final = Principal()
"""Who somebody is that has still to say it: no user, and no scope."""
LINES: Final = 50
"""Lines a second that say who came, and as many that say who left: a crowd that comes and goes is counted."""
_FOLLOWING: Final = {"session": "session.attach", "room": "room.join"}
"""What somebody has to be allowed, to go on following a log of this kind."""


def wait(caller: Caller, seconds: float) -> None:
    """Have a client say within `seconds` who it is; until then it can only be sent away."""
    caller.deadline = caller.services.clock.call_later(seconds, partial(caller.hang, CloseCode.BAD_TOKEN))
    caller.services.registry.tell(Aside(caller.peer, caller.hang), urgent=True)


def enter(caller: Caller) -> None:
    """Let everybody know of a client that is known now, and have it leave when it is nobody any more."""
    services, peer = caller.services, caller.peer
    if caller.deadline is not None:
        caller.deadline.cancel()
        caller.deadline = None
    if caller.reader is not None:
        caller.reader.allow(services.settings.limits.message_bytes)
    if caller.guest is not None:
        caller.guest.known()
    services.registry.tell(Connected(caller.ref, peer, services.clock.now()), urgent=True)
    if caller.ref.actor is not None and caller.ref.actor.ask is not None:
        caller.ref.tell(Entered(), urgent=True)
    services.expiry.watch(caller, peer.principal.expires_at)
    services.hooks.observe(services.hooks.connected, peer)
    line = limited("connected", lines=LINES).bind(conn=peer.connection_id)
    line.info("connected from {} speaking {}", peer.address, peer.protocol)


def leave(caller: Caller, code: int) -> None:
    """Take leave of a client, as far as anybody knew of it."""
    services, peer = caller.services, caller.peer
    caller.reader = None  # which holds the caller
    services.registry.tell(Disconnected(peer), urgent=True)
    services.taps.end(peer.connection_id)
    services.expiry.forget(caller)
    if caller.deadline is not None:
        caller.deadline.cancel()
        logger.bind(conn=peer.connection_id).debug("left with {} before it had said who it is", code)
        return
    services.hooks.observe(services.hooks.disconnected, peer, code)
    limited("disconnected", lines=LINES).bind(conn=peer.connection_id).info("disconnected with {}", code)


async def authenticate(caller: Caller, token: str, request_id: RequestId | None) -> None:
    """Take a token that a client shows: to say who it is, or to stay who it is for longer.

    Raises:
        BrokerError: it is not taken. Who was known before stays so, for as long as was said then.
    """
    if caller.authenticating:
        raise BrokerError("busy", "Another token of this connection is being looked at.")
    caller.authenticating = True
    try:
        principal = await _recognize(caller, token)
    finally:
        caller.authenticating = False
    connection = caller.ref.actor
    if connection is None or connection.close_code is not None:
        return  # it has left meanwhile, or was sent away
    before = None if caller.deadline is not None else caller.peer.principal
    if before is not None and before.user != principal.user:
        raise BrokerError("forbidden", "A connection stays the same user's; connect anew as another one.")
    caller.become(attrs.evolve(caller.peer, principal=principal))
    connection.know(caller.peer)
    if before is None:
        enter(caller)
    else:
        caller.services.registry.tell(Renewed(caller.peer), urgent=True)
        caller.services.taps.recheck(caller.peer)
        caller.services.expiry.watch(caller, principal.expires_at)
        await _recheck(caller)
    caller.respond(request_id, to_json(_shown(principal)))


async def _recognize(caller: Caller, token: str) -> Principal:
    services = caller.services
    ticketed = services.tickets.look(token)
    known = ticketed or services.passes.look(token)
    if known is None and not services.hooks.auth:
        raise BrokerError("unavailable", "No auth plugin is loaded, so there is nobody to show a token to.")
    principal = await services.hooks.recognize(Auth(caller.peer, token, known))
    if ticketed is not None:
        principal = redeem(services.tickets, token)
    elif known is not None:
        principal = services.passes.look(token)  # it may have been taken back while the gates were asked
    if principal is None:
        raise BrokerError("unauthenticated", "Nobody here knows that token.")
    check_fresh(principal, services.clock)
    return principal


def _shown(principal: Principal) -> dict[str, object]:
    at = principal.expires_at
    return {
        "user": principal.user,
        "scopes": sorted(principal.scopes),
        "expires_at": None if at is None else rfc3339(at),
    }


# -- what a client follows that may do less than before -------------------------------------------------


class FollowReply:
    """Where the answer goes to a client that wants to follow a log; it may be another one by then, who may not.

    Args:
        caller: the client.
        request_id: its id of the request.
    """

    __slots__ = ("_caller", "_principal", "_reply")

    def __init__(self, caller: Caller, request_id: RequestId | None) -> None:
        self._caller = caller
        self._principal = caller.peer.principal
        self._reply = caller.reply(request_id)

    def set(self, value: Any = None, /) -> None:
        """Answer."""
        self._reply.set(value)
        if self._caller.peer.principal is not self._principal and type(value) is FollowAnswer:
            note = value.note
            if type(note) is Following:
                spawn(_recheck_log(self._caller, note.log, note.ref), name=f"check again who follows {note.log}")

    def set_exception(self, exc_info: Any = None, /) -> None:
        """Refuse."""
        self._reply.set_exception(exc_info)


async def _recheck(caller: Caller) -> None:
    """Take a client off the logs that it may not follow as who it is now.

    The connection is asked by a message, which finds all that was answered to who it was before; what is answered
    from now on, `FollowReply` looks at.
    """
    try:
        followed = await caller.ref.ask(Followed())
    except pykka.ActorDeadError:
        return
    except InboxFull:  # it cannot be found out, so it has to begin anew
        caller.hang(CloseCode.TRY_AGAIN_LATER)
        return
    for log, place in followed.items():
        await _recheck_log(caller, log, place)


async def _recheck_log(caller: Caller, log: str, place: LoopRef[Any]) -> None:
    principal = caller.peer.principal
    kind, _, name = log.partition(":")
    try:
        await permit(caller.services, Permission(principal, _FOLLOWING[kind], name))
    except BrokerError:
        _take_off(caller, log, place)
        return
    if kind == "session" and place.is_alive():
        place.tell(ops.Recheck(principal, caller.ref), urgent=True)  # its role, which a scope may have given it


def _take_off(caller: Caller, log: str, place: LoopRef[Any]) -> None:
    if place.is_alive():
        place.tell(Unfollow(caller.ref), urgent=True)
    if not caller.ref.is_alive():
        return
    kind, _, name = log.partition(":")
    caller.ref.tell(Unfollowing(log), urgent=True)
    caller.ref.tell(Parcel((SessionDetached(name) if kind == "session" else RoomLeft(name),)), urgent=True)
