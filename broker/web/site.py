"""Everything else over HTTP: health, the page, and the API for backends (PROTOCOL section 5)."""

from importlib.resources import files
from typing import Any, Final

from aiohttp import web

from broker import __version__, operations
from broker.errors import BrokerError
from broker.hooks import Permission
from broker.messages import Principal
from broker.web.doors import check_host
from broker.web.identity import identify
from broker.web.problems import Handler
from broker.web.services import SERVICES, to_json
from broker.web.tracing import shown, trace_data
from broker.web.views import before_of, encode_messages, encode_records, sessions_page

__all__ = ["add_routes", "only_known_hosts"]

MAX_LIMIT: Final = 1000
MAX_DIGITS: Final = 15
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


@web.middleware
async def only_known_hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests under a name that cannot be ours, before anything looks at them."""
    check_host(request.headers.get("Host"), bound_to=request.app[SERVICES].settings.listen.host)
    return await handler(request)


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    router = app.router
    router.add_get("/health", _health)
    router.add_get("/livez", _livez)
    router.add_get("/readyz", _readyz)
    router.add_get("/api/v1/sessions", _sessions)
    router.add_get("/api/v1/sessions/{session_id}", _session)
    router.add_get("/api/v1/sessions/{session_id}/messages", _messages)
    router.add_get("/api/v1/sessions/{session_id}/records", _records)
    router.add_get("/api/v1/trace/{id}", _trace)
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
    services = request.app[SERVICES]
    if not services.ready:
        raise BrokerError("unavailable", "The broker is starting or stopping.", retry_after=1.0)
    if not services.store.healthy:
        raise BrokerError("unavailable", "The store does not take writes.", retry_after=1.0)
    return _json({"status": "ok"})


# -- the API for backends -----------------------------------------------------------------------------


async def _sessions(request: web.Request) -> web.Response:
    by = await _permit(request, "session.list", None)
    limit = _number(request, "limit", 50, most=MAX_LIMIT)
    before = before_of(request.query.get("cursor"))
    everyone = "admin" in by.scopes
    rows = await request.app[SERVICES].store.read("sessions", by.user, everyone=everyone, limit=limit, before=before)
    return _json(sessions_page(rows, limit))


async def _session(request: web.Request) -> web.Response:
    session_id = request.match_info["session_id"]
    by = await _permit(request, "session.attach", session_id)
    return _json(await request.app[SERVICES].ask_session(session_id, operations.Describe(by)))


async def _messages(request: web.Request) -> web.Response:
    return await _history(request, "messages")


async def _records(request: web.Request) -> web.Response:
    return await _history(request, "records")


async def _history(request: web.Request, kind: Any) -> web.Response:
    session_id = request.match_info["session_id"]
    by = await _permit(request, "session.history", session_id)
    before = _number(request, "before_seq", 0) or None
    operation = operations.History(by, before, _number(request, "limit", 100, most=MAX_LIMIT), kind)
    page = await request.app[SERVICES].ask_session(session_id, operation)
    return _body(encode_messages(page) if kind == "messages" else encode_records(page))


async def _trace(request: web.Request) -> web.Response:
    some_id = request.match_info["id"]
    by = await _permit(request, "trace", some_id)
    return _json(trace_data(await shown(request.app[SERVICES], some_id, by), some_id))


async def _permit(request: web.Request, operation: str, resource: str | None) -> Principal:
    """Return who asks, if the plugins let them.

    Raises:
        BrokerError: they do not.
    """
    hooks = request.app[SERVICES].hooks
    by = await identify(request, "http")
    waiting = hooks.run_gates(hooks.permission, Permission(by, operation, resource))
    if waiting is not None:
        await waiting
    return by


def _number(request: web.Request, name: str, default: int, most: int | None = None) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 0
    if value < 1 or (most is not None and value > most):
        raise BrokerError(
            "invalid_message", f"{name} must be a whole number from 1{f' to {most}' if most else ''}.", field=name
        )
    return value


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
