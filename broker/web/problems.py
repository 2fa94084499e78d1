"""Errors over HTTP: RFC 9457 problem details with the codes of PROTOCOL 2b."""

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from broker.errors import BrokerError
from broker.web.services import SERVICES, Services

__all__ = ["Handler", "problem", "problem_of", "problems", "refused", "with_status"]

_HEADERS: Final = ("Allow", "Retry-After", "Sec-WebSocket-Version")
"""Headers of aiohttp's own refusals that go out with a problem."""
_STEP: Final = re.compile(r"\.([^.\[]+)|\[([^\]]*)\]")
"""A step of a JSON path: `.name` or `[index]`."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CODES: Final = {
    400: "invalid_message",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    413: "too_large",
    429: "rate_limited",
    503: "unavailable",
}
_GONE: Final = 499
"""For a client that left before it was answered; nobody reads it, so it is no failure either."""


def problem(error: BrokerError, status: int | None = None) -> web.Response:
    """Return an error as a response; `status` where the table's own does not fit."""
    number = int(status or error.status)
    body = {
        "type": f"urn:actor-broker:error:{error.code}",
        "title": error.message,
        "status": number,
        "category": error.category,
        **error.as_data(),
        "recovery": error.recovery,
    }
    if error.field is not None:
        body["place"] = {"field": error.field, **_pointer(error.field)}
    headers = {"X-Content-Type-Options": "nosniff"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if number == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        status=number, body=msgspec.json.encode(body), headers=headers, content_type="application/problem+json"
    )


def _pointer(field: str) -> dict[str, str]:
    """Return where in the body a field is, as a JSON pointer (RFC 6901); nothing for what is not in the body."""
    if not field.startswith("$"):
        return {}
    whole = field.partition("[...]")[0]  # in which of them, nobody says
    steps = [name or index for name, index in _STEP.findall(whole)]
    return {"pointer": "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in steps)}


def with_status(error: BrokerError, status: HTTPStatus) -> BrokerError:
    """Return the error with a status of its own, for what only HTTP can say."""
    error.status = status
    return error


def problem_of(services: Services, error: Exception) -> web.Response:
    """Return whatever went wrong as problem details; what is no refusal is logged and told as a trace id only.

    Raises:
        HTTPException: it is no error but a redirect.
    """
    headers = {}
    if isinstance(error, web.HTTPException):
        if error.status < HTTPStatus.BAD_REQUEST:
            raise error
        headers = {name: error.headers[name] for name in _HEADERS if name in error.headers}
        other = "invalid_message" if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal"
        code = _CODES.get(error.status, other)
        error = with_status(BrokerError(code, f"{error.reason}."), HTTPStatus(error.status))
    response = problem(refused(services, error))
    response.headers.update(headers)
    return response


def refused(services: Services, error: Exception) -> BrokerError:
    """Return the refusal that an exception amounts to, logged where nobody foresaw it, and counted."""
    refusal = services.refusal(error)
    services.stats.errors[refusal.code] += 1
    return refusal


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer whatever goes wrong as problem details."""
    try:
        return await handler(request)
    except Exception as e:  # noqa: BLE001 - one request's failure is its own
        if isinstance(e, ConnectionResetError) and (request.transport is None or request.transport.is_closing()):
            return web.Response(status=_GONE)
        return problem_of(request.app[SERVICES], e)
