"""When `alerts` fires, when it is well again, and whom it tells: real figures and a real webhook, time by hand."""

import asyncio
import base64
import hmac
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from broker import config
from broker.extensions.dispatch import Hooks
from broker.extensions.loader import Plugins, load
from broker.facade import Facade
from broker.hooks import Stats, TurnEnded
from broker.messages import Record
from broker.plugins.alerts.rules import AlertsSettings, Rule, Webhook
from broker.stats import Agents, Histogram
from broker.testing import ManualClock, until

ROOT = Path(__file__).parents[2]
SECRET = "s3cret" * 8
NONE: dict[str, None] = dict.fromkeys(
    ("faults", "errors", "answers", "turns", "stalled", "connections", "memory", "store", "backlog", "loop", "plugins")
)
"""`rules` without those that are there anyway."""


def load_block(folder: Path, block: dict[str, Any]) -> Plugins:
    file = folder / "config.yaml"
    file.write_text(json.dumps({"plugins": {"alerts": block}}))
    loaded = config.load(file, {}, {})
    return load(loaded.settings, loaded.file)


class Watch:
    """The plugin as the loader makes it, the counters that it looks at, and a clock."""

    def __init__(self, folder: Path, block: dict[str, Any]) -> None:
        self.clock = ManualClock()
        self.stats = Stats()
        self.stats.store_up = self.stats.ready = lambda: True
        plugins = load_block(folder, block)
        assert plugins.problems == []
        facade = Facade(self.stats, self.clock)
        plugins.create(facade, facade.of)
        self.plugin: Any = plugins.instances[0]
        self.hooks = Hooks(plugins.instances, self.stats)

    def later(self, seconds: float = 5.0) -> None:
        """Let some time pass, and look."""
        self.clock.advance(seconds)
        self.plugin.check()

    async def shown(self) -> Any:
        """Return what the route answers."""
        (route,) = self.plugin.routes()
        assert (route.path, route.scope) == ("/api/v1/alerts", "api")
        return json.loads((await route.handler(make_mocked_request("GET", route.path))).body)

    async def alert(self, name: str = "mine") -> Any:
        """Return how one rule stands."""
        return next(alert for alert in (await self.shown())["alerts"] if alert["alert"] == name)


Open = Callable[..., Awaitable[Watch]]


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Open]:
    """Start the plugin with one rule called `mine`, or with a block of settings."""
    started: list[Watch] = []

    async def start(rule: dict[str, Any] | None = None, **block: Any) -> Watch:
        if rule is not None:
            block["rules"] = {**NONE, "mine": rule}
        it = Watch(tmp_path, {"every": "1h", "window": "1m", **block})
        await it.plugin.start()
        started.append(it)
        return it

    yield start
    for it in started:
        await it.plugin.stop()


def said(caplog: Any) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith("alert ")]


# -- when ---------------------------------------------------------------------------------------------

SIZE = {"figure": "connections", "above": 10, "clear": 5, "hold": "30s"}


async def test_a_rule_fires_once_when_its_figure_was_above_the_bound_for_long_enough(watch: Open, caplog: Any) -> None:
    it = await watch(SIZE)
    it.stats.connections = 11
    for _ in range(6):
        it.later()
        assert (await it.alert())["state"] == "pending"
    for _ in range(10):
        it.later()
        assert (await it.alert())["state"] == "firing"
    assert said(caplog) == ["alert firing: mine: connections is 11, above 10 for 30 s"]


async def test_a_short_peak_is_no_alert(watch: Open, caplog: Any) -> None:
    it = await watch(SIZE)
    for _ in range(5):
        it.stats.connections = 100
        it.later(29)
        it.stats.connections = 10
        it.later(1)
    assert said(caplog) == []
    assert (await it.alert())["state"] == "ok"


