"""Who is at the other end of a request: asked of the plugins, the same way for sockets and for HTTP."""

from aiohttp import web

from broker.errors import BrokerError
from broker.hooks import Handshake, Undeclared
from broker.messages import ANONYMOUS, Principal
from broker.web.services import SERVICES

__all__ = ["identify"]


async def identify(request: web.Request, protocol: str) -> Principal:
    """Return who asks; anonymous if no plugin says who is who.

    Args:
        request: the request, or the handshake of a socket.
        protocol: the wire format agreed on, `http` for a request.

    Raises:
        BrokerError: a plugin refuses.
    """
    hooks = request.app[SERVICES].hooks
    if not hooks.handshake:
        return ANONYMOUS
    handshake = Handshake(
        path=request.path,
        headers=request.headers,
        query=request.query,
        remote=request.remote or "",
        origin=request.headers.get("Origin"),
        protocol=protocol,
    )
    found = await hooks.identify(handshake) or ANONYMOUS
    if isinstance(found, Undeclared):
        raise BrokerError("unauthenticated")
    return found
