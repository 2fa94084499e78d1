"""What tests over sockets share: a client that keeps every message in the order in which it came."""

import asyncio
import fcntl
import itertools
import json
import logging
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from broker.logs import InterceptHandler

PATIENCE = 20.0
"""Seconds after which a message that is waited for will not come, on a machine that is busy with other tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that at the end no process is left alone with one."""
    items.sort(key=lambda item: "system" not in item.path.parts)


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Undo what a test has set up of the log, which is the whole process's."""
    root, pykka = logging.getLogger(), logging.getLogger("pykka")
    levels = root.level, pykka.level
    yield
    if any(isinstance(handler, InterceptHandler) for handler in root.handlers):
        logger.remove()
        logging.captureWarnings(capture=False)
        root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, InterceptHandler)]
        root.setLevel(levels[0])
        pykka.setLevel(levels[1])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have what a test wrote as text that any process may be sent: tests of half characters write some."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


class Message(dict[str, Any]):
    """A message of the broker, and the text it came as."""

    def __init__(self, text: str) -> None:
        super().__init__(json.loads(text))
        self.text = text


class Client:
    """A client of the native format. What is not asked for is kept until it is."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[Message] = []
        self.welcome: dict[str, Any] = {}
        self._ids = itertools.count(1)

    async def send(self, text: str | bytes) -> None:
        """Send a text frame as it is; bytes become a binary frame."""
        await self.socket.send(text)

    async def take(self, wanted: Callable[[Message], bool] = lambda _: True) -> Message:
        """Return the oldest message that is wanted, heard already or still to come."""
        for index, message in enumerate(self.heard):
            if wanted(message):
                return self.heard.pop(index)
        async with asyncio.timeout(PATIENCE):
            while True:
                message = Message(str(await self.socket.recv()))
                if wanted(message):
                    return message
                self.heard.append(message)

    async def event(self, name: str) -> Message:
        """Return the next notification of this name."""
        return await self.take(lambda message: message.get("event") == name)

    async def records(self, until: str) -> list[Message]:
        """Return the notifications of the log that come next, in order, to the first of this name."""
        taken = [await self.take(lambda message: "session_id" in message)]
        while taken[-1]["event"] != until:
            taken.append(await self.take(lambda message: "session_id" in message))
        return taken

    async def ask(self, action: str, payload: Any = None) -> Message:
        """Send a request and return the message that answers it."""
        request_id = f"r{next(self._ids)}"
        request = {"id": request_id, "type": "request", "action": action, "payload": payload}
        if payload is None:
            del request["payload"]
        await self.send(json.dumps(request))
        return await self.take(lambda message: message.get("id") == request_id)

    async def do(self, action: str, **payload: Any) -> dict[str, Any]:
        """Have an action done that has to succeed, and return its `data`."""
        answer = await self.ask(action, payload)
        assert answer["type"] == "response", answer
        data: dict[str, Any] = answer["data"]
        return data

    async def refused(self, action: str, **payload: Any) -> dict[str, Any]:
        """Have an action tried that has to be refused, and return the error's `data`."""
        answer = await self.ask(action, payload)
        assert answer["type"] == "error", answer
        data: dict[str, Any] = answer["data"]
        return data

    async def silent(self) -> None:
        """See that nothing came that was not asked for; a ping is the barrier."""
        await self.do("ping")
        assert self.heard == []

    async def closed(self) -> tuple[int, str]:
        """Return the code and the reason with which the broker closes, however much it says before."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    self.heard.append(Message(str(await self.socket.recv())))
        except ConnectionClosed as e:
            return (1006, "") if e.rcvd is None else (e.rcvd.code, e.rcvd.reason)

    async def leave(self) -> None:
        """Close as a polite client does."""
        await self.socket.close()

    def drop(self) -> None:
        """Vanish without a good-bye."""
        self.socket.transport.abort()


Dial = Callable[..., Awaitable[Client]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Open clients, to be called with a port, perhaps a query or a path; options are those of `websockets.connect`."""
    clients: list[Client] = []

    async def open_client(port: int, query: str = "", path: str = "/ws", **options: Any) -> Client:
        options = {"compression": None, "ping_interval": None, "close_timeout": 2, "max_size": None, **options}
        client = Client(await connect(f"ws://127.0.0.1:{port}{path}{query}", **options))
        clients.append(client)
        client.welcome = (await client.event("welcome"))["data"]
        return client

    yield open_client
    await asyncio.gather(*(client.leave() for client in clients), return_exceptions=True)


@pytest.fixture(scope="session")
def node_tools() -> Path:
    """Where the packages are that the client and the protocol are checked with; without npm those tests are skipped."""
    folder = Path(__file__).with_name("client_js")
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node or npm is not installed: the JavaScript client's package is not tested")
    with (folder / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of those who test side by side one installs
        if not (folder / "node_modules" / ".package-lock.json").exists():
            command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            try:
                subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=90)
            except (subprocess.SubprocessError, OSError) as e:
                pytest.skip(f"npm cannot install its tools: the JavaScript client's package is not tested: {e}")
    return folder / "node_modules"
