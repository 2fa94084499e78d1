"""How often something happened of late."""

from typing import Final

from broker.clock import Clock

__all__ = ["Tally"]

_WINDOW: Final = 60.0


class Tally:
    """Counts within minutes, the next of which begins with what comes first after the last.

    Args:
        clock: time.
    """

    __slots__ = ("_clock", "_count", "_since")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = 0
        self._since = clock.monotonic()

    def add(self) -> int:
        """Count once more; return how many times it was within this minute."""
        now = self._clock.monotonic()
        if now - self._since > _WINDOW:
            self._count, self._since = 0, now
        self._count += 1
        return self._count