async def test_between_the_two_bounds_nothing_changes_and_below_both_it_is_resolved_once(
    watch: Open, caplog: Any
) -> None:
    caplog.set_level("INFO")
    it = await watch(SIZE)
    it.stats.connections = 11
    it.later()
    it.later(30)
    for size in (10, 6, 5, 6, 9):  # never below for long enough
        it.stats.connections = size
        it.later(29)
        assert (await it.alert())["state"] == "firing"
    it.stats.connections = 5
    for _ in range(10):
        it.later()
    assert [line.partition(": mine")[0] for line in said(caplog)] == ["alert firing", "alert resolved"]
    assert said(caplog)[1].endswith("connections is 5, not above 5 for 30 s")


async def test_without_a_lower_bound_there_is_one_and_without_a_time_it_is_at_once(watch: Open, caplog: Any) -> None:
    caplog.set_level("INFO")
    it = await watch({"figure": "connections", "above": 10, "hold": 0})
    for size in (11, 10, 11):
        it.stats.connections = size
        it.later()
    assert [line.split()[1] for line in said(caplog)] == ["firing:", "resolved:", "firing:"]


async def test_what_cannot_be_told_any_more_counts_as_well(watch: Open) -> None:
    it = await watch({"figure": "error_rate", "above": "5%", "hold": 0})
    it.stats.messages_in, it.stats.errors["busy"] = 100, 50
    it.later()
    assert (await it.alert())["state"] == "firing"
    it.later(61)
    it.later(1)
    assert ((await it.alert())["state"], (await it.alert())["value"]) == ("ok", None)


async def test_rates_are_taken_over_the_window_and_not_over_all_time(watch: Open) -> None:
    it = await watch({"figure": "error_rate", "above": "5%", "hold": 0}, window="20s")
    it.stats.messages_in, it.stats.errors["busy"] = 1000, 1000
    for _ in range(4):
        it.later()
        assert (await it.alert())["value"] == 100.0
    it.stats.messages_in += 100
    it.later()
    assert (await it.alert())["value"] == 0.0


async def test_a_look_that_fails_is_counted_and_the_next_one_is_taken(watch: Open) -> None:
    it = await watch(SIZE, every="10ms", window="1s")

    def broken() -> bool:
        raise OSError("no figures today")

    it.stats.ready = broken
    await until(lambda: it.stats.plugin_errors["alerts"] >= 2)


# -- what ---------------------------------------------------------------------------------------------


def put(stats: Stats, **values: Any) -> None:
    """Put some figures where the core would."""
    for name, value in values.items():
        there = getattr(stats, name)
        if isinstance(there, Counter):
            there.update(value)
        elif isinstance(there, Histogram):
            for _ in range(20):
                there.observe(value)
        else:
            setattr(stats, name, value if isinstance(there, int) else partial(deepcopy, value))


AGENTS = {"away": Agents(0, 0), "here": Agents(1, 1), "made when it is needed": Agents(None, None)}
CHANGES: dict[str, tuple[dict[str, Any], float]] = {
    "error_rate": ({"messages_in": 40, "errors": {"busy": 4}}, 10.0),
    "fault_rate": ({"requests": {"2xx": 40}, "errors": {"busy": 4, "internal": 2}}, 5.0),
    "turn_failure_rate": ({"turns_ended": {"completed": 7, "lost": 2, "cancelled": 1}}, 20.0),
    "connections_used": ({"connections": 9, "connections_limit": 10}, 90.0),
    "memory_used": ({"memory": 30, "memory_limit": 40}, 75.0),
    "messages_per_second": ({"messages_in": 40}, 4.0),
    "errors_per_second": ({"errors": {"internal": 5}}, 0.5),
    "response_p95": ({"request_seconds": 0.7}, 0.975),
    "first_token_p95": ({"first_token_seconds": 3.0}, 4.875),
    "turn_p95": ({"turn_seconds": 20.0}, 29.0),
    "commit_p95": ({"commit_seconds": 0.2}, 0.2425),
    "loop_lag_p95": ({"lag_seconds": 0.2}, 0.2425),
    "slow_clients": ({"dropped": {"too_slow": 3}}, 3),
    "actor_failures": ({"actor_failures": {"session": 1, "room": 1}}, 2),
    "plugin_errors": ({"plugin_errors": {"shout": 4}}, 4),
    "loop_blocked": ({"blocked": {"shout": 1}}, 1),
    "queued_turns": ({"turns_open": {"queued": 3, "running": 2}}, 3),
    "open_turns": ({"turns_open": {"queued": 3, "running": 2}}, 5),
    "connections": ({"connections": 7}, 7),
    "store_down": ({"store_up": False}, 1),
    "store_backlog": ({"store_backlog": 12}, 12),
    "not_ready": ({"ready": False}, 1),
    "plugins_down": ({"plugins": {"auth": False, "metrics": True}}, 1),
    "agents_away": ({"agents": AGENTS}, 1),
}


