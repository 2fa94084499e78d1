"""Prometheus metrics at /metrics: what the broker counts, put into Prometheus' form when it is asked for.

Nothing is added to the message path: the numbers are `broker.stats`, which the core counts anyway. No label holds
an id, a name or an address, so the number of series does not grow with use.
"""

import asyncio
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from broker.errors import ERRORS, CloseCode
from broker.hooks import Broker, Histogram, Plugin, Route, Stats

OUTCOMES: Final = ("completed", "cancelled", "failed", "timed_out", "lost")
"""How a turn ends (PROTOCOL section 3)."""

NO_STATUS: Final = 1005
LINE_BROKE: Final = 1006
"""Close codes that are never sent, only noted (RFC 6455 section 7.4.1)."""


class Metrics(Plugin):
    """Serves the broker's counters and the process's own (memory, file descriptors, CPU) to Prometheus."""

    version = "1.0"

    @attrs.frozen
    class Settings:
        """What stands under `metrics:`.

        Attributes:
            path: Where the metrics are served.
        """

        path: Annotated[str, Meta(pattern=r"^/[A-Za-z0-9/_.-]+$")] = "/metrics"

    settings: Settings

    def __init__(self, settings: Settings, broker: Broker) -> None:
        super().__init__(settings, broker)
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)

    def routes(self) -> Sequence[Route]:
        """Serve the metrics where the settings say."""
        return (Route("GET", self.settings.path, self.scrape),)

    async def scrape(self, request: web.Request) -> web.Response:
        """Answer one scrape, in the format that the scraper prefers."""
        # The broker's numbers belong to the loop and are read here, at one moment; text is made in a thread.
        families = list(broker_metrics(self.broker))
        body, content_type = await asyncio.to_thread(self._render, families, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    def _render(self, families: list[Metric], accept: str) -> tuple[bytes, str]:
        encode, content_type = _encoder(accept)
        return encode(_Collected([*families, *self._process.collect()])), content_type


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


def broker_metrics(broker: Broker) -> Iterator[Metric]:
    """Yield all of the broker's metrics as they are now; called on the event loop."""
    python = platform.python_version()
    yield InfoMetricFamily("broker_build", "What this is.", {"version": broker.version, "python": python})
    yield from _traffic(broker.stats)
    yield from _work(broker.stats)
    yield from _health(broker.stats)


def _traffic(stats: Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily("broker_connections", "Connections open now.", stats.connections)
    yield CounterMetricFamily("broker_connections_opened", "Connections ever opened.", stats.connections_total)
    yield _counter("broker_handshakes", "Handshakes by outcome.", "outcome", stats.handshakes)
    messages = {"in": stats.messages_in, "out": stats.messages_out}
    yield _counter("broker_messages", "Messages of clients, out: one for each receiver.", "direction", messages)
    sizes = {"in": stats.bytes_in, "out": stats.bytes_out}
    yield _counter("broker_message_bytes", "Bytes of these messages.", "direction", sizes)
    yield _counter("broker_errors", "Errors sent by code.", "code", dict.fromkeys(ERRORS, 0) | stats.errors)
    yield _counter("broker_closes", "Connections ended by WebSocket close code.", "code", _closes(stats.closes))
    yield _counter("broker_rate_limited", "What was refused for being too much by limit.", "limit", stats.rate_limited)
    yield _counter("broker_dropped", "What was given up on purpose by reason.", "reason", stats.dropped)


def _work(stats: Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily("broker_sessions", "Sessions in memory now.", stats.sessions)
    yield GaugeMetricFamily("broker_rooms", "Rooms in memory now.", stats.rooms)
    yield CounterMetricFamily("broker_turns_accepted", "Turns that were promised an end.", stats.turns_accepted)
    ended = dict.fromkeys(OUTCOMES, 0) | stats.turns_ended
    yield _counter("broker_turns", "Turns that have ended by outcome.", "outcome", ended)
    yield _histogram("broker_turn_seconds", "From a turn's acceptance to its end.", stats.turn_seconds)
    first = "From a turn's dispatch to the agent's first output."
    yield _histogram("broker_first_token_seconds", first, stats.first_token_seconds)
    delivery = "From the writing of records to their being told to followers."
    yield _histogram("broker_delivery_seconds", delivery, stats.delivery_seconds)
    yield CounterMetricFamily("broker_records", "Records made durable.", stats.records)
    yield CounterMetricFamily("broker_commits", "Transactions that made them so.", stats.commits)
    commit = "From a write's arrival at the store to its commit."
    yield _histogram("broker_commit_seconds", commit, stats.commit_seconds)


def _health(stats: Stats) -> Iterator[Metric]:
    up = time.monotonic() - stats.started_at
    yield GaugeMetricFamily("broker_uptime_seconds", "Time since the broker began.", up)
    yield GaugeMetricFamily("broker_loop_lag_seconds", "How late the event loop is.", stats.loop_lag_seconds())
    yield GaugeMetricFamily("broker_store_backlog", "Writes that wait for the store.", stats.store_backlog())
    yield GaugeMetricFamily("broker_outbox_bytes", "Bytes that wait for clients.", stats.outbox_bytes())
    depth = GaugeMetricFamily("broker_mailbox_depth", "Messages waiting by class of actor.", labels=["actor"])
    for actor, messages in stats.mailbox_depth().items():
        depth.add_metric([actor], messages)
    yield depth
    yield _counter("broker_plugin_errors", "Unexpected errors of plugins.", "plugin", stats.plugin_errors)
    yield _counter("broker_loop_blocked", "Times the event loop was blocked by plugin.", "plugin", stats.blocked)


def _closes(closes: Mapping[int, int]) -> dict[str, int]:
    # A client may close with any number it likes; one series for each of them would be its to make.
    known = {str(int(code)): 0 for code in (*CloseCode, NO_STATUS, LINE_BROKE)}
    counted = known | {"other": 0}
    for code, times in closes.items():
        counted[str(int(code)) if str(int(code)) in known else "other"] += times
    return counted


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, times in values.items():
        family.add_metric([value], times)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    bounds = [str(bound) for bound in histogram.bounds] + ["+Inf"]
    buckets = list(zip(bounds, histogram.cumulative(), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.total)
