"""Everything else over HTTP: health, the page, and the API (PROTOCOL section 5)."""

from importlib.resources import files
from typing import Any, Final

from aiohttp import web

from broker import __version__
from broker.errors import BrokerError
from broker.web.api.serving import add_api
from broker.web.problems import Handler
from broker.web.services import SERVICES, to_json

__all__ = ["add_routes"]

_TYPES: Final = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    router = app.router
    router.add_get("/health", _health)
    router.add_get("/livez", _livez)
    router.add_get("/readyz", _readyz)
    add_api(app)
    for name, response in _static_files().items():
        router.add_get("/" if name == "index.html" else f"/static/{name}", response)


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


# -- the page -----------------------------------------------------------------------------------------


def _static_files() -> dict[str, Handler]:
    """Return a handler for each file of the page, read once: few, small, and the same for everybody."""
    handlers: dict[str, Handler] = {}
    for file in files("broker.web").joinpath("static").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if file.is_file() and kind is not None:
            handlers[file.name] = _serve_bytes(file.read_bytes(), kind)
    return handlers


def _serve_bytes(body: bytes, kind: str) -> Handler:
    charset = "utf-8" if kind.startswith("text/") else None

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset=charset, headers=_HEADERS)

    return serve
