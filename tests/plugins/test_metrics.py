"""What Prometheus gets: the broker's counters, in its own formats, through the real loader and a real socket."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from broker import config
from broker.errors import ERRORS, CloseCode
from broker.hooks import Stats
from broker.offers import collect_routes
from broker.plugin_loader import Plugins, load

Client = TestClient[web.Request, web.Application]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Lone:
    """A broker with counters and nobody connected."""

    def __init__(self) -> None:
        self.version = "9.8.7"
        self.stats = Stats()


@pytest.fixture
def broker() -> Lone:
    return Lone()


def load_metrics(broker: Lone, tmp_path: Path, block: str = "{}") -> Plugins:
    file = tmp_path / "config.yaml"
    file.write_text(f"plugins: {{metrics: {block}}}")
    loaded = config.load(file, {}, {})
    plugins = load(loaded.settings, loaded.file)
    plugins.create(broker)  # type: ignore[arg-type]
    return plugins


@pytest.fixture
async def client(
    broker: Lone, tmp_path: Path, aiohttp_client: Callable[[web.Application], Awaitable[Client]]
) -> AsyncIterator[Client]:
    app = web.Application()
    for route in collect_routes(load_metrics(broker, tmp_path).instances):
        app.router.add_route(route.method, route.path, route.handler)
    return await aiohttp_client(app)


async def scrape(client: Client) -> Samples:
    text = await (await client.get("/metrics")).text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


async def test_counters_are_read_when_they_are_asked_for(broker: Lone, client: Client) -> None:
    assert (await scrape(client))["broker_messages_total", (("direction", "in"),)] == 0
    broker.stats.messages_in = 5
    broker.stats.connections = 2
    broker.stats.turns_ended["lost"] += 3
    broker.stats.errors["rate_limited"] += 1
    broker.stats.plugin_errors["shout"] += 4
    broker.stats.mailbox_depth = lambda: {"Session": 6}
    samples = await scrape(client)
    assert samples["broker_messages_total", (("direction", "in"),)] == 5
    assert samples["broker_connections", ()] == 2
    assert samples["broker_turns_total", (("outcome", "lost"),)] == 3
    assert samples["broker_errors_total", (("code", "rate_limited"),)] == 1
    assert samples["broker_plugin_errors_total", (("plugin", "shout"),)] == 4
    assert samples["broker_mailbox_depth", (("actor", "Session"),)] == 6


async def test_a_histogram_is_cumulative_and_sums_up(broker: Lone, client: Client) -> None:
    for seconds in (0.2, 0.2, 700.0, 9999.0):
        broker.stats.turn_seconds.observe(seconds)
    samples = await scrape(client)
    assert samples["broker_turn_seconds_bucket", (("le", "0.1"),)] == 0
    assert samples["broker_turn_seconds_bucket", (("le", "0.25"),)] == 2
    assert samples["broker_turn_seconds_bucket", (("le", "1800.0"),)] == 3
    assert samples["broker_turn_seconds_bucket", (("le", "+Inf"),)] == 4
    assert samples["broker_turn_seconds_count", ()] == 4
    assert samples["broker_turn_seconds_sum", ()] == pytest.approx(10699.4)


async def test_the_series_that_matter_are_there_before_anything_happens(client: Client) -> None:
    samples = await scrape(client)
    assert {dict(labels)["code"] for name, labels in samples if name == "broker_errors_total"} == set(ERRORS)
    outcomes = {dict(labels)["outcome"] for name, labels in samples if name == "broker_turns_total"}
    assert outcomes == {"completed", "cancelled", "failed", "timed_out", "lost"}
    build = next(dict(labels) for name, labels in samples if name == "broker_build_info")
    assert build["version"] == "9.8.7"
    assert samples["broker_uptime_seconds", ()] >= 0
    assert samples["process_resident_memory_bytes", ()] > 0


async def test_clients_cannot_make_series_by_the_codes_they_close_with(broker: Lone, client: Client) -> None:
    broker.stats.closes.update({CloseCode.TOO_SLOW: 1, 1006: 2, 3000: 3, 4999: 4})
    before = len(await scrape(client))
    broker.stats.closes.update(range(3000, 4000))
    samples = await scrape(client)
    assert len(samples) == before
    assert samples["broker_closes_total", (("code", "4002"),)] == 1
    assert samples["broker_closes_total", (("code", "1006"),)] == 2
    assert samples["broker_closes_total", (("code", "other"),)] == 1007


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=abc", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_whatever_is_asked_for_some_format_is_given(accept: str, content_type: str, client: Client) -> None:
    response = await client.get("/metrics", headers={"Accept": accept})
    assert (response.status, response.headers["Content-Type"]) == (200, content_type)


async def test_openmetrics_is_given_to_those_who_prefer_it_and_is_well_formed(broker: Lone, client: Client) -> None:
    broker.stats.turn_seconds.observe(1.0)
    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family.type for family in parse_openmetrics(await response.text())}
    assert families["broker_connections"] == "gauge"
    assert families["broker_connections_opened"] == "counter"
    assert families["broker_turn_seconds"] == "histogram"
    assert families["broker_build"] == "info"


async def test_two_brokers_in_one_process_have_their_own_metrics(broker: Lone, client: Client, tmp_path: Path) -> None:
    other = Lone()
    other.stats.connections = 7
    assert load_metrics(other, tmp_path).instances
    assert (await scrape(client))["broker_connections", ()] == 0


def test_the_path_is_a_setting_and_checked(broker: Lone, tmp_path: Path) -> None:
    plugins = load_metrics(broker, tmp_path, "{path: /internal/metrics}")
    assert [route.path for route in collect_routes(plugins.instances)] == ["/internal/metrics"]
    assert load_metrics(broker, tmp_path, "{path: metrics}").problems[0].path == "plugins.metrics.path"
    assert load_metrics(broker, tmp_path, "{path: '/{tail:.*}'}").problems


def test_scrapes_read_every_counter_there_is() -> None:
    """A counter that the core keeps and nobody can see would be forgotten."""
    source = (Path(__file__).parents[2] / "plugins" / "metrics.py").read_text()
    unseen = [field.name for field in attrs.fields(Stats) if f"stats.{field.name}" not in source]
    assert unseen == []
