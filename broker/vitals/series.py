"""The last five minutes, as figures that were looked at every few seconds: the lines that the console draws.

Nothing on the way of a message knows of it: it reads the counters that are kept anyway.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from broker.clock import Clock, Timer, rfc3339
from broker.stats import Histogram, Stats

__all__ = ["NAMES", "POINTS", "STEP", "Series"]

STEP: Final = 5.0
"""Seconds between two looks."""
POINTS: Final = 60
"""Looks that are kept: five minutes."""
RECENT: Final = 12
"""Looks that a figure of now goes back, where it is a share of what was observed: a minute, so that it stays."""
DIGITS: Final = 6

Figures = Mapping[str, float | None]
"""By name; None where nothing was seen."""

_SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_DRAWN: Final = {"delivery": ("p50", "p95", "p99"), "first_token": ("p50", "p95", "p99"), "commit": ("p95",)}
"""The histograms that lines are made of, and which shares of them."""
_GAUGES: Final = ("connections", "memory", "store_backlog", "turns_open")
"""What is counted as it is now."""
NAMES: Final = (
    *_GAUGES,
    *("messages_in", "messages_out", "errors", "error_rate", "loop_lag"),
    *(f"{name}_{share}" for name, shares in _DRAWN.items() for share in shares),
)
"""All that is drawn."""


@attrs.frozen
class _Look:
    """What was seen at one time.

    Attributes:
        at: by the wall clock, in milliseconds since the epoch.
        figures: what is drawn.
        counts: of each histogram of `_DRAWN`, as they stood.
    """

    at: int
    figures: Figures
    counts: Mapping[str, list[int]]


@attrs.frozen
class _Totals:
    """Counters that only grow, as they stood at one time of the clock that never jumps."""

    since: float
    messages_in: int
    messages_out: int
    errors: int
    asked: int


class Series:
    """Looks every `STEP` seconds.

    Args:
        stats: the broker's counters.
        clock: time.
        worst_lag: returns how late the event loop was at most since it was asked last, in seconds.
    """

    def __init__(self, stats: Stats, clock: Clock, worst_lag: Callable[[], float]) -> None:
        self._stats = stats
        self._clock = clock
        self._worst_lag = worst_lag
        self._looks: deque[_Look] = deque(maxlen=POINTS)
        self._histograms: dict[str, Histogram] = {
            "delivery": stats.delivery_seconds,
            "first_token": stats.first_token_seconds,
            "commit": stats.commit_seconds,
        }
        self._totals = self._count()
        self._counts = self._copy()
        self._first = self._counts
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to look."""
        self._timer = self._clock.call_later(STEP, self._look)

    def stop(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()

    def lines(self) -> dict[str, list[Any]]:
        """Return `at` and, as long, each figure by its name, oldest first; None where nothing was seen."""
        lines: dict[str, list[Any]] = {"at": [rfc3339(look.at) for look in self._looks]}
        for name in NAMES:
            lines[name] = [look.figures[name] for look in self._looks]
        return lines

    def now(self) -> dict[str, float | None]:
        """Return each figure as it is now: rates of the newest look, shares of what was observed within a minute."""
        looks = self._looks
        newest: Figures = looks[-1].figures if looks else dict.fromkeys(NAMES)
        before = looks[-RECENT].counts if len(looks) >= RECENT else self._first
        return {**newest, **self._gauges(), **self._quantiles(before)}

    # -- looking --------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._timer = self._clock.call_later(STEP, self._look)
        before, self._totals = self._totals, self._count()
        seconds = self._totals.since - before.since
        figures = {
            **self._gauges(),
            **self._rates(before, seconds),
            **self._quantiles(self._counts),
            "loop_lag": round(self._worst_lag(), DIGITS),
        }
        self._counts = self._copy()
        self._looks.append(_Look(self._clock.now(), figures, self._counts))

    def _count(self) -> _Totals:
        stats = self._stats
        asked = stats.messages_in + stats.requests.total()
        errors = stats.errors.total()
        return _Totals(self._clock.monotonic(), stats.messages_in, stats.messages_out, errors, asked)

    def _copy(self) -> dict[str, list[int]]:
        return {name: list(histogram.counts) for name, histogram in self._histograms.items()}

    def _gauges(self) -> dict[str, float | None]:
        stats = self._stats
        values = (stats.connections, stats.memory(), stats.store_backlog(), stats.turns_open.total())
        return dict(zip(_GAUGES, values, strict=True))

    def _rates(self, before: _Totals, seconds: float) -> dict[str, float | None]:
        """Return what came in a second since then, and the share of it that was refused."""
        now = self._totals
        asked, errors = now.asked - before.asked, now.errors - before.errors
        return {
            "messages_in": round((now.messages_in - before.messages_in) / seconds, DIGITS),
            "messages_out": round((now.messages_out - before.messages_out) / seconds, DIGITS),
            "errors": round(errors / seconds, DIGITS),
            "error_rate": round(min(1.0, errors / asked), DIGITS) if asked else None,
        }

    def _quantiles(self, before: Mapping[str, list[int]]) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for name, shares in _DRAWN.items():
            for share in shares:
                value = self._histograms[name].quantile(_SHARES[share], before[name])
                found[f"{name}_{share}"] = None if value is None else round(value, DIGITS)
        return found
