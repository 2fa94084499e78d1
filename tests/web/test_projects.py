"""Projects over real sockets: members, a back end, an agent that dials in, and one that only echoes (seed 002)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from websockets.asyncio.client import ClientConnection, connect

from broker.app import App
from broker.testing import until

PATIENCE = 20.0
PLANNER = {"agents": {"planner": {"kind": "worker"}}, "projects": {"agent": "planner", "feedback": "1h"}}

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]

WALL = '''
from broker.errors import BrokerError
from broker.hooks import Content, Permission, Plugin


class Wall(Plugin):
    """Keeps everybody out of secret projects, and mends what is said."""

    def on_permission(self, check: Permission) -> None:
        if check.operation == "project.feedback" and check.resource == "project:secret":
            raise BrokerError("forbidden")

    def on_content(self, content: Content) -> bytes | None:
        return content.data.replace(b"darn", b"****") if content.operation == "project.feedback" else None
'''


@attrs.define
class Agent:
    """An agents-server's end of the link."""

    socket: ClientConnection

    async def next(self, kind: str) -> dict[str, Any]:
        """Return the next frame of a kind; others, of which there may be some, are left out."""
        async with asyncio.timeout(PATIENCE):
            while True:
                frame: dict[str, Any] = json.loads(await self.socket.recv())
                if frame["type"] == kind:
                    return frame

    async def say(self, kind: str, project: str, data: Any, frame_id: str = "a1") -> None:
        await self.socket.send(json.dumps({"type": kind, "id": frame_id, "projectGuid": project, "data": data}))


