"""What each event does to a turn in each state: the table of PROTOCOL section 3, row by row."""

from typing import Any

import pytest

from broker.errors import BrokerError
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentRecord,
    ApprovalRequested,
    TextDelta,
    TurnFailed,
    TurnRow,
    TurnSettled,
)
from broker.turns import AnswerApproval, CancelTurn, CutLink, StartTurn, TurnMachine
from broker.turns.machine import CANCEL_SECONDS

OPTIONS = b'[{"option_id":"yes"},{"option_id":"no"}]'


@pytest.fixture
def machine(tray: Any, make_machine: Any) -> TurnMachine:
    made: TurnMachine = make_machine(tray)
    return made


def accept(machine: TurnMachine, key: str = "m1", *, content: bytes = b'"hi"', if_busy: Any = "queue") -> str:
    return machine.accept(user="ann", client_msg_id=key, content=content, if_busy=if_busy, now=0.0).turn_id


def bring(machine: TurnMachine, state: str) -> str:
    """Bring a turn into a state and return its id."""
    if state == "queued":
        accept(machine, "before")
        return accept(machine)
    turn_id = accept(machine)
    if state in {"running", "awaiting_approval"}:
        machine.agent(TextDelta(turn_id, "so far"), now=0.0)
    if state == "awaiting_approval":
        machine.agent(ApprovalRequested(turn_id, "k", "May I?", OPTIONS), now=0.0)
    if state in {"cancelling", "ended"}:
        machine.cancel(turn_id, by="ann", now=0.0)
    if state == "ended":
        machine.agent(TurnSettled(turn_id, "cancelled"), now=0.0)
    return turn_id


ENDS: list[tuple[str, type, str | None]] = [
    ("dispatching", TurnSettled, "completed"),
    ("running", TurnSettled, "completed"),
    ("awaiting_approval", TurnSettled, "completed"),
    ("cancelling", TurnSettled, "cancelled"),
    ("dispatching", TurnFailed, "failed"),
    ("running", TurnFailed, "failed"),
    ("awaiting_approval", TurnFailed, "failed"),
    ("cancelling", TurnFailed, "cancelled"),
    ("dispatching", AgentLost, "lost"),
    ("running", AgentLost, "lost"),
    ("awaiting_approval", AgentLost, "lost"),
    ("cancelling", AgentLost, "cancelled"),
    ("queued", TurnSettled, None),
    ("queued", TurnFailed, None),
]


def event_of(kind: type, turn_id: str) -> AgentEvent:
    if kind is TurnSettled:
        return TurnSettled(turn_id, "end_turn")
    if kind is TurnFailed:
        return TurnFailed(turn_id, "internal", "It broke.")
    return AgentLost("it died")


@pytest.mark.parametrize(("state", "kind", "outcome"), ENDS)
def test_how_a_turn_ends(machine: TurnMachine, tray: Any, state: str, kind: type, outcome: str | None) -> None:
    turn_id = bring(machine, state)
    machine.agent(event_of(kind, turn_id), now=1.0)
    ends = [data for of, data, of_turn in tray.records if (of, of_turn) == ("turn.ended", turn_id)]
    assert [end["outcome"] for end in ends] == ([] if outcome is None else [outcome])
    assert tray.rows[turn_id].outcome == outcome
    if outcome is not None:
        assert tray.kinds(turn_id)[-1] == "turn.ended"
        assert tray.rows[turn_id].content is None


@pytest.mark.parametrize("kind", [TurnSettled, TurnFailed])
def test_a_turn_that_ended_stays_as_it_ended(machine: TurnMachine, tray: Any, kind: type) -> None:
    turn_id = bring(machine, "ended")
    machine.agent(event_of(kind, turn_id), now=1.0)
    machine.agent(AgentLost("it died"), now=1.0)
    assert machine.cancel(turn_id, by="bob", now=1.0).outcome == "cancelled"
    assert tray.kinds().count("turn.ended") == 1
    assert tray.data("activity")[0]["late_of"] == turn_id


CANCELS = [
    ("queued", "ended", []),
    ("dispatching", "cancelling", [CancelTurn]),
    ("running", "cancelling", [CancelTurn]),
    ("awaiting_approval", "cancelling", [AnswerApproval, CancelTurn]),
    ("cancelling", "cancelling", []),
    ("ended", "ended", []),
]


