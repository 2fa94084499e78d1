"""What tests of clients share: a broker in this process, a network that fails, and a broker that errs."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

import attrs
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from broker import config
from broker.app import App
from broker.client import Connection, connect
from broker.extensions.loader import load as load_plugins

PATIENCE = 20.0
"""Seconds after which what is waited for will not come, on a machine that is busy with other tests."""
AGENTS = {
    "echo": {"kind": "echo"},
    "faulty": {"kind": "echo", "faults": True},
    "slow": {"kind": "echo", "delay": "10ms"},
    "shout": {"kind": "worker"},
}

Start = Callable[..., Awaitable[App]]
Opened = Callable[..., Awaitable[Connection]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start brokers on free ports, with the memory store."""
    apps: list[App] = []

    async def start_app(**settings: Any) -> App:
        file = tmp_path / "config.yaml"
        base = {"listen": {"port": 0}, "store": {"url": "memory:"}, "agents": AGENTS, "default_agent": "echo"}
        file.write_text(json.dumps({**base, **settings}))
        loaded = config.load(file, {}, {})
        app = App(loaded.settings, load_plugins(loaded.settings, loaded.file))
        await app.start()
        apps.append(app)
        return app

    yield start_app
    for app in apps:
        await app.stop()


@pytest.fixture
async def app(start: Start) -> App:
    """A broker with nothing special about it."""
    return await start()


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """Open connections, to be called with a port and the options of `connect`; they are quick to come back."""
    async with AsyncExitStack() as stack:

        async def open_connection(port: int, **options: Any) -> Connection:
            options = {"pauses": (0.0, 0.0), **options}
            return await stack.enter_async_context(connect(f"http://127.0.0.1:{port}", **options))

        yield open_connection


# -- a network that fails ---------------------------------------------------------------------------


@attrs.define(eq=False)
class Network:
    """A way to a broker that can be cut, or swallow what is sent.

    Attributes:
        port: where it begins.
        links: how many connections were made over it.
        flows: clear it, and nothing goes through any more in either direction; what was said until then is kept back.
        open: clear it, and nobody gets in.
    """

    port: int = 0
    links: int = 0
    flows: asyncio.Event = attrs.Factory(asyncio.Event)
    open: bool = True
    _writers: set[asyncio.StreamWriter] = attrs.Factory(set)
    _target: int = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection for as long as both ends want it."""
        if not self.open:
            writer.transport.abort()
            return
        self.links += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, back}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(reader, back))
            group.create_task(self._pump(there, writer))
        self._writers -= {writer, back}

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                await self.flows.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

    def cut(self) -> None:
        """Cut all connections, without a good-bye."""
        for writer in self._writers:
            writer.transport.abort()


Wire = Callable[[int], Awaitable[Network]]


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """Make networks, each to be called with the port that it leads to."""
    made: list[tuple[Network, asyncio.Server]] = []

    async def lead(port: int) -> Network:
        network = Network(target=port)
        network.flows.set()
        server = await asyncio.start_server(network.carry, "127.0.0.1", 0)
        network.port = server.sockets[0].getsockname()[1]
        made.append((network, server))
        return network

    yield lead
    for network, server in made:
        network.flows.set()
        server.close()
        network.cut()
        await server.wait_closed()


# -- a broker that errs -----------------------------------------------------------------------------


class Visit:
    """One connection of a client to a broker that a test plays."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def send(self, message: Mapping[str, Any] | str) -> None:
        """Say something."""
        await self.socket.send(message if isinstance(message, str) else json.dumps(message))

    async def welcome(self) -> None:
        """Let it in."""
        await self.note("welcome", {"connection_id": "c", "user": None, "max_message_bytes": 1000})

    async def note(self, event: str, data: Any, **more: Any) -> None:
        """Say something unasked."""
        await self.send({"type": "notification", "event": event, "data": data, **more})

    async def record(self, seq: int, event: str = "message.delta", data: Any = None, turn_id: str = "t1") -> None:
        """Show a record of session s1."""
        data = {"message_id": "m1", "text": str(seq)} if data is None else data
        at = "2026-01-01T00:00:00.000Z"
        await self.note(event, data, session_id="s1", seq=seq, turn_id=turn_id, at=at)

    async def asked(self, action: str) -> dict[str, Any]:
        """Return the next request, which is to be for this."""
        async with asyncio.timeout(PATIENCE):
            request: dict[str, Any] = json.loads(await self.socket.recv())
        assert request["action"] == action, request
        return request

    async def answer(self, request: Mapping[str, Any], data: Any) -> None:
        """Answer a request."""
        await self.send({"id": request["id"], "type": "response", "data": data})

    async def refuse(self, request: Mapping[str, Any], code: str, **more: Any) -> None:
        """Refuse a request."""
        await self.send({"id": request["id"], "type": "error", "data": {"code": code, "message": "No.", **more}})

    async def attach(self, head: int, **answer: Any) -> dict[str, Any]:
        """Let it attach to session s1; return what it asked for."""
        request = await self.asked("session.attach")
        await self.answer(request, {"session_id": "s1", "epoch": "e1", "head": head, "floor": 1, **answer})
        payload: dict[str, Any] = request["payload"]
        return payload

    async def close(self, code: int, reason: str = "") -> None:
        """Say good-bye."""
        await self.socket.close(code, reason)

    def drop(self) -> None:
        """Vanish without a good-bye."""
        self.socket.transport.abort()


class Stage:
    """A broker that a test plays.

    Attributes:
        port: where it listens.
        handshakes: all that were asked for.
        refusal: the HTTP status to answer them with; None lets in.
    """

    def __init__(self) -> None:
        self.port = 0
        self.handshakes: list[Request] = []
        self.refusal: HTTPStatus | None = None
        self._visits: asyncio.Queue[Visit] = asyncio.Queue()

    def look(self, socket: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request)
        return None if self.refusal is None else socket.respond(self.refusal, "no\n")

    async def attend(self, socket: ServerConnection) -> None:
        self._visits.put_nowait(Visit(socket))
        await socket.wait_closed()

    async def visit(self) -> Visit:
        """Return the next connection, before anything was said on it."""
        async with asyncio.timeout(PATIENCE):
            return await self._visits.get()

    async def greet(self) -> Visit:
        """Return the next connection, welcomed."""
        visit = await self.visit()
        await visit.welcome()
        return visit

    async def meet(self, opened: Opened, **options: Any) -> tuple[Visit, Connection]:
        """Open a connection and return both its ends."""
        greeting = asyncio.ensure_future(self.greet())
        connection = await opened(self.port, **options)
        return await greeting, connection


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A broker that the test plays."""
    stage = Stage()
    server: Server = await serve(
        stage.attend,
        "127.0.0.1",
        0,
        compression=None,
        ping_interval=None,
        close_timeout=1,
        process_request=stage.look,
        subprotocols=[Subprotocol("broker.v1.json")],
    )
    stage.port = server.sockets[0].getsockname()[1]
    yield stage
    for socket in server.connections:
        socket.transport.abort()
    server.close()
