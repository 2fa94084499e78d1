"""What Prometheus gets: the broker's counters, in its own formats, through the real loader and a real socket."""

import asyncio
import itertools
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, make_mocked_request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from broker import config
from broker.errors import ERRORS, BrokerError, CloseCode
from broker.extensions.loader import Plugins, load
from broker.hooks import Route, Stats
from broker.plugins.metrics import Queues, broker_metrics
from broker.stats import Agents
from broker.testing import until

PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=Path(sys.executable).parent)
Client = TestClient[web.Request, web.Application]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
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


def routes_of(plugins: Plugins) -> list[Route]:
    return [route for plugin in plugins.instances for route in plugin.routes()]


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with what a refusal amounts to; the broker's own does so too, with more words."""
    try:
        return await handler(request)
    except BrokerError as e:
        return web.json_response(e.as_data(), status=e.status.value)


Serve = Callable[[Plugins], Awaitable[Client]]


@pytest.fixture
def serve(aiohttp_client: Callable[[web.Application], Awaitable[Client]]) -> Serve:
    """Serve the routes of plugins."""

    async def start(plugins: Plugins) -> Client:
        app = web.Application(middlewares=[refusals])
        for route in routes_of(plugins):
            app.router.add_route(route.method, route.path, route.handler)
        return await aiohttp_client(app)

    return start


@pytest.fixture
async def client(broker: Lone, tmp_path: Path, serve: Serve) -> Client:
    return await serve(load_metrics(broker, tmp_path))


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
    broker.stats.mailboxes = lambda: [("session", 4), ("room", 1), ("session", 2)]
    broker.stats.outboxes = lambda: [0, 70, 30]
    broker.stats.turns_open["running"] += 2
    broker.stats.agents = lambda: {"echo": Agents(None, None), "pool": Agents(3, 12)}
    broker.stats.plugins = lambda: {"shout": False, "auth": True}
    broker.stats.ready = lambda: True
    samples = await scrape(client)
    assert samples["broker_messages_total", (("direction", "in"),)] == 5
    assert samples["broker_connections", ()] == 2
    assert samples["broker_turns_total", (("outcome", "lost"),)] == 3
    assert samples["broker_errors_total", (("code", "rate_limited"),)] == 1
    assert samples["broker_plugin_errors_total", (("plugin", "shout"),)] == 4
    assert samples["broker_mailbox_depth", (("actor", "session"),)] == 6
    assert samples["broker_mailbox_deepest", (("actor", "session"),)] == 4
    assert samples["broker_mailbox_depth", (("actor", "registry"),)] == 0
    assert samples["broker_outbox_bytes", ()] == 100
    assert samples["broker_outbox_largest_bytes", ()] == 70
    assert samples["broker_turns_open", (("state", "running"),)] == 2
    assert samples["broker_turns_open", (("state", "queued"),)] == 0
    assert [dict(labels)["agent"] for name, labels in samples if name == "broker_agents_linked"] == ["pool"]
    assert samples["broker_agent_capacity", (("agent", "pool"),)] == 12
    assert samples["broker_plugin_up", (("plugin", "shout"),)] == 0
    assert samples["broker_plugin_up", (("plugin", "auth"),)] == 1
    assert samples["broker_plugin_errors_total", (("plugin", "auth"),)] == 0
    assert samples["broker_loop_blocked_total", (("plugin", "broker"),)] == 0
    assert (samples["broker_ready", ()], samples["broker_store_up", ()]) == (1, 0)


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
    known = {dict(labels)["outcome"] for name, labels in samples if name == "broker_handshakes_total"}
    assert known == {"accepted", *ERRORS}
    assert samples["broker_dropped_total", (("reason", "too_slow"),)] == 0
    assert samples["broker_actor_failures_total", (("actor", "session"),)] == 0
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


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: metrics are not linted")
@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_promtool_has_nothing_to_say_against_names_and_labels(accept: str, broker: Lone, client: Client) -> None:
    broker.stats.rate_limited["messages"] += 1
    broker.stats.agents = lambda: {"pool": Agents(3, 12)}
    broker.stats.plugins = lambda: {"shout": True}
    text = await (await client.get("/metrics", headers={"Accept": accept})).read()
    if accept:  # promtool reads the older form alone; the parser has seen to the newer one's
        assert list(parse_openmetrics(text.decode()))
        return
    assert await promtool(text) == (0, "")
    assert await promtool(text + b"# HELP badName x\n# TYPE badName counter\nbadName 1\n") != (0, "")


