"""Seed 003 as its client: envelopes, each text of which has a reply or an error, in `envelope.v1.json`."""

import asyncio
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from signal import SIGINT
from typing import Any

import aiohttp
import jwt
import pytest

PATIENCE = 20.0
HOST = Path(__file__).with_name("host_of_seed_003.py")
FORMAT = "envelope.v1.json"
KEYS = {"id", "type", "from", "to", "content", "sessionId", "timestamp", "metadata"}
YAML = """
listen: {default_protocol: envelope.v1.json}
limits: {message_timeout: 1s, message_bytes: 64KiB, errors_per_minute: 20}
store: {url: "sqlite:///broker.db"}
agents:
  echo: {kind: echo, faults: true}
  hasty: {kind: echo, faults: true, deadlines: {idle: 300ms, stalled: 0}}
plugins: {metrics: {}}
log: {level: debug, format: json}
"""
SECRET = "a secret of this test, of 32 bytes and more"
STRICT = f"""
listen: {{default_protocol: envelope.v1.json, max_connections: 6}}
heartbeat: {{interval: 400ms, timeout: 300ms}}
store: {{url: "memory:"}}
plugins:
  rate_limit: {{messages: 50/s, burst: 1, actions: {{turn.start: 5/s}}}}
  auth:
    mode: jwt
    keys: [{{algorithm: HS256, secret: "{SECRET}"}}]
    first_message: 5s
"""

Connect = Callable[..., Awaitable[Any]]
Message = dict[str, Any]


@pytest.fixture(scope="module")
def broker(broker_process: Any) -> Any:
    return broker_process(YAML)


@pytest.fixture(scope="module")
def strict(broker_process: Any) -> Any:
    """A broker that wants to know who somebody is, hears only so much of him, and has room for six."""
    return broker_process(STRICT)


@pytest.fixture
def enter(broker: Any, connect: Connect) -> Connect:
    """Connect as a client of this design, past its welcome."""

    async def open_client(url: str = "", **options: Any) -> Any:
        client = await connect(url or broker.url, protocols=[FORMAT], **options)
        client.connection_id = (await client.take(event("welcome")))["content"]["data"]["connectionId"]
        return client

    return open_client


@pytest.fixture
async def client(enter: Connect) -> Any:
    return await enter()


@pytest.fixture
def session_id() -> str:
    return str(uuid.uuid4())


# -- what is waited for ------------------------------------------------------------------------------


def event(name: str, **metadata: Any) -> Callable[[Message], bool]:
    def wanted(message: Message) -> bool:
        content = message["content"]
        return isinstance(content, dict) and content.get("event") == name and holds(message, metadata)

    return wanted


def holds(message: Message, metadata: dict[str, Any]) -> bool:
    return all(message["metadata"].get(key) == value for key, value in metadata.items())


def answer(message_id: str) -> Callable[[Message], bool]:
    """Pick what ends the way of a message."""
    return lambda message: holds(message, {"replyTo": message_id, "final": True})


def said_by(sender: str) -> Callable[[Message], bool]:
    return lambda message: message["type"] == "text" and message["from"] == sender


def envelope(content: Any, *, to: str = "ai", kind: str = "text", **more: Any) -> Message:
    """Return a message as the design writes it."""
    return {
        "id": str(uuid.uuid4()),
        "type": kind,
        "from": "user",
        "to": to,
        "content": {"text": content} if isinstance(content, str) and kind == "text" else content,
        "timestamp": "2026-11-21T10:00:00.000Z",
        "metadata": {},
        **more,
    }


async def send(client: Any, message: Message) -> str:
    await client.send(message)
    return str(message["id"])


async def say(client: Any, words: str, session_id: str, **more: Any) -> str:
    """Say a text to the agent and return its id."""
    return await send(client, envelope(words, sessionId=session_id, **more))


async def init(client: Any, session_id: str | None = None, content: Any = None, **metadata: Any) -> Message:
    """Open a session and return the answer."""
    message = envelope(content or {}, kind="init", to="system", sessionId=session_id, metadata=metadata)
    return dict(await ended(client, await send(client, message)))


