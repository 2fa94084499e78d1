"""A turn that no agent takes is answered by the broker itself, which says so, and ends once."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.messages import ApprovalRequested, SlotAnswer, TextDelta, TurnSettled
from broker.turns import TurnMachine, TurnRules

OPTIONS = b'[{"option_id":"yes","kind":"allow_once"}]'
Accept = Callable[..., str]


def test_the_answer_is_one_message_and_the_end_says_that_it_is_degraded(
    machine: TurnMachine, tray: Any, accept: Accept
) -> None:
    turn_id = accept(machine)
    machine.degrade("Nobody is in.", "nobody could take it", now=1.0)
    (message,) = tray.data("message.completed")
    assert message == {
        "message_id": message["message_id"],
        "role": "assistant",
        "content": "Nobody is in.",
        "degraded": True,
    }
    assert tray.end(turn_id) == {
        "outcome": "completed",
        "partial": True,
        "degraded": True,
        "reason": "nobody could take it",
        "stop_reason": "degraded",
    }
    assert (machine.running, machine.next_deadline()) == (None, None)


def test_the_next_turn_is_dispatched_and_what_an_agent_says_of_the_first_comes_too_late(
    machine: TurnMachine, tray: Any, accept: Accept
) -> None:
    first, second = accept(machine), accept(machine, "m2")
    machine.degrade("Nobody is in.", "nobody could take it", now=1.0)
    machine.agent(TextDelta(first, "late"), now=2.0)
    assert machine.running is not None
    assert machine.running.turn_id == second
    assert tray.data("activity")[0]["late_of"] == first
    assert [kind for kind in tray.kinds(first) if kind == "turn.ended"] == ["turn.ended"]


def test_nothing_is_answered_where_nothing_runs(
    make_machine: Callable[..., TurnMachine], tray: Any, accept: Accept
) -> None:
    machine = make_machine(limited=True)
    turn_id = accept(machine)
    machine.degrade("Nobody is in.", "nobody could take it", now=1.0)
    assert "message.completed" not in tray.kinds()
    machine.slot(SlotAnswer(turn_id, "granted", 1), now=1.0)
    machine.agent(TurnSettled(turn_id, "end_turn"), now=1.0)
    assert tray.end(turn_id)["outcome"] == "completed"


@pytest.mark.parametrize(("policy", "answered"), [("ask", False), ("allow", True)])
def test_questions_are_answered_as_the_profile_says_whose_agent_has_the_turn(
    machine: TurnMachine, tray: Any, accept: Accept, policy: Any, answered: bool
) -> None:
    turn_id = accept(machine)
    machine.hand_on(TurnRules(agent="other", approvals=policy))
    machine.agent(ApprovalRequested(turn_id, "k", "May I?", OPTIONS), now=1.0)
    assert bool(tray.data("approval.resolved")) is answered