async def promtool(text: bytes) -> tuple[int | None, str]:
    """Return how `promtool check metrics` ends, and what it says."""
    process = await asyncio.create_subprocess_exec(
        str(PROMTOOL), "check", "metrics", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate(text)
    return process.returncode, said.decode()


# -- who may read, and what it costs the others ----------------------------------------------------

TOKEN = "a-token-of-more-than-16-characters"
NOWHERE = "allow: []"


@pytest.mark.parametrize(
    ("block", "header", "status"),
    [
        ("", None, 200),
        (NOWHERE, None, 403),
        (NOWHERE, f"Bearer {TOKEN}", 403),
        ("allow: [10.0.0.0/8]", None, 403),
        ("allow: [10.0.0.0/8, 127.0.0.1]", None, 200),
        (f"{NOWHERE}, token: {TOKEN}", None, 401),
        (f"{NOWHERE}, token: {TOKEN}", f"Bearer {TOKEN}", 200),
        (f"{NOWHERE}, token: {TOKEN}", f"bearer  {TOKEN}", 200),
        (f"{NOWHERE}, token: {TOKEN}", f"Basic {TOKEN}", 401),
        (f"{NOWHERE}, token: {TOKEN}", f"Bearer {TOKEN}x", 401),
        (f"{NOWHERE}, token: {TOKEN}", f"Bearer {TOKEN[:-1]}", 401),
        (f"{NOWHERE}, token: {TOKEN}", "Bearer", 401),
        (f"{NOWHERE}, token: {TOKEN}", "Bearer \udcff", 401),
        (f"token: {TOKEN}", None, 200),
    ],
)
async def test_only_those_read_who_come_from_there_or_show_the_token(
    block: str, header: str | None, status: int, broker: Lone, tmp_path: Path, serve: Serve
) -> None:
    client = await serve(load_metrics(broker, tmp_path, f"{{{block}}}"))
    answer = await client.get("/metrics", headers={} if header is None else {"Authorization": header})
    assert answer.status == status
    said = await answer.text()
    assert ("broker_build_info" in said) == (status == 200)
    assert TOKEN not in said


@pytest.mark.parametrize(
    ("remote", "network", "inside"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("2001:db8::7", "2001:db8::/32", True),
        ("2001:db9::7", "2001:db8::/32", False),
        ("", "0.0.0.0/0", False),
        (None, "0.0.0.0/0", False),
        ("somewhere", "0.0.0.0/0", False),
    ],
)
def test_addresses_are_compared_as_they_are_meant(
    remote: str | None, network: str, inside: bool, broker: Lone, tmp_path: Path
) -> None:
    (plugin,) = load_metrics(broker, tmp_path, f"{{allow: ['{network}']}}").instances
    request = make_mocked_request("GET", "/metrics").clone(remote=remote or "")
    if inside:
        plugin._admit(request)
        return
    with pytest.raises(BrokerError, match="not for this address"):
        plugin._admit(request)


def test_a_token_that_could_be_guessed_is_refused_and_not_shown(broker: Lone, tmp_path: Path) -> None:
    (problem,) = load_metrics(broker, tmp_path, "{token: hunter2}").problems
    assert "at least 16 characters" in problem.message
    assert "hunter2" not in problem.render()
    assert load_metrics(broker, tmp_path, "{allow: [all]}").problems[0].path == "plugins.metrics.allow[0]"


async def test_who_may_read_changes_with_a_reload_and_the_path_does_not(
    broker: Lone, tmp_path: Path, serve: Serve
) -> None:
    (plugin,) = (loaded := load_metrics(broker, tmp_path)).instances
    client = await serve(loaded)
    assert plugin.reload(attrs.evolve(plugin.settings, allow=()))
    assert (await client.get("/metrics")).status == 403
    assert not plugin.reload(attrs.evolve(plugin.settings, path="/other", allow=("127.0.0.1",)))
    assert (await client.get("/metrics")).status == 403


async def test_a_scrape_of_thousands_of_queues_holds_nobody_up(broker: Lone, client: Client) -> None:
    """Others have their turn of the loop in between: they see the sum grow."""
    looked, seen = 0, []

    def outboxes() -> Iterator[int]:
        nonlocal looked
        for _ in range(10_000):
            looked += 1
            yield 1

    broker.stats.outboxes = outboxes
    scraping = asyncio.ensure_future(scrape(client))
    while not scraping.done():
        seen.append(looked)
        await asyncio.sleep(0)
    assert (await scraping)["broker_outbox_bytes", ()] == 10_000
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps) <= 250