async def command(client: Any, action: str, session_id: str | None = None, **content: Any) -> Message:
    message = envelope({"action": action, **content}, kind="system", to="system", sessionId=session_id)
    return dict(await ended(client, await send(client, message)))


async def ended(client: Any, message_id: str) -> Message:
    return dict(await client.take(answer(message_id)))


async def conversation(client: Any, message_id: str) -> list[Message]:
    """Return all that comes with a text, to its end."""
    messages = [await client.take(lambda message: message["metadata"].get("replyTo") == message_id)]
    while not messages[-1]["metadata"].get("final"):
        messages.append(await client.take(lambda message: message["metadata"].get("replyTo") == message_id))
    return messages


def replies(messages: list[Message]) -> list[str]:
    return [message["content"]["text"] for message in messages if said_by("ai")(message)]


def error_of(message: Message) -> Message:
    assert message["content"]["event"] == "error", message
    return dict(message["content"]["data"])


# -- 1. the message ----------------------------------------------------------------------------------


async def test_every_message_has_the_eight_fields_of_the_design(client: Any, session_id: str) -> None:
    await init(client, session_id)
    await ended(client, await say(client, "hello", session_id))
    await ended(client, await send(client, envelope({}, kind="nonsense")))
    await command(client, "ping")
    await client.take(event("session.opened"))
    everything = await conversation(client, await say(client, "again", session_id)) + client.heard
    assert len(everything) > 5
    for message in everything:
        assert set(message) == KEYS
        assert message["from"] in {"user", "ai", "system"}
        assert message["to"] in {"user", "ai", "system"}
        assert isinstance(message["content"], dict)
        assert isinstance(message["metadata"], dict)
        assert isinstance(message["id"], str)
        assert datetime.fromisoformat(message["timestamp"]).utcoffset() is not None
    ids = [message["id"] for message in everything]
    assert len(set(ids)) == len(ids)


async def test_a_text_is_answered_by_a_text_from_the_ai_that_names_it(client: Any, session_id: str) -> None:
    await init(client, session_id)
    text = envelope("good morning", sessionId=session_id)
    accepted, *reply, end = await conversation(client, await send(client, text))
    assert (accepted["type"], accepted["content"]["event"]) == ("system", "accepted")
    assert {"status", "turnId", "seq", "duplicate", "durable"} == set(accepted["content"]["data"])
    said = next(message for message in reply if said_by("ai")(message))
    assert (said["type"], said["from"], said["to"]) == ("text", "ai", "user")
    assert (said["content"], said["sessionId"]) == ({"text": "good morning"}, session_id)
    assert said["metadata"]["replyTo"] == text["id"]
    assert said["metadata"]["turnId"] == accepted["content"]["data"]["turnId"]
    assert end["content"]["event"] == "turn.ended"
    assert end["content"]["data"]["outcome"] == "completed"


@pytest.mark.parametrize(
    "content",
    [{"text": "hi"}, "hi", {"blocks": [{"type": "text", "text": "hi"}]}, [{"type": "text", "text": "hi"}]],
    ids=str,
)
async def test_the_content_may_be_spelt_in_several_ways(client: Any, session_id: str, content: Any) -> None:
    message = {**envelope("", sessionId=session_id), "content": content}
    assert replies(await conversation(client, await send(client, message))) == ["hi"]


async def test_what_is_left_out_is_filled_in(client: Any) -> None:
    await client.send({"type": "text", "content": {"text": "hi"}})
    accepted = await client.take(event("accepted"))
    made, session_id = accepted["metadata"]["replyTo"], accepted["sessionId"]
    assert made
    assert session_id
    assert replies(await conversation(client, made)) == ["hi"]
    await client.send({"type": "text", "content": {"text": "in the same session"}})
    assert (await client.take(said_by("ai")))["sessionId"] == session_id


