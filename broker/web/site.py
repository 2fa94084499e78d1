"""Everything else over HTTP: health, the pages, and the API (PROTOCOL section 5)."""

from typing import Any

from aiohttp import web

from broker import __version__
from broker.errors import BrokerError
from broker.web.api.serving import add_api
from broker.web.pages import add_pages
from broker.web.services import SERVICES, to_json

__all__ = ["add_routes"]


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    router = app.router
    router.add_get("/health", _health)
    router.add_get("/livez", _livez)
    router.add_get("/readyz", _readyz)
    add_api(app)
    add_pages(app)


# -- health -----------------------------------------------------------------------------------------


async def _health(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    ready = services.ready and services.store.healthy
    return _json(
        {
            "status": "ok" if ready else "unavailable",
            "version": __version__,
            "connections": services.stats.connections,
            "uptime": round(services.clock.monotonic() - services.stats.started_at, 3),
            "node": services.node,
        }
    )


async def _livez(_: web.Request) -> web.Response:
    return _json({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    trouble = request.app[SERVICES].trouble()
    if trouble is not None:
        raise BrokerError("unavailable", trouble, retry_after=1.0)
    return _json({"status": "ok"})


def _json(value: Any) -> web.Response:
    return _body(to_json(value))


def _body(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers={"X-Content-Type-Options": "nosniff"})
