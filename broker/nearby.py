"""Where a program finds its broker if nobody tells it: in the environment, or the one that `broker dev` runs.

`broker dev` writes down where it listens and a token for its user's own programs, in a file of its own that only that
user can read; it is gone when the broker is. Where there are several, the newest is meant.
"""

import json
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

__all__ = ["TOKEN_VARIABLE", "URL_VARIABLE", "Nearby", "base_of", "find", "forget", "nearest", "note", "running"]

URL_VARIABLE: Final = "BROKER_URL"
TOKEN_VARIABLE: Final = "BROKER_TOKEN"  # noqa: S105 - the name of a variable
DEFAULT_URL: Final = "http://127.0.0.1:3000"

_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DOORS: Final = ("/ws", "/agent", "/console", "/chat")
_KNOCK_SECONDS: Final = 1.0
"""How long a broker on this machine has to accept a connection, until what is written of it counts as stale."""
_LONGEST: Final = 64 * 1024


@attrs.frozen
class Nearby:
    """A broker, and what to show it.

    Attributes:
        url: where its HTTP begins, such as `http://127.0.0.1:3000`, without a slash at its end.
        token: shown with each connection; None for nobody. Left out of `repr`.
    """

    url: str
    token: str | None = attrs.field(default=None, repr=False)

    @property
    def http(self) -> str:
        """Return where its HTTP begins; the same as `url`."""
        return self.url

    @property
    def ws(self) -> str:
        """Return the address of the clients' socket."""
        return f"ws{self.url.removeprefix('http')}/ws"

    @property
    def agent(self) -> str:
        """Return the address of the door for agents that dial in."""
        return f"ws{self.url.removeprefix('http')}/agent"


def find(url: str | None = None, environ: Mapping[str, str] = os.environ) -> Nearby | None:
    """Return the broker that is named here or by `BROKER_URL`, else the one of `broker dev`; None if neither is.

    The token is that of `BROKER_TOKEN`, else the one that `broker dev` wrote down, which is shown to that one alone.

    Raises:
        ValueError: the address is none of a broker.
    """
    named, token = url or environ.get(URL_VARIABLE), environ.get(TOKEN_VARIABLE) or None
    if not named:
        dev = running(environ)
        return None if dev is None else Nearby(dev.url, token or dev.token)
    base = base_of(named)
    return Nearby(base, token) if token else running(environ, base) or Nearby(base)


def nearest(environ: Mapping[str, str] = os.environ) -> Nearby:
    """Return the broker that `find` does, else the one at the usual address; raises as it."""
    return find(environ=environ) or Nearby(DEFAULT_URL, environ.get(TOKEN_VARIABLE) or None)


def base_of(url: str) -> str:
    """Return where a broker's HTTP begins, of any address of it: `ws://host:1/ws` is at `http://host:1`.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("an address of a broker looks like http://127.0.0.1:3000 or wss://chat.example.org/ws")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address holds no name and no password; a token is read from a file or BROKER_TOKEN")
    path = parts.path.rstrip("/")
    for door in _DOORS:
        path = path.removesuffix(door)
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{path}"


# -- what `broker dev` writes down ----------------------------------------------------------------------


def note(nearby: Nearby, pid: int, environ: Mapping[str, str] = os.environ) -> Path:
    """Write down where a broker is, for its user alone, beside what others wrote; return the file.

    Raises:
        OSError: it cannot be written.
    """
    folder = _folder(environ)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(folder)
    file = _file(folder, pid)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump({"url": nearby.url, "token": nearby.token, "pid": pid}, out)
    fresh.replace(file)
    return file


def forget(pid: int, environ: Mapping[str, str] = os.environ) -> None:
    """Take back what the broker of this process wrote."""
    with suppress(OSError):
        _file(_folder(environ), pid).unlink()


def running(environ: Mapping[str, str] = os.environ, url: str | None = None) -> Nearby | None:
    """Return the newest broker that `broker dev` runs for this user, or the one at `url`; None if there is none."""
    for file in sorted(_files(_folder(environ)), key=_age):
        said = _read(file)
        if said is None or url not in {None, said.url} or not _is_alive(said.pid):
            continue
        if _listens(said.url):
            return Nearby(said.url, said.token)
    return None


@attrs.frozen
class _Said:
    url: str
    token: str = attrs.field(repr=False)
    pid: int


def _folder(environ: Mapping[str, str]) -> Path:
    state = environ.get("XDG_STATE_HOME") or ""
    home = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return home / "actor-broker"


def _file(folder: Path, pid: int) -> Path:
    return folder / f"dev-{pid}.json"


def _files(folder: Path) -> list[Path]:
    return list(folder.glob("dev-*.json"))


def _age(file: Path) -> float:
    """Return what orders files by their age, the newest first."""
    try:
        return -file.lstat().st_mtime_ns
    except OSError:
        return 0


def _sweep(folder: Path) -> None:
    """Take away what brokers left behind that were killed."""
    for file in _files(folder):
        said = _read(file)
        if said is not None and not _is_alive(said.pid):
            with suppress(OSError):
                file.unlink()


def _read(file: Path) -> _Said | None:
    """Return what is written; None if that is nothing, or somebody else could have written or read it."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # which a pipe would have us wait for
        with os.fdopen(handle, "rb") as source:
            about = os.fstat(handle)
            private = stat.S_ISREG(about.st_mode) and not stat.S_IMODE(about.st_mode) & 0o077
            if about.st_uid != os.geteuid() or not private:
                return None
            said = json.loads(source.read(_LONGEST))
    except (OSError, ValueError):
        return None
    return _said(said)


def _said(said: Any) -> _Said | None:
    if not isinstance(said, dict):
        return None
    url, token, pid = said.get("url"), said.get("token"), said.get("pid")
    if not isinstance(url, str) or not isinstance(token, str) or not isinstance(pid, int):
        return None
    return _Said(url, token, pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return pid > 0


def _listens(url: str) -> bool:
    try:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_KNOCK_SECONDS):
            return True
    except (OSError, ValueError):
        return False