@pytest.mark.parametrize(("state", "after", "commands"), CANCELS)
def test_what_cancelling_does(machine: TurnMachine, tray: Any, state: str, after: str, commands: list[type]) -> None:
    turn_id = bring(machine, state)
    tray.commands.clear()
    assert machine.cancel(turn_id, by="ann", now=0.0).state == after
    assert [type(command) for command in tray.commands] == commands
    assert tray.rows[turn_id].state == after


def test_cancelling_writes_first_then_voids_the_approvals_then_asks_the_agent(machine: TurnMachine, tray: Any) -> None:
    turn_id = bring(machine, "awaiting_approval")
    tray.out.clear()
    machine.cancel(turn_id, by="ann", now=0.0)
    assert tray.out == ["turn.cancelling", "approval.resolved", "AnswerApproval", "save cancelling", "CancelTurn"]


def test_a_turn_is_written_as_dispatched_before_its_agent_is_told(machine: TurnMachine, tray: Any) -> None:
    turn_id = accept(machine)
    assert tray.out == ["user.message", "turn.started", "save dispatching", "StartTurn"]
    (start,) = tray.commands
    assert isinstance(start, StartTurn)
    assert (start.prompt.turn_id, start.prompt.workspace_dir) == (turn_id, "/srv")


def test_an_agent_that_does_not_stop_is_cut_ten_seconds_after_the_cancel(machine: TurnMachine, tray: Any) -> None:
    turn_id = bring(machine, "running")
    machine.tick(1.0)
    machine.cancel(turn_id, by=None, now=5.0)
    assert machine.next_deadline() == 5.0 + CANCEL_SECONDS
    machine.tick(4.9 + CANCEL_SECONDS)
    assert tray.kinds().count("turn.ended") == 0
    machine.tick(5.0 + CANCEL_SECONDS)
    assert tray.commands[-1] == CutLink(turn_id)
    (end,) = tray.data("turn.ended")
    assert (end["outcome"], end["forced"]) == ("cancelled", True)
    assert machine.next_deadline() is None
    machine.tick(100.0)
    assert tray.kinds().count("turn.ended") == 1


def test_the_next_turn_starts_when_one_ends_in_the_same_breath(machine: TurnMachine, tray: Any) -> None:
    first, second = accept(machine, "m1"), accept(machine, "m2")
    tray.out.clear()
    machine.agent(TurnSettled(first, "end_turn"), now=0.0)
    assert tray.out == ["turn.ended", "save ended", "turn.started", "save dispatching", "StartTurn"]
    assert machine.running is not None
    assert machine.running.turn_id == second


def test_an_interrupt_goes_before_those_that_wait(machine: TurnMachine, tray: Any) -> None:
    running, waiting = accept(machine, "m1"), accept(machine, "m2")
    urgent = accept(machine, "m3", if_busy="interrupt")
    assert [turn["turn_id"] for turn in machine.view()["queue"]] == [urgent, waiting]
    assert machine.view()["turn"]["state"] == "cancelling"
    assert [data["ahead"] for data in tray.data("turn.queued")] == [1, 1]
    machine.agent(TurnSettled(running, "cancelled"), now=0.0)
    assert machine.running is not None
    assert machine.running.turn_id == urgent


def test_an_interrupt_of_nothing_simply_starts(machine: TurnMachine, tray: Any) -> None:
    turn_id = accept(machine, if_busy="interrupt")
    assert machine.view()["turn"]["turn_id"] == turn_id
    assert "turn.cancelling" not in tray.kinds()


@pytest.mark.parametrize(
    ("if_busy", "code"), [("reject", "busy"), ("queue", "queue_full"), ("interrupt", "queue_full")]
)
def test_a_refusal_changes_nothing(machine: TurnMachine, tray: Any, if_busy: str, code: str) -> None:
    for number in range(3):
        accept(machine, f"m{number}")
    before = list(tray.out)
    with pytest.raises(BrokerError) as refusal:
        accept(machine, "one too many", if_busy=if_busy)
    assert refusal.value.code == code
    assert tray.out == before
    assert machine.view()["turn"]["state"] == "dispatching"


