"""Time that stands still until a test moves it."""

import heapq
import itertools
from collections.abc import Callable

import attrs

__all__ = ["ManualClock"]


@attrs.define(eq=False)
class _ManualTimer:
    callback: Callable[[], object] | None

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A `broker.clock.Clock` that stands still until a test moves it.

    Args:
        now: what the wall clock shows first, milliseconds since the epoch.
    """

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self._began = now
        self._seconds = 0.0
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._numbers = itertools.count()

    def monotonic(self) -> float:
        """Return the seconds that were moved so far."""
        return self._seconds

    def now(self) -> int:
        """Return milliseconds since the epoch."""
        return self._began + round(self._seconds * 1000)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> _ManualTimer:
        """Call `callback` when the clock has been moved by `seconds`."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self._seconds + seconds, next(self._numbers), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move the clock, and call what falls due on the way, each at its own time and in order."""
        end = self._seconds + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._seconds = max(self._seconds, due)
            if timer.callback is not None:
                timer.callback()
        self._seconds = end

    def jump(self, seconds: float) -> None:
        """Set the wall clock alone, forward or (below 0) back, as an administrator or NTP may."""
        self._began += round(seconds * 1000)

    @property
    def waiting(self) -> int:
        """How many timers were set and have neither fallen due nor been cancelled."""
        return sum(timer.callback is not None for _, _, timer in self._timers)
