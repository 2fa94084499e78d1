"""Each request over HTTP, counted, and in the log where `log.access` asks for it."""

from http import HTTPStatus
from time import monotonic
from typing import Final

import attrs
from aiohttp import web
from loguru import logger

from broker.messages import Principal
from broker.vitals.journal import UNKEPT
from broker.web.problems import Handler
from broker.web.services import SERVICES

__all__ = ["introduce", "place_visit", "visits"]

PATH: Final = 256
"""Characters of a path that are logged."""
LOG: Final = "/api/v1/log"
"""Where the log is read; who follows it would find himself there."""
GONE: Final = 499
"""Of a request whose client did not wait for the answer; nobody is told this status."""


@attrs.define(eq=False)
class Visit:
    """What is found out about a request on its way in.

    Attributes:
        address: its client's address, past the trusted proxies.
        user: who asks, where that was asked and is somebody.
    """

    address: str
    user: str | None = None


_VISIT: Final = web.RequestKey("_VISIT", Visit)


def introduce(request: web.Request, by: Principal) -> None:
    """Note who makes a request."""
    visit = request.get(_VISIT)
    if visit is not None:
        visit.user = by.user


@web.middleware
async def visits(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count a request by what it is answered with; first of all, so that those that the doors refuse count too."""
    visit = request[_VISIT] = Visit(request.remote or "")
    began = monotonic()
    status = GONE
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as e:
        status = e.status
        raise
    finally:
        if status != HTTPStatus.SWITCHING_PROTOCOLS:  # a socket, which the log knows by its coming and going
            services = request.app[SERVICES]
            services.stats.requests[f"{status // 100}xx"] += 1
            if services.settings.log.access:
                _log(request, visit, status, monotonic() - began)
    return response


@web.middleware
async def place_visit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note where a request comes from, once the doors have looked past the proxies."""
    request[_VISIT].address = request.remote or ""
    return await handler(request)


def _log(request: web.Request, visit: Visit, status: int, seconds: float) -> None:
    path = request.rel_url.raw_path[:PATH]  # without the query, in which tickets travel
    who = "" if visit.user is None else f" as {visit.user}"
    text = "{} {} {} in {:.1f} ms from {}{}"
    line = logger.bind(**{UNKEPT: True}) if path == LOG else logger
    line.info(text, request.method, path, status, seconds * 1000, visit.address, who)
