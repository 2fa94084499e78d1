"""Who may ask: origins, and the scope that backends have (PROTOCOL sections 5 and 7)."""

from collections.abc import Collection
from typing import Final

from aiohttp import web

from broker.messages import Principal
from broker.web.identity import require
from broker.web.services import SERVICES

__all__ = ["admit", "dress", "preflight"]

_READABLE: Final = "Idempotent-Replayed, Location, Retry-After"
_SENDABLE: Final = "Authorization, Content-Type, Idempotency-Key"
PREFLIGHT_SECONDS: Final = 600


async def admit(request: web.Request, scope: str | None) -> Principal:
    """Return who asks, if it is one of those for whom this is: who have the scope; without one everybody who is known.

    Raises:
        BrokerError: `unauthenticated`, `forbidden`, or what a plugin refuses with.
    """
    return await require(request, scope)


def dress(request: web.Request, response: web.StreamResponse) -> None:
    """Let pages of the listed origins read the answer, and let no cache mix it up with another's."""
    headers = response.headers
    headers["Vary"] = "Origin"
    headers.setdefault("Cache-Control", "no-store")
    origin = request.headers.get("Origin")
    if origin is not None and origin in request.app[SERVICES].settings.listen.origins:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _READABLE


def preflight(request: web.Request, methods: Collection[str]) -> web.Response:
    """Answer what a browser asks before it lets a page send more than a form could."""
    allow = ", ".join(methods)
    response = web.Response(status=204, headers={"Allow": allow})
    if request.headers.get("Origin") in request.app[SERVICES].settings.listen.origins:
        response.headers["Access-Control-Allow-Methods"] = allow
        response.headers["Access-Control-Allow-Headers"] = _SENDABLE
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
    return response
