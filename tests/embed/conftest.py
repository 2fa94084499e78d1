"""What tests of a broker inside of an aiohttp application share: the application under a plain aiohttp server."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import pytest
from aiohttp import ClientSession, web

from broker import Broker

Dial = Callable[..., Awaitable[Any]]


@attrs.define
class Server:
    """An application that is served, as its own program would."""

    runner: web.AppRunner
    port: int
    session: ClientSession

    async def get(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        """Return the status and the body, JSON already read."""
        async with self.session.request(method, f"http://127.0.0.1:{self.port}{path}", **options) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if "json" in answer.content_type else body.decode()


Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve an application, or one that has nothing but a broker."""
    servers: list[Server] = []

    async def start(what: web.Application | Broker, host: str = "127.0.0.1") -> Server:
        app = what if isinstance(what, web.Application) else web.Application()
        if isinstance(what, Broker):
            what.setup(app)
        runner = web.AppRunner(app)
        try:
            await runner.setup()
        except BaseException:
            await runner.cleanup()
            raise
        site = web.TCPSite(runner, host, 0)
        await site.start()
        servers.append(Server(runner, site.port, ClientSession()))
        return servers[-1]

    yield start
    for server in servers:
        await server.session.close()
        await server.runner.cleanup()


@pytest.fixture
def broker() -> Broker:
    """A broker that keeps nothing."""
    return Broker({"store": {"url": "memory:"}})


@pytest.fixture
def talk(dial: Dial) -> Dial:
    """Open a client of the broker of a server."""

    async def open_client(server: Server, prefix: str = "/broker", **options: Any) -> Any:
        return await dial(server.port, path=f"{prefix}/ws", **options)

    return open_client
