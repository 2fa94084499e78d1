"""What the broker counts about itself: plain numbers that the core adds to and plugins read.

Nothing here knows of metrics formats; on the message path a count costs one addition. Everything is
written and read on the event loop; a plugin that renders in a thread takes its copy on the loop. What is
spread over thousands of actors comes as an iterable, so that it may be walked slice by slice.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import attrs

__all__ = ["DURATIONS", "FIRST_TOKENS", "LATENCIES", "RESPONSES", "Agents", "Histogram", "Profile", "Stats"]

LATENCIES: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds in seconds for what should take milliseconds: a commit, a delivery."""

DURATIONS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Bounds in seconds for what an agent takes for a turn."""

FIRST_TOKENS: Final = (0.005, 0.01, 0.025, 0.05, *DURATIONS)
"""Bounds in seconds for what it takes until it says something."""

RESPONSES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds in seconds for how long somebody waits for an answer."""

LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds in seconds for what should be next to nothing, and is long when something blocks."""


class Histogram:
    """How often something took how long.

    Args:
        bounds: upper bounds in seconds, ascending, each inclusive; what is longer goes into one more bucket.

    Attributes:
        bounds: as given.
        counts: observations per bucket, one longer than `bounds`.
        total: all observed seconds together.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one that took `seconds`."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[int]:
        """Return for each bucket how many were at most that long; the last is the number of all."""
        return list(accumulate(self.counts))

    def quantile(self, share: float, before: Sequence[int] = ()) -> float | None:
        """Return the seconds within which this share of the observations was, read off the buckets.

        Args:
            share: such as 0.95.
            before: what `counts` was once; only what was observed since then counts. All of it if left out.

        Returns:
            a moment within the bucket that it falls into; the last bound for what was longer than that, and None where
            nothing was observed.
        """
        counts = [now - then for now, then in zip(self.counts, before, strict=True)] if before else self.counts
        wanted, below = share * sum(counts), 0
        if not wanted:
            return None
        for index, count in enumerate(counts[:-1]):
            if below + count >= wanted:
                floor = self.bounds[index - 1] if index else 0.0
                return floor + (self.bounds[index] - floor) * (wanted - below) / count
            below += count
        return self.bounds[-1]


def _responses() -> Histogram:
    return Histogram(RESPONSES)


def _latencies() -> Histogram:
    return Histogram(LATENCIES)


def _durations() -> Histogram:
    return Histogram(DURATIONS)


def _first_tokens() -> Histogram:
    return Histogram(FIRST_TOKENS)


def _lags() -> Histogram:
    return Histogram(LAGS)


def _nothing() -> float:
    return 0


def _no() -> bool:
    return False


def _nobody() -> Iterable[Any]:
    return ()


def _no_names() -> Mapping[str, Any]:
    return {}


@attrs.frozen
class Agents:
    """The agents of one profile, as they are now.

    Attributes:
        linked: how many are there; None for a kind that has none until a turn needs one.
        capacity: turns that may be under way at the same time; None for no limit.
        restarts: times that one went without having been sent away: a process that died, a link that broke.
    """

    linked: int | None
    capacity: int | None
    restarts: int = 0


@attrs.define(eq=False)
class Profile:
    """What has become of the turns of one agent profile.

    Attributes:
        queued: turns that wait for it now.
        in_flight: turns that it has now.
        outcomes: turns that have ended, by outcome (PROTOCOL 3).
        first_token_seconds: from a turn's dispatch to its agent's first output.
        trouble: of the newest turn that ended badly when, in milliseconds since the epoch, and why; None for none.
    """

    queued: int = 0
    in_flight: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    first_token_seconds: Histogram = attrs.field(factory=_first_tokens)
    trouble: tuple[int, str] | None = None


