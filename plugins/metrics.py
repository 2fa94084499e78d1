"""Prometheus metrics at /metrics: what the broker counts, put into Prometheus' form when it is asked for.

Nothing is added to the message path: the numbers are `broker.stats`, which the core counts anyway. No label holds
an id or an address, and the values of each come from a closed set or from the configuration, so the number of series
does not grow with use. Names follow https://prometheus.io/docs/practices/naming/.
"""

import asyncio
import hmac
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Final

import attrs
from aiohttp import web
from msgspec import Meta
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from broker.errors import ERRORS, BrokerError, CloseCode
from broker.hooks import Broker, Histogram, Network, Plugin, Route, Secret, Stats

STATES: Final = ("queued", "dispatching", "running", "awaiting_approval", "cancelling")
OUTCOMES: Final = ("completed", "cancelled", "failed", "timed_out", "lost")
"""Where a turn stands, and how it ends (PROTOCOL section 3)."""
ACTORS: Final = ("agentbridge", "registry", "room", "session")
"""Classes of actors that come and go, whose series are there all the same."""
REASONS: Final = ("too_slow", "heartbeat", "observer", "message_log", "feedback", "unworded")
STATUSES: Final = ("2xx", "3xx", "4xx", "5xx")

NO_STATUS: Final = 1005
LINE_BROKE: Final = 1006
"""Close codes that are never sent, only noted (RFC 6455 section 7.4.1)."""

SCRAPES: Final = 2
"""Scrapes that may be under way; Prometheus comes one at a time, and threads are few."""
SLICE: Final = 250
"""Actors that are looked at before others get their turn of the loop: less than 0.1 ms."""
LEAST_TOKEN: Final = 16
"""Characters of a token that nobody guesses."""


class Metrics(Plugin):
    """Serves the broker's counters and the process's own (memory, file descriptors, CPU) to Prometheus."""

    version = "1.1"

    @attrs.frozen
    class Settings:
        """What stands under `metrics:`.

        Attributes:
            path: Where the metrics are served.
            allow: Addresses or networks that may read them; past the trusted proxies.
            token: Who shows it as `Authorization: Bearer` may read them from anywhere; at least 16 characters.
        """

        path: Annotated[str, Meta(pattern=r"^/[A-Za-z0-9/_.-]+$")] = "/metrics"
        allow: tuple[Network, ...] = ("127.0.0.0/8", "::1")
        token: Secret | None = None

    settings: Settings

    def __init__(self, settings: Settings, broker: Broker) -> None:
        super().__init__(settings, broker)
        self._scrapes = 0
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)
        self._take(settings)

    def _take(self, settings: Settings) -> None:
        if settings.token is not None and len(settings.token.reveal()) < LEAST_TOKEN:
            raise ValueError(f"token must have at least {LEAST_TOKEN} characters; make one: openssl rand -hex 32")
        self._networks = [ip_network(network) for network in settings.allow]
        self.settings = settings

    def reload(self, settings: Settings) -> bool:
        """Take over who may read; another path takes a restart."""
        if settings.path != self.settings.path:
            return False
        self._take(settings)
        return True

    def routes(self) -> Sequence[Route]:
        """Serve the metrics where the settings say."""
        return (Route("GET", self.settings.path, self.scrape),)

    async def scrape(self, request: web.Request) -> web.Response:
        """Answer one scrape, in the format that the scraper prefers.

        Raises:
            BrokerError: `forbidden` or `unauthenticated`: it may not read them; `overloaded`: too many at a time.
        """
        self._admit(request)
        if self._scrapes >= SCRAPES:
            raise BrokerError("overloaded", "The metrics are being read by others.", retry_after=1.0)
        self._scrapes += 1
        try:
            # The broker's numbers belong to the loop and are read here; the text is made in a thread.
            queues = await _measure(self.broker.stats)
            families = list(broker_metrics(self.broker, queues))
            body, content_type = await asyncio.to_thread(self._render, families, request.headers.get("Accept", ""))
        finally:
            self._scrapes -= 1
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    def _admit(self, request: web.Request) -> None:
        """Let in who comes from an address that may read, or shows the token."""
        address = _address(request.remote)
        if address is not None and any(address in network for network in self._networks):
            return
        token = self.settings.token
        if token is None:
            hint = "list the scraper's address under plugins.metrics.allow, or set plugins.metrics.token"
            raise BrokerError("forbidden", "Metrics are not for this address.", hint=hint)
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(shown.strip().encode(errors="surrogatepass"), token.reveal().encode())
        if scheme.lower() != "bearer" or not right:
            raise BrokerError("unauthenticated", "Show the token that plugins.metrics.token names.")

    def _render(self, families: list[Metric], accept: str) -> tuple[bytes, str]:
        encode, content_type = _encoder(accept)
        return encode(_Collected([*families, *self._process.collect()])), content_type


