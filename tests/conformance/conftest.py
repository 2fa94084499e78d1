"""What clients of the five designs share: a broker as a process of its own, and sockets. Nothing here imports it."""

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from signal import SIGKILL, SIGTERM
from types import ModuleType
from typing import Any

import aiohttp
import attrs
import pytest


def load_beside(name: str) -> ModuleType:
    """Load a module of this folder; tests are no package, so it is not imported."""
    spec = importlib.util.spec_from_file_location(f"tests_conformance_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CLIENT = load_beside("client")


@attrs.define
class BrokerProcess:
    """The broker as its users start it, in a folder of its own.

    Attributes:
        folder: where it runs: `config.yaml`, its store and its log are there.
        url: its address, such as `http://127.0.0.1:3000`.
        faulty: what lines of its log have in them that tell of a failure which is part of the test.
    """

    folder: Path
    url: str = ""
    faulty: str = "nothing of this kind"
    _process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return (self.folder / "log").read_text()

    def command(self, *arguments: str) -> str:
        """Run one of its commands in its folder, and return what that prints."""
        command = [sys.executable, "-m", "broker", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self, **env: str) -> None:
        """Start it and wait until it is ready; a second time at the address that it had before."""
        port = self.url.rpartition(":")[2] or "0"
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "broker", "--config", "config.yaml"],
                cwd=self.folder,
                env={**os.environ, "BROKER_LISTEN__PORT": port, **env},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout
        ready = re.search(r"http://127\.0\.0\.1:\d+", self._process.stdout.readline())
        assert ready, self.log
        self.url = ready[0]

    def end(self, how: int = SIGTERM) -> int:
        """Send it a signal and return the code it exits with."""
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(how)
        with process:
            return process.wait(timeout=30)

    def stop(self) -> None:
        """End it, if it runs, and see that it ends well."""
        if self._process is None:
            return
        code = self.end()
        assert code == 0, self.log
        unforeseen = [line for line in self.log.splitlines() if "Traceback" in line and self.faulty not in line]
        assert not unforeseen, unforeseen

    def kill(self) -> None:
        """Kill it as the system would."""
        self.end(SIGKILL)


@pytest.fixture(scope="module")
def broker_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., BrokerProcess]]:
    """Start brokers, to be called with the YAML of their configuration, and with files to lie beside it."""
    made: list[BrokerProcess] = []

    def make(yaml: str, files: Mapping[str, str] | None = None, **env: str) -> BrokerProcess:
        folder = tmp_path_factory.mktemp("broker")
        for name, text in {"config.yaml": yaml, **(files or {})}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        broker = BrokerProcess(folder)
        made.append(broker)
        broker.start(**env)
        return broker

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of HTTP."""
    connector = aiohttp.TCPConnector(limit=0)  # or its hundredth socket would wait for another to close
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


Connect = Callable[..., Awaitable[Any]]


@pytest.fixture
async def connect(http: aiohttp.ClientSession) -> AsyncIterator[Connect]:
    """Open sockets, to be called with a broker's URL; options are those of `ClientSession.ws_connect`."""
    clients: list[Any] = []

    async def open_client(url: str, path: str = "/ws", **options: Any) -> Any:
        clients.append(CLIENT.Client(await http.ws_connect(url + path, max_msg_size=0, **options)))
        return clients[-1]

    yield open_client
    await asyncio.gather(*(client.leave() for client in clients), return_exceptions=True)


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]:
    """Ask again and again until something is so that nobody is told of."""

    async def wait_for(is_so: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(CLIENT.PATIENCE):
            while True:
                if await is_so():
                    return
                await asyncio.sleep(0.01)

    return wait_for
