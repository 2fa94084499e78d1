"""What system tests share."""

import importlib.util
import json
import os
import re
import select
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from types import ModuleType
from typing import Any
from urllib.request import urlopen

import attrs
import pytest

POWER_CUT = Path(__file__).with_name("powercut.py")


@attrs.define
class PowerCutDisk:
    """A mounted directory whose power can be cut once.

    Attributes:
        path: where programs write; flat, no directories in it.
        survived: a plain directory with what is on the disk for good; look at it after `cut`.
    """

    path: Path
    survived: Path
    _process: subprocess.Popen[bytes]

    def cut(self) -> Path:
        """Cut the power: what was not fsynced is gone, and programs that run on get errors. Idempotent.

        Kill the programs first, or right after: a power cut takes them too.

        Returns:
            The directory that survived.
        """
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
            subprocess.run(["umount", "-l", self.path], check=True, capture_output=True, timeout=10)
        return self.survived


@contextmanager
def mounted(directory: Path) -> Iterator[PowerCutDisk]:
    """Mount a disk below `directory` for as long as the block runs; skip the test where FUSE is missing."""
    mount, state = directory / "disk", directory / "state"
    mount.mkdir(parents=True)
    command: list[str | Path] = [sys.executable, POWER_CUT, mount, state]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    disk = PowerCutDisk(mount, state / "survived", process)
    try:
        ready, _, _ = select.select([process.stdout], [], [], 20)
        if not ready or process.stdout.readline() != b"ready\n":
            process.kill()
            reason = process.stderr.read().decode(errors="replace").strip().splitlines()
            pytest.skip(f"no power cut: FUSE does not work here: {reason[-1] if reason else 'no answer'}")
        yield disk
        disk.cut()
    finally:
        if os.path.ismount(mount):
            disk.cut()
        process.kill()
        process.wait(10)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def power_cut_disk() -> Callable[[Path], AbstractContextManager[PowerCutDisk]]:
    """Give a context manager, to be called with a directory, whose `disk.cut()` loses what was not fsynced."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no power cut: /dev/fuse is missing or not ours")
    return mounted


@attrs.define
class Broker:
    """The broker as its own process, on one port and one configuration through all its lives.

    Attributes:
        folder: where it runs; its store and its log are there.
        settings: its configuration.
        port: where it listens; 0 until it has started for the first time.
        prefix: a command that runs its command, such as one that sets limits.
    """

    folder: Path
    settings: dict[str, Any]
    port: int = 0
    process: subprocess.Popen[str] | None = None
    prefix: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Its page."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return (self.folder / "log").read_text()

    def launch(self, *, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start the process and wait for nothing."""
        self.write()
        command = [*self.prefix, sys.executable, "-m", "broker", "--config", "config.yaml"]
        environ = {**os.environ, "BROKER_LISTEN__PORT": str(self.port), **(env or {})}
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environ, stdout=subprocess.PIPE, stderr=log, text=True
            )
        return self.process

    def write(self) -> None:
        """Write its configuration."""
        (self.folder / "config.yaml").write_text(json.dumps(self.settings))

    def start(self) -> str:
        """Start it, wait until it is ready, and return the line it says so with."""
        process = self.launch()
        assert process.stdout
        line = process.stdout.readline()
        ready = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert ready, self.log
        self.port = int(ready[1])
        return line

    def get(self, path: str) -> Any:
        """Return the JSON at a path.

        Raises:
            OSError: it is refused, or nobody listens.
        """
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.load(answer)

    def signal(self, how: Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(how)

    def wait(self) -> int:
        """Return the code it exits with."""
        assert self.process is not None
        with self.process:
            return self.process.wait(timeout=30)

    def end(self, how: Signals = SIGTERM) -> int:
        """Send it a signal and return the code it exits with."""
        self.signal(how)
        return self.wait()

    def suffer(self, faults: Iterable[str]) -> Iterator[str]:
        """Start it, killed before, once with each of these faults (SQL) planted into its store as it is now."""
        store = self.folder / "broker.db"
        with closing(sqlite3.connect(store)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        whole = store.read_bytes()
        for fault in faults:
            for sidecar in self.folder.glob("broker.db-*"):  # or the last fault would be played into this one
                sidecar.unlink()
            store.write_bytes(whole)
            with closing(sqlite3.connect(store)) as connection:
                before = connection.total_changes
                connection.executescript(fault)
                assert connection.total_changes > before
            self.start()
            yield fault
            self.end(SIGKILL)


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Make brokers that are not started yet; those that still run at the end are killed."""
    made: list[Broker] = []

    def make(**settings: Any) -> Broker:
        folder = tmp_path / f"broker-{len(made)}"
        folder.mkdir()
        made.append(Broker(folder, {"log": {"level": "warning"}, **settings}))
        return made[-1]

    yield make
    for broker in made:
        if broker.process is not None:
            broker.process.kill()
            broker.wait()


def load_beside(name: str) -> ModuleType:
    """Load a module of this folder; tests are no package, so it is not imported."""
    spec = importlib.util.spec_from_file_location(f"tests_system_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def history() -> ModuleType:
    """The checker of histories, `history.py`."""
    return load_beside("history")


@pytest.fixture(scope="session")
def workers() -> ModuleType:
    """Clients that put a broker under load and write down what they were told, `workers.py`."""
    return load_beside("workers")


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The judge of unruly turns, `oracle.py`."""
    return load_beside("oracle")


# -- people at the page -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def browsing() -> ModuleType:
    """Tabs and the network behind them, `browsing.py`."""
    return load_beside("browsing")


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Broker]]:
    """Start brokers for all tests of a file, with what else is to lie in their folder; they drain and exit 0."""
    served: list[Broker] = []

    def start(files: Mapping[str, str] | None = None, **settings: Any) -> Broker:
        folder = tmp_path_factory.mktemp("broker")
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        broker = Broker(folder, {"log": {"level": "warning"}, **settings})
        broker.start()
        served.append(broker)
        return broker

    yield start
    for broker in served:
        assert broker.end() == 0, broker.log


