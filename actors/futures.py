"""Answers that cross between actors: futures awaited on the loop and set from any thread."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar, cast

import pykka
from pykka._envelope import Envelope

__all__ = ["NO_ONE", "ExcInfo", "LoopFuture", "ReplyTo", "ask_thread"]

T = TypeVar("T")
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class ReplyTo(Protocol):
    """Where an answer goes: a future, or anything else with these two methods."""

    def set(self, value: Any = None, /) -> None:
        """Answer with a value."""

    def set_exception(self, exc_info: ExcInfo | None = None, /) -> None:
        """Answer with an exception; the one being handled if none is given."""


class _NoOne:
    """Takes the answers that nobody waits for."""

    def set(self, value: Any = None, /) -> None:
        pass

    def set_exception(self, exc_info: ExcInfo | None = None, /) -> None:
        pass


NO_ONE: Final[ReplyTo] = _NoOne()


class LoopFuture(pykka.Future[T]):
    """A pykka future that is awaited on the loop it was made on, and may be set from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._future: asyncio.Future[T] = self._loop.create_future()

    def get(self, *, timeout: float | None = None) -> T:
        """Refuse: blocking here would stop the loop that has to bring the answer.

        Raises:
            RuntimeError: always; await the future instead.
        """
        raise RuntimeError("await this future; get() would block the event loop")

    def set(self, value: T | None = None) -> None:
        """Answer with a value; a second answer, or one that nobody waits for any more, is dropped."""
        self._resolve(self._future.set_result, cast("T", value))

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:  # type: ignore[override]
        """Answer with an exception; the one being handled if none is given."""
        _, error, traceback = exc_info or cast("ExcInfo", sys.exc_info())
        self._resolve(self._future.set_exception, error.with_traceback(traceback))

    def _resolve(self, setter: Callable[[Any], None], value: Any) -> None:
        if get_ident() != self._thread:
            with suppress(RuntimeError):  # the loop is closed, and whoever waited on it is gone
                self._loop.call_soon_threadsafe(self._resolve_here, setter, value)
        else:
            self._resolve_here(setter, value)

    def _resolve_here(self, setter: Callable[[Any], None], value: Any) -> None:
        if not self._future.done():
            setter(value)

    def __await__(self) -> Any:  # pykka's own version would block the loop
        return self._future.__await__()

    async def wait(self, timeout: float | None) -> T:  # noqa: ASYNC109 - pykka's Timeout, not asyncio's
        """Return the answer.

        Args:
            timeout: seconds, or None for ever.

        Raises:
            pykka.Timeout: there was no answer in time.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._future
        except TimeoutError as e:
            if not self._future.cancelled():
                raise
            raise pykka.Timeout(f"no answer in {timeout} s") from e


async def ask_thread(ref: pykka.ActorRef[Any], message: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109
    """Ask a `pykka.ThreadingActor` from the event loop, without blocking either.

    Raises:
        pykka.ActorDeadError: the actor has stopped.
        pykka.Timeout: there was no answer within `timeout` seconds.
    """
    if not ref.is_alive():
        raise pykka.ActorDeadError(f"{ref} not found")
    future: LoopFuture[Any] = LoopFuture()
    ref.actor_inbox.put(Envelope(message, reply_to=future))
    return await future.wait(timeout)
