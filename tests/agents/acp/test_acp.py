"""ACP agents in real child processes: the fake, the SDK's, and Pydantic AI's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.messages import (
    AgentReady,
    AgentRecord,
    ApprovalRequested,
    TextDelta,
    TurnSettled,
    TurnTaken,
)


async def test_a_turn_streams_in_order_and_settles(line: Callable[..., Any]):
    agent = line()
    agent.ask("chunks 200")
    starting, ready, taken, *deltas, settled = await agent.ear.until()
    assert starting == AgentRecord("t1", "agent.state", b'{"state":"starting"}')
    assert (type(ready), ready.turn_id, ready.memory) == (AgentReady, "t1", "fake")
    assert json.loads(ready.data) == {
        "state": "ready",
        "agent": {"name": "fake", "version": "1.0"},
        "protocol": 1,
        "context": "fresh",
        "agent_session_id": "fake",
    }
    assert taken == TurnTaken("t1")
    assert deltas == [TextDelta("t1", f"t{i} ", message_id="m1") for i in range(200)]
    assert settled == TurnSettled("t1", "end_turn", b'{"input_tokens":3,"total_tokens":4}', last=False)


async def test_an_agent_says_which_modes_it_has(line: Callable[..., Any]):
    agent = line("modes")
    agent.ask("chunks 1")
    told = json.loads((await agent.ear.ready()).data)
    assert told["modes"]["current_mode_id"] == "ask"
    assert [mode["id"] for mode in told["modes"]["available_modes"]] == ["ask", "code"]


async def test_the_same_process_takes_the_next_turn(line: Callable[..., Any]):
    agent = line()
    agent.ask("chunks 1")
    await agent.ear.until()
    pid = agent.link.pid
    agent.ask("chunks 1", "t2")
    assert await agent.ear.until() == [
        TurnTaken("t2"),
        TextDelta("t2", "t0 ", message_id="m1"),
        TurnSettled("t2", "end_turn", b'{"input_tokens":3,"total_tokens":4}', last=False),
    ]
    assert agent.link.pid == pid


async def test_every_kind_of_report_arrives_in_order(line: Callable[..., Any]):
    agent = line()
    agent.ask("tool")
    await agent.ear.until(TurnTaken)
    *events, settled = await agent.ear.until()
    kinds = [event.kind if isinstance(event, AgentRecord) else type(event).__name__ for event in events]
    assert kinds == [
        "TextDelta",
        "plan.updated",
        "tool.started",
        "tool.updated",
        "usage.updated",
        "agent.state",
        "vendor.weather_update",
        "TextDelta",
    ]
    assert json.loads(events[2].data) == {
        "tool_id": "c1",
        "title": "Look",
        "kind": "read",
        "status": "pending",
        "raw_input": {"filePath": "x"},
    }
    assert settled == TurnSettled("t1", "end_turn", last=False)


@pytest.mark.parametrize(
    ("option", "outcome"),
    [("yes", {"outcome": "selected", "optionId": "yes"}), (None, {"outcome": "cancelled"})],
)
async def test_a_permission_is_asked_and_answered(
    line: Callable[..., Any], option: str | None, outcome: dict[str, str]
):
    agent = line()
    agent.ask("permission")
    *_, question = await agent.ear.until(ApprovalRequested)
    assert question.title == "Delete it all"
    agent.link.answer_approval("t1", question.key, option)
    assert json.loads(agent.text(await agent.ear.until())) == outcome


async def test_a_cancel_answers_the_open_permission(line: Callable[..., Any]):
    agent = line()
    agent.ask("permission")
    await agent.ear.until(ApprovalRequested)
    agent.link.cancel_turn("t1")
    assert json.loads(agent.text(await agent.ear.until())) == {"outcome": "cancelled"}


async def test_an_agent_that_wants_a_file_is_refused_and_goes_on(line: Callable[..., Any]):
    agent = line()
    agent.ask("lend")
    assert agent.text(await agent.ear.until()) == "-32601"


async def test_a_cancel_makes_a_silent_agent_settle(line: Callable[..., Any]):
    agent = line()
    agent.ask("silent")
    await agent.ear.until(TextDelta)
    agent.link.cancel_turn("t1")
    assert await agent.ear.until() == [TextDelta("t1", "one more"), TurnSettled("t1", "cancelled", last=False)]


async def test_what_comes_before_the_session_is_open_names_no_turn_and_waits_for_it(line: Callable[..., Any]):
    agent = line("early")
    agent.ask("chunks 1")
    await agent.ear.ready()
    early = await agent.ear.next()
    assert (early.turn_id, early.kind, json.loads(early.data)["changed"]) == (None, "agent.state", "available_commands")


async def test_what_comes_after_the_settle_still_names_its_turn(line: Callable[..., Any]):
    agent = line()
    agent.ask("late")
    *_, settled = await agent.ear.until()
    assert settled == TurnSettled("t1", "end_turn", last=False)
    assert await agent.ear.next() == TextDelta("t1", "by the way")


async def test_the_child_has_a_clean_environment_its_directory_and_its_own_session(
    line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "hush")
    agent = line(workspace_dir=str(tmp_path), env={"OWN": "1"})
    agent.ask("where")
    where = json.loads(agent.text(await agent.ear.until()))
    assert where["cwd"] == str(tmp_path)
    assert where["env"]["OWN"] == "1"
    assert "ANTHROPIC_API_KEY" not in where["env"]
    assert where["leads"] is True


async def test_an_agent_of_the_official_sdk_files_with_permission(line: Callable[..., Any]):
    agent = line(script="sdk_agent.py")
    agent.ask("the report")
    events = await agent.ear.until(ApprovalRequested)
    told = json.loads(events[1].data)
    assert (told["agent"], told["protocol"]) == ({"name": "clerk", "version": "2.1"}, 1)
    assert agent.text(events) == "I will file the report"
    assert json.loads(events[-2].data)["raw_input"] == {"inTray": 1}
    agent.link.answer_approval("t1", events[-1].key, "ok")
    updated, settled = await agent.ear.until()
    assert json.loads(updated.data) == {"tool_id": "call-1", "status": "completed"}
    assert settled == TurnSettled("t1", "end_turn", last=False)


async def test_a_pydantic_ai_agent_calls_its_tool_and_streams(line: Callable[..., Any]):
    agent = line(script="pydantic_agent.py")
    agent.ask("How is the weather?")
    events = await agent.ear.until()
    kinds = [event.kind for event in events if isinstance(event, AgentRecord)]
    assert "tool.started" in kinds
    assert "tool.updated" in kinds
    assert agent.text(events) == "The weather is fine today."
    assert sum(isinstance(event, TextDelta) for event in events) > 1
    assert isinstance(events[-1], TurnSettled)
    assert events[-1].stop_reason == "end_turn"