def _address(remote: str | None) -> Any:
    """Return an address as networks are compared with: of a socket for both families the IPv4 one that is meant."""
    try:
        address = ip_address(remote or "")
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@attrs.define
class Queues:
    """What waits, summed up over all actors.

    Attributes:
        outbox: bytes for all clients, and ...
        largest: ... for the one that has most before it.
        depth: messages, by class of actor, and ...
        deepest: ... for the one actor of it that has most before it.
    """

    outbox: int = 0
    largest: int = 0
    depth: Counter[str] = attrs.field(factory=Counter)
    deepest: dict[str, int] = attrs.field(factory=dict)


async def _measure(stats: Stats) -> Queues:
    """Look at every queue there is, a slice at a time, so that thousands of them hold nobody up."""
    queues = Queues()
    async for size in _in_slices(stats.outboxes()):
        queues.outbox += size
        queues.largest = max(queues.largest, size)
    async for actor, messages in _in_slices(stats.mailboxes()):
        queues.depth[actor] += messages
        queues.deepest[actor] = max(queues.deepest.get(actor, 0), messages)
    return queues


async def _in_slices(things: Iterable[Any]) -> AsyncIterator[Any]:
    for number, thing in enumerate(things, 1):
        yield thing
        if not number % SLICE:
            await asyncio.sleep(0)


@attrs.frozen
class _Collected:
    """What an encoder takes for a registry."""

    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def _encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version in the header that is none
        return choose_encoder("")


def broker_metrics(broker: Broker, queues: Queues) -> Iterator[Metric]:
    """Yield all of the broker's metrics as they are now; called on the event loop."""
    python = platform.python_version()
    yield InfoMetricFamily("broker_build", "What this is.", {"version": broker.version, "python": python})
    yield from _traffic(broker.stats)
    yield from _turns(broker.stats)
    yield from _storage(broker.stats)
    yield from _health(broker.stats)
    yield from _waiting(queues)
    yield from _parts(broker.stats)