ILL = [
    ("{", "invalid_json", None),
    ('{"type": "text", "content": {"text": "\\ud800"}}', "invalid_json", None),
    ("[]", "invalid_message", "$"),
    ('{"content": {"text": "hi"}}', "invalid_message", "$"),
    ('{"type": 1}', "invalid_message", "$.type"),
    ('{"type": "text", "id": 1, "content": {"text": "hi"}}', "invalid_message", "$.id"),
    ('{"type": "text", "to": "nobody", "content": {"text": "hi"}}', "invalid_message", "$.to"),
    ('{"type": "text", "from": "ai", "content": {"text": "hi"}}', "invalid_message", "$.from"),
    ('{"type": "text", "content": {"text": 1}}', "invalid_message", "$.content"),
    ('{"type": "text", "content": {}}', "invalid_message", "$.content"),
    ('{"type": "text"}', "invalid_message", "$.content"),
    ('{"type": "text", "sessionId": "no/such", "content": {"text": "hi"}}', "invalid_message", "$.sessionId"),
    ('{"type": "text", "timestamp": "today", "content": {"text": "hi"}}', "invalid_message", "$.timestamp"),
    ('{"type": "text", "metadata": [], "content": {"text": "hi"}}', "invalid_message", "$.metadata"),
    ('{"type": "init", "content": {"afterSeq": "1"}}', "invalid_message", "$.content.afterSeq"),
    ('{"type": "system", "content": {}}', "invalid_message", "$.content"),
    ('{"type": "system", "to": "ai", "content": "ping"}', "invalid_message", "$.to"),
    ("[" * 70 + "]" * 70, "invalid_message", "$"),
]


async def test_an_ill_formed_message_is_told_its_fault_and_the_connection_stays(enter: Connect) -> None:
    for text, code, field in ILL:
        client = await enter()
        await client.send(text)
        told = await client.take(event("error"))
        assert (error_of(told)["code"], error_of(told).get("field")) == (code, field), text
        assert (await command(client, "ping"))["content"]["event"] == "pong"


async def test_an_error_names_the_message_that_it_is_about_where_that_has_an_id(client: Any) -> None:
    await client.send({"id": "m1", "type": "text", "content": {}})
    error = await ended(client, "m1")
    assert (error["type"], error["from"], error["to"]) == ("system", "system", "user")
    assert {"code", "message", "retryable"} <= set(error_of(error))


async def test_an_empty_text_is_refused_with_its_field(client: Any, session_id: str) -> None:
    error = error_of(await ended(client, await say(client, "", session_id)))
    assert (error["code"], error["field"]) == ("invalid_message", "$.content")


async def test_a_type_that_nobody_handles_is_an_error_and_reaches_no_action_of_the_broker(client: Any) -> None:
    for kind in ("nonsense", "broadcast", "session.list"):
        error = error_of(await ended(client, await send(client, envelope({}, kind=kind))))
        assert (error["code"], error["message"]) == ("unknown_action", f"unknown type: {kind}")
    error = error_of(await command(client, "dance"))
    assert (error["code"], error["message"]) == ("unknown_action", "unknown action: dance")


# -- 2. sessions and the state of them ---------------------------------------------------------------


async def test_init_opens_the_session_that_the_client_names_and_tells_its_state(client: Any, session_id: str) -> None:
    opened = await init(client, session_id)
    assert (opened["type"], opened["from"], opened["sessionId"]) == ("init", "system", session_id)
    content = opened["content"]
    assert (content["sessionId"], content["state"], content["recovered"]) == (session_id, "open", True)
    assert {"head", "floor", "epoch", "turn", "queue", "approvals", "variables"} <= set(content)
    assert (await client.take(event("session.caught_up")))["content"]["data"] == {"head": content["head"]}


async def test_init_without_a_session_makes_one(client: Any) -> None:
    opened = await init(client)
    assert opened["content"]["sessionId"] == opened["sessionId"]
    assert replies(await conversation(client, await say(client, "hi", opened["sessionId"]))) == ["hi"]


