"""Sessions and turns by way of the HTTP API (PROTOCOL section 5)."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.app import App

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

ANN = "name=ann&scopes=api"
BOB = "name=bob&scopes=api"
ROOT = "name=root&scopes=api+admin"


async def test_a_backend_creates_a_session_and_a_turn_that_a_viewer_sees_to_its_end(
    app: App, ask: Ask, dial: Dial
) -> None:
    created = await ask(app, "POST /sessions", {"title": "Support", "variables": {"a": 1}})
    assert (created.status, created.body["agent"], created.body["head"]) == (201, "echo", 1)
    session_id = created.body["session_id"]
    viewer = await dial(app.port)
    await viewer.do("session.attach", session_id=session_id)
    started = await ask(app, f"POST /sessions/{session_id}/turns", {"client_msg_id": "1", "content": "hello"})
    assert (started.status, started.body["duplicate"]) == (202, False)
    ended = await viewer.event("turn.ended")
    assert ended["turn_id"] == started.body["turn_id"]
    found = (await ask(app, f"GET /sessions/{session_id}/messages")).body["messages"]
    assert [message["content"] for message in found] == ["hello", "hello"]


async def test_a_session_may_have_an_id_that_is_chosen_but_only_once(app: App, ask: Ask) -> None:
    assert (await ask(app, "POST /sessions", {"session_id": "mine"})).body["session_id"] == "mine"
    again = await ask(app, "POST /sessions", {"session_id": "mine"})
    assert (again.status, again.body["code"], again.body["field"]) == (409, "session_exists", "$.session_id")


async def test_a_session_needs_no_body(app: App, ask: Ask) -> None:
    assert (await ask(app, "POST /sessions")).status == 201


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"agent": "nobody"}, 404, "$.agent"),
        ({"workspace_dir": "/no/such/place"}, 404, "$.workspace_dir"),
        ({"titel": "Support"}, 400, "$.titel"),
        ({"ephemeral": True}, 400, "$.ephemeral"),
        ({"title": 1}, 400, "$.title"),
        ({"session_id": "a b"}, 400, "$.session_id"),
    ],
)
async def test_what_is_wrong_with_a_session_is_named(
    app: App, ask: Ask, body: dict[str, Any], status: int, field: str
) -> None:
    refused = await ask(app, "POST /sessions", body)
    assert (refused.status, refused.body["field"]) == (status, field)


async def test_a_turn_that_is_sent_again_is_the_same_turn(app: App, ask: Ask) -> None:
    await ask(app, "POST /sessions", {"session_id": "s"})
    first = await ask(app, "POST /sessions/s/turns", {"client_msg_id": "1", "content": "hello"})
    again = await ask(app, "POST /sessions/s/turns", {"client_msg_id": "1", "content": "hello"})
    assert (again.body["turn_id"], again.body["duplicate"]) == (first.body["turn_id"], True)
    other = await ask(app, "POST /sessions/s/turns", {"client_msg_id": "1", "content": "other"})
    assert (other.status, other.body["code"]) == (409, "conflict")


@pytest.mark.parametrize("key", ["order-4711", "k" * 255])
async def test_the_key_of_a_turn_is_its_message_id_and_so_outlives_the_broker(
    start: Start, tmp_path: Path, ask: Ask, key: str
) -> None:
    store = {"url": f"sqlite:///{tmp_path}/broker.db"}
    app = await start(store=store)
    await ask(app, "POST /sessions", {"session_id": "s"})
    first = await ask(app, "POST /sessions/s/turns", {"content": "hello"}, Idempotency_Key=key)
    await app.stop()
    app = await start(store=store)
    again = await ask(app, "POST /sessions/s/turns", {"content": "hello"}, Idempotency_Key=key)
    assert (again.status, again.body["duplicate"]) == (202, True)
    assert again.body["turn_id"] == first.body["turn_id"]


async def test_a_turn_needs_an_id_or_a_key(app: App, ask: Ask) -> None:
    await ask(app, "POST /sessions", {"session_id": "s"})
    refused = await ask(app, "POST /sessions/s/turns", {"content": "hello"})
    assert (refused.status, refused.body["field"]) == (400, "$.client_msg_id")


@pytest.mark.parametrize("content", [[], "", 1, None, [{"text": "no type"}]])
async def test_content_is_looked_at_as_on_a_socket(app: App, ask: Ask, content: Any) -> None:
    await ask(app, "POST /sessions", {"session_id": "s"})
    refused = await ask(app, "POST /sessions/s/turns", {"client_msg_id": "1", "content": content})
    assert refused.status == 400
    assert refused.body["field"].startswith("$.content")


async def test_a_turn_that_would_wait_is_refused_if_it_may_not(app: App, ask: Ask) -> None:
    await ask(app, "POST /sessions", {"session_id": "s", "agent": "endless"})
    await ask(app, "POST /sessions/s/turns", {"client_msg_id": "1", "content": "one two"})
    refused = await ask(app, "POST /sessions/s/turns", {"client_msg_id": "2", "content": "b", "if_busy": "reject"})
    assert (refused.status, refused.body["code"], refused.body["retryable"]) == (409, "busy", True)
    shown = (await ask(app, "GET /sessions/s")).body
    assert (shown["turn"]["client_msg_id"], shown["queue"]) == ("1", [])


async def test_a_turn_over_http_leaves_a_trace(app: App, ask: Ask) -> None:
    await ask(app, "POST /sessions", {"session_id": "s"})
    await ask(app, "POST /sessions/s/turns", {"client_msg_id": "m1", "content": "hello"})
    steps = [(step["where"], step["what"]) for step in (await ask(app, "GET /trace/m1")).body["steps"]]
    assert steps[0] == ("http", "received")
    assert ("http", "answered") in steps
    await ask(app, "POST /sessions/none/turns", {"client_msg_id": "m2", "content": "hello"})
    assert (await ask(app, "GET /trace/m2")).body["stopped"]["reason"].startswith("not_found")


# -- whose they are ----------------------------------------------------------------------------------


async def test_who_may_do_what_with_a_session(start: Start, people: dict[str, Any], ask: Ask, dial: Dial) -> None:
    app = await start(**people)
    await ask(app, "POST /sessions", {"session_id": "s"}, who=ANN)
    ann = await dial(app.port, "?name=ann")
    await ann.do("session.share", session_id="s", user="eve", role="viewer")
    await ann.do("session.share", session_id="s", user="max", role="member")
    people_of = {name: f"name={name}&scopes=api" for name in ("ann", "max", "eve", "bob")} | {"root": ROOT}
    turn = {"client_msg_id": "1", "content": "hello"}
    found: dict[str, list[int]] = {}
    for name, who in people_of.items():
        reads = [await ask(app, f"GET /sessions/s{path}", who=who) for path in ("", "/messages", "/records")]
        started = await ask(app, "POST /sessions/s/turns", turn, who=who)
        found[name] = [*(answer.status for answer in reads), started.status]
    may, sees, strange = [200, 200, 200, 202], [200, 200, 200, 403], [403, 403, 403, 403]
    assert found == {"ann": may, "max": may, "root": may, "eve": sees, "bob": strange}


async def test_one_sees_ones_own_sessions_and_an_admin_all(start: Start, people: dict[str, Any], ask: Ask) -> None:
    app = await start(**people)
    for who in (ANN, BOB, ANN):
        await ask(app, "POST /sessions", {}, who=who)
    counts = [len((await ask(app, "GET /sessions", who=who)).body["sessions"]) for who in (ANN, BOB, ROOT)]
    assert counts == [2, 1, 3]


async def test_a_gate_for_turns_is_asked_too(start: Start, tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/prude.py").write_text(
        "from broker.errors import BrokerError\n"
        "from broker.hooks import Plugin\n"
        "class Prude(Plugin):\n"
        "    async def on_turn(self, turn):\n"
        "        raise BrokerError('forbidden', 'Mind your words.')\n"
    )
    app = await start(plugins={"prude": {}})
    await ask(app, "POST /sessions", {"session_id": "s"})
    refused = await ask(app, "POST /sessions/s/turns", {"client_msg_id": "1", "content": "damn"})
    assert (refused.status, refused.body["message"]) == (403, "Mind your words.")


# -- pages -------------------------------------------------------------------------------------------


async def test_pages_of_sessions_hold_still_while_sessions_come(app: App, ask: Ask) -> None:
    for number in range(4):
        await ask(app, "POST /sessions", {"session_id": f"s{number}"})
    first = (await ask(app, "GET /sessions?limit=2")).body
    await ask(app, "POST /sessions", {"session_id": "late"})
    second = (await ask(app, f"GET /sessions?limit=2&cursor={first['cursor']}")).body
    seen = [row["session_id"] for page in (first, second) for row in page["sessions"]]
    assert sorted(seen) == ["s0", "s1", "s2", "s3"]
    assert "cursor" not in second
