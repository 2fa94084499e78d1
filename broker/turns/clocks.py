"""The clocks over the turn that an agent has: which strikes next, and when (PROTOCOL section 3).

Each frame of the agent moves some of them, so nothing is armed: the moments are remembered, and the
next strike is computed when somebody asks.
"""

from math import inf
from typing import Final, Literal

from broker.config.profiles import Deadlines
from broker.messages import TurnState

__all__ = ["CANCEL_SECONDS", "PAUSE_SECONDS", "TALK_SECONDS", "Clocks", "Strike"]

CANCEL_SECONDS: Final = 10.0
"""How long an agent may take to settle a cancelled turn before its link is cut (PROTOCOL section 3)."""
TALK_SECONDS: Final = 2.0
"""How long an agent may keep producing output in a cancelled turn (PROTOCOL section 3)."""
PAUSE_SECONDS: Final = 1.5
"""The longest pause between two outputs that still count as one stretch of output."""

Strike = Literal["start", "stalled", "idle", "approval", "turn", "settle", "force"]


class Clocks:
    """The clocks of one turn, from its dispatch on.

    Attributes:
        heard_at: when its agent last gave a sign of life, or a person took the turn to be the agent's again.
        told: whether this silence was told of.
    """

    __slots__ = (
        "_deadlines",
        "_force_at",
        "_settle_at",
        "_start_by",
        "_talked_at",
        "_talks_since",
        "_turn_by",
        "heard_at",
        "told",
    )

    def __init__(self, deadlines: Deadlines, now: float) -> None:
        self.heard_at = self._talks_since = self._talked_at = now
        self.told = False
        self._deadlines = deadlines
        self._start_by = now + (deadlines.start or inf)
        self._turn_by = now + (deadlines.turn or inf)
        self._settle_at = self._force_at = inf

    def settle(self, now: float) -> None:
        """From now on only stray output is waited for."""
        self._settle_at = now + self._deadlines.settle

    def cancel(self, now: float) -> None:
        """From now on the agent is expected to settle."""
        self._force_at = now + CANCEL_SECONDS
        self._talks_since = self._talked_at = now

    def talks_on(self, now: float) -> bool:
        """Take note of output after the cancel; tell whether it has been coming for too long."""
        if now - self._talked_at > PAUSE_SECONDS:
            self._talks_since = now
        self._talked_at = now
        return now - self._talks_since >= TALK_SECONDS

    def next(self, state: TurnState, answer_by: float) -> tuple[float, Strike]:
        """Return which clock strikes next, and when.

        Args:
            state: where the turn stands.
            answer_by: when the first of its open questions expires.
        """
        if self._settle_at != inf:
            return min(self._settle_at, self._force_at, self._turn_by), "settle"
        if state == "cancelling":
            return self._force_at, "force"
        due, which = self._next_of(state, answer_by)
        return (due, which) if due <= self._turn_by else (self._turn_by, "turn")

    def _next_of(self, state: TurnState, answer_by: float) -> tuple[float, Strike]:
        if state == "dispatching":
            return self._start_by, "start"
        if state == "awaiting_approval":
            return answer_by, "approval"
        idle, stalled = self._deadlines.idle or inf, self._deadlines.stalled or inf
        if stalled < idle and not self.told:
            return self.heard_at + stalled, "stalled"
        return self.heard_at + idle, "idle"
