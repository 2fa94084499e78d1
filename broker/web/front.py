"""The broker's front: the socket it listens on, the doors, and aiohttp behind them."""

import asyncio
import socket
from typing import Final, Protocol

from aiohttp import web
from loguru import logger

from broker.config import Listen
from broker.vitals.descriptors import room_for
from broker.web.admission import SPARE, Guest
from broker.web.application import make_web_app
from broker.web.deadlines import UNFINISHED, Deadlines
from broker.web.listener import LINGERING, Listener, bind
from broker.web.server import Line, is_slow
from broker.web.services import Services

__all__ = ["CannotListen", "Door", "Front"]

HANG_SECONDS: Final = 0.25
"""How long what is still being answered has, twice, when the front is closed."""


class CannotListen(Exception):  # noqa: N818 - the state, not the layer
    """The address cannot be had; the text says why, and what to do."""


class Door(Protocol):
    """What lets sockets and requests in.

    Attributes:
        port: the TCP port they come to.
    """

    port: int

    async def start(self) -> None:
        """Begin to serve."""

    async def stop(self) -> None:
        """Serve nobody any more."""

    def resize(self) -> None:
        """Let in as many as the configuration says by now."""


class Front:
    """Serves a broker on a port of its own.

    Args:
        services: the broker's parts.

    Attributes:
        port: the TCP port, also where any free one was asked for.

    Raises:
        PluginRefused: a plugin's route cannot be served.
        CannotListen: the address cannot be had.
    """

    def __init__(self, services: Services) -> None:
        limits = services.settings.limits
        app = make_web_app(services)
        sock = _bind(services.settings.listen)
        self.port: int = sock.getsockname()[1]
        self._services = services
        self._unfinished = app[UNFINISHED]
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=HANG_SECONDS)
        self._deadlines = Deadlines(limits.handshake, services.clock)
        self._listener = Listener(sock, services.admission, self._serve, services.clock)
        # Bodies stay packed: aiohttp would unpack each of them, one that nobody reads too, a thousandfold and at once.
        self._options = {"access_log": None, "auto_decompress": False, "lingering_time": limits.handshake}

    async def start(self) -> None:
        """Begin to serve."""
        if is_slow():
            logger.warning("aiohttp has no C extensions here, so HTTP is slower and less tested; install its wheel")
        self.resize()
        await self._runner.setup()
        self._listener.start()

    def resize(self) -> None:
        """Let in as many as the configuration says, or as the system has descriptors for."""
        wanted = self._services.settings.listen.max_connections
        self._services.admission.limit = room_for(wanted, SPARE + LINGERING)

    async def stop(self) -> None:
        """Accept nobody, and let go of who is there."""
        self._listener.stop()
        await self._runner.cleanup()
        self._deadlines.stop()
        self._unfinished.stop()

    def _serve(self, guest: Guest) -> asyncio.Protocol:
        server = self._runner.server
        if server is None:
            raise ConnectionAbortedError("the broker stops")
        return Line(server, guest, self._services.admission, self._deadlines, **self._options)


def _bind(listen: Listen) -> socket.socket:
    try:
        return bind(listen.host, listen.port)
    except OSError as e:
        why = f"cannot listen on {listen.host}:{listen.port}: {e.strerror or e}"
        raise CannotListen(f"{why}; stop what uses it or choose another with --port") from e
