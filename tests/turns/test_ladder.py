"""The ends that take their time: stray output after the settle, and the ladder of a cancel (PROTOCOL section 3)."""

from typing import Any

import pytest

from broker.config.profiles import Deadlines
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentRecord,
    ApprovalRequested,
    LinkStalled,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)
from broker.turns import AnswerApproval, CancelTurn, CutLink, TurnMachine
from broker.turns.clocks import CANCEL_SECONDS, PAUSE_SECONDS, TALK_SECONDS

OPTIONS = b'[{"option_id":"yes","kind":"allow_once"}]'


def talk(machine: TurnMachine, turn_id: str, *moments: float) -> None:
    for moment in moments:
        machine.agent(AgentRecord(turn_id, "tool.updated", b"{}"), now=moment)


def state(machine: TurnMachine) -> str | None:
    return None if machine.running is None else machine.running.state


# -- settling ----------------------------------------------------------------------------------------


def test_stray_output_is_waited_for_where_it_may_come(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.agent(TurnSettled(turn_id, "end_turn", b'{"tokens":1}', last=False), now=10.0)
    assert "turn.ended" not in tray.kinds()
    assert machine.next_deadline() == 10.2
    machine.agent(TextDelta(turn_id, "stray"), now=10.1)
    machine.tick(10.2)
    assert tray.kinds(turn_id)[-3:] == ["message.delta", "message.completed", "turn.ended"]
    assert tray.end(turn_id) == {
        "outcome": "completed",
        "partial": True,
        "stop_reason": "end_turn",
        "usage": {"tokens": 1},
    }
    machine.agent(TextDelta(turn_id, "too late"), now=10.3)
    assert tray.records[-1] == ("activity", {"late_of": turn_id, "kind": "message.delta", "text": "too late"}, None)


SECOND: list[Any] = [
    lambda of: TurnSettled(of, "cancelled"),
    lambda of: TurnFailed(of, "internal", "no"),
    lambda of: ApprovalRequested(of, "k", "May I?", OPTIONS),
    TurnTaken,
]


@pytest.mark.parametrize("event", SECOND)
def test_a_turn_that_has_settled_stays_as_it_settled(machine: Any, tray: Any, run: Any, event: Any) -> None:
    turn_id = run(machine, said="x")
    machine.agent(TurnSettled(turn_id, "end_turn", last=False), now=10.0)
    machine.agent(event(turn_id), now=10.1)
    assert tray.data("activity")[0]["late_of"] == turn_id
    assert machine.view()["approvals"] == []
    machine.tick(10.2)
    assert tray.end(turn_id) == {"outcome": "completed", "partial": True, "stop_reason": "end_turn"}


@pytest.mark.parametrize("event", [AgentLost("it exited"), None])
def test_an_agent_that_goes_or_fills_the_log_after_it_settled_leaves_the_turn_complete(
    machine: Any, tray: Any, run: Any, event: AgentEvent | None
) -> None:
    turn_id = run(machine)
    machine.agent(TurnSettled(turn_id, "end_turn", last=False), now=10.0)
    if event is None:
        machine.overflow(now=10.1)
    else:
        machine.agent(event, now=10.1)
    assert tray.end(turn_id)["outcome"] == "completed"
    assert (CutLink(turn_id) in tray.commands) == (event is None)


def test_stray_output_is_not_waited_for_past_the_deadline_of_the_turn(make_machine: Any, tray: Any, run: Any) -> None:
    machine = make_machine(deadlines=Deadlines(turn=30, settle=60))
    turn_id = run(machine)
    machine.agent(TurnSettled(turn_id, "end_turn", last=False), now=29.0)
    assert machine.next_deadline() == 30.0
    machine.tick(30.0)
    assert tray.end(turn_id)["outcome"] == "completed"


@pytest.mark.parametrize("how", ["interrupt", "close", "halt"])
def test_whatever_stops_a_turn_that_settled_ends_it_at_once(
    machine: Any, tray: Any, run: Any, accept: Any, how: str
) -> None:
    turn_id = run(machine)
    machine.agent(TurnSettled(turn_id, "end_turn", last=False), now=10.0)
    if how == "interrupt":
        urgent = accept(machine, "m2", if_busy="interrupt", now=10.1)
        assert machine.running.turn_id == urgent
    elif how == "close":
        machine.close("bob", now=10.1)
    else:
        machine.halt("the broker stops", now=10.1)
    assert tray.end(turn_id)["outcome"] == ("completed" if how == "halt" else "cancelled")
    assert CutLink(turn_id) not in tray.commands


def test_a_broker_that_stops_ends_a_turn_that_is_being_stopped_by_its_cause(
    machine: Any, tray: Any, run: Any, accept: Any
) -> None:
    turn_id, waiting = run(machine), accept(machine, "m2")
    machine.cancel(turn_id, by="bob", now=1.0)
    machine.halt("the broker stops", now=2.0)
    end = tray.end(turn_id)
    assert (end["outcome"], end["by"], end["forced"]) == ("cancelled", "bob", True)
    assert (machine.running, machine.next_deadline()) == (None, None)
    assert [turn["turn_id"] for turn in machine.view()["queue"]] == [waiting]


def test_a_cancel_before_the_settle_is_logged_wins(machine: Any, tray: Any, run: Any, accept: Any) -> None:
    turn_id, waiting = run(machine), accept(machine, "m2")
    machine.agent(TurnSettled(turn_id, "end_turn", last=False), now=10.0)
    tray.clear()
    assert machine.cancel(turn_id, by="bob", now=10.1).outcome == "cancelled"
    assert tray.out[:3] == ["turn.cancelling", "turn.ended", "save ended"]
    assert tray.end(turn_id) == {
        "outcome": "cancelled",
        "partial": False,
        "by": "bob",
        "reason": "cancelled by bob",
        "stop_reason": "end_turn",
    }
    assert machine.running.turn_id == waiting


def test_an_open_question_is_void_once_the_agent_settled_without_the_answer(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.agent(ApprovalRequested(turn_id, "k", "May I?", OPTIONS), now=1.0)
    machine.agent(TurnSettled(turn_id, "end_turn", last=False), now=2.0)
    assert tray.data("approval.resolved")[0]["outcome"] == "void"
    assert tray.commands[-1] == AnswerApproval(turn_id, "k", None)
    assert machine.next_deadline() == 2.2


def test_a_link_that_goes_down_after_the_settle_holds_nothing_up(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.agent(TurnSettled(turn_id, "end_turn", last=False), now=1.0)
    machine.agent(LinkStalled(turn_id, "it dropped"), now=1.1)
    machine.tick(1.2)
    assert tray.end(turn_id)["outcome"] == "completed"
    assert tray.data("turn.stalled") == []


def test_stray_output_after_the_settle_of_a_cancelled_turn_is_not_held_against_the_agent(
    machine: Any, tray: Any, run: Any
) -> None:
    turn_id = run(machine)
    machine.cancel(turn_id, by="ann", now=10.0)
    talk(machine, turn_id, 11.0)
    machine.agent(TurnSettled(turn_id, "cancelled", last=False), now=11.9)
    talk(machine, turn_id, 12.05)
    assert state(machine) == "cancelling"
    machine.tick(12.1)
    assert "forced" not in tray.end(turn_id)


def test_stray_output_of_a_cancelled_turn_is_waited_for_no_longer_than_the_cancel_may_take(
    make_machine: Any, tray: Any, run: Any
) -> None:
    machine = make_machine(deadlines=Deadlines(settle=5))
    turn_id = run(machine)
    machine.cancel(turn_id, by="ann", now=10.0)
    machine.agent(TurnSettled(turn_id, "cancelled", last=False), now=19.0)
    assert machine.next_deadline() == 10.0 + CANCEL_SECONDS
    machine.tick(10.0 + CANCEL_SECONDS)
    end = tray.end(turn_id)
    assert (end["outcome"], end["stop_reason"], "forced" in end) == ("cancelled", "cancelled", False)


# -- the ladder --------------------------------------------------------------------------------------


def test_an_agent_that_does_not_stop_is_cut_ten_seconds_after_the_cancel(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.cancel(turn_id, by=None, now=5.0)
    machine.tick(4.9 + CANCEL_SECONDS)
    assert machine.busy
    assert machine.next_deadline() == 5.0 + CANCEL_SECONDS
    machine.tick(5.0 + CANCEL_SECONDS)
    assert tray.commands[-1] == CutLink(turn_id)
    end = tray.end(turn_id)
    assert (end["outcome"], end["forced"], end["by"]) == ("cancelled", True, None)
    assert end["reason"] == "cancelled; the agent did not stop within 10 s and was cut off"
    assert machine.next_deadline() is None


def test_an_agent_that_keeps_talking_is_cut_after_two_seconds(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.cancel(turn_id, by="ann", now=10.0)
    talk(machine, turn_id, 11.0, 11.9)
    assert machine.busy
    talk(machine, turn_id, 10.0 + TALK_SECONDS)
    assert tray.commands[-1] == CutLink(turn_id)
    assert tray.kinds(turn_id)[-2:] == ["tool.updated", "turn.ended"]
    end = tray.end(turn_id)
    assert (end["outcome"], end["forced"], end["by"]) == ("cancelled", True, "ann")
    assert end["reason"] == "cancelled by ann; the agent went on for 2 s and was cut off"


def test_an_agent_that_pauses_is_trailing_off_and_not_cut(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.cancel(turn_id, by="ann", now=10.0)
    talk(machine, turn_id, 11.0, 11.0 + PAUSE_SECONDS + 0.1, 14.0, 15.6, 17.3)
    machine.agent(AgentRecord(turn_id, "usage.updated", b"{}"), now=19.3)  # no output
    assert machine.busy
    machine.agent(TurnSettled(turn_id, "end_turn"), now=19.5)
    end = tray.end(turn_id)
    assert (end["outcome"], end["partial"], end["stop_reason"]) == ("cancelled", True, "end_turn")
    assert "forced" not in end


def test_the_first_cause_of_an_end_stays_its_cause(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.tick(300.0)
    assert machine.cancel(turn_id, by="ann", now=301.0).state == "cancelling"
    assert len(tray.data("turn.cancelling")) == 1
    assert machine.next_deadline() == 310.0
    machine.agent(TurnSettled(turn_id, "cancelled"), now=302.0)
    end = tray.end(turn_id)
    assert (end["outcome"], end["deadline"], "by" in end) == ("timed_out", "idle", False)


def test_a_deadline_after_a_cancel_changes_nothing(make_machine: Any, tray: Any, run: Any) -> None:
    machine = make_machine(deadlines=Deadlines(turn=30, idle=30))
    turn_id = run(machine)
    machine.cancel(turn_id, by="ann", now=29.0)
    machine.tick(31.0)
    assert len(tray.data("turn.cancelling")) == 1
    machine.tick(39.0)
    assert tray.end(turn_id)["outcome"] == "cancelled"


def test_a_turn_that_no_agent_has_taken_yet_goes_down_the_same_ladder(machine: Any, tray: Any, accept: Any) -> None:
    turn_id = accept(machine)
    machine.cancel(turn_id, by="ann", now=55.0)
    assert tray.commands[-1] == CancelTurn(turn_id)
    machine.tick(60.0)
    assert state(machine) == "cancelling"
    machine.agent(TurnTaken(turn_id), now=61.0)
    assert state(machine) == "cancelling"
    machine.tick(65.0)
    assert tray.end(turn_id)["forced"] is True


@pytest.mark.parametrize("deadline", [False, True])
def test_what_the_agent_says_to_a_cancel_does_not_decide(machine: Any, tray: Any, run: Any, deadline: bool) -> None:
    turn_id = run(machine)
    if deadline:
        machine.tick(300.0)
    else:
        machine.cancel(turn_id, by="ann", now=300.0)
    machine.agent(TurnFailed(turn_id, "internal", "It broke."), now=301.0)
    end = tray.end(turn_id)
    assert end["outcome"] == ("timed_out" if deadline else "cancelled")
    assert end["error"] == {"code": "internal", "message": "It broke.", "retryable": False}
    assert "forced" not in end


@pytest.mark.parametrize("deadline", [False, True])
def test_an_agent_that_dies_of_a_cancel_was_forced(machine: Any, tray: Any, run: Any, deadline: bool) -> None:
    turn_id = run(machine)
    if deadline:
        machine.tick(300.0)
    else:
        machine.cancel(turn_id, by="ann", now=300.0)
    machine.agent(AgentLost("it exited with status 1"), now=301.0)
    end = tray.end(turn_id)
    assert (end["outcome"], end["forced"]) == ("timed_out" if deadline else "cancelled", True)
    assert end["reason"].endswith("; it exited with status 1")
