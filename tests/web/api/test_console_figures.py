"""What the console shows of the broker as a whole: who asks, figures, histograms, agents, plugins, actions."""

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import aiohttp
import attrs
import msgspec
import pytest
from jsonschema import Draft202012Validator

from broker.app import App
from broker.config import Settings
from broker.extensions.loader import Plugins
from broker.testing import ManualClock, until
from broker.vitals.series import STEP
from broker.web.actions import ACTIONS
from broker.web.api.endpoint import ENDPOINTS, PREFIX

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

ANN = "name=ann"
BACKEND = "name=backend&scopes=api"
ADMIN = "name=root&scopes=api+admin"
PANELS = ("overview", "latency", "agents", "plugins", "configuration", "actions")
FAULTY = {
    "echo": {"kind": "echo", "faults": True},
    "away": {"kind": "worker"},
    "small": {"kind": "acp", "command": ["x"], "capacity": 2},
}


@pytest.fixture
async def guarded(start: Start, people: dict[str, Any]) -> App:
    """A broker that believes what names people give."""
    return await start(**people)


# -- who may ----------------------------------------------------------------------------------------


async def test_who_asks_is_told_without_any_scope(app: App, guarded: App, ask: Ask) -> None:
    anybody = (await ask(app, "GET /whoami")).body
    assert anybody == {
        "user": None,
        "scopes": ["admin", "agent", "api", "debug"],
        "expires_at": None,
        "open_to_all": True,
    }
    ann = (await ask(guarded, "GET /whoami", who=ANN)).body
    assert ann == {"user": "ann", "scopes": [], "expires_at": None, "open_to_all": False}
    assert (await ask(guarded, "GET /whoami", who=ADMIN)).body["scopes"] == ["admin", "api"]
    assert (await ask(guarded, "GET /whoami")).status == 401


@pytest.mark.parametrize("panel", PANELS)
async def test_the_panels_are_for_the_scope_api(guarded: App, ask: Ask, panel: str) -> None:
    assert [(await ask(guarded, f"GET /{panel}", who=who)).status for who in ("", ANN, BACKEND)] == [401, 403, 200]


# -- figures ----------------------------------------------------------------------------------------


async def test_the_overview_has_what_went_on(ask: Ask, dial: Dial) -> None:
    clock = ManualClock()
    settings = Settings(
        listen=attrs.evolve(Settings().listen, port=0), store=attrs.evolve(Settings().store, url="memory:")
    )
    app = App(settings, Plugins([]), clock)
    await app.start()
    try:
        before = (await ask(app, "GET /overview")).body
        assert (before["series"]["at"], before["now"]["messages_in"], before["step"]) == ([], None, STEP)
        client = await dial(app.port)
        await client.do("session.create", session_id="s")
        await client.do("turn.start", session_id="s", client_msg_id="1", content="hi there")
        await client.event("turn.ended")
        await client.refused("session.attach", session_id="none")
        clock.advance(STEP)
        found = (await ask(app, "GET /overview")).body
        now = found["now"]
        assert (now["messages_in"], now["errors"], now["connections"]) == (3 / STEP, 1 / STEP, 1)
        assert now["error_rate"] == pytest.approx(1 / 4)  # the overview itself was asked for before
        assert (now["connections_peak"], now["turns_open"]) == (1, 0)
        assert now["delivery_p50"] is not None
        assert now["first_token_p95"] is not None
        assert now["memory"] > 1_000_000
        assert (len(found["series"]["at"]), found["series"]["connections"], now["trouble"]) == (1, [1], None)
    finally:
        await app.stop()


