"""Where a session stands and what its variables were, by way of the HTTP API (seed 004)."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from broker.app import App

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

ANN = "name=ann&scopes=api"
BOB = "name=bob&scopes=api"
ROOT = "name=root&scopes=api+admin"


@pytest.fixture
async def guarded(start: Start, people: dict[str, Any]) -> App:
    """A broker that believes what names people give."""
    return await start(**people)


async def test_variables_are_told_as_they_are_and_as_they_were(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port)
    await client.do("session.create", session_id="s", variables={"mood": "calm"})
    await client.do("session.update", session_id="s", variables={"mood": None, "step": 1})
    await client.do("session.update", session_id="s", title="in between")
    await client.do("session.update", session_id="s", variables={"step": 2})
    found = (await ask(app, "GET /sessions/s/variables")).body
    assert found["variables"] == {"step": 2}
    told = [(one["seq"], one["set"], one["variables"], one["by"]) for one in found["snapshots"]]
    assert told == [
        (1, {"mood": "calm"}, {"mood": "calm"}, None),
        (2, {"mood": None, "step": 1}, {"step": 1}, None),
        (4, {"step": 2}, {"step": 2}, None),
    ]
    assert "before_seq" not in found


async def test_the_history_of_variables_comes_in_pages(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port)
    await client.do("session.create", session_id="s")
    for step in range(4):
        await client.do("session.update", session_id="s", variables={"step": step})
    seen: list[int] = []
    page = (await ask(app, "GET /sessions/s/variables?limit=2")).body
    while True:
        seen = [one["seq"] for one in page["snapshots"]] + seen
        assert page["variables"] == {"step": 3}
        if "before_seq" not in page:
            break
        page = (await ask(app, f"GET /sessions/s/variables?limit=2&before_seq={page['before_seq']}")).body
    assert seen == [1, 2, 3, 4, 5]


async def test_the_state_goes_with_the_turns(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port)
    await client.do("session.create", session_id="s", agent="endless")
    idle = (await ask(app, "GET /sessions/s/state")).body
    assert (idle["execution"], idle["turn"], idle["queue"], idle["approvals"]) == ("idle", None, [], [])
    assert idle["position"]["event"] == "session.opened"
    first = await client.do("turn.start", session_id="s", client_msg_id="1", content="go on and on")
    second = await client.do("turn.start", session_id="s", client_msg_id="2", content="and on")
    await client.event("message.delta")
    busy = (await ask(app, "GET /sessions/s/state")).body
    assert (busy["execution"], busy["state"], busy["agent"]) == ("running", "open", "endless")
    assert busy["turn"]["turn_id"] == first["turn_id"]
    assert [one["turn_id"] for one in busy["queue"]] == [second["turn_id"]]
    assert (busy["position"]["seq"], busy["epoch"]) == (busy["head"], idle["epoch"])


async def test_records_can_be_read_by_their_kinds(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port)
    await client.do("session.create", session_id="s")
    for number in range(3):
        await client.do("turn.start", session_id="s", client_msg_id=str(number), content="hi")
        await client.event("turn.ended")
    found = (await ask(app, "GET /sessions/s/records?kind=turn.ended&limit=2")).body
    assert [one["event"] for one in found["records"]] == ["turn.ended"] * 2
    rest = (await ask(app, f"GET /sessions/s/records?kind=turn.ended&before_seq={found['before_seq']}")).body
    assert len(rest["records"]) == 1
    both = (await ask(app, "GET /sessions/s/records?kind=turn.started,turn.ended")).body
    assert [one["event"] for one in both["records"]] == ["turn.started", "turn.ended"] * 3
    for wrong in ("", "turn.ended,", "Turn", "a" * 65, ",".join(["a"] * 17)):
        refused = await ask(app, f"GET /sessions/s/records?kind={wrong}")
        assert (refused.status, refused.body["place"]) == (400, {"field": "kind"})


@pytest.mark.parametrize("what", ["variables", "state", "records?kind=debug"])
async def test_only_who_may_see_the_session_is_told(guarded: App, ask: Ask, what: str) -> None:
    created = await ask(guarded, "POST /sessions", {"session_id": "s"}, who=ANN)
    assert created.status == 201
    assert (await ask(guarded, f"GET /sessions/s/{what}", who=ANN)).status == 200
    assert (await ask(guarded, f"GET /sessions/s/{what}", who=ROOT)).status == 200
    refused = await ask(guarded, f"GET /sessions/s/{what}", who=BOB)
    assert (refused.status, refused.body["category"]) == (403, "permission")
    missing = await ask(guarded, f"GET /sessions/none/{what}", who=ANN)
    assert (missing.status, missing.body["recovery"]) == (
        404,
        "Check the id; if it is right, the thing is gone and has to be made anew.",
    )


async def test_debug_records_are_for_who_has_the_scope(
    start: Start, people: dict[str, Any], ask: Ask, dial: Dial
) -> None:
    app = await start(**people, agents={"lab": {"kind": "worker"}}, default_agent="lab")
    url = f"ws://127.0.0.1:{app.port}/agent?name=lab&scopes=agent"
    async with aiohttp.ClientSession() as http, http.ws_connect(url, protocols=["agents.v1.json"]) as agent:
        await agent.send_json({"type": "hello", "data": {"agent": "lab"}})
        viewer = await dial(app.port, "?name=ann")
        await viewer.do("session.create", session_id="s")
        await ask(app, "POST /sessions/s/turns", {"client_msg_id": "1", "content": "hi"}, who=ANN)
        while (frame := await agent.receive_json())["type"] != "turn_start":
            pass
        turn_id = frame["data"]["turn_id"]
        said = [("debug", {"prompt": "secret"}), ("turn_end", {})]
        for seq, (kind, data) in enumerate(said, 1):
            await agent.send_json({"type": kind, "data": {"turn_id": turn_id, "seq": seq, **data}})
        await viewer.event("turn.ended")
    for scopes, shown in (("api", [("withheld", {})]), ("api+debug", [("debug", {"prompt": "secret"})])):
        found = await ask(app, "GET /sessions/s/records?kind=debug", who=f"name=ann&scopes={scopes}")
        assert [(one["event"], one["data"]) for one in found.body["records"]] == shown
