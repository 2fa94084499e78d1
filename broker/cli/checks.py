"""What `doctor` looks at, one thing each; imported by it alone, since most of the broker comes with it."""

import http.client
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

import attrs

from broker import __version__
from broker.config import ConfigErrors, Loaded, Settings
from broker.extensions.loader import load as load_plugins
from broker.store.engines import engine_for
from broker.store.examine import SQLITE_FIXED, disk_of, examine, sqlite_version
from broker.store.port import StoreError
from broker.store.sqlite import SqliteEngine
from broker.vitals.descriptors import LEAST, spared
from broker.web.listener import bind
from broker.web.server import is_slow

__all__ = ["Finding", "findings"]

LOW: Final = 1 << 30
"""Bytes of free disk below which somebody should know."""
SLOW_SYNC: Final = 0.05
"""Seconds for one fsync beyond which a broker is slow."""
KNOCKING: Final = 2.0
"""Seconds that whoever has the port has to say who it is."""
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""This program is not older than that, so no clock can be."""


@attrs.frozen
class Finding:
    """What was found out about one thing.

    Attributes:
        name: the thing.
        state: how it is.
        text: what was found.
        advice: what to do about it.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""


def findings(loaded: Loaded | ConfigErrors) -> Iterator[Finding]:
    """Look at everything; what hangs on a configuration that cannot be read is left out.

    Args:
        loaded: the configuration, or what is wrong with it.
    """
    yield _python()
    yield _loop()
    yield _libraries()
    yield _sqlite()
    yield _clock()
    yield _terminal()
    yield _configuration(loaded)
    if isinstance(loaded, Loaded):
        yield _descriptors(loaded.settings)
        yield _port(loaded.settings)
        yield from _store(loaded.settings)


# -- the machine ----------------------------------------------------------------------------------------


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable}), actor-broker {__version__}")


def _loop() -> Finding:
    try:
        return Finding("event loop", "ok", f"uvloop {version('uvloop')}")
    except PackageNotFoundError:
        return Finding("event loop", "warn", "asyncio's own, which is slower", "pip install uvloop")


def _libraries() -> Finding:
    text = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "pykka", "msgspec"))
    if is_slow():
        advice = "pip install --force-reinstall --only-binary :all: aiohttp"
        return Finding("libraries", "warn", f"{text}; aiohttp is without its C extensions, and slow", advice)
    return Finding("libraries", "ok", text)


def _sqlite() -> Finding:
    found = sqlite_version()
    text = ".".join(map(str, found))
    if found >= SQLITE_FIXED:
        return Finding("sqlite", "ok", text)
    fixed = ".".join(map(str, SQLITE_FIXED))
    advice = "Let no other program write to the store while the broker runs; backups that only read are fine."
    return Finding("sqlite", "warn", f"{text}; before {fixed} two writers can damage a file", advice)


def _clock() -> Finding:
    now = datetime.now(UTC)
    text = f"{now:%Y-%m-%dT%H:%M:%SZ}, time zone {time.strftime('%Z')}"
    if now < _EPOCH:
        return Finding("clock", "fail", f"{text}: long past", "Set the clock; tokens are judged by it.")
    synchronised = _synchronised()
    if synchronised is False:
        return Finding("clock", "warn", f"{text}, not synchronised", "Switch on NTP: timedatectl set-ntp true")
    return Finding("clock", "ok", f"{text}{', synchronised' if synchronised else ''}")