async def test_init_resumes_after_what_the_client_has(enter: Connect, client: Any, session_id: str) -> None:
    await init(client, session_id)
    seen: list[Message] = []
    for number in range(3):
        seen += await conversation(client, await say(client, f"text {number}", session_id))
    last = max(message["metadata"].get("seq", 0) for message in seen)
    other = await enter()
    await init(other, session_id, afterSeq=seen[3]["metadata"].get("seq", 3))
    again = []
    while not event("session.caught_up")(message := await other.take()):
        again.append(message)
    numbers = [message["metadata"]["seq"] for message in again]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == last
    whole = await enter()
    await init(whole, session_id)
    everything = []
    while not event("session.caught_up")(message := await whole.take()):
        everything.append(message)
    assert [m for m in everything if m["metadata"]["seq"] > numbers[0] - 1] == again


async def test_a_position_that_is_not_there_is_told_and_all_there_is_comes(client: Any, session_id: str) -> None:
    await init(client, session_id)
    opened = await init(client, session_id, {"afterSeq": 1000})
    assert opened["content"]["recovered"] is False
    await client.take(event("session.reset"))


async def test_a_text_opens_its_session_by_itself_and_texts_wait_for_that_in_order(
    client: Any, session_id: str
) -> None:
    ids = [await say(client, f"text {number}", session_id) for number in range(10)]
    said = []
    for message_id in ids:
        said += replies(await conversation(client, message_id))
    assert said == [f"text {number}" for number in range(10)]
    accepted = [message["content"]["data"]["seq"] for message in client.heard if event("accepted")(message)]
    assert accepted == sorted(accepted)


async def test_texts_right_behind_their_init_wait_for_it(client: Any, session_id: str) -> None:
    opening = envelope({}, kind="init", to="system", sessionId=session_id)
    await client.send(opening)
    ids = [await say(client, f"text {number}", session_id) for number in range(5)]
    assert (await ended(client, opening["id"]))["type"] == "init"
    said = []
    for message_id in ids:
        said += replies(await conversation(client, message_id))
    assert said == [f"text {number}" for number in range(5)]


async def test_everybody_in_a_session_sees_what_is_said_and_only_its_sender_is_not_shown_it_again(
    enter: Connect, client: Any, session_id: str
) -> None:
    other = await enter()
    await init(client, session_id)
    await init(other, session_id)
    text = envelope("for all to see", sessionId=session_id, metadata={"colour": "red", "final": True})
    mine = await conversation(client, await send(client, text))
    seen = await other.take(said_by("user"))
    assert (seen["id"], seen["content"], seen["to"]) == (text["id"], {"text": "for all to see"}, "ai")
    assert seen["metadata"]["colour"] == "red"
    assert "final" not in seen["metadata"]
    theirs = [await other.take(said_by("ai")), await other.take(event("turn.ended"))]
    assert theirs[0] in mine
    assert not any(map(said_by("user"), [*mine, *client.heard]))
    assert theirs[1]["metadata"]["replyTo"] == text["id"]


async def test_what_the_agent_does_beside_talking_comes_as_system_messages(client: Any, session_id: str) -> None:
    await init(client, session_id)
    messages = await conversation(client, await say(client, "/garbage here", session_id))
    odd = next(message for message in messages if event("vendor.garbage")(message))
    assert odd["content"]["data"] == {"noise": [1, None, {}]}
    assert odd["metadata"]["seq"]


async def test_the_agent_is_heard_word_by_word_only_where_that_is_asked_for(
    enter: Connect, client: Any, session_id: str
) -> None:
    other = await enter()
    await init(client, session_id)
    await init(other, session_id, {"stream": True})
    message_id = await say(client, "one two", session_id)
    assert not any("delta" in message["content"] for message in await conversation(client, message_id))
    heard = [await other.take(said_by("ai")) for _ in range(3)]
    assert "".join(message["content"].get("delta", "") for message in heard) == "one two"
    assert [message["metadata"].get("partial") for message in heard] == [True, True, None]
    assert len({message["id"] for message in heard}) == 3 - 2


