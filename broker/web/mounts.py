"""Routes that plugins bring: after the broker's own, and behind the same doors where they name a scope."""

import warnings

from aiohttp import web

from broker.errors import BrokerError
from broker.extensions.fence import contained
from broker.extensions.offers import Mounted, PluginRefused
from broker.messages import Principal
from broker.web.doors import check_page
from broker.web.identity import require
from broker.web.problems import Handler
from broker.web.services import SERVICES, Services

__all__ = ["mount"]


def mount(app: web.Application, services: Services) -> None:
    """Add the plugins' routes to those that are there already.

    Raises:
        PluginRefused: a route is one of the broker's own, or its path is none.
    """
    own = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    for mounted in services.hooks.routes:
        route = mounted.route
        what = f"plugin {mounted.plugin!r}, route {route.method} {route.path}"
        if not own.isdisjoint({(route.method.upper(), route.path), ("*", route.path)}):
            raise PluginRefused(f"{what}: the broker itself has it")
        try:
            app.router.add_route(route.method, route.path, _serve(mounted))
        except (ValueError, TypeError, RuntimeError) as e:
            raise PluginRefused(f"{what}: {e}") from e


def _serve(mounted: Mounted) -> Handler:
    """Return a handler that asks the plugin's, and answers for it where that fails."""
    route = mounted.route

    async def ask(request: web.Request) -> web.StreamResponse:
        answer = await route.handler(request)
        if not isinstance(answer, web.StreamResponse):
            raise TypeError(f"a route returns a response; it returned {type(answer).__name__}")
        return answer

    async def serve(request: web.Request) -> web.StreamResponse:
        if route.scope is not None:
            check_page(request)
            _introduce(request, await require(request, route.scope))
        try:
            return await contained(ask(request))
        except (BrokerError, web.HTTPException):
            raise
        except Exception as e:
            where = f"route {route.method} {route.path}"
            raise request.app[SERVICES].hooks.broke(mounted.plugin, where, e) from e

    return serve


def _introduce(request: web.Request, by: Principal) -> None:
    # aiohttp would rather have a key of its own kind, which plugins would have to import of us.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        request["principal"] = by
