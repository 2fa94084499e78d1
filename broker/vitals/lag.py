"""How late the event loop is: the one number that tells whether something blocks everybody."""

from typing import Final

from broker.clock import Clock, Timer
from broker.stats import Histogram

__all__ = ["LoopLag"]

SAMPLE_SECONDS: Final = 0.25
"""How often the lag is looked at: a block of a second is seen, and looking costs nothing."""


class LoopLag:
    """Measures how much later than asked the loop calls back.

    Args:
        clock: time.
        seen: where each look is counted, so that a block between two scrapes is not missed.
    """

    def __init__(self, clock: Clock, seen: Histogram) -> None:
        self._clock = clock
        self._seen = seen
        self._due = 0.0
        self._seconds = 0.0
        self._worst = 0.0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._clock.monotonic() + SAMPLE_SECONDS
        self._timer = self._clock.call_later(SAMPLE_SECONDS, self._sample)

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()

    def seconds(self) -> float:
        """Return how late the last sample was, or the one that is due is by now, whichever is more."""
        return max(self._seconds, self._clock.monotonic() - self._due, 0.0)

    def worst(self) -> float:
        """Return how late the loop was at most since this was asked last."""
        worst, self._worst = max(self._worst, self.seconds()), 0.0
        return worst

    def _sample(self) -> None:
        self._seconds = max(0.0, self._clock.monotonic() - self._due)
        self._worst = max(self._worst, self._seconds)
        self._seen.observe(self._seconds)
        self.start()
