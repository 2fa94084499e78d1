"""From the table of endpoints to aiohttp's routes."""

import math
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import attrs
from aiohttp import web

from broker.errors import BrokerError
from broker.hooks import Answered, Inbound, Peer
from broker.messages import Principal
from broker.web.api import (
    connections,
    inventory,
    log,
    overview,
    passes,
    projects,
    rooms,
    sessions,
    status,
    templates,
    tickets,
    turns,
)
from broker.web.api.asyncapi import asyncapi
from broker.web.api.doors import admit, dress, preflight
from broker.web.api.endpoint import ENDPOINTS, PREFIX, Call, Endpoint
from broker.web.api.openapi import openapi
from broker.web.api.reading import body_of, read_body, read_query
from broker.web.api.replays import Replays, Reply, check_key, name_of
from broker.web.doors import check_page
from broker.web.identity import knock
from broker.web.problems import Handler, problem, problem_of, refused
from broker.web.services import SERVICES, Services, to_json

__all__ = ["add_api"]

SUBJECTS: Final = (
    *(sessions, turns, rooms, projects, connections, tickets, passes, status),
    *(overview, inventory, log, templates),
)
"""The modules whose functions are the endpoints; importing them fills the table."""
PUBLIC_BYTES: Final = 1024
"""The largest body of somebody who is not known."""
_REPLAYS: Final = web.AppKey("_REPLAYS", Replays)
_JSON: Final = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}


@attrs.define(eq=False)
class _Seen:
    """What is known of a request, for those who want to see what became of it.

    Attributes:
        operation: what it asks for.
        began: when it came.
        by: who asks.
        size: bytes of its body.
        error: what it was refused with.
    """

    operation: str
    began: float
    by: Principal = attrs.Factory(Principal)
    size: int = 0
    error: BrokerError | None = None


def add_api(app: web.Application) -> None:
    """Add the API's routes."""
    methods: dict[str, list[str]] = {}
    for row in ENDPOINTS:
        methods.setdefault(row.path, []).append(row.method)
        add = app.router.add_get if row.method == "GET" else partial(app.router.add_route, row.method)
        add(PREFIX + row.path, _guarded(partial(_serve, row)))
    for name, describe in (("openapi", openapi), ("asyncapi", asyncapi)):
        methods[f"/{name}.json"] = ["GET"]
        app.router.add_get(f"{PREFIX}/{name}.json", _guarded(partial(_describe, describe)))
    for path, known in methods.items():
        allowed = [*known, *(["HEAD"] if "GET" in known else []), "OPTIONS"]
        app.router.add_route("OPTIONS", PREFIX + path, _guarded(partial(_preflight, allowed)))
    app.on_response_prepare.append(_dress)
    app.on_startup.append(_remember)


async def _remember(app: web.Application) -> None:
    app[_REPLAYS] = Replays(app[SERVICES].clock)


def _guarded(handler: Handler) -> Handler:
    """Return the handler behind the check of pages, and with problems as answers to whatever goes wrong."""

    async def serve(request: web.Request) -> web.StreamResponse:
        try:
            check_page(request)  # whatever it asks for: what needs no preflight is done, and only its answer kept back
            return await handler(request)
        except Exception as e:  # noqa: BLE001 - one request's failure is its own
            return problem_of(request.app[SERVICES], e)

    return serve


async def _dress(request: web.Request, response: web.StreamResponse) -> None:
    """Dress whatever is answered below the API's prefix, and be it that there is no such endpoint."""
    if f"{PREFIX}/" in request.path:
        dress(request, response)


async def _preflight(methods: list[str], request: web.Request) -> web.StreamResponse:
    return preflight(request, methods)


async def _describe(describe: Callable[[Services], bytes], request: web.Request) -> web.StreamResponse:
    return web.Response(body=describe(request.app[SERVICES]), headers={**_JSON, "Cache-Control": "no-cache"})


async def _serve(row: Endpoint, request: web.Request) -> web.StreamResponse:
    """Answer a request, and say how long that took."""
    seen = _Seen(row.operation, monotonic())
    try:
        return await _answer(row, request, seen)
    except BrokerError as e:
        seen.error = row.placed(e)
        raise seen.error  # noqa: B904 - it is the same
    finally:
        _tell(request, seen)


def _tell(request: web.Request, seen: _Seen) -> None:
    services, seconds = request.app[SERVICES], monotonic() - seen.began
    services.stats.request_seconds.observe(seconds)
    if services.hooks.answered:
        peer = Peer("", seen.by, request.remote or "", "http")
        answer = Answered(peer, seen.operation, seen.operation, None, seen.size, seconds, seen.error)
        services.hooks.observe(services.hooks.answered, answer)


async def _answer(row: Endpoint, request: web.Request, seen: _Seen) -> web.StreamResponse:
    """Let a request in, read it, and answer it, once for each key.

    Raises:
        BrokerError: it did not come so far that the endpoint was asked.
    """
    services = request.app[SERVICES]
    seen.by = by = await (knock(request) if row.public else admit(request, row.scope))
    most = min(services.settings.limits.message_bytes, PUBLIC_BYTES if row.public else math.inf)
    body = await body_of(request, int(most)) if row.takes_body else b""
    seen.size = len(body)
    call = Call(services, by, check_key(request.headers.get("Idempotency-Key")) if row.keyed else None)
    if services.hooks.message:  # as on a socket, where nothing is looked at before it either
        peer = Peer("", by, request.remote or "", "http")
        said = b"{}" if row.public else body  # what lets somebody in is nobody's to see, as with `auth`
        await call.gate(services.hooks.message, Inbound(peer, row.operation, len(body), row.operation, said, said))
    path = request.match_info
    payload = read_body(row, path, body) if row.takes_body else read_query(row, path, request.query)
    if not row.public:  # which asks about whom it is shown
        await call.permit(row.operation, row.about(payload))
    services.load.check(row.operation, row.about(payload))
    work = partial(_reply, row, call, payload, seen)
    if call.key is None:
        return _response(await work())
    reply, replayed = await request.app[_REPLAYS].once((name_of(by), row.method, request.path, call.key), body, work)
    response = _response(reply)
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _response(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers=reply.headers)


async def _reply(row: Endpoint, call: Call, payload: Any, seen: _Seen) -> Reply:
    """Return what an endpoint answers, or is refused with: a refusal may have to be given again as any answer."""
    try:
        answer = await row.run(call, await call.passed(row.operation, row.about(payload), payload))
    except Exception as e:  # noqa: BLE001 - as above
        seen.error = refusal = row.placed(refused(call.services, e))
        response = problem(refusal)
        final = not refusal.retryable and refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR
        return Reply(response.status, bytes(response.body or b""), dict(response.headers), final=final)  # type: ignore[arg-type]
    body = answer if isinstance(answer, bytes) else to_json(answer)
    return Reply(row.status, body, _JSON, final=True)
