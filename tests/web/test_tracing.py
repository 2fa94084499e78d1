"""Where a reply went: what `GET /api/v1/trace/{id}` tells of a message (PROTOCOL section 5)."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from broker.actors.connection import Connection
from broker.actors.reply import SocketReply
from broker.app import App
from broker.hooks import Peer
from broker.messages import ANONYMOUS
from broker.protocol.native import NATIVE
from broker.protocol.payloads import Start as StartPayload
from broker.testing import FakeTransport
from broker.web.services import to_json
from broker.web.tracing import TurnReply

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]
Get = Callable[..., Awaitable[Any]]

AGENTS = {
    "faulty": {"kind": "echo", "faults": True},
    "hasty": {"kind": "echo", "faults": True, "deadlines": {"stalled": "10ms", "idle": "1h"}},
}
BREAK = '''
from broker.errors import BrokerError
from broker.hooks import Inbound, Plugin, TurnRequest


class Break(Plugin):
    """Refuses, and falls over, when it is told to."""

    def actions(self):
        return {"fall": self.fall}

    def fall(self, peer, payload):
        raise RuntimeError("the secret plan")

    def on_message(self, message: Inbound):
        if message.size > 2000:
            raise BrokerError("rate_limited", retry_after=3)

    async def on_turn(self, turn: TurnRequest) -> None:
        if b"swear" in turn.content:
            raise BrokerError("forbidden", "Mind your words.")
        if b"fall" in turn.content:
            raise RuntimeError("the secret plan")
'''


@pytest.fixture
async def app(start: Start, tmp_path: Path) -> App:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "break.py").write_text(BREAK)
    return await start(agents=AGENTS, plugins={"break": {}}, limits={"queued_turns": 1})


@pytest.fixture
async def client(app: App, dial: Dial) -> Any:
    return await dial(app.port)


async def begin(client: Any, agent: str = "faulty") -> str:
    return str((await client.do("session.create", agent=agent))["session_id"])


async def send(client: Any, session_id: str, client_msg_id: str, content: str) -> dict[str, Any]:
    start: dict[str, Any] = await client.do(
        "turn.start", session_id=session_id, client_msg_id=client_msg_id, content=content
    )
    return start


async def trace(get: Get, app: App, some_id: str, query: str = "") -> Any:
    status, _, body = await get(app, f"/api/v1/trace/{some_id}{query}")
    assert status == 200, body
    return body


def words(trace: Any) -> list[str]:
    return [f"{step['where']} {step['what']}" for step in trace["steps"]]


# -- how far it came -----------------------------------------------------------------------------------


async def test_a_turn_that_ended_shows_its_whole_way_under_both_ids(app: App, client: Any, get: Get) -> None:
    session_id = await begin(client)
    turn_id = (await send(client, session_id, "m1", "hello"))["turn_id"]
    at = (await client.event("turn.ended"))["at"]
    found = await trace(get, app, turn_id)
    assert (found["id"], found["turn_id"], found["session_id"]) == (turn_id, turn_id, session_id)
    assert (found["client_msg_id"], found["ended"]) == ("m1", True)
    steps = words(found)
    assert steps[0] == "socket received"
    order = [step for step in steps if step in {"session accepted", "socket answered", "session ended"}]
    assert order == ["session accepted", "socket answered", "session ended"]
    times = [step["at"] for step in found["steps"]]
    assert times == sorted(times)
    assert times[0] <= at
    assert found["stopped"] == {"where": "session", "what": "ended", "reason": "the agent ended it by itself"}
    assert await trace(get, app, "m1") == found


@pytest.mark.parametrize(
    ("client_msg_id", "escaped"), [("a/b ?#%", "a%2Fb%20%3F%23%25"), ("é😀", "%C3%A9%F0%9F%98%80")]
)
async def test_an_id_may_have_any_characters(app: App, client: Any, get: Get, client_msg_id: str, escaped: str) -> None:
    await send(client, await begin(client), client_msg_id, "hello")
    assert (await trace(get, app, escaped))["client_msg_id"] == client_msg_id


async def test_nothing_that_was_said_is_in_a_trace(app: App, client: Any, get: Get) -> None:
    session_id = await begin(client)
    await send(client, session_id, "m1", "the password is tiger")
    await client.event("turn.ended")
    assert "tiger" not in str(await trace(get, app, "m1"))


async def test_a_turn_that_failed_says_why(app: App, client: Any, get: Get) -> None:
    await send(client, await begin(client), "m1", "/fail no paper left")
    await client.event("turn.ended")
    found = await trace(get, app, "m1")
    assert found["ended"] is True
    (ended,) = [step for step in found["steps"] if step["what"] == "ended"]
    assert "failed" in ended["reason"]


async def test_a_turn_that_waits_says_so(app: App, client: Any, get: Get) -> None:
    session_id = await begin(client)
    await send(client, session_id, "m1", "/silence")
    await send(client, session_id, "m2", "later")
    found = await trace(get, app, "m2")
    assert found["ended"] is False
    assert "session queued" in words(found)
    assert not {step["what"] for step in found["steps"]} & {"dispatching", "ended"}


async def test_a_silent_agent_shows_in_the_trace(app: App, client: Any, get: Get) -> None:
    await send(client, await begin(client, "hasty"), "m1", "/silence")
    await client.event("turn.stalled")
    found = await trace(get, app, "m1")
    assert found["ended"] is False
    assert any("stalled" in step for step in words(found))


async def test_a_message_sent_again_is_in_one_trace(app: App, client: Any, get: Get) -> None:
    session_id = await begin(client)
    await send(client, session_id, "m1", "hello")
    await client.event("turn.ended")
    await send(client, session_id, "m1", "hello")
    await client.refused("turn.start", session_id=session_id, client_msg_id="m1", content="other")
    found = await trace(get, app, "m1")
    assert words(found).count("socket received") == 3
    assert found["ended"] is True
    answered = [step for step in found["steps"] if step["what"] == "answered"]
    assert ["reason" in step for step in answered] == [False, True]
    assert (found["steps"][-1]["what"], found["stopped"]["what"]) == ("refused", "ended")
    assert found["steps"][-1]["reason"].startswith("conflict: ")


# -- what became no turn ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code", "received"),
    [
        ("I swear", "forbidden", True),
        ("fall", "unavailable", True),
        ("", "invalid_message", True),
        ("long " * 500, "rate_limited", False),
        ("one too many", "queue_full", True),
    ],
)
async def test_a_refused_message_says_with_what(
    app: App, client: Any, get: Get, content: str, code: str, received: bool
) -> None:
    session_id = await begin(client)
    for number, filler in enumerate(["/silence", "waits"]):
        await send(client, session_id, f"filler {number}", filler)
    error = await client.refused("turn.start", session_id=session_id, client_msg_id="m1", content=content)
    found = await trace(get, app, "m1")
    assert (found["id"], found["session_id"], found["ended"]) == ("m1", session_id, True)
    assert "turn_id" not in found
    assert words(found) == ["socket received"] * received + ["socket refused"]
    assert found["stopped"] == {
        "where": "socket",
        "what": "refused",
        "reason": f"{error['code']}: {error['message']}",
    }
    assert error["code"] == code or content == "fall"
    assert "secret" not in str(found)


async def test_a_message_to_no_session_is_refused_by_name(app: App, client: Any, get: Get) -> None:
    await client.refused("turn.start", session_id="nowhere", client_msg_id="m1", content="hi")
    assert (await trace(get, app, "m1"))["stopped"]["reason"].startswith("not_found: ")


async def test_a_message_that_cannot_be_read_leaves_no_trace(app: App, client: Any, get: Get) -> None:
    await client.refused("turn.start", session_id="", client_msg_id="m1", content="hi")
    assert (await get(app, "/api/v1/trace/m1"))[0] == 404


async def test_an_internal_error_is_found_by_the_id_its_asker_got(app: App, client: Any, get: Get) -> None:
    error = await client.refused("fall")
    assert error["code"] == "internal"
    found = await trace(get, app, error["hint"].removeprefix("trace "))
    assert found["ended"] is True
    assert found["stopped"] == {"where": "plugin break", "what": "failed", "reason": "RuntimeError in action fall"}
    assert "secret" not in str(found)


async def test_a_fault_of_our_own_is_found_likewise(app: App, client: Any, get: Get) -> None:
    app.registry.actor._broadcasts = None  # type: ignore[union-attr, assignment]
    error = await client.refused("broadcast")
    found = await trace(get, app, error["hint"].removeprefix("trace "))
    assert found["stopped"] == {"where": "broker", "what": "failed", "reason": "AttributeError"}


@pytest.mark.parametrize(("gone", "what"), [(False, "answered"), (True, "unanswered")])
async def test_whether_the_sender_could_be_told_is_noted(app: App, gone: bool, what: str) -> None:
    peer, socket = Peer("c", ANONYMOUS, "127.0.0.1", NATIVE.name), FakeTransport()
    connection = Connection.start(peer, NATIVE, socket, 0, app.services.connection)
    start = StartPayload("s", "m1", Raw(b'"hi"'))
    app.traces.receive("socket", session_id="s", client_msg_id="m1", user=None)
    app.traces.begin("t1", session_id="s", client_msg_id="m1", user=None)
    if gone:
        await connection.stop()
    reply = SocketReply(connection, "r1", to_json, app.services.failure)
    TurnReply(reply, connection, app.traces, start, None).set({"turn_id": "t1", "duplicate": False})
    if not gone:
        await socket.message(id="r1")
        await connection.stop()
    found = app.traces.find("t1")
    assert found is not None
    assert [step.what for step in found.steps] == ["received", what]
    assert bool(socket.messages) is not gone


# -- whose it is -----------------------------------------------------------------------------------------


async def test_an_id_of_which_nothing_is_remembered_says_what_is(app: App, get: Get) -> None:
    status, _, body = await get(app, "/api/v1/trace/nothing")
    assert (status, body["code"], "newest" in body["hint"]) == (404, "not_found", True)
    assert (await get(app, "/api/v1/trace/%2e%2e%2fetc"))[0] == 404


async def test_a_trace_is_for_who_may_see_the_session(
    start: Start, people: dict[str, Any], dial: Dial, get: Get
) -> None:
    app = await start(**people)
    ann = await dial(app.port, "?name=ann")
    session_id = (await ann.do("session.create"))["session_id"]
    await ann.do("session.share", session_id=session_id, user="eve", role="viewer")
    turn_id = (await ann.do("turn.start", session_id=session_id, client_msg_id="m1", content="hi"))["turn_id"]
    await ann.event("turn.ended")

    async def seen_by(*queries: str) -> list[int]:
        return [(await get(app, f"/api/v1/trace/{turn_id}?scopes=api+{query}"))[0] for query in queries]

    queries = ("&name=ann", "&name=eve", "admin&name=root", "&name=bob", "")
    assert await seen_by(*queries) == [200, 200, 200, 404, 404]
    await ann.do("session.delete", session_id=session_id)
    assert await seen_by(*queries) == [200, 404, 200, 404, 404]


async def test_an_id_that_others_use_too_leads_to_ones_own_message(
    start: Start, people: dict[str, Any], dial: Dial, get: Get
) -> None:
    app = await start(**people)
    ann, bob = await dial(app.port, "?name=ann"), await dial(app.port, "?name=bob")
    session_id = (await ann.do("session.create"))["session_id"]
    await ann.do("session.share", session_id=session_id, user="bob", role="member")
    await ann.do("session.share", session_id=session_id, user="eve", role="viewer")
    turns = {}
    for name, client in [("ann", ann), ("bob", bob)]:
        answer = await client.do("turn.start", session_id=session_id, client_msg_id="1", content="hi")
        turns[name] = answer["turn_id"]
    for name, turn_id in [*turns.items(), ("eve", turns["bob"])]:
        assert (await trace(get, app, "1", f"?scopes=api&name={name}"))["turn_id"] == turn_id


async def test_a_refused_message_is_its_senders_alone(
    start: Start, people: dict[str, Any], dial: Dial, get: Get
) -> None:
    app = await start(**people)
    ann, bob = await dial(app.port, "?name=ann"), await dial(app.port, "?name=bob")
    session_id = (await ann.do("session.create"))["session_id"]
    await ann.do("turn.start", session_id=session_id, client_msg_id="1", content="hi")
    await ann.event("turn.ended")
    await bob.refused("turn.start", session_id=session_id, client_msg_id="1", content="hi")
    assert (await trace(get, app, "1", "?scopes=api&name=ann"))["ended"] is True
    assert "turn_id" in await trace(get, app, "1", "?scopes=api&name=ann")
    assert (await trace(get, app, "1", "?scopes=api&name=bob"))["stopped"]["reason"].startswith("forbidden: ")
    assert (await get(app, "/api/v1/trace/1?scopes=api&name=eve"))[0] == 404
