"""What one turn says to the broker, in order, and the questions to which it waits for an answer."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from broker.client.worker.outbox import Outbox
from broker.client.worker.wire import frame
from broker.ids import new_id

__all__ = ["Voice"]


class Voice:
    """Numbers a turn's frames and hands them to the link; who says more than fits waits (PROTOCOL P7).

    Args:
        turn_id: the turn.
        wake: called when there is something to be sent.

    Attributes:
        outbox: the frames.
        open: whether the turn may still say something.
    """

    def __init__(self, turn_id: str, wake: Callable[[], None]) -> None:
        self.outbox = Outbox()
        self.open = True
        self._turn_id = turn_id
        self._wake = wake
        self._room = asyncio.Event()
        self._questions: dict[str, asyncio.Future[str | None]] = {}

    async def say(self, kind: str, data: Mapping[str, Any]) -> None:
        """Say one frame of the turn, as soon as there is room for it.

        Raises:
            RuntimeError: the turn has ended.
            TypeError, ValueError: `data` is no JSON, or too large.
        """
        while self.open and self.outbox.full:
            self._room.clear()
            await self._room.wait()
        self._put(kind, data)

    async def ask(self, data: Mapping[str, Any]) -> str | None:
        """Ask a person, and wait for the id of the option chosen; None if nobody will choose."""
        approval_id = new_id()
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._questions[approval_id] = answer
        try:
            await self.say("approval_request", {"approval_id": approval_id, **data})
            return await answer
        finally:
            del self._questions[approval_id]

    def answered(self, approval_id: str, option_id: str | None) -> None:
        """Bring a person's answer; one that nobody waits for is passed over."""
        question = self._questions.get(approval_id)
        if question is not None and not question.done():
            question.set_result(option_id)

    def accept(self) -> None:
        """Say that the turn is at work; the first thing it says."""
        self._put("turn_accepted", {})

    def end(self, kind: str, data: Mapping[str, Any]) -> None:
        """Say the last thing, room or not."""
        self._put(kind, data)
        self.close()

    def close(self) -> None:
        """Say nothing more; what waits for room or for an answer is told that the turn has ended."""
        self.open = False
        self._room.set()
        for question in self._questions.values():
            question.cancel()

    def skip(self) -> None:
        """Send nothing of what was said, but its end."""
        self.outbox.rewind(self.outbox.head - (not self.open))
        self._wake()

    def take(self, most: int) -> Iterator[bytes]:
        """Yield up to `most` frames that are to be sent, and let go on who waited for them to be."""
        for text in islice(self.outbox.take(), most):
            self._room.set()
            yield text

    def _put(self, kind: str, data: Mapping[str, Any]) -> None:
        if not self.open:
            raise RuntimeError(f"turn {self._turn_id} has ended; it can say no more")
        self.outbox.add(frame(kind, {**data, "turn_id": self._turn_id, "seq": self.outbox.head + 1}))
        self._wake()