def _traffic(stats: Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily("broker_connections", "Connections open now.", stats.connections)
    limit = stats.connections_limit()
    yield GaugeMetricFamily("broker_connections_limit", "Connections that there may be.", limit)
    peak = "The most connections that were open at the same time."
    yield GaugeMetricFamily("broker_connections_peak", peak, stats.connections_peak)
    yield CounterMetricFamily("broker_connections_opened", "Connections ever opened.", stats.connections_total)
    handshakes = dict.fromkeys(("accepted", *ERRORS), 0) | stats.handshakes
    yield _counter("broker_handshakes", "Handshakes, by outcome.", "outcome", handshakes)
    requests = dict.fromkeys(STATUSES, 0) | stats.requests
    yield _counter("broker_http_requests", "Requests over HTTP, by class of status.", "status", requests)
    messages = {"in": stats.messages_in, "out": stats.messages_out}
    yield _counter("broker_messages", "Messages of clients, out: one for each receiver.", "direction", messages)
    sizes = {"in": stats.bytes_in, "out": stats.bytes_out}
    yield _counter("broker_message_bytes", "Bytes of the messages of clients.", "direction", sizes)
    yield _counter(
        "broker_errors", "Errors sent to clients and agents, by code.", "code", dict.fromkeys(ERRORS, 0) | stats.errors
    )
    yield _counter("broker_closes", "Connections ended, by WebSocket close code.", "code", _closes(stats.closes))
    yield _counter("broker_rate_limited", "What was refused for being too much, by limit.", "limit", stats.rate_limited)
    answer = "From a request to its answer, where an actor, a plugin or the HTTP API gave it."
    yield _histogram("broker_request_seconds", answer, stats.request_seconds)
    dropped = dict.fromkeys(REASONS, 0) | stats.dropped
    yield _counter("broker_dropped", "What was given up on purpose, by reason.", "reason", dropped)


def _turns(stats: Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily("broker_sessions", "Sessions in memory now.", stats.sessions)
    yield GaugeMetricFamily("broker_rooms", "Rooms in memory now.", stats.rooms)
    there = dict.fromkeys(STATES, 0) | stats.turns_open
    yield _gauge("broker_turns_open", "Turns that have not ended, by state.", "state", there)
    yield CounterMetricFamily("broker_turns_accepted", "Turns that were promised an end.", stats.turns_accepted)
    ended = dict.fromkeys(OUTCOMES, 0) | stats.turns_ended
    yield _counter("broker_turns", "Turns that have ended, by outcome.", "outcome", ended)
    yield _histogram("broker_turn_seconds", "From a turn's acceptance to its end.", stats.turn_seconds)
    first = "From a turn's dispatch to the agent's first output."
    yield _histogram("broker_first_token_seconds", first, stats.first_token_seconds)
    delivery = "From the writing of records to their being told to followers."
    yield _histogram("broker_delivery_seconds", delivery, stats.delivery_seconds)


def _storage(stats: Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily("broker_store_up", "1 if the store took the last write.", stats.store_up())
    yield GaugeMetricFamily("broker_store_backlog", "Writes that wait for the store.", stats.store_backlog())
    yield CounterMetricFamily("broker_records", "Records made durable.", stats.records)
    yield CounterMetricFamily("broker_commits", "Transactions that made records durable.", stats.commits)
    commit = "From a write's arrival at the store to its commit."
    yield _histogram("broker_commit_seconds", commit, stats.commit_seconds)


def _health(stats: Stats) -> Iterator[Metric]:
    up = time.monotonic() - stats.started_at
    yield GaugeMetricFamily("broker_uptime_seconds", "Time since the broker began.", up)
    yield GaugeMetricFamily("broker_ready", "1 while new work is welcome, as /readyz says.", stats.ready())
    yield GaugeMetricFamily("broker_memory_bytes", "Memory that the process has.", stats.memory())
    each = "Memory beyond that of when the broker began to listen, for each connection."
    yield GaugeMetricFamily("broker_connection_memory_bytes", each, stats.connection_memory())
    bound = "Memory above which new work is refused, 0 for no limit."
    yield GaugeMetricFamily("broker_memory_limit_bytes", bound, stats.memory_limit())
    yield GaugeMetricFamily("broker_loop_lag_seconds", "How late the event loop is.", stats.loop_lag_seconds())
    delay = "How late the event loop was, four times a second."
    yield _histogram("broker_loop_delay_seconds", delay, stats.lag_seconds)
    failures = dict.fromkeys(ACTORS, 0) | stats.actor_failures
    yield _counter("broker_actor_failures", "Actors that failed and were started anew, by class.", "actor", failures)


def _waiting(queues: Queues) -> Iterator[Metric]:
    yield GaugeMetricFamily("broker_outbox_bytes", "Bytes that wait for clients.", queues.outbox)
    yield GaugeMetricFamily("broker_outbox_largest_bytes", "Bytes that wait for the slowest client.", queues.largest)
    depth = dict.fromkeys(ACTORS, 0) | queues.depth
    yield _gauge("broker_mailbox_depth", "Messages waiting for actors, by class.", "actor", depth)
    deepest = dict.fromkeys(ACTORS, 0) | queues.deepest
    yield _gauge("broker_mailbox_deepest", "Messages waiting for the busiest actor, by class.", "actor", deepest)


def _parts(stats: Stats) -> Iterator[Metric]:
    agents = stats.agents()
    linked = {name: agent.linked for name, agent in agents.items() if agent.linked is not None}
    yield _gauge("broker_agents_linked", "Agents that have dialled in or were dialled, by profile.", "agent", linked)
    places = {name: agent.capacity for name, agent in agents.items() if agent.capacity is not None}
    yield _gauge(
        "broker_agent_capacity",
        "Turns that agents take at a time, by profile, where there is a limit.",
        "agent",
        places,
    )
    profiles = stats.profiles
    running = {name: profile.in_flight for name, profile in profiles.items()}
    yield _gauge("broker_agent_turns", "Turns that agents have now, by profile.", "agent", running)
    queued = {name: profile.queued for name, profile in profiles.items()}
    yield _gauge("broker_agent_queue", "Turns that wait for agents now, by profile.", "agent", queued)
    restarts = {name: agent.restarts for name, agent in agents.items()}
    lost = "Agents that died and were started again, or whose links broke, by profile."
    yield _counter("broker_agent_restarts", lost, "agent", restarts)
    plugins = stats.plugins()
    yield _gauge("broker_plugin_up", "1 if the plugin can do its work.", "plugin", plugins)
    errors = dict.fromkeys(plugins, 0) | stats.plugin_errors
    yield _counter("broker_plugin_errors", "Unexpected errors of plugins, by plugin.", "plugin", errors)
    blocked = dict.fromkeys(("broker", *plugins), 0) | stats.blocked
    yield _counter("broker_loop_blocked", "Times the event loop was blocked, by who did it.", "plugin", blocked)


def _closes(closes: Mapping[int, int]) -> dict[str, int]:
    # A client may close with any number it likes; one series for each of them would be its to make.
    known = {str(int(code)): 0 for code in (*CloseCode, NO_STATUS, LINE_BROKE)}
    counted = known | {"other": 0}
    for code, times in closes.items():
        counted[str(int(code)) if str(int(code)) in known else "other"] += times
    return counted


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, times in values.items():
        family.add_metric([value], times)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    bounds = [str(bound) for bound in histogram.bounds] + ["+Inf"]
    buckets = list(zip(bounds, histogram.cumulative(), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.total)
