"""Errors over HTTP: RFC 9457 problem details with the codes of PROTOCOL 2b."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from broker.errors import BrokerError
from broker.web.services import SERVICES

__all__ = ["problem", "problems"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CODES = {400: "invalid_message", 404: "not_found", 413: "too_large", 503: "unavailable"}


def problem(error: BrokerError, status: int | None = None) -> web.Response:
    """Return an error as a response; `status` where the table's own does not fit."""
    number = status or error.status.value
    body = {"type": f"urn:actor-broker:error:{error.code}", "title": error.message, "status": number, **error.as_data()}
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return web.Response(
        status=number, body=msgspec.json.encode(body), headers=headers, content_type="application/problem+json"
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer whatever goes wrong as problem details; what is no refusal is logged and told as a trace id only."""
    try:
        return await handler(request)
    except web.HTTPException as e:
        if e.status < 400:  # noqa: PLR2004 - a redirect is no problem
            raise
        response = problem(BrokerError(_CODES.get(e.status, "invalid_message"), e.reason), e.status)
        if allow := e.headers.get("Allow"):
            response.headers["Allow"] = allow
        return response
    except Exception as e:  # noqa: BLE001 - one request's failure is its own
        return problem(request.app[SERVICES].refusal(e))
