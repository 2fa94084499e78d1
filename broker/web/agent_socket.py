"""`GET /agent`: agents that dial in, from the handshake to the pool of the profile that they serve.

An agent needs the scope `agent`. Who comes without it, with a bad token or for a profile that is none of kind
`worker` is let in and told so by the close code, which says whether to come back (PROTOCOL section 2c).
"""

import asyncio
from typing import Final

import attrs
from aiohttp import web
from loguru import logger

from broker.agents.remote.carrier import CLOSE_SECONDS, Carrier
from broker.agents.remote.frames import FRAME_LIMIT, SUBPROTOCOL
from broker.errors import BrokerError, CloseCode
from broker.messages import Principal
from broker.web.doors import check_origin, choose_protocol
from broker.web.identity import identify
from broker.web.problems import problem
from broker.web.services import SERVICES, Services

__all__ = ["add_agent_door"]

_CLOSED_WITH: Final = {
    "forbidden": CloseCode.FORBIDDEN,
    "token_expired": CloseCode.BAD_TOKEN,
    "unauthenticated": CloseCode.BAD_TOKEN,
}
"""How those are closed who are not wanted, by why; agents see it where they would not see a refused handshake."""


@attrs.define
class _Hall:
    """How many were let in and have not left."""

    inside: int = 0


_HALL: Final = web.AppKey("_HALL", _Hall)


def add_agent_door(app: web.Application) -> None:
    """Let agents in at `/agent`, and send them away when the server stops."""
    app[_HALL] = _Hall()
    app.router.add_get("/agent", _agent_socket)
    app.on_shutdown.append(_send_away)


async def _send_away(app: web.Application) -> None:
    for worker in app[SERVICES].workers.values():
        await worker.close()


async def _agent_socket(request: web.Request) -> web.StreamResponse:
    """Serve one agent from its handshake to its end."""
    services = request.app[SERVICES]
    hall = request.app[_HALL]
    try:
        _let_in(request, services, hall.inside)
    except BrokerError as e:
        return problem(e, 400 if e.code == "invalid_message" else None)
    principal = await _authenticated(request)
    if isinstance(principal, BrokerError) and principal.code not in _CLOSED_WITH:
        return problem(principal)
    socket = web.WebSocketResponse(
        autoping=False,
        compress=False,
        decode_text=False,
        max_msg_size=FRAME_LIMIT + 1,  # aiohttp refuses what is as large as its limit
        protocols=(SUBPROTOCOL,),
        timeout=CLOSE_SECONDS,
    )
    hall.inside += 1
    try:
        await socket.prepare(request)
        if request.transport is not None:
            await _meet(socket, request, request.transport, principal)
    finally:
        hall.inside -= 1
    return socket


async def _meet(
    socket: web.WebSocketResponse[bool],
    request: web.Request,
    transport: asyncio.WriteTransport,
    principal: Principal | BrokerError,
) -> None:
    services = request.app[SERVICES]
    stats, heartbeat = services.stats, services.settings.heartbeat.interval
    async with Carrier(socket, transport, services.clock, heartbeat=heartbeat, errors=stats.errors) as carrier:
        if isinstance(principal, BrokerError):
            carrier.refuse(principal, _CLOSED_WITH[principal.code])
        else:
            await _serve(carrier, services, principal, request.remote or "")


async def _authenticated(request: web.Request) -> Principal | BrokerError:
    """Return who wants to be an agent, or why it may not be one."""
    try:
        principal = await identify(request, SUBPROTOCOL)
    except BrokerError as e:
        return e
    return principal if "agent" in principal.scopes else BrokerError("forbidden", "Agents need the scope agent.")


def _let_in(request: web.Request, services: Services, inside: int) -> None:
    """Look at a handshake as far as it shows.

    Raises:
        BrokerError: it is refused.
    """
    if not services.ready:
        raise BrokerError("unavailable", "The broker is stopping.", retry_after=1.0)
    listen = services.settings.listen
    if inside >= listen.max_connections:
        raise BrokerError("unavailable", "There are as many agents as there may be connections.", retry_after=5.0)
    host = request.headers.get("Host")
    check_origin(request.headers.get("Origin"), scheme=request.scheme, host=host, allowed=listen.origins)
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    choose_protocol(offered, [SUBPROTOCOL], SUBPROTOCOL)


async def _serve(carrier: Carrier, services: Services, principal: Principal, address: str) -> None:
    hello = await carrier.hello()
    if hello is None:
        logger.info("an agent from {} was not taken: {}", address, carrier.reason)
        return
    worker = services.workers.get(hello.agent)
    if worker is None:
        known = ", ".join(sorted(services.workers)) or "none"
        carrier.refuse(
            BrokerError("not_found", f"No profile of kind worker has that name; there are: {known}."),
            CloseCode.FORBIDDEN,
        )
        return
    about = logger.bind(agent=hello.agent)
    about.info("an agent from {} is there: version {!r}, {} turns", address, hello.version, hello.capacity)
    await worker.accept(carrier, hello, principal.user)
    about.info("an agent from {} is gone: {}", address, carrier.reason)
