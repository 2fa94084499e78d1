"""Servers as real processes, and what they cost: CPU time and memory as Linux counts them."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from bench.tokens import SECRET

__all__ = ["GUARDED", "OPEN", "Server", "broker", "peer", "take_core"]

_HERE = Path(__file__).parent
OPEN = _HERE / "config.yaml"
"""A broker that lets everybody in."""
GUARDED = _HERE / "guarded.yaml"
"""One that asks for tokens, limits and counts."""
_PATIENCE = 20.0
_CORES = sorted(os.sched_getaffinity(0))


class Server:
    """A running server.

    Attributes:
        port: where it listens on 127.0.0.1.
        greets: whether it speaks first.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, *, greets: bool) -> None:
        self.port = port
        self.greets = greets
        self.pid = process.pid
        self._process = process

    def cpu(self) -> float:
        """Return the seconds of CPU its threads have used so far, exact to the scheduler's nanoseconds.

        A thread that has ended is no longer counted; the servers here keep theirs.
        """
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> int:
        """Return the bytes resident in memory."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def wait_ready(self) -> None:
        """Return once `/readyz` says 200.

        Raises:
            RuntimeError: the process ended, or took too long.
        """
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if (status := self._process.poll()) is not None:
                raise RuntimeError(f"the server ended with status {status}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1):
                    return
            except (URLError, OSError):
                time.sleep(0.02)
        raise RuntimeError(f"the server was not ready within {_PATIENCE:.0f} s")

    def stop(self) -> None:
        """Ask it to end, then make it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def take_core() -> None:
    """Keep this process on the last core; servers get the others, where there are others."""
    os.sched_setaffinity(0, _CORES[-1:])


@contextmanager
def broker(folder: Path, config: Path = OPEN) -> Iterator[Server]:
    """Run our broker with this configuration and a new database in `folder`."""
    port = _free_port()
    environment = {
        "BROKER_LISTEN__PORT": str(port),
        "BROKER_STORE__URL": f"sqlite:///{folder / f'broker-{port}.db'}",
        "BENCH_PYTHON": sys.executable,
        "BENCH_AGENT": str(_HERE / "agent.py"),
        "BENCH_SECRET": SECRET,
    }
    command = (str(Path(sys.executable).with_name("broker")), "--config", str(config))
    with _running(command, port, environment, greets=True) as server:
        yield server


@contextmanager
def peer(name: str, folder: Path) -> Iterator[Server]:
    """Run a bare aiohttp server of `bench/peers.py`."""
    port = _free_port()
    command = (sys.executable, "-m", "bench.peers", name, str(port), "--file", str(folder / f"peer-{port}.db"))
    with _running(command, port, {}, greets=False) as server:
        yield server


@contextmanager
def _running(command: Sequence[str], port: int, environment: Mapping[str, str], *, greets: bool) -> Iterator[Server]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    process = subprocess.Popen(command, cwd=_HERE.parent, env={**inherited, **environment}, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, _CORES[:-1] or _CORES)
    server = Server(process, port, greets=greets)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
