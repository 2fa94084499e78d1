"""What an agent says outside of the turn that runs: kept, and without any effect on a turn."""

from typing import Any

import attrs
import pytest

from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentReady,
    AgentRecord,
    ApprovalRequested,
    LinkStalled,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnSettled,
    TurnTaken,
    VariablesSet,
)
from broker.turns import AnswerApproval

OUTSIDE: list[tuple[AgentEvent, str, dict[str, Any]]] = [
    (AgentRecord(None, "agent.state", b'{"state":"ready"}'), "agent.state", {"state": "ready"}),
    (AgentRecord("t", "agent.state", b'{"state":"gone"}'), "agent.state", {"state": "gone"}),
    (AgentReady(None, b'{"state":"ready"}', "memory"), "agent.state", {"state": "ready"}),
    (AgentReady("t", b'{"state":"ready"}'), "agent.state", {"state": "ready"}),
    (AgentRecord(None, "vendor.x", b"{}"), "vendor.x", {}),
    (AgentRecord(None, "debug", b"{}"), "debug", {}),
    (AgentRecord(None, "plan.updated", b"[1]"), "activity", {"late_of": None, "kind": "plan.updated", "data": [1]}),
    (AgentRecord("t", "plan.updated", b"[1]"), "activity", {"late_of": "t", "kind": "plan.updated", "data": [1]}),
    (AgentRecord("t", "vendor.x", b"{}"), "activity", {"late_of": "t", "kind": "vendor.x", "data": {}}),
    (TextDelta("t", "x"), "activity", {"late_of": "t", "kind": "message.delta", "text": "x"}),
    (TextDelta("t", "x", thought=True), "activity", {"late_of": "t", "kind": "thought.delta", "text": "x"}),
    (
        TextReplaced("t", "x", message_id="m"),
        "activity",
        {"late_of": "t", "kind": "message.replaced", "thought": False, "text": "x"},
    ),
    (AgentLost("it died", "t"), "activity", {"late_of": "t", "kind": "agent.lost", "reason": "it died"}),
    (TurnTaken("t"), "activity", {"late_of": "t", "kind": "turn.taken"}),
    (TurnSettled("t", "end_turn"), "activity", {"late_of": "t", "kind": "turn.settled", "stop_reason": "end_turn"}),
    (TurnFailed("t", "internal", "no"), "activity", {"late_of": "t", "kind": "turn.failed", "message": "no"}),
    (
        ApprovalRequested("t", "k", "May I?", b"[]"),
        "activity",
        {"late_of": "t", "kind": "approval.requested", "title": "May I?"},
    ),
]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(("event", "kind", "data"), OUTSIDE)
def test_what_belongs_to_no_running_turn_is_kept_and_touches_none(
    machine: Any, tray: Any, run: Any, event: AgentEvent, kind: str, data: dict[str, Any], running: bool
) -> None:
    state = None
    if running:
        run(machine)
        state = machine.view()["turn"]
    machine.agent(event, now=0.0)
    assert tray.records[-1] == (kind, data, None)
    assert machine.view()["turn"] == state
    if isinstance(event, ApprovalRequested):
        assert tray.commands[-1] == AnswerApproval("t", "k", None)


@pytest.mark.parametrize("event", [VariablesSet("t", b"{}"), VariablesSet(None, b"{}"), LinkStalled("t", "it dropped")])
def test_variables_and_links_of_other_turns_are_not_the_machines_affair(
    machine: Any, tray: Any, event: AgentEvent
) -> None:
    machine.agent(event, now=0.0)
    assert tray.out == []


@pytest.mark.parametrize("event", [AgentReady(None, b'{"state":"ready"}'), AgentRecord(None, "agent.state", b"{}")])
def test_an_agent_that_speaks_of_itself_in_a_turn_is_no_output_of_the_turn(
    machine: Any, tray: Any, run: Any, event: Any
) -> None:
    turn_id = run(machine)
    machine.agent(attrs.evolve(event, turn_id=turn_id), now=0.0)
    assert tray.records[-1][0] == "agent.state"
    assert tray.records[-1][2] is None
    machine.agent(TurnSettled(turn_id, "end_turn"), now=0.0)
    assert tray.end(turn_id)["empty"] is True


KINDS = ["turn.ended", "turn.started", "user.message", "message.completed", "approval.resolved", "session.closed"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_cannot_report_what_is_the_brokers_to_say(machine: Any, tray: Any, run: Any, kind: str) -> None:
    turn_id = run(machine)
    before = tray.kinds(turn_id)
    machine.agent(AgentRecord(turn_id, kind, b"{}"), now=1.0)
    assert tray.kinds(turn_id) == before
    assert tray.records[-1] == ("activity", {"late_of": turn_id, "kind": kind, "data": {}}, None)
    machine.agent(TurnSettled(turn_id, "end_turn"), now=2.0)
    assert tray.end(turn_id)["empty"] is True


def test_text_that_waits_goes_before_what_the_agent_says_of_itself(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine, said="a")
    machine.agent(TextDelta(turn_id, "b"), now=0.0)
    machine.agent(AgentReady(None, b"{}"), now=0.0)
    assert tray.kinds()[-2:] == ["message.delta", "agent.state"]
