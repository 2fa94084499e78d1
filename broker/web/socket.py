"""`GET /ws`: from the handshake to the last frame of a client's socket."""

from aiohttp import web

from broker import __version__
from broker.actors.connection import Connection
from broker.actors.ref import LoopRef
from broker.errors import BrokerError
from broker.hooks import Peer, Undeclared
from broker.ids import new_id
from broker.messages import Principal
from broker.protocol.outgoing import Welcome
from broker.web.actions import ACTIONS
from broker.web.caller import Caller
from broker.web.doors import choose_protocol, guest_of
from broker.web.identity import admit, formats_offered, without_credentials
from broker.web.login import NOBODY, enter, leave, wait
from broker.web.passage import Passage
from broker.web.problems import problem
from broker.web.reader import FrameSocket
from broker.web.receiver import ABNORMAL, Receiver
from broker.web.refusal import turn_away
from broker.web.services import SERVICES, Services

__all__ = ["client_socket"]


async def client_socket(request: web.Request) -> web.StreamResponse:
    """Serve one client from its handshake to its end."""
    services = request.app[SERVICES]
    try:
        protocol = _let_in(request, services)
    except BrokerError as e:
        services.stats.handshakes[e.code] += 1
        return problem(e, 400 if e.code == "invalid_message" else None)
    try:
        who = await admit(request, protocol)
    except BrokerError as e:
        services.stats.handshakes[e.code] += 1
        return await turn_away(request, protocol, e)
    socket = FrameSocket(protocol, compress=services.settings.listen.compression)
    await socket.prepare(without_credentials(request))
    services.stats.handshakes["accepted"] += 1
    peer = Peer(new_id(), who if isinstance(who, Principal) else NOBODY, request.remote or "", protocol)
    await _serve(socket, request, services, peer, who.seconds if isinstance(who, Undeclared) else None)
    return socket


def _let_in(request: web.Request, services: Services) -> str:
    """Return the wire format of a client that may come in: what its path names, else what it offers.

    Raises:
        BrokerError: it may not.
    """
    offered, known = formats_offered(request), list(services.formats)
    named = request.match_info.get("format")
    if named is None:
        return choose_protocol(offered, known, services.settings.listen.default_protocol)
    if named not in known:
        raise BrokerError("not_found", "There is no such wire format.", hint=", ".join(known))
    return choose_protocol(offered, [named], named)


async def _serve(
    socket: FrameSocket, request: web.Request, services: Services, peer: Peer, declare_within: float | None
) -> None:
    transport = request.transport
    if transport is None:
        return  # gone between the handshake and now
    wire = services.formats[peer.protocol]
    dialect = wire.dialect(request.query)
    ref = Connection.start(peer, wire, transport, int(socket.compress), services.connection, dialect)
    ref.tell(_welcome(services, peer))
    services.stats.connect()
    services.heartbeats.add(ref)
    caller = Passage(services, ACTIONS, peer, dialect or wire, ref, guest_of(request))
    if caller.watch is not None and ref.actor is not None:
        ref.actor.told = caller.watch.told
    if dialect is not None and ref.actor is not None:
        ref.actor.ask = caller.ask
    if declare_within is None:
        enter(caller)
    else:
        wait(caller, declare_within)
    code = ABNORMAL
    try:
        code = await Receiver(caller).receive(socket, request)
    finally:
        _farewell(services, caller, ref, code)
        transport.close()
        if transport.get_write_buffer_size():  # a peer that said good-bye may still never read what waits for it
            services.clock.call_later(services.connection.patience, transport.abort)


def _farewell(services: Services, caller: Caller, ref: LoopRef[Connection], code: int) -> None:
    services.heartbeats.remove(ref)
    services.stats.connections -= 1
    services.stats.closes[code] += 1
    leave(caller, code)
    if ref.actor is not None:
        ref.actor.stop()


def _welcome(services: Services, peer: Peer) -> Welcome:
    settings = services.settings
    return Welcome(
        connection_id=peer.connection_id,
        user=peer.principal.user,
        protocol=peer.protocol,
        server=f"actor-broker/{__version__}",
        node=services.node,
        heartbeat=settings.heartbeat.interval,
        max_message_bytes=settings.limits.message_bytes,
    )