# -- 3. a reply or an error, always ------------------------------------------------------------------

ENDS = [
    ("/fail it is broken", "echo", "agent_unavailable", "failed"),
    ("/crash", "echo", "lost", "lost"),
    ("/crash after 1 word", "echo", "lost", "lost"),
    ("/silence", "hasty", "timed_out", "timed_out"),
]


@pytest.mark.parametrize(("words", "agent", "code", "outcome"), ENDS, ids=[end[0] for end in ENDS])
async def test_a_turn_without_a_good_end_is_an_error_that_says_which(
    client: Any, session_id: str, words: str, agent: str, code: str, outcome: str
) -> None:
    await init(client, session_id, {"agent": agent})
    *_, end = await conversation(client, await say(client, words, session_id))
    error = error_of(end)
    assert (error["code"], error["outcome"], error["retryable"]) == (code, outcome, False)
    assert error["message"]
    assert error["hint"]


async def test_a_turn_without_a_word_is_an_error(client: Any, session_id: str) -> None:
    message = envelope({"blocks": [{"type": "text", "text": ""}]}, sessionId=session_id)
    error = error_of(await ended(client, await send(client, message)))
    assert (error["code"], error["outcome"]) == ("empty", "completed")


async def test_a_text_can_be_cancelled_by_its_own_id(client: Any, session_id: str) -> None:
    await init(client, session_id)
    message_id = await say(client, "/silence", session_id)
    await client.take(event("turn.started"))
    done = await command(client, "cancel", session_id, id=message_id)
    assert done["content"] == {"event": "cancel", "data": {"status": "cancelling"}}
    error = error_of(await ended(client, message_id))
    assert (error["code"], error["outcome"]) == ("cancelled", "cancelled")


async def test_beyond_the_time_for_it_an_error_says_that_the_reply_comes_later_and_it_does(
    client: Any, session_id: str
) -> None:
    began = asyncio.get_running_loop().time()
    message_id = await say(client, "/delay 1200ms late", session_id)
    late = await client.take(event("error", replyTo=message_id))
    assert asyncio.get_running_loop().time() - began < 1.2
    assert (error_of(late)["code"], late["metadata"].get("final")) == ("timeout", None)
    *_, reply, end = await conversation(client, message_id)
    assert (reply["content"], reply["metadata"]["late"]) == ({"text": "late"}, True)
    assert (end["content"]["event"], end["metadata"]["late"]) == ("turn.ended", True)


async def test_what_cannot_be_accepted_is_an_error(client: Any, session_id: str) -> None:
    ids = [await say(client, "/silence", session_id) for _ in range(18)]
    refused = await ended(client, ids[-1])
    assert error_of(refused)["code"] == "queue_full"
    assert error_of(refused)["retryAfter"]
    for message_id in ids[:17]:
        await command(client, "cancel", session_id, id=message_id)
        assert error_of(await ended(client, message_id))["code"] == "cancelled"


async def test_each_text_has_exactly_one_end(client: Any, session_id: str) -> None:
    await init(client, session_id)
    ids = [await say(client, words, session_id) for words in ("one", "/double two", "/stray three", "/fail four")]
    for message_id in ids:
        await ended(client, message_id)
    await command(client, "ping")
    assert not any(message["metadata"].get("final") for message in client.heard)


async def test_the_same_id_is_not_done_twice_and_has_one_end_while_it_is_under_way(
    client: Any, session_id: str
) -> None:
    await init(client, session_id)
    text = envelope("/ask twice", sessionId=session_id)
    await client.send(text)
    asked = await client.take(event("approval.requested"))
    await client.send(text)
    second = [await client.take(event("accepted")) for _ in range(2)][1]
    assert second["content"]["data"]["duplicate"] is True
    question = asked["content"]["data"]
    allowed = {"approvalId": question["approval_id"], "optionId": "allow"}
    assert (await command(client, "approve", session_id, **allowed))["content"]["data"]["option_id"] == "allow"
    messages = await conversation(client, text["id"])
    assert replies(messages) == ["twice"]
    await command(client, "ping")
    assert not [message for message in client.heard if answer(text["id"])(message)]


