"""`GET /agent`: agents that dial in, from the handshake to the pool of the profile that they serve.

An agent needs the scope `agent`. Who comes without it, with a bad token or for a profile that is none of kind
`worker` is let in and told so by the close code, which says whether to come back (PROTOCOL section 2c).
"""

import asyncio

import attrs
from aiohttp import web
from loguru import logger

from broker.actors.requests import Aside, Disconnected
from broker.agents.remote.carrier import Carrier
from broker.agents.remote.frames import SUBPROTOCOL, written
from broker.errors import CLOSE_REASONS, BrokerError, CloseCode
from broker.hooks import Peer, Permission
from broker.ids import new_id
from broker.messages import Principal
from broker.protocol.frames import text_frame
from broker.web.agent_frames import AgentFrames
from broker.web.doors import choose_protocol, guest_of
from broker.web.identity import close_code, ending, formats_offered, identify, permit, without_credentials
from broker.web.problems import problem
from broker.web.reader import FrameSocket
from broker.web.refusal import turn_away
from broker.web.services import SERVICES, Services

__all__ = ["add_agent_door"]


@attrs.frozen(eq=False)
class _Guest:
    """An agent as somebody who can be sent away."""

    carrier: Carrier

    def expire(self) -> None:
        """Leave: its token has expired."""
        self.hang(CloseCode.TOKEN_EXPIRED)

    def hang(self, code: CloseCode, reason: str | None = None) -> None:
        """Leave, with this code."""
        self.carrier.close(code, reason or CLOSE_REASONS[code])


def add_agent_door(app: web.Application) -> None:
    """Let agents in at `/agent`, and send them away when the server stops."""
    app.router.add_get("/agent", _agent_socket, name="agent", allow_head=False)
    app.on_shutdown.append(_send_away)


async def _send_away(app: web.Application) -> None:
    for worker in app[SERVICES].workers.values():
        await worker.close()


async def _agent_socket(request: web.Request) -> web.StreamResponse:
    """Serve one agent from its handshake to its end."""
    try:
        choose_protocol(formats_offered(request) or [""], [SUBPROTOCOL], SUBPROTOCOL)
    except BrokerError as e:
        return problem(e, 400 if e.code == "invalid_message" else None)
    principal = await _authenticated(request)
    if isinstance(principal, BrokerError):
        return await _turn_away(request, principal)
    socket = FrameSocket(SUBPROTOCOL)
    await socket.prepare(without_credentials(request))
    if request.transport is not None:
        await _meet(socket, request, request.transport, principal)
    return socket


async def _turn_away(request: web.Request, error: BrokerError) -> web.StreamResponse:
    """Refuse an agent; one that is refused by a close code is told in a frame before it as well."""
    if close_code(error) is None:
        return await turn_away(request, SUBPROTOCOL, error)
    services = request.app[SERVICES]
    services.stats.errors[error.code] += 1
    words = written("error", {"code": error.code, "message": error.message}, services.clock.now())
    return await turn_away(request, SUBPROTOCOL, error, said=text_frame(words))


async def _meet(socket: FrameSocket, request: web.Request, transport: asyncio.Transport, principal: Principal) -> None:
    services = request.app[SERVICES]
    frames = AgentFrames(socket, request, transport)
    stats, heartbeat = services.stats, services.settings.heartbeat.interval
    async with Carrier(frames, transport, services.clock, heartbeat=heartbeat, errors=stats.errors) as carrier:
        if guest := guest_of(request):
            guest.known()
        await _host(carrier, services, Peer(new_id(), principal, request.remote or "", SUBPROTOCOL))


async def _authenticated(request: web.Request) -> Principal | BrokerError:
    """Return who wants to be an agent, or why it may not be one."""
    try:
        principal = await identify(request, SUBPROTOCOL)
    except BrokerError as e:
        return e
    return principal if "agent" in principal.scopes else BrokerError("forbidden", "Agents need the scope agent.")


async def _host(carrier: Carrier, services: Services, peer: Peer) -> None:
    """Serve an agent for as long as its token is good, and nobody sends it away."""
    guest = _Guest(carrier)
    services.registry.tell(Aside(peer, guest.hang), urgent=True)
    services.expiry.watch(guest, peer.principal.expires_at)
    try:
        await _serve(carrier, services, peer.principal, peer.address)
    finally:
        services.expiry.forget(guest)
        services.registry.tell(Disconnected(peer), urgent=True)


async def _may_serve(carrier: Carrier, services: Services, principal: Principal, profile: str) -> bool:
    """Ask the plugins now that it can be sent away: what was revoked before, they know; what is after, finds it."""
    try:
        await permit(services, Permission(principal, "agent.serve", profile))
    except BrokerError as e:
        carrier.refuse(e, ending(e))
    return not carrier.closing()


async def _serve(carrier: Carrier, services: Services, principal: Principal, address: str) -> None:
    hello = await carrier.hello()
    if hello is None or not await _may_serve(carrier, services, principal, hello.agent):
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
