"""A worker as a program of its own: what signals do to it, and how it ends although some of its answers do not."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, NoReturn

__all__ = ["run"]

log = logging.getLogger("broker.client")

LEFTOVER_SECONDS: Final = 2.0
"""For what turns have left behind, tasks and threads; all of them were told to end before."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Serve = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Serves until the event is set; to be cancelled is to stop at once."""


def run(serve: Serve) -> None:
    """Serve until a signal comes; a second one is to stop at once, and one after the farewell ends the process.

    What does not end then, such as a thread that blocks, is left: Python would wait for it without end.

    Raises:
        Exception: whatever `serve` raises.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(_run(serve))
    finally:
        for number, handler in before.items():
            with suppress(TypeError, ValueError):  # not one of Python's, or not in this thread
                signal.signal(number, handler)


async def _run(serve: Serve) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    serving = loop.create_task(serve(stop))

    def stopped() -> None:
        if stop.is_set():
            serving.cancel()
        stop.set()

    for number in _SIGNALS:
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not here, or not in this thread
            loop.add_signal_handler(number, stopped)
    with suppress(asyncio.CancelledError):
        await asyncio.gather(serving, return_exceptions=True)
    for number in _SIGNALS:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            if loop.remove_signal_handler(number):
                signal.signal(number, signal.SIG_DFL)
    log.info("the worker has left")
    error = None if serving.cancelled() else serving.exception()
    if not await _all_ended() and threading.current_thread() is threading.main_thread():
        _leave(error)
    if error is not None:
        raise error


async def _all_ended() -> bool:
    """Tell whether all tasks and the threads of `asyncio.to_thread` end soon."""
    loop = asyncio.get_running_loop()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    # `asyncio.run` would wait for them without a timeout, for the threads as well as for the tasks.
    threads = loop.create_task(loop.shutdown_default_executor())
    _, pending = await asyncio.wait({*rest, threads}, timeout=LEFTOVER_SECONDS)
    return not pending


def _leave(error: BaseException | None) -> NoReturn:
    log.warning("some answers do not end though they were cancelled; the process ends without them")
    if error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there is none, or nobody reads it
            stream.flush()
    os._exit(0 if error is None else 1)