async def test_the_same_id_has_the_same_reply_again_also_over_another_connection(
    enter: Connect, client: Any, session_id: str
) -> None:
    text = envelope("only once", sessionId=session_id)
    first = await conversation(client, await send(client, text))
    other = await enter()
    for again in (client, other):
        await again.send(text)
        second = await conversation(again, text["id"])
        assert second[0]["content"]["data"]["duplicate"] is True
        ours, theirs = [[m for m in told if "seq" in m["metadata"]] for told in (first, second)]
        assert [m for m in theirs if said_by("ai")(m)] == [m for m in ours if said_by("ai")(m)]
        assert theirs[-1] == ours[-1]
    await ended(client, await say(client, "next", session_id))
    assert (await other.take(said_by("ai")))["content"] == {"text": "next"}
    assert not [m for m in [*client.heard, *other.heard] if answer(text["id"])(m)]


async def test_the_same_id_with_other_content_is_a_conflict(client: Any, session_id: str) -> None:
    text = envelope("this", sessionId=session_id)
    await ended(client, await send(client, text))
    await client.send({**text, "content": {"text": "that"}})
    assert error_of(await ended(client, text["id"]))["code"] == "conflict"


async def test_a_reply_that_came_while_nobody_was_connected_is_there_for_who_sends_again(
    enter: Connect, client: Any, session_id: str
) -> None:
    text = envelope("/ask while away", sessionId=session_id)
    await client.send(text)
    asked = (await client.take(event("approval.requested")))["content"]["data"]
    client.drop()
    other = await enter()
    await init(other, session_id)
    await command(other, "approve", session_id, approvalId=asked["approval_id"], optionId="allow")
    await other.take(event("turn.ended"))
    third = await enter()
    await third.send(text)
    assert replies(await conversation(third, text["id"])) == ["while away"]


async def test_after_a_kill_in_the_middle_of_a_turn_the_same_id_has_an_honest_end(
    broker_process: Any, connect: Connect, session_id: str
) -> None:
    own = broker_process(YAML)
    client = await connect(own.url)
    done = envelope("before", sessionId=session_id)
    first = await conversation(client, await send(client, done))
    text = envelope("/silence after 2 words or more", sessionId=session_id)
    await client.send(text)
    await client.take(event("turn.started", replyTo=text["id"]))
    own.kill()
    own.start()
    client = await connect(own.url)
    await client.send(done)
    assert replies(await conversation(client, done["id"])) == replies(first) == ["before"]
    await client.send(text)
    messages = await conversation(client, text["id"])
    error = error_of(messages[-1])
    assert (error["code"], error["outcome"]) == ("lost", "lost")
    assert replies(await conversation(client, await say(client, "after", session_id))) == ["after"]
    own.stop()


# -- 4. tracing, history, commands --------------------------------------------------------------------


async def test_every_message_is_traceable_by_its_id(client: Any, session_id: str) -> None:
    message_id = await say(client, "where is it", session_id)
    *_, end = await conversation(client, message_id)
    trace = (await command(client, "trace", id=message_id))["content"]
    assert (trace["event"], trace["data"]["client_msg_id"]) == ("trace", message_id)
    steps = [step["what"] for step in trace["data"]["steps"]]
    assert (steps[0], "accepted" in steps, trace["data"]["ended"]) == ("received", True, True)
    assert trace["data"]["turn_id"] == end["metadata"]["turnId"]


async def test_the_history_is_told_in_envelopes(client: Any, session_id: str) -> None:
    message_id = await say(client, "remember", session_id)
    await ended(client, message_id)
    page = (await command(client, "history", session_id, limit=10))["content"]["data"]
    question, reply = page["messages"]
    assert set(question) == set(reply) == KEYS
    assert (question["id"], question["from"], question["content"]) == (message_id, "user", {"text": "remember"})
    assert (reply["metadata"]["replyTo"], reply["from"]) == (message_id, "ai")


