"""The one way to start a task: named, kept alive, and loud when it fails."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from loguru import logger

__all__ = ["spawn"]

_running: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, Any] | Any, *, name: str) -> asyncio.Task[Any]:
    """Run `work` as a task of the running loop.

    The loop itself keeps only a weak reference to a task, and an exception that nobody fetches is
    reported when the garbage collector happens to come by; this keeps the task and logs at once.
    """
    task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.opt(exception=error).error("task failed: {}", task.get_name())