@pytest.mark.parametrize("figure", CHANGES)
async def test_each_figure_says_what_it_is_called_after(watch: Open, figure: str) -> None:
    values, value = CHANGES[figure]
    it = await watch({"figure": figure, "above": 0, "hold": 0})
    it.later()
    assert (await it.alert())["state"] == "ok"
    put(it.stats, **values)
    it.later()
    shown = await it.alert()
    assert (shown["value"], shown["state"]) == (pytest.approx(value), "firing")


async def test_a_share_of_next_to_nothing_is_not_told(watch: Open) -> None:
    it = await watch({"figure": "error_rate", "above": 0, "hold": 0})
    it.stats.messages_in, it.stats.errors["busy"] = 19, 19
    it.later()
    assert (await it.alert())["value"] is None


@pytest.mark.parametrize("end", ["another record", "the end of the turn"])
async def test_turns_are_stalled_until_they_go_on_or_end(watch: Open, end: str) -> None:
    it = await watch({"figure": "stalled_turns", "above": 0, "hold": 0})
    stalled = [Record(7, 0, "turn.stalled", b"{}", "t1"), Record(8, 0, "session.changed", b"{}")]
    it.hooks.observe(it.hooks.committed, "session:s", stalled)
    it.later()
    assert ((await it.alert())["state"], (await it.alert())["value"]) == ("firing", 1)
    if end == "another record":
        it.hooks.observe(it.hooks.committed, "session:s", [Record(9, 0, "message.delta", b"{}", "t1")])
    else:
        it.hooks.observe(it.hooks.turn_ended, TurnEnded("s", "t1", "echo", "lost", 60.0))
    it.later()
    assert (await it.alert())["state"] == "ok"


async def test_the_page_lists_every_figure_and_every_rule_that_is_there_anyway(watch: Open) -> None:
    page = (ROOT / "docs" / "alerts.md").read_text()
    blocks = (("", AlertsSettings), ("rules.NAME.", Rule), ("webhook.", Webhook))
    wanted = {f"{prefix}{field.name}" for prefix, block in blocks for field in attrs.fields(block)}
    settings = page[page.index("## Settings") : page.index("## Rules")]
    assert set(re.findall(r"^\| `([\w.]+)` \|", settings, re.MULTILINE)) == wanted - {"rules", "webhook"}
    for figure in [*CHANGES, "stalled_turns"]:
        assert f"| `{figure}` |" in page
    shown = (await (await watch()).shown())["alerts"]
    assert {alert["alert"] for alert in shown} == NONE.keys()
    for alert in shown:
        above, clear = (f"{alert[bound]:g}{alert['unit']}" for bound in ("above", "clear"))
        row = f"| `{alert['alert']}` | `{alert['figure']}` | {above} | {clear} | {alert['hold']:g} s |"
        assert row in page


