"""Where a session's turns stand, as the broker's counters tell it: by state, and by whose agent has them."""

from broker.messages import TurnState
from broker.stats import Profile, Stats

__all__ = ["Standing"]


class Standing:
    """The turns of one session that have not ended.

    Args:
        stats: the broker's counters.
    """

    def __init__(self, stats: Stats) -> None:
        self._open = stats.turns_open
        self._turns: dict[str, tuple[TurnState, Profile]] = {}

    def state_of(self, turn_id: str) -> TurnState | None:
        """Return where a turn was counted last; None if it is not."""
        counted = self._turns.get(turn_id)
        return None if counted is None else counted[0]

    def count(self, turn_id: str, state: TurnState, profile: Profile) -> None:
        """Count a turn where it stands now and by whose agent, and no longer where it stood."""
        before = self._turns.pop(turn_id, None)
        if before is not None:
            self._add(-1, *before)
        if state != "ended":
            self._turns[turn_id] = (state, profile)
            self._add(1, state, profile)

    def forget(self) -> None:
        """Count none of them any more: the session leaves memory."""
        for state, profile in self._turns.values():
            self._add(-1, state, profile)
        self._turns.clear()

    def _add(self, number: int, state: TurnState, profile: Profile) -> None:
        self._open[state] += number
        if state == "queued":
            profile.queued += number
        else:
            profile.in_flight += number