async def test_only_so_many_read_at_a_time(broker: Lone, client: Client) -> None:
    over = asyncio.Event()
    under_way = 0

    def outboxes() -> Iterator[int]:
        nonlocal under_way
        under_way += 1
        while not over.is_set():
            yield 1

    broker.stats.outboxes = outboxes
    scrapes = [asyncio.ensure_future(client.get("/metrics")) for _ in range(2)]
    await until(lambda: under_way == 2)
    assert (await client.get("/metrics")).status == 503
    over.set()
    assert [answer.status for answer in await asyncio.gather(*scrapes)] == [200, 200]
    assert (await client.get("/metrics")).status == 200


async def test_two_brokers_in_one_process_have_their_own_metrics(broker: Lone, client: Client, tmp_path: Path) -> None:
    other = Lone()
    other.stats.connections = 7
    assert load_metrics(other, tmp_path).instances
    assert (await scrape(client))["broker_connections", ()] == 0


def test_the_path_is_a_setting_and_checked(broker: Lone, tmp_path: Path) -> None:
    plugins = load_metrics(broker, tmp_path, "{path: /internal/metrics}")
    assert [route.path for route in routes_of(plugins)] == ["/internal/metrics"]
    assert load_metrics(broker, tmp_path, "{path: metrics}").problems[0].path == "plugins.metrics.path"
    assert load_metrics(broker, tmp_path, "{path: '/{tail:.*}'}").problems


def test_scrapes_read_every_counter_there_is() -> None:
    """A counter that the core keeps and nobody can see would be forgotten."""
    source = (Path(__file__).parents[2] / "plugins" / "metrics.py").read_text()
    unseen = [field.name for field in attrs.fields(Stats) if f"stats.{field.name}" not in source]
    assert unseen == []


# -- what the page says ------------------------------------------------------------------------------


def test_the_page_lists_every_metric_with_its_type_its_meaning_and_its_labels() -> None:
    lone = Lone()
    described = []
    for family in broker_metrics(lone, Queues()):  # type: ignore[arg-type]
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = ["version", "python"] if family.type == "info" else list(getattr(family, "_labelnames", ()))
        kind = "gauge" if family.type == "info" else family.type  # as Prometheus' text format has it
        described.append((family.name + suffix, kind, family.documentation, labels))
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    table = page[page.index("## All metrics") : page.index("Beside these")]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+?) \| (.*) \|$", table, re.MULTILINE)
    assert [
        (name, kind, text, re.findall(r"(?:^|; )`(\w+)`", labels)) for name, kind, text, labels in rows
    ] == described
