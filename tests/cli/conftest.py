"""What tests of the commands share: a folder of their own, real processes, a terminal, and a broker to talk to."""

import fcntl
import io
import json
import logging
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from broker.cli import cli

COMMAND = str(Path(sys.executable).with_name("broker"))
PATIENCE = 30.0
"""Seconds that a process has for what it does in one or two, on a machine that is busy with other tests."""
_IN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A bare environment, in which no broker of somebody else is found."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": paths, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def broker(tmp_path: Path, environ: Mapping[str, str]) -> Run:
    """Run the command in an empty folder."""

    def run(*arguments: str, text: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=tmp_path,
            env={**environ, **more},
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


@pytest.fixture
def command(
    tmp_path: Path, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command as `broker` does, in this process: without the time that a process takes to start."""

    def run(*arguments: str, text: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("BROKER_")]:
                patch.delenv(name)
            for name, value in {**environ, **more}.items():
                patch.setenv(name, value)
            patch.chdir(tmp_path)
            patch.setattr(sys, "stdin", io.StringIO(text))
            patch.setattr(logging.getLogger("broker.client"), "disabled", False)  # which a command changes
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                cli.main(list(arguments), prog_name="broker")
            out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, out, err)

    return run


@attrs.define
class Dev:
    """A broker that `broker dev` runs.

    Attributes:
        process: it.
        said: its one line: `url`, `chat`, `console`, `pid`, `version`, `state`.
        environ: the environment in which other programs find it.
        started: when it was started, by `time.monotonic`.
    """

    process: subprocess.Popen[str]
    said: dict[str, Any]
    environ: dict[str, str]
    started: float

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self.said["url"])

    @property
    def token(self) -> str:
        """What this user's own programs show."""
        return str(json.loads(Path(self.said["state"]).read_text())["token"])

    def ticket(self, page: str = "chat") -> str:
        """The one-time ticket of a page's link."""
        return str(self.said[page]).partition("#ticket=")[2]

    def stop(self) -> tuple[str, str]:
        """Interrupt it, and return what it has written since."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=PATIENCE)


@pytest.fixture
def dev(tmp_path: Path, environ: dict[str, str]) -> Iterator[Callable[..., Dev]]:
    """Start `broker dev` on a free port; what is given goes before and behind the command."""
    running: list[Dev] = []

    def start(*more: str, flags: tuple[str, ...] = ()) -> Dev:
        began = time.monotonic()
        process = subprocess.Popen(
            [COMMAND, *flags, "dev", "--port", "0", "--json", *more],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            pytest.fail(f"broker dev said nothing: {process.communicate(timeout=PATIENCE)}")
        running.append(Dev(process, json.loads(line), environ, began))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate(timeout=PATIENCE)


class Terminal:
    """A command in a terminal of its own.

    Args:
        arguments: of the command.
        folder: where it runs.
        environ: its environment.
        size: columns and lines.
    """

    def __init__(
        self, arguments: tuple[str, ...], folder: Path, environ: Mapping[str, str], size: tuple[int, int] = (80, 24)
    ) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(*size)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, COMMAND, *arguments],
            cwd=folder,
            env={"TERM": "xterm-256color", "PYTHONUTF8": "1", **environ},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, *words: str, since: int = 0) -> str:
        """Read until all of these stand in what was seen from `since` on; return that."""
        end = time.monotonic() + PATIENCE
        while not all(word in self.seen[since:] for word in words):
            if not self._read(end - time.monotonic()):
                pytest.fail(f"{words} did not come; seen: {self.seen[since:]!r}")
        return self.seen[since:]

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, seconds))
        try:
            text = os.read(self._ours, 65536) if ready else b""
        except OSError:  # the other end is closed
            return False
        self.seen += text.decode(errors="replace")
        return bool(text)

    def hush(self, seconds: float) -> None:
        """Read until nothing more has come for that long."""
        while self._read(seconds):
            pass

    def press(self, keys: str) -> None:
        """Type; the character 3 is Ctrl-C."""
        os.write(self._ours, keys.encode())

    def wait(self) -> int:
        """Return the exit code, once it has one, with all it wrote in `seen`."""
        end = time.monotonic() + PATIENCE
        while self._read(end - time.monotonic()):
            pass
        return self.process.wait(max(0.1, end - time.monotonic()))

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._ours)


@pytest.fixture
def terminal(tmp_path: Path, environ: Mapping[str, str]) -> Iterator[Callable[..., Terminal]]:
    """Run a command in a terminal: the arguments, and `columns`, `lines` or further variables by name."""
    opened: list[Terminal] = []

    def run(*arguments: str, columns: int = 80, lines: int = 24, **more: str) -> Terminal:
        opened.append(Terminal(arguments, tmp_path, {**environ, **more}, (columns, lines)))
        return opened[-1]

    yield run
    for one in opened:
        one.close()


@attrs.define
class Served:
    """A broker whose echo has its faults on request, for commands that talk to one.

    Attributes:
        folder: where it runs; its store is there.
        port: where it listens; 0 until it has started for the first time.
    """

    folder: Path
    environ: Mapping[str, str]
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        settings = {
            "listen": {"port": self.port},
            "agents": {"echo": {"kind": "echo", "faults": True}},
            "log": {"level": "warning"},
        }
        (self.folder / "config.yaml").write_text(json.dumps(settings))
        self.process = subprocess.Popen(
            [COMMAND, "--config", "config.yaml"],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line.partition("127.0.0.1:")[2].partition("/")[0])

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def _served(folder: Path) -> Served:
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    served = Served(folder, {"PATH": paths, "HOME": str(folder)})
    served.start()
    return served


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A broker that all tests talk to; who wants it killed takes `mortal`."""
    served = _served(tmp_path_factory.mktemp("served"))
    yield served
    served.kill()


@pytest.fixture(scope="session")
def _mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    mortal = _served(tmp_path_factory.mktemp("mortal"))
    yield mortal
    mortal.kill()


@pytest.fixture
def mortal(_mortal: Served) -> Served:
    """A broker that runs, to be killed and started again."""
    if _mortal.process is None or _mortal.process.poll() is not None:
        _mortal.start()
    return _mortal
