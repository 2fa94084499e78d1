"""How long to wait before something that keeps dying is started again."""

import random
from typing import Final

__all__ = ["FIRST_WAIT", "LONGEST_WAIT", "QUICK", "Backoff"]

QUICK: Final = 60.0
"""Seconds of life below which a death counts as one of a row."""
FIRST_WAIT: Final = 0.5
"""Seconds to wait after the second death of a row; after the first there is no wait, then it doubles."""
LONGEST_WAIT: Final = 30.0
"""Seconds beyond which a wait does not grow."""


class Backoff:
    """Counts deaths in a row."""

    def __init__(self) -> None:
        self._deaths = 0

    def died(self, lived: float) -> None:
        """Note a death after so many seconds of life."""
        self._deaths = self._deaths + 1 if lived < QUICK else 0

    def wait(self) -> float:
        """Return the seconds to wait now, a quarter more or less: what died together need not start together."""
        if self._deaths <= 1:
            return 0.0
        wait = FIRST_WAIT * 2.0 ** min(self._deaths - 2, 10)
        return float(min(wait, LONGEST_WAIT) * random.uniform(0.75, 1.25))  # noqa: S311 - nobody gains by guessing it
