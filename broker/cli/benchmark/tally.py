"""What a run counts, in memory that does not grow with it."""

import math
from collections import Counter
from typing import Any, Final

import attrs

__all__ = ["Sequence", "Spread", "Tally"]

_SHORTEST: Final = 1e-5
"""Seconds; what is shorter counts as that long."""
_STEP: Final = math.log(1.02)
_BUCKETS: Final = 1000
"""Each two per cent wider than the one before, from 10 microseconds to an hour."""
_HOLES: Final = 1000
"""Numbers that are remembered as missing in one sequence; more are counted only."""
_KINDS: Final = 50
"""Different codes and outcomes that are told apart: what is measured may say any."""


class Spread:
    """How long something took, how often: any quantile to within two per cent.

    Attributes:
        count: how many were observed.
        longest: the longest of them, in seconds.
    """

    __slots__ = ("_counts", "count", "longest")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.longest = 0.0

    def observe(self, seconds: float) -> None:
        """Count one that took `seconds`."""
        place = math.ceil(math.log(max(seconds, _SHORTEST) / _SHORTEST) / _STEP)
        self._counts[min(place, _BUCKETS - 1)] += 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which this share of all was; None where there was none."""
        below, wanted = 0, share * self.count
        for place, count in enumerate(self._counts):
            below += count
            if count and below >= wanted:
                return min(_SHORTEST * math.exp(place * _STEP), self.longest)
        return None

    def as_data(self) -> dict[str, Any]:
        """Return its figures, in seconds."""
        quantiles = {name: self.quantile(share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
        rounded = {name: None if value is None else round(value, 6) for name, value in quantiles.items()}
        return {"count": self.count, **rounded, "max": round(self.longest, 6) if self.count else None}


class Sequence:
    """The numbers of one sender as one receiver gets them: each once, in order, if all is well.

    Args:
        first: the number that is to come first.

    Attributes:
        highest: the highest that came.
    """

    __slots__ = ("_missing", "_more", "highest")

    def __init__(self, first: int = 1) -> None:
        self.highest = first - 1
        self._missing: set[int] = set()
        self._more = 0

    @property
    def missing(self) -> int:
        """How many below the highest have not come."""
        return len(self._missing) + self._more

    def take(self, number: int, tally: "Tally") -> None:
        """Take the next that came, and count it as reordered or doubled if it is."""
        if number > self.highest:
            gap = range(self.highest + 1, number)
            room = max(0, _HOLES - len(self._missing))
            self._missing.update(gap[:room])
            self._more += len(gap[room:])
            self.highest = number
        elif number in self._missing:
            self._missing.remove(number)
            tally.reordered += 1
        else:
            tally.doubled += 1


@attrs.define
class Tally:
    """What all connections of a run count together.

    Attributes:
        sent: messages sent.
        left_out: messages that were due while the one before was under way, of those that go one at a time.
        answered: answers to them, errors too.
        lost: what should have come and did not, however long it was waited for.
        reordered: what came after something that it should have come before.
        doubled: what came twice.
        reconnects: links that were lost and made again.
        errors: refusals by code, closes and failed handshakes too.
        outcomes: how turns ended.
        took: how long it took, by what.
    """

    sent: int = 0
    left_out: int = 0
    answered: int = 0
    lost: int = 0
    reordered: int = 0
    doubled: int = 0
    reconnects: int = 0
    errors: Counter[str] = attrs.field(factory=Counter)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    took: dict[str, Spread] = attrs.field(factory=dict)

    def observe(self, what: str, seconds: float) -> None:
        """Count that something took so long."""
        if what not in self.took:
            self.took[what] = Spread()
        self.took[what].observe(seconds)

    def fail(self, code: str) -> None:
        """Count an error."""
        _count(self.errors, code)

    def end(self, outcome: str) -> None:
        """Count the end of a turn."""
        _count(self.outcomes, outcome)


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < _KINDS else "others"] += 1
