"""Deadlines and the cancel ladder: what happens when nothing happens (PROTOCOL section 3)."""

from typing import Any

import attrs
import pytest

from broker.config.profiles import Deadlines
from broker.messages import (
    AgentEvent,
    AgentReady,
    AgentRecord,
    ApprovalRequested,
    LinkStalled,
    TextDelta,
    TurnSettled,
    TurnTaken,
    VariablesSet,
)
from broker.turns import AnswerApproval, CutLink, TurnMachine
from broker.turns.ending import span

OPTIONS = b'[{"option_id":"yes","kind":"allow_once"}]'
OFF = Deadlines(start=0, stalled=0, idle=0, approval=0, queue=0, settle=0, turn=0)


def state(machine: TurnMachine) -> str | None:
    return None if machine.running is None else machine.running.state


# -- start -------------------------------------------------------------------------------------------


def test_a_turn_that_no_agent_takes_fails_after_the_start_deadline(machine: Any, tray: Any, accept: Any) -> None:
    turn_id = accept(machine)
    assert machine.next_deadline() == 60.0
    machine.tick(59.9)
    assert state(machine) == "dispatching"
    machine.tick(60.0)
    reason = "the agent did not take the turn within 1 min"
    assert tray.commands[-1] == CutLink(turn_id)
    assert tray.end(turn_id) == {
        "outcome": "failed",
        "partial": False,
        "deadline": "start",
        "reason": reason,
        "error": {"code": "agent_unavailable", "message": reason, "retryable": True},
    }


TAKEN: list[tuple[str, Any]] = [
    ("taken", TurnTaken),
    ("text", lambda of: TextDelta(of, "x")),
    ("record", lambda of: AgentRecord(of, "tool.started", b"{}")),
    ("variables", lambda of: VariablesSet(of, b"{}")),
    ("usage", lambda of: AgentRecord(of, "usage.updated", b"{}")),
]


@pytest.mark.parametrize("event", [make for _, make in TAKEN], ids=[name for name, _ in TAKEN])
def test_any_event_of_the_turn_says_that_the_agent_has_it(machine: Any, tray: Any, accept: Any, event: Any) -> None:
    turn_id = accept(machine)
    machine.agent(event(turn_id), now=50.0)
    assert state(machine) == "running"
    machine.tick(60.0)
    assert machine.busy


@pytest.mark.parametrize(
    "event",
    [
        lambda of: AgentReady(of, b'{"state":"ready"}'),
        lambda of: AgentRecord(of, "agent.state", b'{"state":"starting"}'),
        lambda of: LinkStalled(of, "it dropped"),
    ],
)
def test_what_an_agent_says_of_itself_does_not_say_that_it_has_the_turn(
    machine: Any, tray: Any, accept: Any, event: Any
) -> None:
    turn_id = accept(machine)
    machine.agent(event(turn_id), now=50.0)
    assert state(machine) == "dispatching"
    machine.tick(60.0)
    assert tray.end(turn_id)["outcome"] == "failed"


# -- silence -----------------------------------------------------------------------------------------


