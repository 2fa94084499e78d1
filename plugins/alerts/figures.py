"""What is looked at: figures that the broker keeps anyway, as numbers with a unit."""

import copy
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Literal

import attrs

from broker.errors import ERRORS
from broker.hooks import Histogram, Stats

__all__ = ["FIGURES", "Figure", "number_of", "written"]

FEW: Final = 20
"""Messages below which no share of them is told, nor how long answers took: a few are no trend."""
FEW_TURNS: Final = 5
"""The same for turns that ended."""
FAULTS: Final = tuple(code for code, kind in ERRORS.items() if kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR)
"""Codes of errors that are the broker's or its agents' fault, rather than that of who is told."""
BAD_ENDS: Final = ("failed", "timed_out", "lost")
"""Outcomes of turns that nobody wants (PROTOCOL section 3)."""


@attrs.frozen
class Figure:
    """Something that is looked at.

    Attributes:
        unit: what its bounds are written with.
        read: takes it from the counters.
        tell: makes a number of what was read a window ago and now, and the seconds between; None if that says nothing.
    """

    unit: Literal["", "%", "s", "/s"]
    read: Callable[[Stats], Any]
    tell: Callable[[Any, Any, float], float | None] = lambda _, now, __: float(now)


def _share(least: int, part: Callable[[Stats], int], whole: Callable[[Stats], int]) -> Figure:
    def tell(before: tuple[int, int], now: tuple[int, int], _: float) -> float | None:
        happened = now[1] - before[1]
        return 100.0 * (now[0] - before[0]) / happened if happened >= least else None

    return Figure("%", lambda stats: (part(stats), whole(stats)), tell)


def _used(part: Callable[[Stats], float], limit: Callable[[Stats], float]) -> Figure:
    return Figure("%", lambda stats: 100.0 * part(stats) / limit(stats) if limit(stats) else 0.0)


def _rate(read: Callable[[Stats], int]) -> Figure:
    return Figure("/s", read, lambda before, now, seconds: (now - before) / seconds if seconds else None)


def _times(read: Callable[[Stats], int]) -> Figure:
    return Figure("", read, lambda before, now, _: now - before)


def _p95(of: Callable[[Stats], Histogram]) -> Figure:
    def tell(before: Histogram, now: Histogram, _: float) -> float | None:
        happened = sum(now.counts) - sum(before.counts)
        return now.quantile(0.95, before.counts) if happened >= FEW else None

    return Figure("s", lambda stats: copy.deepcopy(of(stats)), tell)


def _errors(stats: Stats) -> int:
    return sum(stats.errors.values())


def _asked(stats: Stats) -> int:
    return stats.messages_in + sum(stats.requests.values())


FIGURES: Final[dict[str, Figure]] = {
    "error_rate": _share(FEW, _errors, _asked),
    "fault_rate": _share(FEW, lambda stats: sum(stats.errors[code] for code in FAULTS), _asked),
    "turn_failure_rate": _share(
        FEW_TURNS,
        lambda stats: sum(stats.turns_ended[outcome] for outcome in BAD_ENDS),
        lambda stats: sum(stats.turns_ended.values()),
    ),
    "connections_used": _used(lambda stats: stats.connections, lambda stats: stats.connections_limit()),
    "memory_used": _used(lambda stats: stats.memory(), lambda stats: stats.memory_limit()),
    "messages_per_second": _rate(_asked),
    "errors_per_second": _rate(_errors),
    "response_p95": _p95(lambda stats: stats.request_seconds),
    "first_token_p95": _p95(lambda stats: stats.first_token_seconds),
    "turn_p95": _p95(lambda stats: stats.turn_seconds),
    "commit_p95": _p95(lambda stats: stats.commit_seconds),
    "loop_lag_p95": _p95(lambda stats: stats.lag_seconds),
    "slow_clients": _times(lambda stats: stats.dropped["too_slow"]),
    "actor_failures": _times(lambda stats: sum(stats.actor_failures.values())),
    "plugin_errors": _times(lambda stats: sum(stats.plugin_errors.values())),
    "loop_blocked": _times(lambda stats: sum(stats.blocked.values())),
    "stalled_turns": Figure("", lambda _: 0),  # which the plugin counts itself
    "queued_turns": Figure("", lambda stats: stats.turns_open["queued"]),
    "open_turns": Figure("", lambda stats: sum(stats.turns_open.values())),
    "connections": Figure("", lambda stats: stats.connections),
    "store_down": Figure("", lambda stats: not stats.store_up()),
    "store_backlog": Figure("", lambda stats: stats.store_backlog()),
    "not_ready": Figure("", lambda stats: not stats.ready()),
    "plugins_down": Figure("", lambda stats: sum(not up for up in stats.plugins().values())),
    "agents_away": Figure("", lambda stats: sum(agents.linked == 0 for agents in stats.agents().values())),
}


def number_of(figure: str, bound: object) -> float:
    """Return a bound as a number in its figure's unit, which may be written or left out.

    Raises:
        ValueError: it has another unit, or is no number.
    """
    unit, text, factor = FIGURES[figure].unit, str(bound).strip(), 1.0
    if unit == "s" and text.endswith("ms"):
        text, factor = text[:-2], 0.001
    elif unit:
        text = text.removesuffix(unit)
    try:
        number = -1.0 if isinstance(bound, bool) else float(text) * factor
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        example = {"%": "5%", "s": "2s or 300ms", "/s": "10/s", "": "3"}[unit]
        raise ValueError(f"a bound of {figure} is written such as {example}, not {str(bound)[:32]!r}")
    return number


def written(figure: str, number: float | None) -> str:
    """Write a number with its figure's unit."""
    return "unknown" if number is None else f"{number:.4g}{FIGURES[figure].unit}"
