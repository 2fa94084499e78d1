"""Turns that wait, changed and taken back; turns tried again; the agent's mode (PROTOCOL 2a and 3)."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

FAULTS = {"agents": {"faulty": {"kind": "echo", "faults": True}}}
GATE = '''
from broker.errors import BrokerError
from broker.hooks import Permission, Plugin, TurnRequest


class Gate(Plugin):
    """Has no swearing, and nobody dropping anything."""

    async def on_turn(self, turn: TurnRequest) -> None:
        if b"swear" in turn.content:
            raise BrokerError("forbidden", "Mind your words.")

    def on_permission(self, check: Permission):
        if check.operation == "turn.drop":
            raise BrokerError("forbidden", f"Nothing is dropped in {check.resource}.")
'''


@pytest.fixture
async def client(start: Start, dial: Dial) -> Any:
    return await dial((await start(**FAULTS)).port)


async def two_turns(client: Any) -> tuple[str, list[str]]:
    """Return a session in which one turn runs and another waits, and their ids."""
    session_id = str((await client.do("session.create", agent="faulty"))["session_id"])
    starts = [
        await client.do("turn.start", session_id=session_id, client_msg_id=content, content=content)
        for content in ("/silence", "later")
    ]
    return session_id, [start["turn_id"] for start in starts]


async def test_a_waiting_turn_says_what_it_was_edited_to(client: Any) -> None:
    session_id, (first, second) = await two_turns(client)
    answer = await client.do("turn.edit", session_id=session_id, turn_id=second, content="better")
    edited = await client.event("turn.edited")
    assert (edited["seq"], edited["turn_id"], edited["data"]["content"]) == (answer["seq"], second, "better")
    await client.do("turn.cancel", session_id=session_id, turn_id=first)
    assert (await client.event("message.completed"))["data"]["content"] == "better"
    ((await client.event("turn.ended")), (await client.event("turn.ended")))
    shown = (await client.do("session.history", session_id=session_id, kind="messages"))["messages"]
    assert [message["content"] for message in shown] == ["/silence", "better", "better"]
    assert shown[1]["metadata"]["changed_seq"] == edited["seq"]


async def test_an_edit_is_checked_like_a_start(client: Any) -> None:
    for content in ("", [], 5, [{"text": "x"}]):
        error = await client.refused("turn.edit", session_id="any", turn_id="any", content=content)
        assert (error["code"], error["field"].startswith("$.payload.content")) == ("invalid_message", True)
    session_id, (first, _) = await two_turns(client)
    assert (await client.refused("turn.edit", session_id=session_id, turn_id=first, content="x"))["code"] == "conflict"
    assert (await client.refused("turn.edit", session_id=session_id, turn_id="no", content="x"))["code"] == "not_found"


async def test_a_waiting_turn_is_taken_back(client: Any) -> None:
    session_id, (_, second) = await two_turns(client)
    answer = await client.do("turn.drop", session_id=session_id, turn_id=second)
    assert answer == {"status": "ended", "outcome": "cancelled"}
    ended = await client.event("turn.ended")
    assert (ended["turn_id"], ended["data"]["outcome"], ended["data"]["partial"]) == (second, "cancelled", False)
    assert (await client.do("session.attach", session_id=session_id))["queue"] == []


async def test_a_waiting_turn_is_its_authors(start: Start, people: dict[str, Any], dial: Dial) -> None:
    app = await start(**people, **FAULTS)
    ann, bob = await dial(app.port, "?name=ann"), await dial(app.port, "?name=bob")
    session_id, (_, second) = await two_turns(ann)
    await ann.do("session.share", session_id=session_id, user="bob", role="member")
    for action, more in [("turn.edit", {"content": "x"}), ("turn.drop", {})]:
        error = await bob.refused(action, session_id=session_id, turn_id=second, **more)
        assert error["code"] == "forbidden", action


async def test_a_turn_is_tried_again(client: Any) -> None:
    session_id = str((await client.do("session.create", agent="faulty"))["session_id"])
    send = {"session_id": session_id, "content": "/fail it did not work"}
    first = (await client.do("turn.start", client_msg_id="1", **send))["turn_id"]
    assert (await client.event("turn.ended"))["data"]["outcome"] == "failed"
    await client.event("user.message")
    await client.do("turn.start", client_msg_id="2", retry_of=first, **send)
    assert (await client.event("user.message"))["data"]["retry_of"] == first
    error = await client.refused("turn.start", client_msg_id="3", retry_of="never", **send)
    assert (error["code"], error["field"]) == ("not_found", "$.payload.retry_of")


async def test_the_agent_answers_a_configuration(client: Any) -> None:
    session_id = str((await client.do("session.create"))["session_id"])
    error = await client.refused("session.configure", session_id=session_id, mode="plan")
    assert (error["code"], "modes" in error["message"]) == ("not_found", True)
    error = await client.refused("session.configure", session_id=session_id)
    assert (error["code"], error["field"]) == ("invalid_message", "$.payload")


async def test_gates_see_an_edit_as_they_see_a_start(start: Start, dial: Dial, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "gate.py").write_text(GATE)
    client = await dial((await start(plugins={"gate": {}}, **FAULTS)).port)
    session_id, (_, second) = await two_turns(client)
    edit = {"session_id": session_id, "turn_id": second}
    assert (await client.refused("turn.edit", content="I swear", **edit))["message"] == "Mind your words."
    await client.do("turn.edit", content="I promise", **edit)
    assert (await client.refused("turn.drop", **edit))["message"] == f"Nothing is dropped in {session_id}."