async def test_a_rule_takes_the_place_of_one_that_is_there_anyway_and_null_does_away_with_it(watch: Open) -> None:
    mine = {"figure": "response_p95", "above": "300ms", "clear": "0.1s"}
    it = await watch(rules={"answers": mine, "memory": None})
    shown = await it.alert("answers")
    assert (shown["above"], shown["clear"], shown["unit"], shown["hold"]) == (pytest.approx(0.3), 0.1, "s", 30.0)
    assert {alert["alert"] for alert in (await it.shown())["alerts"]} == NONE.keys() - {"memory"}


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"rules": {"a": {"figure": "eror_rate", "above": 1}}}, "there is no figure 'eror_rate'"),
        ({"rules": {"a": {"figure": "error_rate", "above": "5/s"}}}, "a bound of error_rate is written such as 5%"),
        ({"rules": {"a": {"figure": "response_p95", "above": "fast"}}}, "such as 2s or 300ms, not 'fast'"),
        ({"rules": {"a": {"figure": "connections", "above": -1}}}, "such as 3, not '-1'"),
        ({"rules": {"a": {"figure": "connections", "above": True}}}, "such as 3, not 'True'"),
        ({"rules": {"a": {"figure": "connections", "above": 5, "clear": 6}}}, "clear must not be more than above"),
        ({"every": "1s", "window": "1h"}, "window must not be more than 1000 times every"),
        ({"webhook": {"url": "hooks.example.org"}}, "expected a url"),
        ({"webhook": {"url": "ftp://hooks.example.org/"}}, "expected a url"),
        ({"webhook": {"url": "https://x.example.org", "secret": "short"}}, "secret has fewer than 24 bytes"),
    ],
)
def test_mistakes_in_the_settings_are_told(tmp_path: Path, block: dict[str, Any], text: str) -> None:
    (problem,) = load_block(tmp_path, block).problems
    assert text in problem.message
    assert problem.path.startswith("plugins.alerts")


async def test_a_reload_keeps_rules_as_they_stand_and_resolves_those_that_are_changed(watch: Open, caplog: Any) -> None:
    caplog.set_level("INFO")
    it = await watch(rules={**NONE, "one": {**SIZE, "hold": 0}, "other": {**SIZE, "hold": 0}})
    it.stats.connections = 11
    it.later()
    rules = it.plugin.settings.rules
    changed = attrs.evolve(rules["other"], above=50)
    assert it.plugin.reload(attrs.evolve(it.plugin.settings, rules={**rules, "other": changed}))
    assert ((await it.alert("one"))["state"], (await it.alert("other"))["state"]) == ("firing", "ok")
    assert said(caplog)[2:] == ["alert resolved: other: its rule was changed"]


# -- whom ---------------------------------------------------------------------------------------------


@attrs.define
class Receiver:
    """A webhook that takes what comes until it is told to do something else, and keeps what it was sent."""

    place: str = ""
    requests: list[tuple[Any, bytes]] = attrs.Factory(list)
    respond: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request, await request.read()))
        return web.Response() if self.respond is None else await self.respond(request)

    @property
    def url(self) -> str:
        """Where it is, with more in it than anybody should see."""
        return f"{self.place.replace('://', '://ann:pass@')}/hidden/path?key=hidden"

    @property
    def notices(self) -> list[Any]:
        """What it was sent, read."""
        return [json.loads(body) for _, body in self.requests]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    served = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", served.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.place = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


QUICK = {"figure": "connections", "above": 10, "hold": 0}


async def fire(it: Watch) -> None:
    it.stats.connections = 11
    it.later()


async def test_each_change_is_told_to_the_webhook_once_in_order_and_signed(watch: Open, receiver: Receiver) -> None:
    it = await watch(QUICK, webhook={"url": receiver.url, "secret": SECRET})
    for size in (11, 12, 10, 3, 11):
        it.stats.connections = size
        it.later()
    await until(lambda: len(receiver.requests) == 3)
    assert [notice["state"] for notice in receiver.notices] == ["firing", "resolved", "firing"]
    assert receiver.notices[0] == {
        "alert": "mine",
        "state": "firing",
        "figure": "connections",
        "unit": "",
        "value": 11.0,
        "above": 10.0,
        "clear": 10.0,
        "hold": 0.0,
        "since": "2023-11-14T22:13:25.000Z",
        "at": "2023-11-14T22:13:25.000Z",
        "text": "mine: connections is 11, above 10 for 0 s",
    }
    for request, body in receiver.requests:
        name, now = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        digest = hmac.digest(SECRET.encode(), f"{name}.{now}.".encode() + body, "sha256")
        assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert len({request.headers["webhook-id"] for request, _ in receiver.requests}) == 3


