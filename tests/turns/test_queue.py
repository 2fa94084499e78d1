"""Turns that wait: in order, bounded, visible, changed by their authors, and for a place at a limited agent."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.errors import BrokerError
from broker.messages import AgentLost, SlotAnswer, TextDelta, TurnSettled
from broker.turns import AskSlot, StartTurn, TurnMachine


@pytest.fixture
def limited(make_machine: Any) -> TurnMachine:
    """A machine whose agent has few places."""
    made: TurnMachine = make_machine(limited=True)
    return made


def queue(machine: TurnMachine) -> list[str]:
    return [turn["turn_id"] for turn in machine.view()["queue"]]


def running(machine: TurnMachine) -> str | None:
    return None if machine.running is None else machine.running.turn_id


def refusal(what: Callable[[], Any]) -> BrokerError:
    with pytest.raises(BrokerError) as refused:
        what()
    return refused.value


# -- order and room ----------------------------------------------------------------------------------


def test_a_turn_that_need_not_wait_is_dispatched_in_the_same_write(machine: Any, tray: Any, accept: Any) -> None:
    turn_id = accept(machine)
    assert tray.out == ["user.message", "turn.started", "save dispatching", "StartTurn"]
    (start,) = tray.commands
    assert isinstance(start, StartTurn)
    assert (start.prompt.turn_id, start.prompt.content, start.prompt.workspace_dir) == (turn_id, b'"hi"', "/srv")


def test_others_wait_behind_it_and_say_how_many_are_ahead(machine: Any, tray: Any, accept: Any) -> None:
    first, second, third = (accept(machine, f"m{number}") for number in range(3))
    assert tray.out[4:] == ["user.message", "turn.queued", "save queued"] * 2
    assert tray.data("turn.queued") == [{"ahead": 1}, {"ahead": 2}]
    assert (running(machine), queue(machine)) == (first, [second, third])


def test_the_next_turn_starts_when_one_ends_in_the_same_breath(machine: Any, tray: Any, accept: Any) -> None:
    first, second = accept(machine, "m1"), accept(machine, "m2")
    tray.clear()
    machine.agent(TurnSettled(first, "end_turn"), now=0.0)
    assert tray.out == ["turn.ended", "save ended", "turn.started", "save dispatching", "StartTurn"]
    assert running(machine) == second


def test_an_interrupt_goes_before_those_that_wait(machine: Any, tray: Any, accept: Any) -> None:
    old, waiting = accept(machine, "m1"), accept(machine, "m2")
    urgent = accept(machine, "m3", if_busy="interrupt")
    assert queue(machine) == [urgent, waiting]
    assert tray.data("turn.queued") == [{"ahead": 1}, {"ahead": 1, "interrupts": True}]
    assert tray.data("turn.cancelling") == [{"by": "ann", "reason": "interrupted by ann"}]
    machine.agent(TurnSettled(old, "cancelled"), now=0.0)
    assert running(machine) == urgent


def test_an_interrupt_of_nothing_simply_starts(machine: Any, tray: Any, accept: Any) -> None:
    assert running(machine) is None
    turn_id = accept(machine, if_busy="interrupt")
    assert running(machine) == turn_id
    assert set(tray.kinds()) == {"user.message", "turn.started"}


def test_an_interrupt_of_a_turn_that_has_settled_starts_at_once(machine: Any, tray: Any, accept: Any) -> None:
    old = accept(machine)
    machine.agent(TurnSettled(old, "end_turn", last=False), now=1.0)
    urgent = accept(machine, "m2", if_busy="interrupt", now=1.1)
    assert tray.end(old)["outcome"] == "cancelled"
    assert running(machine) == urgent
    assert tray.rows[urgent].state == "dispatching"


@pytest.mark.parametrize(
    ("if_busy", "code"), [("reject", "busy"), ("queue", "queue_full"), ("interrupt", "queue_full")]
)
def test_a_refusal_changes_nothing(machine: Any, tray: Any, accept: Any, if_busy: str, code: str) -> None:
    for number in range(3):
        accept(machine, f"m{number}")
    before = list(tray.out)
    error = refusal(lambda: accept(machine, "one too many", if_busy=if_busy))
    assert (error.code, error.retry_after) == (code, 1.0 if code == "queue_full" else None)
    assert tray.out == before
    assert machine.view()["turn"]["state"] == "dispatching"
    assert not machine.knows("ann", "one too many")


# -- what authors do -----------------------------------------------------------------------------------


def test_an_author_changes_what_waits_and_the_agent_is_told_the_new_text(machine: Any, tray: Any, accept: Any) -> None:
    first, waiting = accept(machine, "m1"), accept(machine, "m2")
    tray.clear()
    assert machine.edit(waiting, b'"other"', user="ann", now=1.0).turn_id == waiting
    assert tray.out == ["turn.edited", "save queued"]
    assert tray.data("turn.edited") == [
        {"message_id": waiting, "role": "user", "content": "other", "client_msg_id": "m2", "author": "ann"}
    ]
    assert tray.rows[waiting].content == b'"other"'
    machine.agent(TurnSettled(first, "end_turn"), now=2.0)
    assert tray.commands[-1].prompt.content == b'"other"'


def test_a_changed_turn_is_known_as_it_was_first_sent(machine: Any, tray: Any, accept: Any) -> None:
    accept(machine, "m1")
    waiting = accept(machine, "m2")
    digest = tray.rows[waiting].digest
    machine.edit(waiting, b'"other"', user="ann", now=1.0)
    assert accept(machine, "m2") == waiting
    assert refusal(lambda: accept(machine, "m2", content=b'"other"')).code == "conflict"
    assert tray.rows[waiting].digest == digest


def test_an_author_takes_back_what_waits(machine: Any, tray: Any, accept: Any) -> None:
    accept(machine, "m1")
    waiting = accept(machine, "m2")
    assert machine.drop(waiting, user="ann", now=1.0).outcome == "cancelled"
    reason = "taken back by ann"
    assert tray.end(waiting) == {"outcome": "cancelled", "partial": False, "by": "ann", "reason": reason}
    assert tray.rows[waiting].content is None
    assert queue(machine) == []


OPERATIONS: list[Any] = [
    lambda machine, turn_id, user: machine.edit(turn_id, b'"x"', user=user, now=1.0),
    lambda machine, turn_id, user: machine.drop(turn_id, user=user, now=1.0),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=["edit", "drop"])
@pytest.mark.parametrize(
    ("which", "user", "code"),
    [
        ("waiting", "bob", "forbidden"),
        ("waiting", None, "forbidden"),
        ("running", "ann", "conflict"),
        ("ended", "ann", "already_ended"),
        ("unknown", "ann", "not_found"),
    ],
)
def test_what_an_author_may_not_do_changes_nothing(
    machine: Any, tray: Any, accept: Any, operation: Any, which: str, user: str | None, code: str
) -> None:
    turns = {"ended": accept(machine, "m1"), "unknown": "unknown"}
    machine.agent(TurnSettled(turns["ended"], "end_turn"), now=0.0)
    turns["running"], turns["waiting"] = accept(machine, "m2"), accept(machine, "m3")
    before = list(tray.out)
    error = refusal(lambda: operation(machine, turns[which], user))
    assert error.code == code
    assert error.field == "$.payload.turn_id"
    assert (error.hint is not None) == (code == "conflict")
    assert tray.out == before


# -- trying again --------------------------------------------------------------------------------------


def test_a_turn_that_tries_another_again_says_so_wherever_it_shows(machine: Any, tray: Any, accept: Any) -> None:
    lost = accept(machine, "m1")
    machine.agent(AgentLost("it died"), now=1.0)
    again = accept(machine, "m2", retry_of=lost)
    waiting = accept(machine, "m3", retry_of=lost)
    assert [data.get("retry_of") for data in tray.data("user.message")] == [None, lost, lost]
    assert tray.data("turn.started")[1] == {"agent": "fake", "retry_of": lost}
    assert tray.data("turn.queued") == [{"ahead": 1, "retry_of": lost}]
    view = machine.view()
    assert (view["turn"]["turn_id"], view["turn"]["retry_of"]) == (again, lost)
    assert (view["queue"][0]["turn_id"], view["queue"][0]["retry_of"]) == (waiting, lost)


@pytest.mark.parametrize(("which", "code"), [("running", "conflict"), ("unknown", "not_found")])
def test_only_an_ended_turn_can_be_tried_again(machine: Any, tray: Any, accept: Any, which: str, code: str) -> None:
    turns = {"running": accept(machine), "unknown": "unknown"}
    before = list(tray.out)
    error = refusal(lambda: accept(machine, "m2", retry_of=turns[which]))
    assert (error.code, error.field) == (code, "$.payload.retry_of")
    assert tray.out == before


# -- a place at the agent ----------------------------------------------------------------------------------


def test_a_turn_for_a_limited_agent_waits_until_it_is_granted_a_place(limited: Any, tray: Any, accept: Any) -> None:
    turn_id = accept(limited)
    assert tray.out == ["user.message", "turn.queued", "AskSlot", "save queued"]
    assert tray.commands == [AskSlot(turn_id, 1)]
    assert (queue(limited), tray.data("turn.queued")) == ([turn_id], [{"ahead": 0}])
    tray.clear()
    assert limited.slot(SlotAnswer(turn_id, "waiting", 1), now=1.0)
    assert tray.out == []
    assert limited.slot(SlotAnswer(turn_id, "granted", 1), now=2.0)
    assert tray.out == ["turn.started", "save dispatching", "StartTurn"]
    assert limited.next_deadline() == 62.0


def test_one_place_is_asked_for_at_a_time_and_the_next_when_a_turn_has_ended(
    limited: Any, tray: Any, accept: Any
) -> None:
    first, second = accept(limited, "m1"), accept(limited, "m2")
    assert tray.commands == [AskSlot(first, 1)]
    limited.slot(SlotAnswer(first, "granted", 1), now=0.0)
    limited.agent(TurnSettled(first, "end_turn"), now=1.0)
    assert tray.commands[-1] == AskSlot(second, 2)
    assert limited.busy
    assert limited.running is None


def test_a_turn_without_any_agent_fails_when_one_should_have_started(limited: Any, tray: Any, accept: Any) -> None:
    first, second = accept(limited, "m1"), accept(limited, "m2")
    limited.slot(SlotAnswer(first, "unserved", 1), now=5.0)
    limited.slot(SlotAnswer(first, "unserved", 1), now=50.0)
    assert limited.next_deadline() == 65.0
    limited.tick(65.0)
    reason = "there was no agent to take the turn for 1 min"
    assert tray.end(first) == {
        "outcome": "failed",
        "partial": False,
        "deadline": "start",
        "reason": reason,
        "error": {"code": "agent_unavailable", "message": reason, "retryable": True},
    }
    assert "turn.started" not in tray.kinds()
    assert tray.commands[-1] == AskSlot(second, 2)
    assert limited.next_deadline() == 3600.0


@pytest.mark.parametrize("state", ["waiting", "granted"])
def test_a_turn_whose_agent_came_back_does_not_fail(limited: Any, tray: Any, accept: Any, state: Any) -> None:
    turn_id = accept(limited)
    limited.slot(SlotAnswer(turn_id, "unserved", 1), now=0.0)
    limited.slot(SlotAnswer(turn_id, state, 1), now=59.0)
    limited.tick(60.0)
    assert limited.busy
    limited.slot(SlotAnswer(turn_id, "unserved", 1), now=70.0)
    assert limited.next_deadline() == (130.0 if state == "waiting" else 119.0)


def test_only_the_queue_deadline_ends_a_turn_that_waits_for_a_place(limited: Any, tray: Any, accept: Any) -> None:
    turn_id = accept(limited)
    limited.slot(SlotAnswer(turn_id, "waiting", 1), now=0.0)
    assert limited.next_deadline() == 3600.0
    limited.tick(3600.0)
    assert tray.end(turn_id)["deadline"] == "queue"
    assert limited.next_deadline() is None


@pytest.mark.parametrize("state", ["granted", "waiting", "unserved"])
@pytest.mark.parametrize("how", ["dropped", "ended", "expired", "halted", "closed", "unknown"])
def test_a_place_that_nobody_wants_any_more_is_given_back(
    limited: Any, tray: Any, accept: Any, state: Any, how: str
) -> None:
    turn_id = accept(limited)
    now = 3600.0 if how == "expired" else 1.0
    if how == "dropped":
        limited.drop(turn_id, user="ann", now=1.0)
    elif how == "ended":
        limited.slot(SlotAnswer(turn_id, "granted", 1), now=1.0)
        limited.agent(TurnSettled(turn_id, "end_turn"), now=1.0)
    elif how == "halted":
        limited.halt("the broker stops", now=1.0)
    elif how == "closed":
        limited.close("ann", now=1.0)
    started = tray.kinds().count("turn.started")
    assert not limited.slot(SlotAnswer("unknown" if how == "unknown" else turn_id, state, 1), now=now)
    assert tray.kinds().count("turn.started") == started


@pytest.mark.parametrize("state", ["granted", "waiting", "unserved"])
def test_a_turn_that_asked_twice_keeps_its_place_when_the_second_answer_finds_it_running(
    limited: Any, tray: Any, accept: Any, state: Any
) -> None:
    first = accept(limited, "m1")
    urgent = accept(limited, "m2", if_busy="interrupt")
    limited.drop(urgent, user="ann", now=0.0)
    assert tray.commands == [AskSlot(first, 1), AskSlot(urgent, 2), AskSlot(first, 3)]
    assert limited.slot(SlotAnswer(first, "granted", 3), now=1.0)
    assert not limited.slot(SlotAnswer(urgent, "granted", 2), now=1.0)
    assert limited.slot(SlotAnswer(first, state, 3), now=1.0)
    assert tray.kinds().count("turn.started") == 1


def test_a_place_that_was_granted_before_a_turn_stood_back_is_not_its_own_any_more(
    limited: Any, tray: Any, accept: Any
) -> None:
    first = accept(limited, "m1")
    limited.drop(accept(limited, "m2", if_busy="interrupt"), user="ann", now=0.0)
    assert not limited.slot(SlotAnswer(first, "granted", 1), now=1.0)
    assert "turn.started" not in tray.kinds()
    assert limited.slot(SlotAnswer(first, "granted", 3), now=2.0)
    assert limited.running.turn_id == first


def test_what_comes_first_asks_for_the_place(limited: Any, tray: Any, accept: Any) -> None:
    first = accept(limited, "m1")
    limited.slot(SlotAnswer(first, "unserved", 1), now=0.0)
    urgent = accept(limited, "m2", if_busy="interrupt", now=10.0)
    assert tray.commands == [AskSlot(first, 1), AskSlot(urgent, 2)]
    assert not limited.slot(SlotAnswer(first, "granted", 1), now=11.0)
    limited.tick(60.0)
    assert queue(limited) == [urgent, first]
    assert limited.slot(SlotAnswer(urgent, "granted", 2), now=61.0)
    limited.agent(TextDelta(urgent, "x"), now=61.0)
    limited.agent(TurnSettled(urgent, "end_turn"), now=62.0)
    assert tray.commands[-1] == AskSlot(first, 3)


def test_when_the_one_that_asked_is_too_late_the_next_one_asks(limited: Any, tray: Any, accept: Any) -> None:
    first, second = accept(limited, "m1"), accept(limited, "m2", now=100.0)
    assert not limited.slot(SlotAnswer(first, "granted", 1), now=3600.0)
    assert tray.end(first)["outcome"] == "timed_out"
    assert tray.commands == [AskSlot(first, 1), AskSlot(second, 2)]
    assert limited.slot(SlotAnswer(second, "granted", 2), now=3600.0)