async def test_a_ping_is_answered_and_may_be_one_word(client: Any) -> None:
    message_id = await send(client, envelope("ping", kind="system", to="system"))
    assert (await ended(client, message_id))["content"]["event"] == "pong"


async def test_commands_that_lack_something_say_what(client: Any) -> None:
    for action, field in {
        "cancel": "$.content.id",
        "trace": "$.content.id",
        "approve": "$.content.approvalId",
        "auth": "$.content.token",
        "history": "$.sessionId",
    }.items():
        assert error_of(await command(client, action))["field"] == field


async def test_what_another_user_is_sent_comes_as_from_a_user(enter: Connect) -> None:
    ann, bob = await enter(), await enter()
    whom = {"connections": [bob.connection_id]}
    message = envelope("psst", to="user", metadata={**whom, "mood": "low", "final": True})
    delivered = await ended(ann, await send(ann, message))
    assert delivered["content"] == {"event": "delivered", "data": {"delivered": 1}}
    heard = await bob.take(said_by("user"))
    assert (heard["id"], heard["content"], heard["metadata"]["mood"]) == (message["id"], {"text": "psst"}, "low")
    assert "final" not in heard["metadata"]
    nobody = envelope("psst", to="user")
    assert error_of(await ended(ann, await send(ann, nobody)))["field"] == "$.metadata.users"


# -- 5. middleware: who, how much, whether somebody is there -------------------------------------------


def token(user: str = "ann") -> str:
    """Return a JWT, as the service that knows the users makes it."""
    now = int(time.time())
    said = {"iss": "actor-broker", "aud": "actor-broker", "sub": user, "iat": now, "exp": now + 600}
    return jwt.encode(said, SECRET, algorithm="HS256")


async def test_who_has_still_to_say_who_he_is_says_it_in_a_message_of_this_format(strict: Any, enter: Connect) -> None:
    client = await enter(strict.url)
    known = await command(client, "auth", token=token("ann"))
    assert (known["content"]["event"], known["content"]["data"]["user"]) == ("authenticated", "ann")
    assert replies(await conversation(client, await say(client, "I am Ann", str(uuid.uuid4())))) == ["I am Ann"]


async def test_a_bad_token_is_told_and_ends_the_connection(strict: Any, enter: Connect) -> None:
    client = await enter(strict.url)
    assert error_of(await command(client, "auth", token="none"))["code"] == "unauthenticated"
    assert await client.closed() == 4500
    client = await enter(strict.url)
    message_id = await say(client, "let me in", str(uuid.uuid4()))
    assert error_of(await ended(client, message_id))["code"] == "unauthenticated"
    assert await client.closed() == 4500


async def test_too_many_texts_are_an_error_with_a_time_to_try_again(strict: Any, enter: Connect) -> None:
    client = await enter(strict.url, headers={"Authorization": f"Bearer {token('eve')}"})
    session_id = str(uuid.uuid4())
    ids = [await say(client, f"text {number}", session_id) for number in range(8)]
    ends = [await ended(client, message_id) for message_id in ids]
    refused = [error_of(end) for end in ends if end["content"]["event"] == "error"]
    assert refused
    assert {(error["code"], error["retryable"]) for error in refused} == {("rate_limited", True)}
    assert (await command(client, "ping"))["content"]["event"] == "pong"
    assert all(error["retryAfter"] > 0 for error in refused)


async def test_who_does_not_answer_a_ping_is_cut_and_there_are_only_so_many_connections(
    strict: Any, http: aiohttp.ClientSession
) -> None:
    bearer = {"Authorization": f"Bearer {token()}"}
    deaf: list[aiohttp.ClientWebSocketResponse] = []

    async def crowd() -> None:
        while len(deaf) <= 6:
            socket = await http.ws_connect(f"{strict.url}/ws", protocols=[FORMAT], headers=bearer, autoping=False)
            deaf.append(socket)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await crowd()
        assert refused.value.status == 503
        ends = [group.create_task(to_the_end(socket)) for socket in deaf]
    assert {end.result() for end in ends} == {4000}
    await nobody_is_left(strict, http)