def _synchronised() -> bool | None:
    """Return whether the clock is kept right by others; None if nobody tells."""
    if Path("/run/systemd/timesync/synchronized").exists():
        return True
    program = shutil.which("timedatectl")
    if program is None:
        return None
    try:
        asked = [program, "show", "--property=NTPSynchronized", "--value"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout.strip()  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(said)


def _terminal() -> Finding:
    size, encoding = shutil.get_terminal_size((0, 0)), sys.stdout.encoding or "none"
    shape = f"{size.columns} x {size.lines}" if sys.stdout.isatty() else "no terminal: plain text, no colours"
    colour = ", NO_COLOR is set" if os.environ.get("NO_COLOR") else ""
    if encoding.lower().replace("-", "") != "utf8":
        return Finding("terminal", "warn", f"{shape}, {encoding}{colour}", "Set PYTHONUTF8=1 to see all characters.")
    return Finding("terminal", "ok", f"{shape}, {encoding}{colour}")


# -- the configuration ----------------------------------------------------------------------------------


def _configuration(loaded: Loaded | ConfigErrors) -> Finding:
    if isinstance(loaded, Loaded):
        plugins = load_plugins(loaded.settings, loaded.file)
        if not plugins.problems:
            named = ", ".join(loaded.settings.plugins) or "none"
            return Finding("configuration", "ok", f"{loaded.file or 'defaults'}; plugins: {named}")
        loaded = ConfigErrors(plugins.problems)
    count = len(loaded.problems)
    text = f"{count} mistake{'s' * (count != 1)}; the first: {loaded.problems[0].render().partition(chr(10))[0]}"
    return Finding("configuration", "fail", text, "broker check-config shows them all.")


def _descriptors(settings: Settings) -> Finding:
    wanted = settings.listen.max_connections
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard - spared(hard) - LEAST >= wanted:
        allowed = "any number of" if hard == resource.RLIM_INFINITY else str(hard)
        return Finding("open files", "ok", f"{allowed}, enough for {wanted} connections")
    advice = "Raise LimitNOFILE= or ulimit -Hn, or lower listen.max_connections."
    return Finding("open files", "warn", f"{hard}, too few for listen.max_connections: {wanted}", advice)


def _port(settings: Settings) -> Finding:
    host, port = settings.listen.host, settings.listen.port
    try:
        bind(host, port).close()
    except OSError as e:
        if port and _is_ours(host, port):
            return Finding("port", "ok", f"{host}:{port} is served by a broker already")
        advice = "Stop what uses it, or choose another with listen.port."
        return Finding("port", "fail", f"{host}:{port} cannot be had: {e.strerror or e}", advice)
    return Finding("port", "ok", f"{host}:{port} is free" if port else f"{host}, any free port")


def _is_ours(host: str, port: int) -> bool:
    known = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where one that binds all is reached
    connection = http.client.HTTPConnection(known.get(host, host), port, timeout=KNOCKING)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().getheader("Server") == "actor-broker"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# -- the store ------------------------------------------------------------------------------------------


def _store(settings: Settings) -> Iterator[Finding]:
    engine = engine_for(settings.store.url, settings.store.sync)
    if not isinstance(engine, SqliteEngine):
        yield Finding("store", "warn", "in memory: nothing outlives the broker", "Give store.url a file.")
        return
    try:
        disk = _disk(engine)  # first: where nothing can be written, no store will be made
        yield _file(engine)
        yield disk
    except StoreError as e:
        yield Finding("store", "fail", str(e))


def _file(engine: SqliteEngine) -> Finding:
    found = examine(engine.path)
    if found is None:
        return Finding("store", "ok", f"{engine.path} will be made")
    held = f", open in process {found.holder}" if found.holder else ""
    text = f"{engine.path}, {found.size / (1 << 20):.1f} MiB, version {found.version}{held}"
    if found.damage:
        advice = "Stop the broker, keep a copy of the file, and restore a backup."
        return Finding("store", "fail", f"{text}: damaged: {found.damage}", advice)
    if not found.complete:
        return Finding("store", "ok", f"{text}; too large to look at all of it, what was seen is whole")
    older = f"; it will be brought to version {found.current}" if found.version < found.current else ""
    return Finding("store", "ok", f"{text}, whole{older}")


def _disk(engine: SqliteEngine) -> Finding:
    disk = disk_of(engine.path.parent)
    text = f"{disk.free / (1 << 30):.1f} GiB free, {disk.sync * 1000:.1f} ms for a write to be safe"
    if disk.free < LOW:
        return Finding("disk", "warn", text, "Free some space; a full disk has turns refused.")
    if not engine.durable:
        return Finding("disk", "warn", f"{text}; store.sync: {engine.sync}", "Only full outlives a power cut.")
    if disk.sync > SLOW_SYNC:
        return Finding("disk", "warn", text, "Each turn waits for that; put the store on a faster disk.")
    return Finding("disk", "ok", text)