@attrs.define(eq=False)
class Stats:
    """The broker's counters; those without another note only grow.

    Attributes:
        started_at: `time.monotonic()` at which the broker began.
        connections: open now.
        connections_total: ever opened.
        connections_peak: the most that were open at the same time.
        requests: requests answered over HTTP, by class of status such as `2xx`; those that became sockets are none.
        handshakes: by outcome, `accepted` or the code of the refusal.
        messages_in: messages taken from clients.
        messages_out: messages written to clients, one for each receiver.
        bytes_in: bytes of JSON in `messages_in`.
        bytes_out: bytes of JSON in `messages_out`.
        errors: errors sent to clients and agents, by code (PROTOCOL 2b).
        closes: connections ended, by WebSocket close code (PROTOCOL 2c).
        turns_accepted: turns that were promised an end.
        turns_open: turns that have not ended, by the state they are in now (PROTOCOL 3).
        turns_ended: by outcome (PROTOCOL 3).
        sessions: in memory now.
        rooms: in memory now.
        records: records made durable.
        commits: transactions that made them so.
        rate_limited: what was refused because there was too much of it, by the limit, such as `messages`.
        blocked: times that the event loop was blocked for long, by the plugin that did it, `broker` for ourselves.
        dropped: what was given up on purpose, by reason.
        plugin_errors: unexpected errors of plugins, by plugin.
        actor_failures: actors that failed and were started anew, by their class.
        request_seconds: from a request to its answer, where an actor, a plugin or the HTTP API gave it.
        turn_seconds: from a turn's acceptance to its end.
        first_token_seconds: from a turn's dispatch to the agent's first output.
        commit_seconds: from a write's arrival at the store to its commit.
        delivery_seconds: from the writing of records to their being told to those who follow the log.
        lag_seconds: how late the event loop was, each time it was looked at.
        connections_limit: returns how many connections there may be.
        memory: returns the bytes of memory that the process has, 0 where the system does not tell.
        connection_memory: returns the bytes that it has more than when it began to listen, for each connection.
        memory_limit: returns the bytes of memory above which new work is refused, 0 for no limit.
        ready: returns whether new work is welcome.
        store_up: returns whether the store took the last write.
        store_backlog: returns the writes that wait for the store now.
        loop_lag_seconds: returns how late the event loop was when last asked.
        outboxes: returns for each connection the bytes that wait for its client.
        mailboxes: returns for each actor its class and the messages that wait for it.
        agents: returns the agents of each profile.
        profiles: what has become of the turns of each agent profile, by its name.
        plugins: returns for each plugin whether it can do its work.
    """

    started_at: float = attrs.field(factory=time.monotonic)
    connections: int = 0
    connections_total: int = 0
    connections_peak: int = 0
    requests: Counter[str] = attrs.field(factory=Counter)
    handshakes: Counter[str] = attrs.field(factory=Counter)
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    errors: Counter[str] = attrs.field(factory=Counter)
    closes: Counter[int] = attrs.field(factory=Counter)
    turns_accepted: int = 0
    turns_open: Counter[str] = attrs.field(factory=Counter)
    turns_ended: Counter[str] = attrs.field(factory=Counter)
    sessions: int = 0
    rooms: int = 0
    records: int = 0
    commits: int = 0
    rate_limited: Counter[str] = attrs.field(factory=Counter)
    blocked: Counter[str] = attrs.field(factory=Counter)
    dropped: Counter[str] = attrs.field(factory=Counter)
    plugin_errors: Counter[str] = attrs.field(factory=Counter)
    actor_failures: Counter[str] = attrs.field(factory=Counter)
    request_seconds: Histogram = attrs.field(factory=_responses)
    turn_seconds: Histogram = attrs.field(factory=_durations)
    first_token_seconds: Histogram = attrs.field(factory=_first_tokens)
    commit_seconds: Histogram = attrs.field(factory=_latencies)
    delivery_seconds: Histogram = attrs.field(factory=_latencies)
    lag_seconds: Histogram = attrs.field(factory=_lags)
    connections_limit: Callable[[], float] = _nothing
    memory: Callable[[], float] = _nothing
    connection_memory: Callable[[], float] = _nothing
    memory_limit: Callable[[], float] = _nothing
    ready: Callable[[], bool] = _no
    store_up: Callable[[], bool] = _no
    store_backlog: Callable[[], float] = _nothing
    loop_lag_seconds: Callable[[], float] = _nothing
    outboxes: Callable[[], Iterable[int]] = _nobody
    mailboxes: Callable[[], Iterable[tuple[str, int]]] = _nobody
    agents: Callable[[], Mapping[str, Agents]] = _no_names
    profiles: dict[str, Profile] = attrs.field(factory=dict)
    plugins: Callable[[], Mapping[str, bool]] = _no_names

    def connect(self) -> None:
        """Count one more connection."""
        self.connections += 1
        self.connections_total += 1
        self.connections_peak = max(self.connections_peak, self.connections)
