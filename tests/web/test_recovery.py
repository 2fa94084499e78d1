"""Turns that no agent took, through the whole broker: tried again, handed on, answered; agents of several kinds."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.app import App, CannotStart
from broker.client import Turn, Worker
from broker.testing import until

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]

NOBODY = "Nobody is in."
AGENTS = {
    "faulty": {"kind": "echo", "faults": True},
    "coder": {"kind": "worker"},
    "server": {"kind": "websocket", "url": "ws://127.0.0.1:1/agents"},
}


@pytest.fixture
def recovering(start: Start) -> Start:
    """Start brokers with the plugin, and these settings of it."""

    async def begin(**settings: Any) -> App:
        block = {"retries": 1, "backoff": "10ms", "degraded": {"text": NOBODY}, **settings}
        return await start(agents=AGENTS, plugins={"recovery": block})

    return begin


async def say(client: Any, session_id: str, content: str) -> list[Any]:
    """Start a turn and return its records, to its end."""
    answer = await client.do("turn.start", session_id=session_id, client_msg_id=content, content=content)
    records = await client.records("turn.ended")
    return [record for record in records if record.get("turn_id") == answer["turn_id"]]


async def begin(client: Any, agent: str) -> str:
    return str((await client.do("session.create", agent=agent))["session_id"])


def handed_on(records: list[Any]) -> list[tuple[str, str]]:
    return [(record["data"]["from"], record["data"]["agent"]) for record in records if record["event"] == "activity"]


async def test_a_turn_that_is_refused_is_tried_again_and_another_agent_answers_it(
    recovering: Start, dial: Dial
) -> None:
    app = await recovering(fallback={"faulty": "echo"})
    client, viewer = await dial(app.port), await dial(app.port)
    session_id = await begin(client, "faulty")
    await viewer.do("session.attach", session_id=session_id)
    records = await say(client, session_id, "/refuse Not now.")
    assert handed_on(records) == [("faulty", "faulty"), ("faulty", "echo")]
    assert records[-2]["data"]["content"] == "/refuse Not now."  # the echo in its place has no faults
    assert records[-1]["data"] == {"outcome": "completed", "partial": True, "stop_reason": "end_turn"}
    seen = await viewer.records("turn.ended")
    assert [record for record in seen if record.get("turn_id") == records[0]["turn_id"]] == records
    assert (await say(client, session_id, "hello"))[-2]["data"]["content"] == "hello"


async def test_a_turn_that_nobody_takes_is_answered_by_the_broker_which_says_so(recovering: Start, dial: Dial) -> None:
    app = await recovering()
    client = await dial(app.port)
    records = await say(client, await begin(client, "faulty"), "/refuse Not now.")
    *_, message, ended = records
    assert (message["event"], message["data"]["content"], message["data"]["degraded"]) == (
        "message.completed",
        NOBODY,
        True,
    )
    assert ended["data"]["degraded"] is True
    assert (ended["data"]["outcome"], ended["data"]["stop_reason"]) == ("completed", "degraded")
    assert "agent_unavailable: Not now." in ended["data"]["reason"]


@pytest.mark.parametrize("prompt", ["/fail Broken.", "/crash"])
async def test_a_turn_that_an_agent_took_and_did_not_finish_is_left_as_it_is(
    recovering: Start, dial: Dial, prompt: str
) -> None:
    app = await recovering(fallback={"faulty": "echo"})
    client = await dial(app.port)
    records = await say(client, await begin(client, "faulty"), prompt)
    assert handed_on(records) == []
    assert records[-1]["data"]["outcome"] == ("lost" if prompt == "/crash" else "failed")


@pytest.mark.parametrize("agent", ["coder", "server"])
async def test_an_agent_that_is_not_connected_is_stood_in_for(recovering: Start, dial: Dial, agent: str) -> None:
    app = await recovering(fallback={agent: "echo"})
    client = await dial(app.port)
    records = await say(client, await begin(client, agent), "hello")
    assert handed_on(records) == [(agent, agent), (agent, "echo")]
    assert records[-2]["data"]["content"] == "hello"


async def test_a_worker_stands_in_and_is_asked_to_stop_what_it_does(recovering: Start, dial: Dial) -> None:
    app = await recovering(fallback={"faulty": "coder"}, retries=0)
    stopped = asyncio.Event()

    class Coder(Worker):
        agent = "coder"

        async def answer(self, turn: Turn) -> None:
            await turn.say("at work")
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    serving = asyncio.ensure_future(Coder().serve(f"ws://127.0.0.1:{app.port}/agent"))
    try:
        await until(lambda: app.kinds["coder"].capacity)
        client = await dial(app.port)
        session_id = await begin(client, "faulty")
        sent = {"session_id": session_id, "client_msg_id": "m", "content": "/refuse"}
        turn_id = (await client.do("turn.start", **sent))["turn_id"]
        assert (await client.event("message.delta"))["data"]["text"] == "at work"
        await client.do("turn.cancel", session_id=session_id, turn_id=turn_id)
        ended = await client.event("turn.ended")
        assert (ended["data"]["outcome"], ended["data"].get("forced")) == ("cancelled", None)
        async with asyncio.timeout(10):
            await stopped.wait()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_an_agent_that_fails_too_often_is_not_asked_and_operators_see_it(
    recovering: Start, dial: Dial, get: Get
) -> None:
    app = await recovering(retries=0, breaker={"failures": 2, "open": "1h"})
    client = await dial(app.port)
    session_id = await begin(client, "faulty")
    for sentence in ("/fail one", "/fail two"):
        assert (await say(client, session_id, sentence))[-1]["data"]["outcome"] == "failed"
    records = await say(client, session_id, "hello")
    assert records[-1]["data"]["reason"] == "agent faulty is not asked; the broker answers itself"
    status, _, body = await get(app, "/recovery")
    assert (status, body["faulty"]["state"]) == (200, "open")
    assert 3500 < body["faulty"]["seconds"] <= 3600
    assert (await get(app, "/readyz"))[0] == 200


async def test_a_fallback_that_is_not_there_keeps_the_broker_from_starting(recovering: Start) -> None:
    with pytest.raises(CannotStart, match="fallback names an agent 'gone', which is not there"):
        await recovering(fallback={"faulty": "gone"})


BUGGY = '''
from broker.hooks import Plugin


class Buggy(Plugin):
    """Cannot say who gets a turn."""

    def on_dispatch(self, attempt):
        raise LookupError("a bug")
'''


async def test_a_plugin_that_breaks_costs_no_turn(start: Start, dial: Dial, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "buggy.py").write_text(BUGGY)
    app = await start(agents=AGENTS, plugins={"buggy": {}})
    client = await dial(app.port)
    session_id = await begin(client, "faulty")
    assert (await say(client, session_id, "hello"))[-1]["data"]["outcome"] == "completed"
    assert (await say(client, session_id, "/refuse"))[-1]["data"]["outcome"] == "failed"
    assert app.stats.plugin_errors == {"buggy": 3}


async def test_only_operators_see_the_breakers(start: Start, people: dict[str, Any]) -> None:
    app = await start(agents=AGENTS, plugins={**people["plugins"], "recovery": {}})
    async with aiohttp.ClientSession() as session:
        for query, status in (("?name=ann", 403), ("?name=ann&scopes=admin", 200)):
            async with session.get(f"http://127.0.0.1:{app.port}/recovery{query}") as answer:
                assert answer.status == status