def test_silence_is_told_once_and_again_after_new_output_and_new_silence(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.agent(TextDelta(turn_id, "x"), now=10.0)
    machine.tick(54.9)
    assert "turn.stalled" not in tray.kinds()
    machine.tick(55.0)
    machine.tick(56.0)
    assert tray.data("turn.stalled") == [{"silent": 45.0, "reason": "the agent has said nothing for 45 s"}]
    assert machine.view()["turn"]["stalled"] is True
    machine.agent(TextDelta(turn_id, "y"), now=60.0)
    assert "stalled" not in machine.view()["turn"]
    assert machine.next_deadline() == pytest.approx(60.04)  # the text that waits
    machine.tick(60.04)
    assert machine.next_deadline() == 105.0
    machine.tick(105.0)
    assert len(tray.data("turn.stalled")) == 2
    assert set(tray.kinds(turn_id)) >= {"turn.stalled"}


def test_an_agent_that_stays_silent_is_asked_to_stop_and_then_cut(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.tick(299.9)
    assert state(machine) == "running"
    tray.clear()
    machine.tick(300.0)
    assert tray.out == ["turn.cancelling", "save cancelling", "CancelTurn"]
    reason = "the agent said nothing for 5 min"
    assert tray.data("turn.cancelling") == [{"by": None, "reason": reason, "deadline": "idle"}]
    assert machine.view()["turn"]["cancelling"] == {"deadline": "idle"}
    machine.tick(310.0)
    assert tray.commands[-1] == CutLink(turn_id)
    assert tray.end(turn_id) == {
        "outcome": "timed_out",
        "partial": False,
        "forced": True,
        "deadline": "idle",
        "reason": f"{reason}; the agent did not stop within 10 s and was cut off",
    }


FRAMES: list[AgentEvent] = [
    TextDelta("", "x"),
    AgentRecord("", "debug", b"{}"),
    AgentRecord("", "agent.state", b"{}"),
    AgentRecord(None, "agent.state", b"{}"),
    AgentReady("", b"{}"),
    TurnTaken(""),
    VariablesSet("", b"{}"),
    VariablesSet(None, b"{}"),
]


@pytest.mark.parametrize("event", FRAMES)
def test_any_frame_of_the_agent_ends_its_silence(machine: Any, run: Any, event: Any) -> None:
    turn_id = run(machine)
    machine.tick(50.0)
    machine.agent(attrs.evolve(event, turn_id=turn_id) if event.turn_id == "" else event, now=100.0)
    assert "stalled" not in machine.view()["turn"]
    machine.tick(399.0)
    assert state(machine) == "running"
    machine.tick(400.0)
    assert state(machine) == "cancelling"


@pytest.mark.parametrize("event", [TextDelta("another", "x"), TurnSettled("another", "end_turn")])
def test_frames_of_another_turn_do_not(machine: Any, run: Any, event: AgentEvent) -> None:
    run(machine)
    machine.agent(event, now=299.0)
    machine.tick(300.0)
    assert state(machine) == "cancelling"


def test_a_link_that_is_down_is_told_once_and_its_silence_goes_on(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    for now in (100.0, 101.0):
        machine.agent(LinkStalled(turn_id, "the connection dropped"), now=now)
    told = [data for data in tray.data("turn.stalled") if "link" in data]
    assert told == [{"link": "down", "reason": "the connection dropped"}]
    assert machine.view()["turn"]["stalled"] is True
    machine.agent(TurnTaken(turn_id), now=200.0)
    assert "stalled" not in machine.view()["turn"]
    machine.agent(LinkStalled(turn_id, "again"), now=201.0)
    assert tray.data("turn.stalled")[-1] == {"link": "down", "reason": "again"}
    machine.tick(500.0)
    assert state(machine) == "cancelling"


def test_a_deadline_of_0_is_switched_off(make_machine: Any, run: Any) -> None:
    machine = make_machine(deadlines=OFF)
    run(machine)
    assert machine.next_deadline() is None
    machine.tick(1e9)
    assert state(machine) == "running"


def test_silence_before_it_is_told_may_already_be_too_long(make_machine: Any, tray: Any, run: Any) -> None:
    machine = make_machine(deadlines=Deadlines(stalled=45, idle=30))
    run(machine)
    machine.tick(30.0)
    assert state(machine) == "cancelling"
    assert tray.data("turn.stalled") == []


# -- approvals ---------------------------------------------------------------------------------------


def test_an_open_question_stops_the_clock_of_silence_and_the_answer_starts_it(
    machine: Any, tray: Any, run: Any
) -> None:
    turn_id = run(machine)
    machine.agent(ApprovalRequested(turn_id, "k", "May I?", OPTIONS), now=10.0)
    machine.tick(80_000.0)
    assert state(machine) == "awaiting_approval"
    assert tray.data("turn.stalled") == []
    machine.answer(machine.view()["approvals"][0]["approval_id"], "yes", by="ann", now=80_000.0)
    machine.tick(80_044.0)
    assert tray.data("turn.stalled") == []
    machine.tick(80_045.0)
    machine.tick(80_299.0)
    assert (state(machine), len(tray.data("turn.stalled"))) == ("running", 1)
    machine.tick(80_300.0)
    assert state(machine) == "cancelling"


def test_a_question_that_nobody_answers_expires_and_ends_its_turn(machine: Any, tray: Any, run: Any) -> None:
    turn_id = run(machine)
    machine.agent(ApprovalRequested(turn_id, "k1", "May I?", OPTIONS), now=0.0)
    machine.agent(ApprovalRequested(turn_id, "k2", "And this?", OPTIONS), now=10.0)
    requested = tray.data("approval.requested")
    assert [data["expires_at"][:16] for data in requested] == ["2023-11-15T22:13", "2023-11-15T22:13"]
    tray.clear()
    machine.tick(86_400.0)
    assert tray.out == [
        "approval.resolved",
        "AnswerApproval",
        "turn.cancelling",
        "approval.resolved",
        "AnswerApproval",
        "save cancelling",
        "CancelTurn",
    ]
    first, second = tray.data("approval.resolved")
    assert (first["outcome"], first["option_id"], first["resolved_by"]) == ("expired", None, None)
    assert (second["outcome"], second["option_id"], second["resolved_by"]) == ("cancelled", None, None)
    assert tray.commands[:2] == [AnswerApproval(turn_id, "k1", None), AnswerApproval(turn_id, "k2", None)]
    machine.agent(TurnSettled(turn_id, "cancelled"), now=86_401.0)
    end = tray.end(turn_id)
    assert (end["outcome"], end["deadline"], end["stop_reason"]) == ("timed_out", "approval", "cancelled")
    assert end["reason"] == "nobody answered the agent's question within 24 h"


def test_a_question_may_wait_for_ever(make_machine: Any, tray: Any, run: Any) -> None:
    machine = make_machine(deadlines=OFF)
    machine.agent(ApprovalRequested(run(machine), "k", "May I?", OPTIONS), now=0.0)
    assert tray.data("approval.requested")[0]["expires_at"] is None
    assert machine.next_deadline() is None


# -- queue and turn ------------------------------------------------------------------------------


def test_a_turn_that_waits_too_long_is_never_dispatched(machine: Any, tray: Any, run: Any, accept: Any) -> None:
    run(machine)
    waiting = accept(machine, "m2", now=5.0)
    machine.agent(TextDelta(machine.running.turn_id, "x"), now=3500.0)
    machine.tick(3604.9)
    assert machine.view()["queue"]
    machine.tick(3605.0)
    assert tray.end(waiting) == {
        "outcome": "timed_out",
        "partial": False,
        "deadline": "queue",
        "reason": "the turn waited for longer than 1 h",
    }
    assert "turn.started" not in tray.kinds(waiting)
    assert machine.running is not None


def test_a_turn_whose_time_was_over_when_the_other_ended_is_not_dispatched(
    machine: Any, tray: Any, run: Any, accept: Any
) -> None:
    running = run(machine)
    late, fresh = accept(machine, "m2", now=0.0), accept(machine, "m3", now=100.0)
    machine.agent(TurnSettled(running, "end_turn"), now=3600.0)
    assert tray.end(late)["outcome"] == "timed_out"
    assert machine.running.turn_id == fresh


@pytest.mark.parametrize("talks", [True, False])
def test_a_turn_may_be_bound_as_a_whole(make_machine: Any, tray: Any, accept: Any, talks: bool) -> None:
    machine = make_machine(deadlines=Deadlines(turn=30))
    turn_id = accept(machine)
    if talks:
        for second in range(30):
            machine.agent(TextDelta(turn_id, "x"), now=float(second))
    machine.tick(29.9)
    assert state(machine) == ("running" if talks else "dispatching")
    machine.tick(30.0)
    machine.agent(TurnSettled(turn_id, "end_turn"), now=31.0)
    end = tray.end(turn_id)
    assert (end["outcome"], end["deadline"], end["reason"]) == ("timed_out", "turn", "the turn took longer than 30 s")


@pytest.mark.parametrize(
    ("seconds", "words"), [(45.0, "45 s"), (0.2, "0.2 s"), (300.0, "5 min"), (5400.0, "90 min"), (86400.0, "24 h")]
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert span(seconds) == words
