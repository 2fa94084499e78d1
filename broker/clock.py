"""Time, as something that can be handed in: the loop's clock in the broker, one moved by hand in tests."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

__all__ = ["Clock", "Deadline", "SystemClock", "Timer", "rfc3339"]


class Timer(Protocol):
    """A call that waits for its time."""

    def cancel(self) -> None:
        """Do not make the call."""


class Clock(Protocol):
    """What the broker asks of time."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards; for durations."""

    def now(self) -> int:
        """Return the wall clock's milliseconds since the epoch; for what people read."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the loop after `seconds`."""


class SystemClock:
    """The running loop's time."""

    def monotonic(self) -> float:
        """Return the loop's own seconds."""
        return time.monotonic()

    def now(self) -> int:
        """Return milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` after `seconds` on the running loop."""
        return asyncio.get_running_loop().call_later(seconds, callback)


@lru_cache(maxsize=256)
def rfc3339(at: int) -> str:
    """Write milliseconds since the epoch as the wire does: UTC with milliseconds (PROTOCOL's preface).

    Cached, because what happens together carries the same time.
    """
    seconds, milliseconds = divmod(at, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{milliseconds:03d}Z"


class Deadline:
    """A point in time that several steps in a row share, so that none of them takes all there is.

    Args:
        clock: time.
        seconds: until then; infinite for a time that never comes.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._at = clock.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds until then; 0 if it has passed."""
        return max(0.0, self._at - self._clock.monotonic())

    def share(self, most: float) -> float:
        """Return how long the next step may take: `most`, but only half of what is left."""
        return min(most, self.left() / 2)

    def part(self) -> "Deadline":
        """Return the deadline of a step that consists of steps."""
        return Deadline(self._clock, self.left() / 2)