async def test_latency_counts_what_was_observed(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port)
    await client.do("session.create", session_id="s")
    await client.do("turn.start", session_id="s", client_msg_id="1", content="hi there")
    await client.event("turn.ended")
    found = {one["name"]: one for one in (await ask(app, "GET /latency")).body["histograms"]}
    assert list(found) == ["delivery", "first_token", "turn", "commit", "request", "loop_lag"]
    for one in found.values():
        assert len(one["counts"]) == len(one["bounds"]) + 1
        assert sum(one["counts"]) == one["count"]
    assert [found[name]["count"] for name in ("first_token", "turn")] == [1, 1]
    assert found["delivery"]["count"] == app.stats.delivery_seconds.cumulative()[-1] > 2
    assert found["turn"]["sum"] > 0


# -- agents -----------------------------------------------------------------------------------------


async def agents(ask: Ask, app: App) -> dict[str, Any]:
    return {one["name"]: one for one in (await ask(app, "GET /agents")).body["agents"]}


async def test_agents_are_told_with_what_they_have_to_do(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port)
    idle = (await agents(ask, app))["endless"]
    assert (idle["state"], idle["kind"], idle["default"], idle["success_rate"]) == ("idle", "echo", False, None)
    await client.do("session.create", session_id="s", agent="endless")
    await client.do("turn.start", session_id="s", client_msg_id="1", content="go on and on")
    await client.do("turn.start", session_id="s", client_msg_id="2", content="and on")
    await client.event("message.delta")
    busy = (await agents(ask, app))["endless"]
    assert (busy["state"], busy["in_flight"], busy["queued"], busy["outcomes"]) == ("busy", 1, 1, {})
    assert busy["first_token"]["p50"] > 0
    await client.do("session.close", session_id="s")
    await client.event("session.closed")
    await until(lambda: not app.stats.turns_open.total())
    done = (await agents(ask, app))["endless"]
    assert (done["state"], done["in_flight"], done["queued"]) == ("idle", 0, 0)
    assert (done["outcomes"], done["success_rate"], done["last_error"]) == ({"cancelled": 2}, None, None)
    assert (await agents(ask, app))["echo"]["outcomes"] == {}


async def test_how_turns_ended_is_counted_and_the_last_trouble_is_said(start: Start, ask: Ask, dial: Dial) -> None:
    app = await start(agents=FAULTY)
    client = await dial(app.port)
    await client.do("session.create", session_id="s")
    for number, content in enumerate(("fine", "/crash", "/fail It is tired.", "well")):
        await client.do("turn.start", session_id="s", client_msg_id=str(number), content=content)
        await client.event("turn.ended")
    echo = (await agents(ask, app))["echo"]
    assert (echo["outcomes"], echo["success_rate"]) == ({"completed": 2, "lost": 1, "failed": 1}, 0.5)
    assert echo["last_error"]["message"] == "failed, It is tired."
    assert (echo["default"], echo["restarts"]) == (True, 0)


async def test_an_agent_that_nobody_serves_is_down_and_capacities_are_told(start: Start, ask: Ask, dial: Dial) -> None:
    app = await start(agents=FAULTY)
    client = await dial(app.port)
    await client.do("session.create", session_id="s", agent="away")
    await client.do("turn.start", session_id="s", client_msg_id="1", content="anybody?")
    found = await agents(ask, app)
    assert (found["away"]["state"], found["away"]["linked"], found["away"]["queued"]) == ("down", 0, 1)
    assert (found["small"]["capacity"], found["small"]["linked"], found["small"]["state"]) == (2, None, "idle")


async def test_a_worker_is_ready_and_one_that_breaks_off_is_counted(start: Start, ask: Ask) -> None:
    app = await start(agents=FAULTY)
    url = f"ws://127.0.0.1:{app.port}/agent"
    async with aiohttp.ClientSession() as http:
        agent = await http.ws_connect(url, protocols=["agents.v1.json"])
        await agent.send_json({"type": "hello", "data": {"agent": "away", "capacity": 3}})
        assert (await agent.receive_json())["type"] == "welcome"
        found = (await agents(ask, app))["away"]
        assert (found["state"], found["linked"], found["capacity"], found["restarts"]) == ("ready", 1, 3, 0)
        agent.get_extra_info("socket").shutdown(SHUT_RDWR)
        await until(lambda: not app.stats.agents()["away"].linked)
        await agent.close()
    found = (await agents(ask, app))["away"]
    assert (found["state"], found["linked"], found["restarts"]) == ("down", 0, 1)


