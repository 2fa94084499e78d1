"""`GET /ws`: from the handshake to the last frame of a client's socket."""

import asyncio
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web
from loguru import logger

from broker import __version__
from broker.actors.connection import Connection, Hang, Pinged
from broker.actors.ref import LoopRef
from broker.actors.registry import Connected, Disconnected
from broker.errors import BrokerError, CloseCode
from broker.hooks import Peer
from broker.ids import new_id
from broker.protocol.edge import is_utf8
from broker.protocol.frames import close_frame
from broker.protocol.outgoing import Welcome
from broker.web.actions import ACTIONS
from broker.web.caller import Caller
from broker.web.doors import check_origin, choose_protocol
from broker.web.identity import identify
from broker.web.problems import problem
from broker.web.services import SERVICES, Services

__all__ = ["client_socket"]

ABNORMAL: Final = 1006
NO_CODE: Final = 1005
CLOSE_SECONDS: Final = 2.0
"""How long aiohttp may wait in a close of its own making; ours have their own deadline."""


async def client_socket(request: web.Request) -> web.StreamResponse:
    """Serve one client from its handshake to its end."""
    services = request.app[SERVICES]
    try:
        protocol = _let_in(request, services)
        principal = await identify(request, protocol)
    except BrokerError as e:
        services.stats.handshakes[e.code] += 1
        return problem(e, 400 if e.code == "invalid_message" else None)
    socket = web.WebSocketResponse(
        autoping=False,
        autoclose=False,
        compress=services.settings.listen.compression,
        decode_text=False,
        max_msg_size=services.settings.limits.message_bytes + 1,  # aiohttp refuses what is as large as its limit
        protocols=(protocol,),
        timeout=CLOSE_SECONDS,
    )
    await socket.prepare(request)
    services.stats.handshakes["accepted"] += 1
    peer = Peer(new_id(), principal, request.remote or "", protocol)
    await _serve(socket, request, services, peer)
    return socket


def _let_in(request: web.Request, services: Services) -> str:
    """Return the wire format of a client that may come in.

    Raises:
        BrokerError: it may not.
    """
    listen = services.settings.listen
    if not services.ready:
        raise BrokerError("unavailable", "The broker is stopping.", retry_after=1.0)
    if services.stats.connections >= listen.max_connections:
        raise BrokerError("unavailable", "There are as many connections as there may be.", retry_after=5.0)
    host = request.headers.get("Host")
    check_origin(request.headers.get("Origin"), scheme=request.scheme, host=host, allowed=listen.origins)
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()]
    return choose_protocol(offered, list(services.formats), listen.default_protocol)


async def _serve(socket: web.WebSocketResponse, request: web.Request, services: Services, peer: Peer) -> None:
    transport = request.transport
    if transport is None:
        return  # gone between the handshake and now
    wire = services.formats[peer.protocol]
    ref = Connection.start(peer, wire, transport, int(socket.compress), services.connection)
    ref.tell(_welcome(services, peer))
    services.stats.connections += 1
    services.stats.connections_total += 1
    services.registry.tell(Connected(ref, peer, services.clock.now()), urgent=True)
    services.heartbeats.add(ref)
    services.hooks.observe(services.hooks.connected, peer)
    logger.bind(conn=peer.connection_id).info("connected from {} speaking {}", peer.address, peer.protocol)
    code = ABNORMAL
    try:
        code = await _read(socket, Caller(services, ACTIONS, peer, wire, ref), transport)
    finally:
        _farewell(services, peer, ref, code)
        transport.close()
        if transport.get_write_buffer_size():  # a peer that said good-bye may still never read what waits for it
            services.clock.call_later(services.connection.patience, transport.abort)


async def _read(socket: web.WebSocketResponse, caller: Caller, transport: asyncio.Transport) -> int:
    """Take frames until the socket ends; return the close code it ended with."""
    while True:
        message = await socket.receive()
        kind = message.type
        if kind is WSMsgType.TEXT:
            _take_text(caller, message.data)
        elif kind in _TAKE:
            _TAKE[kind](caller.ref, message.data)
        else:
            return _end(socket, caller.ref, transport, message.data if kind is WSMsgType.CLOSE else None)


def _take_text(caller: Caller, text: bytes) -> None:
    connection = caller.ref.actor
    if connection is None or connection.close_code is not None:
        return  # we said good-bye; what was under way is not heard any more
    if is_utf8(text):
        caller.take(text)
    else:
        caller.ref.tell(Hang(CloseCode.INVALID_TEXT), urgent=True)


def _take_pong(ref: LoopRef[Connection], _: bytes) -> None:
    if ref.actor is not None:
        ref.actor.ponged()


def _take_ping(ref: LoopRef[Connection], payload: bytes) -> None:
    if ref.is_alive():
        ref.tell(Pinged(payload), urgent=True)


def _take_binary(ref: LoopRef[Connection], _: bytes) -> None:
    if ref.is_alive():
        ref.tell(Hang(CloseCode.UNSUPPORTED_DATA), urgent=True)


_TAKE: Final = {WSMsgType.PONG: _take_pong, WSMsgType.PING: _take_ping, WSMsgType.BINARY: _take_binary}


def _end(
    socket: web.WebSocketResponse, ref: LoopRef[Connection], transport: asyncio.Transport, code: int | None
) -> int:
    """Answer the peer's close, if that is how it ended, and return the code to remember."""
    ours = None if ref.actor is None else ref.actor.close_code
    if ours is not None:
        return ours
    if code is None:
        return socket.close_code or ABNORMAL
    if not transport.is_closing():
        transport.write(close_frame(_echoed(code)))
    return code or NO_CODE


def _echoed(code: int) -> int:
    """Return the code that answers the peer's: its own, unless RFC 6455 section 7.4 forbids that one on the wire."""
    if code == 0:
        return WSCloseCode.OK
    allowed = 1000 <= code <= 1014 and code not in {1004, 1005, 1006}  # noqa: PLR2004 - the RFC's numbers
    return code if allowed or 3000 <= code <= 4999 else WSCloseCode.PROTOCOL_ERROR  # noqa: PLR2004


def _farewell(services: Services, peer: Peer, ref: LoopRef[Connection], code: int) -> None:
    services.heartbeats.remove(ref)
    services.registry.tell(Disconnected(peer), urgent=True)
    services.stats.connections -= 1
    services.stats.closes[code] += 1
    services.hooks.observe(services.hooks.disconnected, peer, code)
    logger.bind(conn=peer.connection_id).info("disconnected with {}", code)
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
