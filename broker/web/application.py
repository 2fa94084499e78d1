"""The aiohttp application of a broker: everything that is served, and what all of it passes."""

from aiohttp import web

from broker.web.agent_socket import add_agent_door
from broker.web.deadlines import UNFINISHED, Deadlines
from broker.web.doors import doors
from broker.web.mounts import mount
from broker.web.problems import problems
from broker.web.services import SERVICES, Services
from broker.web.site import add_routes
from broker.web.socket import client_socket
from broker.web.visits import place_visit, visits

__all__ = ["make_web_app"]


def make_web_app(services: Services) -> web.Application:
    """Return the application.

    Raises:
        PluginRefused: a plugin's route cannot be served.
    """
    way_in = [visits, doors, place_visit, problems]
    app = web.Application(middlewares=way_in, client_max_size=services.settings.limits.message_bytes)
    app[SERVICES] = services
    beat = services.settings.heartbeat  # a peer that is that silent is given up too
    app[UNFINISHED] = Deadlines(beat.interval + beat.timeout, services.clock)
    app.on_response_prepare.append(_sign)
    app.router.add_get("/ws", client_socket, name="ws", allow_head=False)
    app.router.add_get("/ws/{format}", client_socket, name="ws.format", allow_head=False)
    add_agent_door(app)
    add_routes(app)
    mount(app, services)
    return app


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "actor-broker"  # aiohttp would name the versions of everything below
