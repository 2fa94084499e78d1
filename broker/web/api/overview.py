"""How the broker fares now and for the last five minutes, over HTTP: the figures that the console draws."""

from typing import Any, Final, TypedDict

from broker import __version__
from broker.clock import rfc3339
from broker.stats import Histogram, Stats
from broker.vitals.series import STEP
from broker.web.api.answers import Time
from broker.web.api.endpoint import Call, Nothing, endpoint

Number = float | None


class Who(TypedDict):
    """Who asks, and what that one may do; `open_to_all` if nobody has to say who they are."""

    user: str | None
    scopes: list[str]
    expires_at: Time | None
    open_to_all: bool


class Figures(TypedDict):
    """Figures; null where nothing was seen.

    Rates are per second, `error_rate` is the share of requests that was refused, times are seconds, memory is bytes.
    """

    connections: Number
    messages_in: Number
    messages_out: Number
    errors: Number
    error_rate: Number
    delivery_p50: Number
    delivery_p95: Number
    delivery_p99: Number
    first_token_p50: Number
    first_token_p95: Number
    first_token_p99: Number
    commit_p95: Number
    loop_lag: Number
    memory: Number
    store_backlog: Number
    turns_open: Number


class Now(Figures):
    """The figures of now: shares of what was observed within a minute, rates of the newest look; and what bounds them.

    `trouble` is why new work is not welcome; a limit of 0 is none.
    """

    connections_peak: int
    connections_limit: int
    memory_limit: int
    sessions: int
    rooms: int
    trouble: str | None
    uptime: float
    version: str
    node: str


Numbers = list[Number]


class Past(TypedDict):
    """The same figures as they were, oldest first, each as long as `at`."""

    at: list[Time]
    connections: Numbers
    messages_in: Numbers
    messages_out: Numbers
    errors: Numbers
    error_rate: Numbers
    delivery_p50: Numbers
    delivery_p95: Numbers
    delivery_p99: Numbers
    first_token_p50: Numbers
    first_token_p95: Numbers
    first_token_p99: Numbers
    commit_p95: Numbers
    loop_lag: Numbers
    memory: Numbers
    store_backlog: Numbers
    turns_open: Numbers


class Overview(TypedDict):
    """How the broker fares: now, and in the last five minutes, looked at every `step` seconds."""

    at: Time
    step: float
    now: Now
    series: Past


class Distribution(TypedDict):
    """How often something took how long since the start.

    `counts` has for each of `bounds` (seconds, inclusive) how many were within it and no lower one, and at its end how
    many took longer than all of them; `sum` is the seconds of all together. The shares are read off the bounds.
    """

    name: str
    title: str
    bounds: list[float]
    counts: list[int]
    count: int
    sum: float
    p50: Number
    p95: Number
    p99: Number


class Latency(TypedDict):
    """How long everything takes."""

    histograms: list[Distribution]


@endpoint("GET", "/whoami", "whoami", answer=Who, scope=None)
async def show_who_asks(call: Call, _: Nothing) -> Any:
    """Tell who asks, and which scopes that one has; this needs none."""
    by = call.by
    return {
        "user": by.user,
        "scopes": sorted(by.scopes),
        "expires_at": None if by.expires_at is None else rfc3339(by.expires_at),
        "open_to_all": call.services.open_to_all,
    }


@endpoint("GET", "/overview", "overview", answer=Overview)
async def show_overview(call: Call, _: Nothing) -> Any:
    """Show how the broker fares now, and how it has in the last five minutes."""
    services = call.services
    stats, clock = services.stats, services.clock
    bounds = {
        "connections_peak": stats.connections_peak,
        "connections_limit": int(stats.connections_limit()),
        "memory_limit": int(stats.memory_limit()),
        "sessions": stats.sessions,
        "rooms": stats.rooms,
        "trouble": services.trouble(),
        "uptime": round(clock.monotonic() - stats.started_at, 3),
        "version": __version__,
        "node": services.node,
    }
    series = services.series
    return {
        "at": rfc3339(clock.now()),
        "step": STEP,
        "now": {**series.now(), **bounds},
        "series": series.lines(),
    }


_TITLES: Final = {
    "delivery": "From the writing of a record to its being told to those who follow",
    "first_token": "From a turn's dispatch to its agent's first output",
    "turn": "From a turn's acceptance to its end",
    "commit": "From a write's arrival at the store to its commit",
    "request": "From a request to its answer",
    "loop_lag": "How late the event loop was",
}
"""What is measured, in the order in which it is shown."""


@endpoint("GET", "/latency", "latency", answer=Latency)
async def show_latency(call: Call, _: Nothing) -> Any:
    """Show how long deliveries, first tokens, turns, commits and requests have taken since the start."""
    seen = _histograms(call.services.stats)
    return {"histograms": [_distribution(name, title, seen[name]) for name, title in _TITLES.items()]}


def _histograms(stats: Stats) -> dict[str, Histogram]:
    return {
        "delivery": stats.delivery_seconds,
        "first_token": stats.first_token_seconds,
        "turn": stats.turn_seconds,
        "commit": stats.commit_seconds,
        "request": stats.request_seconds,
        "loop_lag": stats.lag_seconds,
    }


def _distribution(name: str, title: str, seen: Histogram) -> Distribution:
    return {
        "name": name,
        "title": title,
        "bounds": list(seen.bounds),
        "counts": list(seen.counts),
        "count": sum(seen.counts),
        "sum": seen.total,
        "p50": seen.quantile(0.5),
        "p95": seen.quantile(0.95),
        "p99": seen.quantile(0.99),
    }
