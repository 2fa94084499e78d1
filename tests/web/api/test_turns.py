"""One turn over HTTP, with its records, while it runs and after its end."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from broker.app import App
from broker.testing import until

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

ANN = "name=ann&scopes=api"


async def test_a_turn_has_all_that_was_said_in_it(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port)
    await client.do("session.create", session_id="s")
    turns = []
    for number, text in enumerate(("one", "hello wörld", "three")):
        turns.append(await client.do("turn.start", session_id="s", client_msg_id=str(number), content=text))
        await client.event("turn.ended")
    turn_id = turns[1]["turn_id"]
    found = (await ask(app, f"GET /sessions/s/turns/{turn_id}")).body
    assert (found["session_id"], found["turn_id"], found["state"]) == ("s", turn_id, "ended")
    assert (found["outcome"], found["complete"], found["text_bytes"]) == (
        "completed",
        True,
        len("hello wörld".encode()),
    )
    whole = (await ask(app, "GET /sessions/s/records")).body["records"]
    assert found["records"] == [record for record in whole if record.get("turn_id") == turn_id]
    kinds = [record["event"] for record in found["records"]]
    assert (kinds[0], kinds[-1]) == ("user.message", "turn.ended")
    times = {record["event"]: record["at"] for record in reversed(found["records"])}
    assert (found["started_at"], found["ended_at"]) == (times["turn.started"], times["turn.ended"])
    assert found["first_token_seconds"] >= 0


async def test_a_turn_that_runs_and_one_that_waits_are_shown_as_far_as_they_are(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port)
    await client.do("session.create", session_id="s", agent="endless")
    runs = await client.do("turn.start", session_id="s", client_msg_id="1", content="go on and on")
    waits = await client.do("turn.start", session_id="s", client_msg_id="2", content="and on")
    await client.event("message.delta")
    found = (await ask(app, f"GET /sessions/s/turns/{runs['turn_id']}")).body
    assert (found["state"], found["outcome"], found["ended_at"]) == ("running", None, None)
    assert found["records"][-1]["event"] == "message.delta"
    assert found["text_bytes"] > 0
    later = (await ask(app, f"GET /sessions/s/turns/{waits['turn_id']}")).body
    assert (later["state"], later["started_at"], later["first_token_seconds"]) == ("queued", None, None)
    assert [record["event"] for record in later["records"]] == ["user.message", "turn.queued"]


async def test_a_long_turn_is_cut_and_says_so(start: Start, ask: Ask, dial: Dial) -> None:
    app = await start(agents={"echo": {"kind": "echo", "faults": True}})
    client = await dial(app.port)
    await client.do("session.create", session_id="s")
    turn = await client.do("turn.start", session_id="s", client_msg_id="1", content="/flood 250000")
    await client.event("turn.ended")
    found = (await ask(app, f"GET /sessions/s/turns/{turn['turn_id']}")).body
    assert (found["complete"], found["outcome"], found["state"]) == (False, "completed", "ended")
    assert 1 << 20 < found["text_bytes"] < 3 << 20


async def test_it_is_for_who_may_see_the_session(start: Start, people: dict[str, Any], ask: Ask) -> None:
    app = await start(**people)
    ann, bob, root = ANN, "name=bob&scopes=api", "name=root&scopes=api+admin"
    await ask(app, "POST /sessions", {"session_id": "s"}, who=ann)
    started = (await ask(app, "POST /sessions/s/turns", {"content": "hi", "client_msg_id": "1"}, who=ann)).body
    path = f"GET /sessions/s/turns/{started['turn_id']}"
    assert [(await ask(app, path, who=who)).status for who in (ann, bob, root)] == [200, 403, 200]
    for missing in ("GET /sessions/s/turns/none", f"GET /sessions/t/turns/{started['turn_id']}"):
        answer = await ask(app, missing, who=root)
        assert (answer.status, answer.body["code"]) == (404, "not_found")


async def test_debug_records_are_withheld_from_who_has_not_the_scope(
    start: Start, people: dict[str, Any], ask: Ask
) -> None:
    app = await start(**people, agents={"lab": {"kind": "worker"}}, default_agent="lab")
    url = f"ws://127.0.0.1:{app.port}/agent?name=lab&scopes=agent"
    async with aiohttp.ClientSession() as http, http.ws_connect(url, protocols=["agents.v1.json"]) as agent:
        await agent.send_json({"type": "hello", "data": {"agent": "lab"}})
        await ask(app, "POST /sessions", {"session_id": "s"}, who=ANN)
        started = await ask(app, "POST /sessions/s/turns", {"client_msg_id": "1", "content": "hi"}, who=ANN)
        turn_id = started.body["turn_id"]
        while (await agent.receive_json())["type"] != "turn_start":
            pass
        for seq, kind in enumerate(("debug", "turn_end"), 1):
            await agent.send_json({"type": kind, "data": {"turn_id": turn_id, "seq": seq, "prompt": "secret"}})
        await until(lambda: not app.stats.turns_open.total())
    path = f"GET /sessions/s/turns/{turn_id}"
    for scopes, shown in (("api", ("withheld", {})), ("api+debug", ("debug", {"prompt": "secret"}))):
        records = (await ask(app, path, who=f"name=ann&scopes={scopes}")).body["records"]
        told = [(one["event"], one["data"]) for one in records if one["event"] in {"debug", "withheld"}]
        assert told == [shown]
