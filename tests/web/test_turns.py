"""The actions about turns, by a real client (PROTOCOL 2a and 3)."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]


async def begin(client: Any, agent: str = "echo") -> str:
    return str((await client.do("session.create", agent=agent))["session_id"])


async def test_a_turn_is_accepted_streamed_and_ended_once(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    session_id = await begin(client)
    answer = await client.do("turn.start", session_id=session_id, client_msg_id="m1", content="good day to you")
    opened, *log = await client.records("turn.ended")
    assert answer == {
        "turn_id": log[0]["turn_id"],
        "seq": 2,
        "status": answer["status"],
        "duplicate": False,
        "durable": False,
    }
    assert opened["event"] == "session.opened"
    assert [message["seq"] for message in log] == list(range(2, len(log) + 2))
    kinds = [message["event"] for message in log]
    assert kinds[:2] == ["user.message", "turn.started"]
    assert kinds[-2:] == ["message.completed", "turn.ended"]
    assert kinds.count("message.delta") >= 2
    assert {message["turn_id"] for message in log} == {answer["turn_id"]}
    assert log[0]["data"] == {
        "message_id": answer["turn_id"],
        "role": "user",
        "content": "good day to you",
        "client_msg_id": "m1",
        "author": None,
    }
    deltas = [message["data"] for message in log if message["event"] == "message.delta"]
    assert "".join(delta["text"] for delta in deltas) == "good day to you"
    assert log[-2]["data"]["content"] == "good day to you"
    assert log[-1]["data"] == {"outcome": "completed", "partial": True, "stop_reason": "end_turn"}


async def test_the_same_send_again_is_answered_again_and_done_once(app: App, dial: Dial) -> None:
    client, other = await dial(app.port), await dial(app.port)
    session_id = await begin(client)
    send = {"session_id": session_id, "client_msg_id": "m1", "content": "hi"}
    first = await client.do("turn.start", **send)
    await client.event("turn.ended")
    again = await other.do("turn.start", **send)
    assert again == {**first, "status": "ended", "duplicate": True}
    error = await client.refused("turn.start", **{**send, "content": "bye"})
    assert (error["code"], error["field"], error["retryable"]) == ("conflict", "$.payload.client_msg_id", False)
    records = (await client.do("session.history", session_id=session_id))["records"]
    assert [record["event"] for record in records].count("user.message") == 1


async def test_blocks_are_content_too(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    blocks = [{"type": "text", "text": "look: "}, {"type": "image", "data": "aGk=", "mimeType": "image/png"}]
    await client.do("turn.start", session_id=await begin(client), client_msg_id="m1", content=blocks)
    assert (await client.event("user.message"))["data"]["content"] == blocks
    assert (await client.event("message.completed"))["data"]["content"] == "look: [image]"


@pytest.mark.parametrize("content", ["", [], 5, None, {"type": "text"}, ["text"], [{"text": "x"}], [{"type": 1}]])
async def test_content_that_says_nothing_is_refused(app: App, dial: Dial, content: object) -> None:
    client = await dial(app.port)
    error = await client.refused("turn.start", session_id="any", client_msg_id="1", content=content)
    assert error["code"] == "invalid_message"
    assert error["field"].startswith("$.payload.content")


async def test_a_turn_needs_access_and_no_attachment(app: App, dial: Dial) -> None:
    viewer, sender = await dial(app.port), await dial(app.port)
    session_id = await begin(viewer)
    await sender.do("turn.start", session_id=session_id, client_msg_id="m1", content="from afar")
    assert (await viewer.event("message.completed"))["data"]["content"] == "from afar"
    await viewer.event("turn.ended")
    await sender.silent()


# -- one at a time -----------------------------------------------------------------------------------


async def test_others_wait_in_a_visible_bounded_queue(start: Start, dial: Dial) -> None:
    app = await start(limits={"queued_turns": 2})
    client = await dial(app.port)
    session_id = await begin(client, "endless")
    for number, status in enumerate(["dispatching", "queued", "queued"]):
        answer = await client.do("turn.start", session_id=session_id, client_msg_id=str(number), content="a b")
        assert answer["status"] == status
    assert [(await client.event("turn.queued"))["data"]["ahead"] for _ in range(2)] == [1, 2]
    error = await client.refused("turn.start", session_id=session_id, client_msg_id="3", content="a b")
    assert (error["code"], error["retryable"], error["retry_after"]) == ("queue_full", True, 1.0)
    again = await client.do("turn.start", session_id=session_id, client_msg_id="2", content="a b")
    assert (again["status"], again["duplicate"]) == ("queued", True)


async def test_reject_is_busy_while_one_runs(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    session_id = await begin(client, "endless")
    send = {"session_id": session_id, "content": "a b", "if_busy": "reject"}
    await client.do("turn.start", client_msg_id="1", **send)
    assert (await client.refused("turn.start", client_msg_id="2", **send))["code"] == "busy"


async def test_interrupt_ends_the_running_one_and_goes_next(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    session_id = await begin(client, "endless")
    ids = {}
    for name, if_busy in [("first", "queue"), ("second", "queue"), ("urgent", "interrupt")]:
        answer = await client.do(
            "turn.start", session_id=session_id, client_msg_id=name, content="a b", if_busy=if_busy
        )
        ids[answer["turn_id"]] = name
    ended = await client.event("turn.ended")
    assert (ids[ended["turn_id"]], ended["data"]["outcome"]) == ("first", "cancelled")
    started = [await client.event("turn.started") for _ in range(2)]
    assert [ids[message["turn_id"]] for message in started] == ["first", "urgent"]


# -- cancel ------------------------------------------------------------------------------------------


async def test_cancel_of_a_running_turn_is_idempotent_and_ends_it(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    session_id = await begin(client, "endless")
    turn = await client.do("turn.start", session_id=session_id, client_msg_id="1", content="a b")
    await client.event("message.delta")
    cancel = {"session_id": session_id, "turn_id": turn["turn_id"]}
    assert await client.do("turn.cancel", **cancel) == {"status": "cancelling"}
    ended = await client.event("turn.ended")
    assert ended["data"] == {
        "outcome": "cancelled",
        "partial": True,
        "stop_reason": "cancelled",
        "reason": "cancelled",
        "by": None,
    }
    assert await client.do("turn.cancel", **cancel) == {"status": "ended", "outcome": "cancelled"}


async def test_cancel_of_a_waiting_turn_ends_it_before_it_starts(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    session_id = await begin(client, "endless")
    await client.do("turn.start", session_id=session_id, client_msg_id="1", content="a b")
    turn = await client.do("turn.start", session_id=session_id, client_msg_id="2", content="a b")
    answer = await client.do("turn.cancel", session_id=session_id, turn_id=turn["turn_id"])
    assert answer == {"status": "ended", "outcome": "cancelled"}
    ended = await client.event("turn.ended")
    assert (ended["turn_id"], ended["data"]["partial"]) == (turn["turn_id"], False)


async def test_a_turn_that_is_not_there_is_not_found(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    session_id = await begin(client)
    error = await client.refused("turn.cancel", session_id=session_id, turn_id="none")
    assert (error["code"], error["field"]) == ("not_found", "$.payload.turn_id")
    error = await client.refused("approval.answer", session_id=session_id, approval_id="none", option_id="x")
    assert (error["code"], error["field"]) == ("not_found", "$.payload.approval_id")


async def test_an_agent_that_cannot_be_started_fails_the_turn_and_says_so(start: Start, dial: Dial) -> None:
    app = await start(agents={"broken": {"kind": "acp", "command": ["/nowhere/agent"]}})
    client = await dial(app.port)
    session_id = await begin(client, "broken")
    await client.do("turn.start", session_id=session_id, client_msg_id="1", content="x")
    data = (await client.event("turn.ended"))["data"]
    assert data["outcome"] == "failed"
    assert data["error"]["code"] == "agent_unavailable"
    assert data["partial"] is False
