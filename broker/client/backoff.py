"""How long to wait before the broker is tried again (PROTOCOL section 2c)."""

import random

import attrs

__all__ = ["Backoff"]


@attrs.define
class Backoff:
    """Pauses between tries, each anything up to a bound that doubles: "full jitter", so that many spread out.

    Attributes:
        first: the first bound, in seconds.
        longest: the last one.
    """

    first: float = 0.5
    longest: float = 20.0
    _tries: int = attrs.field(default=0, init=False)

    def pause(self) -> float:
        """Return how long to wait before the next try, in seconds."""
        bound = min(self.longest, self.first * 2**self._tries)
        self._tries = min(self._tries + 1, 30)
        return random.uniform(0.0, bound)  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        """Start small again."""
        self._tries = 0
