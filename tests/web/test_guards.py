"""`validation` and `content_filter` in a broker: what clients, viewers and backends see of what they refuse and change.

How each judges is tests/plugins' affair; here it is shown that nobody gets past them, by a socket or by HTTP, and that
one that breaks refuses.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]
Start = Callable[..., Awaitable[App]]

TITLED = {"properties": {"data": {"required": ["title"], "properties": {"title": {"maxLength": 5}}}}}
RULES = [
    {"name": "keys", "pattern": "sk-[0-9]+", "action": "redact", "replace": "[key]"},
    {"name": "manners", "pattern": "darn", "message": "Mind your words.", "operations": ["room.*", "turn.*"]},
]


@pytest.fixture
async def app(start: Start, people: dict[str, Any]) -> App:
    guards = {"validation": {"actions": {"room.publish": TITLED}}, "content_filter": {"rules": RULES}}
    return await start(plugins={**people["plugins"], **guards}, projects={"agent": "echo"})


@pytest.fixture
def post(app: App, get: Get) -> Callable[..., Awaitable[tuple[int, Any]]]:
    async def send(path: str, body: Any) -> tuple[int, Any]:
        status, _, answer = await get(app, f"/api/v1/{path}?name=backend&scopes=api+admin", "POST", json=body)
        return status, answer

    return send


Post = Callable[..., Awaitable[tuple[int, Any]]]


async def test_a_message_that_does_not_fit_its_schema_goes_nowhere(app: App, dial: Dial) -> None:
    ann, bob = await dial(app.port, "?name=ann"), await dial(app.port, "?name=bob")
    for client in (ann, bob):
        await client.do("room.join", room="lobby")
    refused = await ann.refused("room.publish", room="lobby", data={"title": "too long"})
    assert (refused["code"], refused["message"]) == ("invalid_message", "It is longer than 5 characters.")
    assert refused["field"] == "$.payload.data.title"
    assert refused["hint"] == "the schema of room.publish, #/properties/data/properties/title/maxLength"
    await bob.silent()
    await ann.do("room.publish", room="lobby", data={"title": "short"})
    assert (await bob.event("room.event"))["data"]["data"] == {"title": "short"}


async def test_a_body_that_does_not_fit_is_refused_by_its_own_path(post: Post) -> None:
    status, problem = await post("rooms/lobby/events", {"data": {"title": "too long"}})
    assert (status, problem["code"], problem["field"]) == (400, "invalid_message", "$.data.title")
    assert (await post("rooms/lobby/events", {"data": {"title": "short"}}))[0] < 300


async def test_what_is_taken_out_is_seen_by_nobody_and_all_else_comes_as_it_was_sent(app: App, dial: Dial) -> None:
    ann, bob = await dial(app.port, "?name=ann"), await dial(app.port, "?name=bob")
    for client in (ann, bob):
        await client.do("room.join", room="lobby")
    data = '{"title": "s", "n":1.10,"text" : "my sk-4711", "sk-1":[1E2]}'
    publish = '{"id":"p","type":"request","action":"room.publish","payload":{"room":"lobby","data":%s}}'
    await ann.send(publish % data)
    for client in (ann, bob):
        assert data.replace("sk-4711", "[key]") in (await client.event("room.event")).text
    assert "sk-4711" not in json.dumps((await bob.do("room.history", room="lobby"))["events"])
    untouched = data.replace("sk-4711", "own")
    await ann.send(publish % untouched)
    assert untouched in (await bob.event("room.event")).text


async def test_a_turn_reaches_the_agent_without_what_was_taken_out_and_not_at_all_if_refused(
    app: App, dial: Dial
) -> None:
    ann = await dial(app.port, "?name=ann")
    session_id = (await ann.do("session.create"))["session_id"]
    turn = {"session_id": session_id, "client_msg_id": "1"}
    refused = await ann.refused("turn.start", **turn, content=[{"type": "text", "text": "oh darn"}])
    assert (refused["code"], refused["message"], refused["hint"]) == ("forbidden", "Mind your words.", "rule manners")
    await ann.do("turn.start", **turn, content="use sk-4711 now")
    seen = await ann.records(until="turn.ended")
    said = [record["data"] for record in seen if record["event"] in {"user.message", "message.completed"}]
    assert [data["content"] for data in said] == ["use [key] now", "use [key] now"]


async def test_whatever_way_it_is_said(app: App, dial: Dial, post: Post) -> None:
    ann = await dial(app.port, "?name=ann&scopes=admin")
    await ann.do("broadcast", text="sk-1")
    assert (await ann.event("broadcast"))["data"] == {"text": "[key]"}
    await ann.do("send", to={"users": ["ann"]}, data="sk-2")
    assert (await ann.event("message"))["data"] == "[key]"
    await ann.do("room.join", room="lobby")
    assert (await post("broadcast", {"text": "sk-3"}))[0] == 200
    assert (await ann.event("broadcast"))["data"] == {"text": "[key]"}
    assert (await post("send", {"to": {"users": ["ann"]}, "data": "sk-4"}))[0] == 200
    assert (await ann.event("message"))["data"] == "[key]"
    status, problem = await post("rooms/lobby/events", {"data": {"title": "darn"}})
    assert (status, problem["code"], problem["title"]) == (403, "forbidden", "Mind your words.")
    await ann.silent()


async def test_feedback_to_a_project_is_filtered_too(app: App, dial: Dial) -> None:
    ann = await dial(app.port, "?name=ann")
    answered = await ann.do("project.feedback", project="1", data={"text": "sk-4711"})
    assert "[key]" in json.dumps(answered)
    assert "sk-4711" not in json.dumps(answered)


@pytest.mark.parametrize(("plugin", "action"), [(1, "room.publish"), (2, "room.publish"), (2, "turn.start")])
async def test_one_that_breaks_refuses(app: App, dial: Dial, post: Post, plugin: int, action: str) -> None:
    ann = await dial(app.port, "?name=ann")
    session_id = (await ann.do("session.create"))["session_id"]
    payload: dict[str, Any] = {"room": "lobby", "data": {"title": "s"}}
    if action == "turn.start":
        payload = {"session_id": session_id, "client_msg_id": "1", "content": "hi"}
    app.plugins.instances[plugin].settings = None
    refused = await ann.refused(action, **payload)
    assert refused["code"] == "internal"
    assert "trace" in refused["hint"]
    assert (await post("rooms/lobby/events", {"data": {"title": "s"}}))[0] == 500


async def test_what_is_said_beside_a_message_and_of_a_session_is_looked_at_too(
    app: App, dial: Dial, post: Post
) -> None:
    ann = await dial(app.port, "?name=ann")
    said = {"title": "my sk-4711", "variables": {"sk-1": ["sk-4711", 1]}}
    await ann.do("session.create", session_id="s", **said)
    await ann.do("session.update", session_id="s", **said)
    await ann.do("session.open", session_id="t", **said)
    await ann.do("turn.start", session_id="s", client_msg_id="m", content="hi", metadata={"from": "sk-4711"})
    refused = await ann.refused("turn.start", session_id="s", client_msg_id="n", content="hi", metadata={"a": "darn"})
    assert (refused["code"], refused["hint"]) == ("forbidden", "rule manners")
    assert (await post("sessions", {"session_id": "u", **said}))[0] == 201
    turn = {"client_msg_id": "m", "content": "hi", "metadata": {"from": "sk-4711"}}
    assert (await post("sessions/u/turns", turn))[0] == 202
    assert (await post("sessions/u/turns", {**turn, "metadata": {"a": "darn"}}))[0] == 403
    for session, by in (("s", "ann"), ("t", "ann"), ("u", "backend")):
        reader = await dial(app.port, f"?name={by}")
        shown = [await reader.do("session.attach", session_id=session), await reader.do("session.list")]
        seen = json.dumps([*shown, await reader.do("session.history", session_id=session)])
        assert "sk-4711" not in seen
        assert "my [key]" in seen


async def test_a_title_that_a_rule_makes_too_long_is_refused(start: Start, dial: Dial, people: dict[str, Any]) -> None:
    longer = {"name": "longer", "pattern": "a", "action": "redact", "replace": "a" * 501}
    app = await start(plugins={**people["plugins"], "content_filter": {"rules": [longer]}})
    ann = await dial(app.port, "?name=ann")
    refused = await ann.refused("session.create", session_id="s", title="a")
    assert (refused["code"], refused["field"]) == ("invalid_message", "$.payload.title")