async def test_a_process_that_died_and_was_started_again_is_counted(
    start: Start, ask: Ask, dial: Dial, tmp_path: Path
) -> None:
    program = tmp_path / "dies.py"
    program.write_text("import sys; sys.stdin.readline()")
    app = await start(
        agents={"echo": {"kind": "echo"}, "dies": {"kind": "acp", "command": [sys.executable, str(program)]}}
    )
    client = await dial(app.port)
    await client.do("session.create", session_id="s", agent="dies")
    for number in range(2):
        await client.do("turn.start", session_id="s", client_msg_id=str(number), content="hi")
        await client.event("turn.ended")
    found = (await agents(ask, app))["dies"]
    assert (found["restarts"], found["outcomes"], found["success_rate"]) == (1, {"failed": 2}, 0)


# -- plugins ----------------------------------------------------------------------------------------

PLUGIN = '''
import attrs
from broker.config import Secret
from broker.hooks import Plugin, Route

@attrs.frozen
class Settings:
    pepper: Secret
    word: str = "hello"

class Shout(Plugin):
    """Shouts.

    More of it."""

    version = "3.2"
    Settings = Settings

    def connected(self, peer):
        raise RuntimeError("too loud")

    def actions(self):
        return {"shout": lambda peer, payload: payload}

    def routes(self):
        return [Route("GET", "/shout", None)]
'''


async def test_plugins_are_told_with_what_they_bring(start: Start, tmp_path: Path, ask: Ask, dial: Dial) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/shout.py").write_text(PLUGIN)
    app = await start(plugins={"shout": {"pepper": "h0tsauce"}})
    await dial(app.port)
    await until(lambda: app.stats.plugin_errors["shout"])
    answer = await ask(app, "GET /plugins")
    (shout, *others) = answer.body["plugins"]
    assert (shout["name"], shout["status"], shout["version"], shout["source"]) == ("shout", "enabled", "3.2", "drop-in")
    assert (shout["description"], shout["errors"], shout["trouble"]) == ("Shouts.", 1, None)
    assert (shout["hooks"], shout["actions"], shout["routes"]) == (["connected"], ["shout"], ["GET /shout"])
    assert shout["settings"] == {"pepper": "********", "word": "hello"}
    assert {one["name"]: one["status"] for one in others}["auth"] == "disabled"
    assert "h0tsauce" not in str(answer.body)
    told = (await ask(app, "GET /actions")).body["actions"][-1]
    assert (told["name"], told["http"]) == ("shout", None)


# -- actions ----------------------------------------------------------------------------------------


async def test_every_action_has_an_example_that_it_takes(app: App, ask: Ask) -> None:
    told = {one["name"]: one for one in (await ask(app, "GET /actions")).body["actions"]}
    assert list(told) == list(ACTIONS)
    for name, one in told.items():
        row = ACTIONS[name]
        Draft202012Validator.check_schema(one["schema"])
        Draft202012Validator(one["schema"]).validate(one["payload"])
        row.decode(msgspec.json.encode(one["payload"]))
        assert one["summary"].endswith(".")
        typed = isinstance(row.decode, partial)
        assert bool(one["schema"]) == typed
        if typed:
            needed = one["schema"].get("required", [])
            assert set(needed) <= one["payload"].keys()


async def test_the_way_over_http_is_one_that_does_the_same(app: App, ask: Ask) -> None:
    rows = {(row.method, PREFIX + row.path): row for row in ENDPOINTS}
    ways = [one for one in (await ask(app, "GET /actions")).body["actions"] if one["http"]]
    assert len(ways) >= 10
    for one in ways:
        assert rows[one["http"]["method"], one["http"]["path"]].operation == one["name"]
