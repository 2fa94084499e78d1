"""The process around a broker: its loop, its signals, its exit code (PROTOCOL section 7)."""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

from broker import __version__, logs
from broker.app import EX_UNAVAILABLE, STOP_SECONDS, App, CannotStart
from broker.config import ConfigErrors, Loaded
from broker.extensions.fence import within
from broker.extensions.loader import load as load_plugins
from broker.tasks import spawn

__all__ = ["run"]

COLLECT: Final = (20_000, 20, 20)
"""When the collector looks for circles: rarely, since nothing that is made for a message is part of one."""
LEAVING: Final = 1.0
"""Seconds that tasks and threads have to end when all that counts has stopped."""
SPARE_SECONDS: Final = 0.1
"""Between when all of it should have stopped and when it is left alone."""
SWITCH_SECONDS: Final = 0.0005
"""How soon the loop lets the store's threads have the interpreter; Python's own 5 ms is many commits long."""


def run(loaded: Loaded, reload: Callable[[], Loaded], announce: Callable[[App], object] | None = None) -> int:
    """Run a broker until a signal stops it; return the process's exit code.

    Args:
        loaded: the configuration.
        reload: reads it again, at SIGHUP.
        announce: says that the broker is ready, in the loop; left out, a line on stdout does.
    """
    settings = loaded.settings
    sys.setswitchinterval(SWITCH_SECONDS)
    logs.configure(settings.log.level, settings.log.format)
    with asyncio.Runner(loop_factory=_loop_factory(settings.runtime.loop)) as runner:
        code = runner.run(_main(loaded, reload, announce or _announce))
        _insist(code)
    return code


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _main(loaded: Loaded, reload: Callable[[], Loaded], announce: Callable[[App], object]) -> int:
    changed, stopping = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, changed.set)  # first of all: unheard, it would end the process
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _on_stop, stopping)
    app = App(loaded.settings, load_plugins(loaded.settings, loaded.file), loaded=loaded)
    app.keep_log()
    try:
        await app.start()
    except CannotStart as e:
        print(e, file=sys.stderr)  # noqa: T201 - this is the command's own answer, not a log line
        return e.code
    reloading = spawn(_reload_when(changed, app, reload), name="reload the configuration")
    gc.freeze()  # what has been made until now stays: the collector need not look at it again
    gc.set_threshold(*COLLECT)
    announce(app)
    began = time.monotonic()
    await stopping.wait()
    reloading.cancel()
    logger.info("stopping: new clients are refused, running turns have {:g} s", app.settings.shutdown.grace)
    await _stop(app)
    logger.info("stopped after {:.0f} s", time.monotonic() - began)
    return 0


async def _stop(app: App) -> None:
    """Drain and stop; leave at once if the time for it is over, or the store could not be closed.

    Nothing is waited for then, since whatever holds its thread would hold the interpreter's end too.
    """
    seconds = app.settings.shutdown.grace + STOP_SECONDS + SPARE_SECONDS
    try:
        await within(seconds, _run_out(app), name="stop")
    except TimeoutError:
        logger.error("the broker did not stop within {:g} s; what was acknowledged is in the store", seconds)
        os._exit(EX_UNAVAILABLE)
    if not app.clean:
        os._exit(EX_UNAVAILABLE)


async def _run_out(app: App) -> None:
    await app.drain()
    await app.stop()


def _on_stop(stopping: asyncio.Event) -> None:
    """Drain at the first signal; at the second, be gone at once."""
    if stopping.is_set():
        os._exit(1)
    stopping.set()


async def _reload_when(changed: asyncio.Event, app: App, reload: Callable[[], Loaded]) -> None:
    """Reload at each SIGHUP, one that came before the broker was ready too; many at once are one."""
    while True:
        await changed.wait()
        changed.clear()
        try:
            await _reload(app, reload)
        except Exception as e:  # noqa: BLE001 - the next file may be better
            logger.opt(exception=e).error("the configuration could not be reloaded")


async def _reload(app: App, reload: Callable[[], Loaded]) -> None:
    """Read the configuration again; a broken one is reported and the one in force stays, whole."""
    try:
        loaded = await asyncio.to_thread(reload)  # a large file, or a disk that is slow, holds up nobody
        waiting = app.reload(loaded.settings, loaded.origins)
    except ConfigErrors as e:
        logger.error("the configuration was not reloaded, the old one stays in force:\n{}", e.render())
        return
    except OSError as e:
        logger.error("the configuration was not reloaded, the old one stays in force: {}", e)
        return
    logs.configure(loaded.settings.log.level, loaded.settings.log.format)
    app.keep_log()
    if waiting:
        logger.warning("the configuration was reloaded; a restart is needed for: {}", ", ".join(waiting))
    else:
        logger.info("the configuration was reloaded")


def _insist(code: int) -> None:
    """Exit in any case before long: a plugin's task that cannot be cancelled, or its thread, would be waited for."""

    def leave() -> None:
        left = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.name != "MainThread"]
        logger.warning("something of a plugin would not end, left behind; threads: {}", ", ".join(left) or "none")
        os._exit(code)

    insisting = threading.Timer(LEAVING, leave)
    insisting.daemon = True
    insisting.start()


def _announce(app: App) -> None:
    host = app.settings.listen.host
    shown = f"[{host}]" if ":" in host else host
    print(f"actor-broker {__version__} is ready: http://{shown}:{app.port}/ (Ctrl-C stops it)", flush=True)  # noqa: T201