@pytest.fixture(scope="module")
def browser(browsing: ModuleType) -> Iterator[Any]:
    """A Chromium; without one the test is skipped."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: the page is not tested")
    with browsing.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=browsing.FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tabs(browser: Any, browsing: ModuleType, server: Broker) -> Iterator[Any]:
    """Tabs of the console of the file's `server`, `browsing.Tabs`."""
    tabs = browsing.Tabs(browser, server.url)
    yield tabs
    tabs.close()


@pytest.fixture
def visit(browser: Any, browsing: ModuleType, server: Broker) -> Iterator[Callable[..., Any]]:
    """Open the page of the file's `server` in a new browser profile, as a user the test's plugin knows by a cookie.

    At the end no tab may have had anything to complain about.
    """
    visitors: list[Any] = []

    def open_page(url: str = f"{server.url}chat", wire: Any = None, user: str | None = None, **options: Any) -> Any:
        context = browser.new_context(**options)
        if user is not None:
            context.add_cookies([{"name": "user", "value": user, "url": server.url}])
        visitor = browsing.Visitor(context.new_page())
        visitors.append(visitor)
        visitor.attend(wire)
        visitor.page.goto(url)
        browsing.expect(visitor.page.get_by_text("Connected", exact=True)).to_be_visible()
        return visitor

    yield open_page
    complaints = [complaint for visitor in visitors for complaint in visitor.complaints]
    for visitor in visitors:
        visitor.page.context.close()
    assert complaints == []


class QuietSite(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Somebody else's site: its origin, and the folder with its pages."""
    folder = tmp_path_factory.mktemp("site")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietSite, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


@pytest.fixture
def network(server: Broker) -> Iterator[Any]:
    """A network in front of the file's `server` that can fail, `network.py`."""
    with load_beside("network").Network(lambda: server.port) as network:
        yield network
