"""The reply to one turn: as many tries as it takes until something is said."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import attrs
from loguru import logger

from broker.agents.claude.mishaps import MishapError, pause_before
from broker.agents.port import Emit
from broker.messages import TextDelta, TurnFailed, TurnSettled, TurnTaken
from broker.tasks import spawn

__all__ = ["Counted", "Piece", "Reply"]

BREATH: Final = 64
"""Pieces that are heard at a stretch, if so many have come; then the loop has its turn."""


@attrs.define
class Counted:
    """What the turn has cost so far, a JSON object of the API's own."""

    usage: bytes


Piece = TurnTaken | TextDelta | Counted | TurnSettled
"""What one try consists of, in this order; the settle is the last."""


class Reply:
    """One reply.

    Attributes:
        turn_id: the turn.
        usage: what it has cost so far, JSON, as far as the API has told.
        task: in which it runs; there is one after `begin`.

    Args:
        turn_id: the turn.
        ask: makes one try: its pieces, or a `MishapError`.
        retries: further tries, as long as nothing has been said.
        sleep: lets seconds pass between two tries.
    """

    task: asyncio.Task[None]

    def __init__(
        self,
        turn_id: str,
        ask: Callable[[], Awaitable[AsyncGenerator[Piece, None]]],
        retries: int,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.turn_id = turn_id
        self.usage: bytes | None = None
        self._ask = ask
        self._retries = retries
        self._sleep = sleep
        self._taken = False
        self._said = False

    def begin(self, emit: Emit, flow: asyncio.Event) -> None:
        """Run; all that is said goes to `emit`, and nothing is read while `flow` is not set."""
        self.task = spawn(self._run(emit, flow), name=f"reply to turn {self.turn_id}")

    async def _run(self, emit: Emit, flow: asyncio.Event) -> None:
        """Try until something is said, as often as allowed; after that the first mishap is the end."""
        tried = 0
        try:
            while (mishap := await self._try(emit, flow)) is not None:
                tried += 1
                if self._said or not mishap.again or tried > self._retries:
                    emit(self._failed(mishap, tried))
                    return
                pause = pause_before(tried, mishap.after)
                logger.bind(turn=self.turn_id).info("{} Another try in {:.1f} s.", mishap.message, pause)
                await self._sleep(pause)
        except Exception:
            emit(TurnFailed(self.turn_id, "internal", "The agent's reply could not be read."))
            raise

    async def _try(self, emit: Emit, flow: asyncio.Event) -> MishapError | None:
        """Ask once, and hand on what comes; return what went wrong."""
        try:
            async with contextlib.aclosing(await self._ask()) as pieces:
                heard = 0
                async for piece in pieces:
                    self._hear(piece, emit)
                    heard += 1
                    if heard % BREATH == 0:
                        await asyncio.sleep(0)
                    await flow.wait()
        except MishapError as mishap:
            return mishap
        return None

    def _hear(self, piece: Piece, emit: Emit) -> None:
        if isinstance(piece, Counted):
            self.usage = piece.usage
        elif not isinstance(piece, TurnTaken):
            self._said = True
            emit(piece)
        elif not self._taken:  # each try is taken, the turn only once
            self._taken = True
            emit(piece)

    def _failed(self, mishap: MishapError, tried: int) -> TurnFailed:
        message = mishap.message if tried == 1 else f"{mishap.message} Tried {tried} times."
        return TurnFailed(self.turn_id, mishap.code, message, mishap.retryable)
