"""A broker behind somebody else's server: the same application, given requests one by one, without a port of its own.

The paths that it is asked for lose what they have in front of the broker's own, so that nothing inside knows where
it is. What only a server can see is not there: how long a head takes to come, and connections that say nothing. What
can be seen of a request holds as it does at the broker's own door: who is counted, who may stay, and which names and
pages are ours.
"""

import re
from typing import Final

from aiohttp import web
from yarl import URL

from broker.config.checks import asks_for_tokens
from broker.errors import BrokerError
from broker.web.application import make_web_app
from broker.web.deadlines import UNFINISHED
from broker.web.doors import ARRIVAL, Arrival, is_loopback
from broker.web.problems import problem, problem_of
from broker.web.services import Services

__all__ = ["Embedded", "Entrance"]

TAIL: Final = "/{tail:.*}"
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")
"""What needs no escaping, so that there is one way to write it."""
RETRY_SECONDS: Final = 1.0


class Embedded:
    """What lets sockets and requests in that somebody else's server has taken.

    Args:
        services: the broker's parts.

    Attributes:
        port: 0, since there is none.

    Raises:
        PluginRefused: a plugin's route cannot be served.
    """

    def __init__(self, services: Services) -> None:
        self.port = 0
        self._services = services
        self._app = make_web_app(services)
        self._runner = web.AppRunner(self._app, access_log=None)

    async def start(self) -> None:
        """Begin to serve."""
        self.resize()
        await self._runner.setup()

    async def stop(self) -> None:
        """Serve nobody any more."""
        await self._runner.cleanup()
        self._app[UNFINISHED].stop()

    def resize(self) -> None:
        """Let in as many as the configuration says by now; how many files the process may open is not ours to say."""
        self._services.admission.limit = self._services.settings.listen.max_connections

    async def serve(self, request: web.Request, path: str) -> web.StreamResponse:
        """Answer a request.

        Args:
            request: as the server has it.
            path: the raw path in the broker's own eyes, such as `/ws`.
        """
        server, admission = self._runner.server, self._services.admission
        if server is None:
            return problem(_absent())
        try:
            bound_to = self._place_of(request)
            guest = admission.admit(request.remote or "")
        except BrokerError as e:
            return problem_of(self._services, e)
        try:
            url = URL.build(path=path, query_string=request.rel_url.raw_query_string, encoded=True)
            inner = request.clone(rel_url=url, client_max_size=self._services.settings.limits.message_bytes)
            inner[ARRIVAL] = Arrival(guest, bound_to)
            return await server.request_handler(inner)
        finally:
            admission.leave(guest)

    def _place_of(self, request: web.Request) -> str:
        """Return the address that a request came to; what `listen.host` says where that is none, as with a Unix socket.

        Raises:
            BrokerError: `forbidden`: it can be reached from elsewhere, and nobody has to show a token. A broker with a
                port of its own would not have started.
        """
        settings = self._services.settings
        name = request.get_extra_info("sockname")
        place = str(name[0]) if isinstance(name, tuple) else settings.listen.host
        if not is_loopback(place) and not settings.listen.insecure and not asks_for_tokens(settings):
            text = "Nobody has to show a token here, so only this machine may come in."
            raise BrokerError("forbidden", text, hint="load an auth plugin, or set listen.insecure")
        return place


class Entrance:
    """A place among an application's routes, from before the broker is there until after it is gone.

    Args:
        prefix: what the paths of the broker's requests begin with, such as `/broker`; empty for nothing.

    Attributes:
        door: where they go; None while there is no broker.

    Raises:
        ValueError: the prefix is none.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/")
        if not _PREFIX.fullmatch(self._prefix):
            raise ValueError(f"a prefix is a path such as /broker, of plain letters and digits, not {prefix!r}")
        self.door: Embedded | None = None

    def add_to(self, app: web.Application) -> None:
        """Take the place; routes of the application that say more of a path go before it.

        Raises:
            RuntimeError: the application has started.
        """
        if self._prefix:
            app.router.add_get(self._prefix, _to_the_page)
        app.router.add_route("*", self._prefix + TAIL, self._serve, expect_handler=_leave_it_to_the_broker)

    def open(self, services: Services) -> Embedded:
        """Make the door of a broker, and let in by it from now on."""
        self.door = Embedded(services)
        return self.door

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.door is None:
            return problem(_absent())
        resource = request.match_info.route.resource
        before = "" if resource is None else resource.canonical.removesuffix("/{tail}")
        return await self.door.serve(request, request.rel_url.raw_path[len(before) :])


async def _to_the_page(request: web.Request) -> web.StreamResponse:
    """Send a browser to the page, from where the page's own links lead on; relative, so that no proxy misleads it."""
    raise web.HTTPTemporaryRedirect(f"{request.rel_url.raw_path.rpartition('/')[2]}/")


async def _leave_it_to_the_broker(_: web.Request) -> None:
    """Let nobody send a body yet: whether it is wanted is said by the route inside."""


def _absent() -> BrokerError:
    return BrokerError("unavailable", "The broker is starting or stopping.", retry_after=RETRY_SECONDS)