Serve = Callable[..., Awaitable[Agent]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Dial in as an agent of the profile `planner`."""
    agents: list[Agent] = []

    async def dial_in(app: App, query: str = "") -> Agent:
        agent = Agent(await connect(f"ws://127.0.0.1:{app.port}/agent{query}", subprotocols=["agents.v1.json"]))  # type: ignore[list-item]
        agents.append(agent)
        await agent.socket.send(json.dumps({"type": "hello", "data": {"agent": "planner"}}))
        await agent.next("welcome")
        return agent

    yield dial_in
    for agent in agents:
        agent.socket.transport.abort()


async def feed(client: Any, **payload: Any) -> None:
    """Give feedback, and wait for nothing."""
    request = {"id": "f", "type": "request", "action": "project.feedback", "payload": payload}
    await client.send(json.dumps(request))


async def answer(client: Any) -> Any:
    return await client.take(lambda message: message.get("id") == "f")


async def test_the_echo_answers_feedback_with_itself(start: Start, dial: Dial, get: Get) -> None:
    app = await start(projects={"agent": "echo"})
    client = await dial(app.port)
    given = await client.do("project.feedback", project="p1", data={"like": True}, feedback_id="u1")
    assert given == {"project": "p1", "feedback_id": "u1", "data": {"like": True}}
    assert (await client.do("project.feedback", project="p1", data=None))["feedback_id"]
    status, _, body = await get(app, "/api/v1/projects/p1/feedback", "POST", json={"data": [1]})
    assert (status, body["project"], body["data"]) == (200, "p1", [1])


async def test_without_an_agent_feedback_is_refused(app: App, dial: Dial, get: Get) -> None:
    client = await dial(app.port)
    refused = await client.refused("project.feedback", project="p1", data=1)
    assert (refused["code"], refused["hint"]) == ("agent_unavailable", "projects.agent")
    status, _, body = await get(app, "/api/v1/projects/p1/feedback", "POST", json={"data": 1})
    assert (status, body["code"]) == (503, "agent_unavailable")


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"data": 1}, "$.payload"),
        ({"project": "p1"}, "$.payload"),
        ({"project": "", "data": 1}, "$.payload.project"),
        ({"project": "p" * 248, "data": 1}, "$.payload.project"),
        ({"project": "p\n", "data": 1}, "$.payload.project"),
        ({"project": "p1", "data": 1, "feedback_id": ""}, "$.payload.feedback_id"),
    ],
)
async def test_ill_formed_feedback_is_refused(app: App, dial: Dial, payload: Any, field: str) -> None:
    refused = await (await dial(app.port)).refused("project.feedback", **payload)
    assert (refused["code"], refused["field"]) == ("invalid_message", field)


async def test_all_of_it_with_an_agent_that_dials_in(start: Start, dial: Dial, get: Get, serve: Serve) -> None:
    app = await start(**PLANNER)
    agent = await serve(app)
    ann, bob = await dial(app.port), await dial(app.port)
    for client in (ann, bob):
        await client.do("room.join", room="project:p1")
    path = "/api/v1/rooms/project:p1/events"
    await get(app, path, "POST", json={"event": "project_stage_update", "data": {"stage": 1}})
    update = await agent.next("project_update")
    assert (update["projectGuid"], update["id"]) == ("p1", "p1:1")
    assert update["data"] == {
        "event": "project_stage_update",
        "seq": 1,
        "from": {"connection_id": None, "user": None},
        "data": {"stage": 1},
    }
    await agent.say("agent_message", "p1", {"text": "on it"})
    for client in (ann, bob):
        events = [await client.event("room.event") for _ in range(2)]
        assert [event["data"]["event"] for event in events] == ["project_stage_update", "agent_message"]
        assert events[1]["from"] == {"connection_id": None, "user": None, "agent": "planner"}
    await feed(ann, project="p1", data={"like": True}, feedback_id="u1")
    asked = await agent.next("user_feedback")
    assert (asked["id"], asked["projectGuid"], asked["data"]) == ("u1", "p1", {"like": True})
    assert asked["from"] == {"connection_id": ann.welcome["connection_id"], "user": None}
    await agent.say("user_feedback_response", "p1", {"thanks": 1}, "u1")
    assert (await answer(ann))["data"] == {"project": "p1", "feedback_id": "u1", "data": {"thanks": 1}}
    await bob.silent()


async def test_an_agent_that_goes_before_it_answers_is_an_error_and_one_that_comes_is_told_the_status(
    start: Start, dial: Dial, serve: Serve
) -> None:
    app = await start(**PLANNER)
    agent, client = await serve(app), await dial(app.port)
    await client.do("room.join", room="project:p1")
    await client.do("room.publish", room="project:p1", event="project_status_change", data={"status": "open"})
    await agent.next("project_status_sync")
    await feed(client, project="p1", data=1)
    await agent.next("user_feedback")
    agent.socket.transport.abort()
    refused = (await answer(client))["data"]
    assert (refused["code"], refused["retryable"]) == ("agent_unavailable", True)
    assert (await client.refused("project.feedback", project="p1", data=1))["code"] == "agent_unavailable"
    sync = await (await serve(app)).next("project_status_sync")
    assert (sync["projectGuid"], sync["data"]["data"]) == ("p1", {"status": "open"})


async def test_an_agent_that_is_silent_is_an_error_in_time(start: Start, dial: Dial, get: Get, serve: Serve) -> None:
    app = await start(agents=PLANNER["agents"], projects={"agent": "planner", "feedback": "50ms"})
    agent, client = await serve(app), await dial(app.port)
    assert (await client.refused("project.feedback", project="p1", data=1))["code"] == "timeout"
    status, _, body = await get(app, "/api/v1/projects/p1/feedback", "POST", json={"data": 1})
    assert (status, body["code"]) == (504, "timeout")
    first = await agent.next("user_feedback")
    await agent.say("user_feedback_response", "p1", {}, first["id"])
    assert (await agent.next("error"))["data"]["code"] == "not_found"


async def test_gates_are_asked_about_feedback_and_filters_see_it(
    start: Start, tmp_path: Path, dial: Dial, get: Get
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/wall.py").write_text(WALL)
    app = await start(projects={"agent": "echo"}, plugins={"wall": {}})
    client = await dial(app.port)
    assert (await client.refused("project.feedback", project="secret", data=1))["code"] == "forbidden"
    assert (await client.do("project.feedback", project="p1", data="darn"))["data"] == "****"
    status, _, body = await get(app, "/api/v1/projects/secret/feedback", "POST", json={"data": 1})
    assert (status, body["code"]) == (403, "forbidden")
    _, _, body = await get(app, "/api/v1/projects/p1/feedback", "POST", json={"data": "darn"})
    assert body["data"] == "****"


async def test_the_other_tabs_of_a_user_hear_the_answer_when_the_one_that_asked_is_closed(
    start: Start, people: dict[str, Any], dial: Dial, serve: Serve
) -> None:
    app = await start(**PLANNER, **people)
    asking, other = await dial(app.port, "?name=ann"), await dial(app.port, "?name=ann")
    await other.do("room.join", room="project:p1")
    agent = await serve(app, "?name=w&scopes=agent")
    await feed(asking, project="p1", data=1, feedback_id="u1")
    await agent.next("user_feedback")
    asking.drop()
    await until(lambda: app.stats.connections == 1)
    await agent.say("user_feedback_response", "p1", {"ok": 1}, "u1")
    told = await other.event("room.event")
    assert told["data"] == {"event": "user_feedback_response", "data": {"feedback_id": "u1", "data": {"ok": 1}}}
