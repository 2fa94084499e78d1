"""Plays a script: what an agent says and when, written as a generator, without a task of its own."""

import asyncio
import math
from collections.abc import Callable, Generator
from typing import Final, Protocol

from broker.agents.port import Emit
from broker.messages import AgentEvent, AgentLost, TurnFailed, TurnSettled

__all__ = ["BREATH", "FOREVER", "CallLater", "Play", "Script", "Timer"]

Script = Generator[AgentEvent | float, str | None, None]
"""Yields an event to be said, or seconds to wait; a wait gives back the option that a person chose meanwhile."""

BREATH: Final = 256
"""Deltas of a long answer that are said at a stretch; between two stretches the loop has its turn."""
FOREVER: Final = math.inf
"""The wait that only an answer to a question ends."""


class Timer(Protocol):
    """What `asyncio.TimerHandle` is to us."""

    def cancel(self) -> None:
        """Let the callback never come."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Seconds and what to call then, as `asyncio.AbstractEventLoop.call_later`."""


class Play:
    """One script on its way; it begins with the first `go_on`.

    Attributes:
        turn_id: the turn it is played for.
        over: whether the turn has had its end; the script may have more to say all the same.

    Args:
        turn_id: the turn it is played for.
        script: what is played.
        emit: hears what is said.
        call_later: where time comes from; the running loop if left out.
        heeds: whether a cancel is obeyed.
    """

    def __init__(
        self, turn_id: str, script: Script, emit: Emit, call_later: CallLater | None = None, *, heeds: bool = True
    ) -> None:
        self.turn_id = turn_id
        self.over = False
        self._script = script
        self._emit = emit
        self._call_later = call_later
        self._heeds = heeds
        self._timer: Timer | None = None
        self._held = False
        self._due = False  # its time came while it was held
        self._asks = False

    def go_on(self, answer: str | None = None) -> None:
        """Say all that comes before the next wait."""
        self._asks = False
        try:
            while not isinstance(step := self._script.send(answer), int | float):
                answer = None
                self._say(step)
        except StopIteration:
            self.over = True
            return
        self._asks = step == FOREVER
        if not self._asks:
            later = self._call_later or asyncio.get_running_loop().call_later
            self._timer = later(step, self._ring)

    def answer(self, option_id: str | None) -> None:
        """Go on with what a person chose, None for nothing, if that is what the script waits for."""
        if self._asks:
            self.go_on(option_id)

    def _say(self, event: AgentEvent) -> None:
        ends = isinstance(event, TurnSettled | TurnFailed) and event.turn_id == self.turn_id
        self.over |= ends or isinstance(event, AgentLost)
        self._emit(event)

    def _ring(self) -> None:
        self._timer = None
        if self._held:
            self._due = True
        else:
            self.go_on()

    def hold(self) -> None:
        """Say nothing after the next wait until `release`. Idempotent."""
        self._held = True

    def release(self) -> None:
        """Go on from where it was held."""
        self._held = False
        if self._due:
            self._due = False
            self.go_on()

    def cancel(self) -> None:
        """Stop, and settle the turn as `cancelled` unless it is over; a script that heeds nothing goes on."""
        if not self._heeds:
            return
        self.stop()
        if not self.over:
            self._say(TurnSettled(self.turn_id, "cancelled"))

    def stop(self) -> None:
        """Say nothing any more. Idempotent."""
        self._due = self._asks = False
        self._script.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
