"""Routes that plugins bring: after the broker's own, and behind the same doors where they name a scope."""

import warnings
from collections.abc import Iterable
from functools import partial

from aiohttp import web

from broker.errors import BrokerError
from broker.extensions.fence import contained
from broker.extensions.offers import Mounted, PluginRefused
from broker.hooks import Route
from broker.messages import Principal
from broker.web.api.doors import preflight
from broker.web.api.endpoint import PREFIX
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
    _add_preflights(app, [mounted.route for mounted in services.hooks.routes])


def _add_preflights(app: web.Application, routes: Iterable[Route]) -> None:
    """Have browsers told what pages may send to the routes below the API's prefix, as to the API's own."""
    methods: dict[str, list[str]] = {}
    for route in routes:
        if route.path.startswith(f"{PREFIX}/"):
            methods.setdefault(route.path, []).append(route.method.upper())
    known = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    for path, allowed in methods.items():
        if known.isdisjoint({("OPTIONS", path), ("*", path)}):
            app.router.add_route("OPTIONS", path, partial(_preflight, [*allowed, "OPTIONS"]))


async def _preflight(methods: list[str], request: web.Request) -> web.StreamResponse:
    check_page(request)
    return preflight(request, methods)


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