def test_the_same_id_is_the_same_turn_and_other_content_a_conflict(machine: TurnMachine, tray: Any) -> None:
    first = machine.accept(user="ann", client_msg_id="m1", content=b'"hi"', if_busy="queue", now=0.0)
    before = list(tray.out)
    again = machine.accept(user="ann", client_msg_id="m1", content=b'"hi"', if_busy="reject", now=9.0)
    assert (again.turn_id, again.seq, again.duplicate) == (first.turn_id, first.seq, True)
    with pytest.raises(BrokerError) as refusal:
        accept(machine, "m1", content=b'"ho"')
    assert refusal.value.code == "conflict"
    assert tray.out == before


# -- approvals ---------------------------------------------------------------------------------------


def test_an_answer_resolves_then_tells_the_agent_and_the_turn_runs_again(machine: TurnMachine, tray: Any) -> None:
    bring(machine, "awaiting_approval")
    (approval,) = machine.view()["approvals"]
    tray.out.clear()
    machine.answer(approval["approval_id"], "no", by="bob")
    assert tray.out == ["approval.resolved", "AnswerApproval"]
    assert tray.data("approval.resolved") == [
        {
            "approval_id": approval["approval_id"],
            "outcome": "selected",
            "option_id": "no",
            "resolved_by": "bob",
        }
    ]
    assert machine.view()["turn"]["state"] == "running"


def test_a_turn_with_two_questions_waits_for_both(machine: TurnMachine) -> None:
    turn_id = bring(machine, "awaiting_approval")
    machine.agent(ApprovalRequested(turn_id, "k2", "And this?", OPTIONS, b'{"title":"rm"}'), now=0.0)
    first, second = machine.view()["approvals"]
    assert "tool" not in first
    assert bytes(second["tool"]) == b'{"title":"rm"}'
    machine.answer(first["approval_id"], "yes", by=None)
    assert machine.view()["turn"]["state"] == "awaiting_approval"
    machine.answer(second["approval_id"], "yes", by=None)
    assert machine.view()["turn"]["state"] == "running"


def test_what_was_said_before_an_answer_is_written_before_it(machine: TurnMachine, tray: Any) -> None:
    turn_id = bring(machine, "awaiting_approval")
    machine.agent(TextDelta(turn_id, "while "), now=0.0)
    machine.agent(TextDelta(turn_id, "waiting"), now=0.0)
    machine.answer(machine.view()["approvals"][0]["approval_id"], "yes", by=None)
    assert tray.kinds()[-2:] == ["message.delta", "approval.resolved"]


WRONG = [("unknown", "yes", "not_found"), (None, "maybe", "invalid_message")]


@pytest.mark.parametrize(("approval_id", "option_id", "code"), WRONG)
def test_a_wrong_answer_changes_nothing(
    machine: TurnMachine, tray: Any, approval_id: str | None, option_id: str, code: str
) -> None:
    bring(machine, "awaiting_approval")
    before = list(tray.out)
    with pytest.raises(BrokerError) as refusal:
        machine.answer(approval_id or machine.view()["approvals"][0]["approval_id"], option_id, by=None)
    assert refusal.value.code == code
    assert tray.out == before


@pytest.mark.parametrize("how", ["answered", "voided"])
def test_a_second_answer_is_told_how_it_was_resolved(machine: TurnMachine, how: str) -> None:
    turn_id = bring(machine, "awaiting_approval")
    approval_id = machine.view()["approvals"][0]["approval_id"]
    if how == "answered":
        machine.answer(approval_id, "yes", by="bob")
    else:
        machine.agent(TurnSettled(turn_id, "end_turn"), now=0.0)
    with pytest.raises(BrokerError, match="answered yes by bob" if how == "answered" else "voided") as refusal:
        machine.answer(approval_id, "no", by="ann")
    assert refusal.value.code == "already_resolved"


# -- what comes outside of a turn ----------------------------------------------------------------------

