"""Foreign code within bounds: it may neither end the event loop nor keep for ever who waits for it."""

import asyncio
from asyncio import CancelledError, Future, Task
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

__all__ = ["contained", "discard", "within"]

T = TypeVar("T")

_abandoned: Final[set[Task[Any]]] = set()
"""What was given up and has not ended yet: a task that only the loop knows may vanish in mid-flight."""


async def within(seconds: float, work: Awaitable[T], *, name: str) -> T:
    """Return what `work` gives, which runs in a task of its own.

    That task is cancelled when the time is up or the caller is, and not waited for: foreign code may pay no heed.

    Args:
        seconds: how long to wait.
        work: anything that can be awaited.
        name: of the task.

    Raises:
        TimeoutError: it took longer.
        Exception: what it raised; in place of what would end the loop, a RuntimeError.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(contained(work), name=name)
    over = loop.create_future()  # asyncio.wait does the same, for twice the time
    task.add_done_callback(lambda _: _conclude(over, work))
    deadline = loop.call_later(seconds, _conclude, over)
    try:
        await over
    finally:
        deadline.cancel()
        if not task.done():
            _abandoned.add(task)
            task.add_done_callback(_forget)
            task.cancel()
    if not task.done():
        raise TimeoutError(f"it took longer than {seconds:g} s")
    if task.cancelled():
        raise RuntimeError("it was cancelled")
    error = task.exception()
    if error is not None and not isinstance(error, Exception):
        raise RuntimeError(f"it raised {type(error).__name__}") from error
    return task.result()


async def contained(work: Awaitable[T]) -> T:
    """Return what `work` gives; for a task, since the loop lets SystemExit and KeyboardInterrupt end the process.

    Raises:
        CancelledError: the task that awaits this was cancelled.
        Exception: what `work` raised; in place of what is no Exception, a RuntimeError.
    """
    try:
        return await work
    except (Exception, GeneratorExit):
        raise
    except BaseException as e:
        task = asyncio.current_task()
        if isinstance(e, CancelledError) and task is not None and task.cancelling():
            raise
        raise RuntimeError(f"it raised {type(e).__name__}") from e


def discard(thing: object) -> None:
    """Close a coroutine that nobody will await, so that nothing warns about it later."""
    if asyncio.iscoroutine(thing):
        thing.close()


def _conclude(over: Future[None], work: object = None) -> None:
    discard(work)  # one whose task was cancelled before it began has not begun either
    if not over.done():
        over.set_result(None)


def _forget(task: Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that it is not reported as never retrieved
