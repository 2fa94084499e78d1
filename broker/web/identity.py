"""Who is at the other end of a request: asked of the plugins, the same way for sockets and for HTTP."""

import re
from typing import Final

from aiohttp import hdrs, web

from broker.clock import Clock
from broker.errors import BrokerError, CloseCode
from broker.hooks import Handshake, Permission, Undeclared
from broker.messages import ANONYMOUS, Principal
from broker.tickets import Tickets
from broker.web.services import SERVICES, Services
from broker.web.visits import introduce

__all__ = [
    "admit",
    "check_fresh",
    "close_code",
    "ending",
    "formats_offered",
    "identify",
    "knock",
    "permit",
    "redeem",
    "require",
    "without_credentials",
]

TICKET: Final = "ticket"
"""The query parameter, and the prefix of a subprotocol, that a ticket travels in (PROTOCOL section 5)."""
_CREDENTIALS: Final = ("bearer.", f"{TICKET}.")
"""What begins items among the subprotocols that are no formats: they are read here, and never sent back."""
_BEARER: Final = re.compile(r"bearer[ \t]+(\S+)[ \t]*", re.IGNORECASE | re.ASCII)
_CLOSED_WITH: Final = {
    "forbidden": CloseCode.FORBIDDEN,
    "token_expired": CloseCode.BAD_TOKEN,
    "unauthenticated": CloseCode.BAD_TOKEN,
}


def close_code(error: BrokerError) -> CloseCode | None:
    """Return what a socket is closed with that may not come in for this reason; None for one better refused over HTTP.

    Browsers see nothing of a handshake that was refused, so what is about who they are is told by a close code
    (PROTOCOL 2c); what is about now (too many, too busy) can be told without taking them in.
    """
    return error.close or _CLOSED_WITH.get(error.code)


def ending(error: BrokerError) -> CloseCode:
    """Return how a socket ends that is open and may not stay for this reason."""
    temporary = error.retryable or error.code == "internal"
    return close_code(error) or (CloseCode.TRY_AGAIN_LATER if temporary else CloseCode.BAD_TOKEN)


async def permit(services: Services, check: Permission) -> None:
    """Ask the gates whether somebody may do something.

    Raises:
        BrokerError: one refuses.
    """
    waiting = services.hooks.run_gates(services.hooks.permission, check)
    if waiting is not None:
        await waiting


async def identify(request: web.Request, protocol: str) -> Principal:
    """Return who asks; anonymous if no plugin says who is who.

    Args:
        request: the request, or the handshake of an agent.
        protocol: the wire format agreed on, `http` for a request.

    Raises:
        BrokerError: a plugin refuses.
    """
    found = await _recognize(request, protocol)
    if isinstance(found, Undeclared):
        raise BrokerError("unauthenticated")
    return found


async def admit(request: web.Request, protocol: str) -> Principal | Undeclared:
    """Return who knocks at a client's socket, by a ticket of ours or by the plugins, or that it is to say so itself.

    Raises:
        BrokerError: it is not let in.
    """
    text = _ticket(request)
    if text is None:
        return await _recognize(request, protocol)
    tickets = request.app[SERVICES].tickets
    await _ask(request, protocol, tickets.look(text))
    return redeem(tickets, text)


async def knock(request: web.Request) -> Principal:
    """Return nobody, for a request that needs no token, if the gates let it in all the same: there may be too many.

    Raises:
        BrokerError: a plugin refuses.
    """
    nobody = Principal()
    await _ask(request, "http", nobody)
    return nobody


def redeem(tickets: Tickets, text: str) -> Principal:
    """Return whom a ticket lets in, and take it: after the gates, so that who is refused for now can show it again.

    Raises:
        BrokerError: `unauthenticated`: it is none, or was used or taken back while the gates were asked.
    """
    principal = tickets.redeem(text)
    if principal is None:
        raise BrokerError("unauthenticated", "That ticket was used before, is too old, or never was one.")
    return principal


async def require(request: web.Request, scope: str | None) -> Principal:
    """Return who asks for something over HTTP, if they have the scope; without one it is enough to be somebody.

    Raises:
        BrokerError: `unauthenticated`, `forbidden`, or what a plugin refuses with.
    """
    by = await identify(request, "http")
    introduce(request, by)
    if by is ANONYMOUS or scope in by.scopes:  # where nobody has to say who they are, everybody has every scope
        return by
    if by.user is None and not by.scopes:
        raise BrokerError("unauthenticated")
    if scope is None:
        return by
    raise BrokerError("forbidden", f"This takes the scope {scope}.")


async def _recognize(request: web.Request, protocol: str) -> Principal | Undeclared:
    """Return who asks, by a pass of ours or by the plugins; those are asked in any case, since they may refuse."""
    text, passes = _bearer(request, protocol), request.app[SERVICES].passes
    known = None if text is None else passes.look(text)
    found = await _ask(request, protocol, known)
    if known is None or text is None:
        return found
    if (still := passes.look(text)) is None:
        raise BrokerError("unauthenticated", "That pass was taken back.")
    return still


async def _ask(request: web.Request, protocol: str, known: Principal | None) -> Principal | Undeclared:
    services = request.app[SERVICES]
    if not services.hooks.handshake:
        return ANONYMOUS
    handshake = Handshake(
        path=request.path,
        headers=request.headers,
        query=request.query,
        remote=request.remote or "",
        origin=request.headers.get("Origin"),
        protocol=protocol,
        known=known,
    )
    found = await services.hooks.identify(handshake) or ANONYMOUS
    if isinstance(found, Principal):
        check_fresh(found, services.clock)
    return found


def check_fresh(principal: Principal, clock: Clock) -> None:
    """Refuse who is nobody any more, whatever a plugin says.

    Raises:
        BrokerError: `token_expired`.
    """
    if principal.expires_at is not None and clock.now() >= principal.expires_at:
        raise BrokerError("token_expired")


# -- subprotocols that are credentials ------------------------------------------------------------------


def formats_offered(request: web.Request) -> list[str]:
    """Return the wire formats that a client offers, without what else it says in the same header."""
    return [item for item in _items(request) if not item.startswith(_CREDENTIALS)]


def without_credentials(request: web.Request) -> web.Request:
    """Return a request as aiohttp may answer it: it would log those subprotocols that nobody chose, tokens too."""
    items, formats = _items(request), formats_offered(request)
    if items == formats:
        return request
    headers = request.headers.copy()
    del headers[hdrs.SEC_WEBSOCKET_PROTOCOL]
    if formats:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = ", ".join(formats)
    return request.clone(headers=headers)


def _bearer(request: web.Request, protocol: str) -> str | None:
    """Return the token that is shown, if it is one: where two differ, that is for the plugins to judge."""
    prefix = "bearer."
    fields = (_BEARER.fullmatch(value) for value in request.headers.getall(hdrs.AUTHORIZATION, []))
    shown = {match[1] for match in fields if match}
    if protocol != "http":
        shown |= {item.removeprefix(prefix) for item in _items(request) if item.startswith(prefix)}
    return shown.pop() if len(shown) == 1 else None


def _ticket(request: web.Request) -> str | None:
    prefix = f"{TICKET}."
    shown = [item.removeprefix(prefix) for item in _items(request) if item.startswith(prefix)]
    return request.query.get(TICKET) or next(iter(shown), None)


def _items(request: web.Request) -> list[str]:
    text = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, []))
    return [item for item in (part.strip() for part in text.split(",")) if item]