OUTSIDE: list[tuple[AgentEvent, str, dict[str, Any]]] = [
    (AgentRecord(None, "agent.state", b'{"state":"ready"}'), "agent.state", {"state": "ready"}),
    (AgentRecord(None, "vendor.x", b"{}"), "vendor.x", {}),
    (AgentRecord(None, "debug", b"{}"), "debug", {}),
    (AgentRecord("t", "plan.updated", b"[1]"), "activity", {"late_of": "t", "kind": "plan.updated", "data": [1]}),
    (TextDelta("t", "x"), "activity", {"late_of": "t", "kind": "message.delta", "text": "x"}),
    (TextDelta("t", "x", thought=True), "activity", {"late_of": "t", "kind": "thought.delta", "text": "x"}),
    (TurnSettled("t", "end_turn"), "activity", {"late_of": "t", "kind": "turn.settled", "stop_reason": "end_turn"}),
    (TurnFailed("t", "internal", "no"), "activity", {"late_of": "t", "kind": "turn.failed", "message": "no"}),
    (
        ApprovalRequested("t", "k", "May I?", OPTIONS),
        "activity",
        {"late_of": "t", "kind": "approval.requested", "title": "May I?"},
    ),
]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(("event", "kind", "data"), OUTSIDE)
def test_what_belongs_to_no_running_turn_is_kept_and_touches_none(
    machine: TurnMachine, tray: Any, event: AgentEvent, kind: str, data: dict[str, Any], running: bool
) -> None:
    state = None
    if running:
        accept(machine)
        state = machine.view()["turn"]
    machine.agent(event, now=0.0)
    assert tray.records[-1] == (kind, data, None)
    assert machine.view()["turn"] == state
    if isinstance(event, ApprovalRequested):
        assert tray.commands[-1] == AnswerApproval("t", "k", None)


# -- the broker stops and starts ---------------------------------------------------------------------


def row(turn_id: str, state: Any, outcome: str | None = None) -> TurnRow:
    return TurnRow("s", turn_id, 1, "ann", f"id of {turn_id}", b"digest", state, outcome, b'"hi"')


@pytest.mark.parametrize("state", ["dispatching", "running", "awaiting_approval", "cancelling"])
def test_after_a_restart_what_was_with_the_agent_is_lost(machine: TurnMachine, tray: Any, state: str) -> None:
    machine.recover([row("t1", state)], produced="t1", approvals=[("t1", "a1")])
    assert tray.out == ["approval.resolved", "turn.ended", "save ended"]
    (end,) = tray.data("turn.ended")
    assert (end["outcome"], end["partial"]) == ("lost", True)
    assert tray.data("approval.resolved")[0]["outcome"] == "void"
    assert not machine.busy
    assert tray.commands == []


def test_after_a_restart_what_waited_goes_on_in_order_and_what_ended_is_remembered(
    machine: TurnMachine, tray: Any
) -> None:
    rows = [row("t1", "ended", "completed"), row("t2", "dispatching"), row("t3", "queued"), row("t4", "queued")]
    machine.recover(rows, produced=None, approvals=())
    assert tray.data("turn.ended")[0]["partial"] is False
    assert machine.view()["turn"]["turn_id"] == "t3"
    assert [turn["turn_id"] for turn in machine.view()["queue"]] == ["t4"]
    assert machine.cancel("t1", by=None, now=0.0).outcome == "completed"
    with pytest.raises(BrokerError):
        accept(machine, "id of t1")
    assert tray.kinds("t1") == []


def test_halting_ends_what_runs_and_starts_nothing_more(machine: TurnMachine, tray: Any) -> None:
    running, waiting = accept(machine, "m1"), accept(machine, "m2")
    machine.halt("the broker stops")
    late = accept(machine, "m3")
    assert tray.data("turn.ended") == [{"outcome": "lost", "partial": False, "reason": "the broker stops"}]
    assert tray.rows[running].outcome == "lost"
    assert [tray.rows[turn].state for turn in (waiting, late)] == ["queued", "queued"]
    assert len(tray.commands) == 1


def test_closing_cancels_all_and_the_agent_may_still_settle(machine: TurnMachine, tray: Any) -> None:
    running, waiting = accept(machine, "m1"), accept(machine, "m2")
    machine.close("ann", 0.0)
    assert tray.rows[waiting].outcome == "cancelled"
    assert tray.rows[running].state == "cancelling"
    machine.agent(TurnSettled(running, "cancelled"), now=0.0)
    assert not machine.busy


def test_usage_is_carried_as_it_came(machine: TurnMachine, tray: Any) -> None:
    turn_id = accept(machine)
    machine.agent(TurnSettled(turn_id, "end_turn", b'{"input_tokens":7}'), now=0.0)
    assert tray.data("turn.ended")[0]["usage"] == {"input_tokens": 7}


def test_an_unknown_turn_cannot_be_cancelled(machine: TurnMachine) -> None:
    with pytest.raises(BrokerError) as refusal:
        machine.cancel("unknown", by=None, now=0.0)
    assert refusal.value.code == "not_found"