async def test_the_receiver_of_the_page_takes_what_is_genuine_and_nothing_else(watch: Open, receiver: Receiver) -> None:
    page: dict[str, Any] = {}
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "alerts.md").read_text(), re.DOTALL)
    exec(program, page)
    it = await watch(QUICK, webhook={"url": receiver.url, "secret": SECRET})
    page["time"] = SimpleNamespace(time=lambda: it.clock.now() / 1000)
    await fire(it)
    await until(lambda: receiver.requests)
    (request, body), genuine = receiver.requests[0], page["is_genuine"]
    assert genuine(SECRET, request.headers, body)
    assert not genuine(SECRET, request.headers, body + b" ")
    assert not genuine(SECRET + "x", request.headers, body)
    it.clock.advance(301)
    assert not genuine(SECRET, request.headers, body)


async def test_without_a_secret_nothing_is_signed(watch: Open, receiver: Receiver) -> None:
    it = await watch(QUICK, webhook={"url": receiver.url})
    await fire(it)
    await until(lambda: receiver.requests)
    assert "webhook-signature" not in receiver.requests[0][0].headers


async def test_a_webhook_that_fails_or_hangs_is_told_again_under_the_same_id(watch: Open, receiver: Receiver) -> None:
    over = asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        number = len(receiver.requests)
        if number == 2:
            await over.wait()
        return web.Response(status=500 if number == 1 else 200)

    receiver.respond = respond
    it = await watch(QUICK, webhook={"url": receiver.url, "pause": "1ms", "timeout": "50ms"})
    await fire(it)
    await until(lambda: len(receiver.requests) == 3)
    await until(lambda: it.plugin._notices._sending is None)
    over.set()
    assert len({request.headers["webhook-id"] for request, _ in receiver.requests}) == 1
    assert len(receiver.requests) == 3
    assert (await it.shown())["webhook"] == {
        "to": receiver.url[:7] + receiver.url[16:37].split("/")[0],
        "waiting": 0,
        "given_up": 0,
    }


async def test_redirects_are_not_followed_and_what_is_never_taken_is_given_up_and_said(
    watch: Open, receiver: Receiver, caplog: Any
) -> None:
    async def respond(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    receiver.respond = respond
    it = await watch(QUICK, webhook={"url": receiver.url, "pause": "1ms", "tries": 3})
    await fire(it)
    await until(lambda: it.plugin._notices.given_up == 1)
    assert [request.path for request, _ in receiver.requests] == ["/hidden/path"] * 3
    (line,) = [record.message for record in caplog.records if "could not be told" in record.message]
    assert line.endswith("it answered 307; it is in this log")


async def test_the_address_of_the_webhook_is_shown_nowhere_but_for_its_host(watch: Open, caplog: Any) -> None:
    nobody = "http://ann:pass@127.0.0.1:1/hidden/path?key=hidden"
    it = await watch(QUICK, webhook={"url": nobody, "tries": 1, "secret": SECRET})
    await fire(it)
    await until(lambda: it.plugin._notices.given_up == 1)
    everything = caplog.text + str(await it.shown()) + repr(it.plugin.settings)
    assert "http://127.0.0.1:1" in everything
    assert not [word for word in ("hidden", "ann", "pass@", SECRET) if word in everything]


async def test_a_webhook_that_takes_nothing_costs_bounded_memory_and_holds_up_no_look(
    watch: Open, receiver: Receiver
) -> None:
    over = asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    receiver.respond = respond
    it = await watch(QUICK, webhook={"url": receiver.url})
    for number in range(150):
        it.stats.connections = 11 if number % 2 == 0 else 0
        it.later()
    shown = (await it.shown())["webhook"]
    assert (shown["waiting"], shown["given_up"]) == (100, 50)
    over.set()
    await until(lambda: it.plugin._notices._sending is None)
    assert len(receiver.requests) == 100
    assert receiver.notices[-1]["state"] == "resolved"


async def test_stopping_does_not_wait_for_a_webhook(watch: Open, receiver: Receiver) -> None:
    async def respond(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    receiver.respond = respond
    it = await watch(QUICK, webhook={"url": receiver.url})
    await fire(it)
    await until(lambda: receiver.requests)
    async with asyncio.timeout(2):
        await it.plugin.stop()