async def nobody_is_left(broker: Any, http: aiohttp.ClientSession) -> None:
    """Wait until all connections are gone, so that there is room for those of another test."""
    async with asyncio.timeout(PATIENCE):
        here = 1
        while here:
            async with http.get(f"{broker.url}/health") as answer:
                here = (await answer.json())["connections"] if answer.status == 200 else 1


async def to_the_end(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    while (await socket.receive()).type not in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}:
        pass
    return socket.close_code


# -- 6. inside somebody's application --------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """The design's own application, as a process; returns where it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-u", str(HOST), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        try:
            lines = []
            while "Running on" not in (line := process.stdout.readline()):
                lines.append(line)
                assert line, "".join(lines)
            yield f"http://127.0.0.1:{port}"
            process.send_signal(SIGINT)
            process.stdout.read()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.fixture
async def guest(host: str, enter: Connect) -> Any:
    return await enter(host, path="/chat/ws")


async def test_a_registered_handler_answers_texts_in_the_agents_place(guest: Any) -> None:
    message_id = await say(guest, "loud", str(uuid.uuid4()))
    reply = await ended(guest, message_id)
    assert (reply["type"], reply["from"], reply["to"]) == ("text", "ai", "user")
    assert reply["content"] == {"text": "LOUD", "id": message_id}
    assert not [message for message in guest.heard if event("accepted")(message)]


async def test_what_a_handler_returns_may_be_an_envelope(guest: Any) -> None:
    reply = await ended(guest, await say(guest, "typed", str(uuid.uuid4())))
    assert (reply["type"], reply["content"], reply["metadata"]["mood"]) == ("response", {"text": "typed"}, "good")


async def test_the_host_sends_messages_of_its_own_to_a_connection(guest: Any) -> None:
    message_id = await say(guest, "greet", str(uuid.uuid4()))
    greeting = await guest.take(lambda message: message["type"] == "response")
    assert (greeting["content"], greeting["from"]) == ({"text": "Hello"}, "system")
    assert set(greeting) == KEYS
    assert (await ended(guest, message_id))["content"] is None


async def test_a_handler_that_fails_or_takes_too_long_is_an_error_all_the_same(guest: Any) -> None:
    assert error_of(await ended(guest, await say(guest, "raise", str(uuid.uuid4()))))["code"] == "internal"
    assert error_of(await ended(guest, await say(guest, "sleep", str(uuid.uuid4()))))["code"] == "timeout"


async def test_a_handler_may_be_for_a_type_of_the_hosts_own(guest: Any) -> None:
    reply = await ended(guest, await send(guest, envelope({"what": "tea"}, kind="order")))
    assert (reply["type"], reply["content"]) == ("order", {"ordered": "tea", "by": FORMAT})


async def test_the_host_hears_of_connections_and_errors(host: str, guest: Any, http: aiohttp.ClientSession) -> None:
    await ended(guest, await say(guest, "raise", str(uuid.uuid4())))
    async with http.get(f"{host}/told") as answer:
        told = await answer.json()
    assert told["here"] >= 1
    assert any(event.startswith("connection ") for event in told["events"])
    assert "error ValueError" in told["events"]


async def test_the_state_and_the_metrics_can_be_looked_at(broker: Any, client: Any, http: Any, session_id: str) -> None:
    await ended(client, await say(client, "counted", session_id))
    async with http.get(f"{broker.url}/metrics") as answer:
        metrics = await answer.text()
    async with http.get(f"{broker.url}/health") as answer:
        health = await answer.json()
    assert re.search(r"^broker_connections \d", metrics, re.MULTILINE), metrics[:2000]
    assert health["connections"] >= 1
    assert "connected from" in broker.log
