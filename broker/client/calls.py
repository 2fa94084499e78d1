"""Requests that wait for their answers (PROTOCOL section 2)."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import attrs

from broker.client.errors import BrokerError, Disconnected, error_of
from broker.client.wire import Message

__all__ = ["Call", "Calls", "Landed"]

Landed = Callable[[Any], object]
"""Called with an answer as it comes, before anything that came after it is looked at."""


@attrs.define(eq=False)
class Call:
    """One of them; its future has the answer."""

    id: str
    future: asyncio.Future[Any]
    landed: Landed | None


class Calls:
    """The requests of one connection that wait."""

    def __init__(self) -> None:
        self._waiting: dict[str, Call] = {}
        self._ids = itertools.count(1)

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, landed: Landed | None) -> Call:
        """Have a request wait, under a new id."""
        call = Call(f"c{next(self._ids)}", asyncio.get_running_loop().create_future(), landed)
        self._waiting[call.id] = call
        return call

    def end(self, call: Call) -> None:
        """Let go of a request, whatever became of it."""
        del self._waiting[call.id]
        if call.future.done() and not call.future.cancelled():
            call.future.exception()  # it counts as seen, whatever became of who asked

    def take(self, message: Message) -> BrokerError | None:
        """Give an answer to who waits for it; return an error that answers nobody."""
        call = self._waiting.get(message.id or "")
        if call is None or call.future.done():
            return error_of(message.data) if message.type == "error" else None
        if message.type == "error":
            call.future.set_exception(error_of(message.data))
            return None
        try:
            if call.landed is not None:
                call.landed(message.data)
        except Exception as e:  # noqa: BLE001 - who asked raises it
            call.future.set_exception(e)
        else:
            call.future.set_result(message.data)
        return None

    def lose(self) -> None:
        """Fail them all: the link broke."""
        for call in self._waiting.values():
            if not call.future.done():
                call.future.set_exception(Disconnected("The connection broke before the answer came."))
