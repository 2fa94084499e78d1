"""After a restart: what an agent had is lost, what waited goes on, and the log tells the rest (PROTOCOL section 3)."""

from typing import Any

import msgspec
import pytest

from broker.errors import BrokerError
from broker.ids import made_at, new_id
from broker.messages import AgentRecord, ApprovalRequested, Record, TextDelta, TurnRow, TurnSettled, TurnState
from broker.turns import AskSlot, StartTurn
from broker.turns.ending import Cause
from broker.turns.leftovers import KINDS, OUTPUT, USAGE, Leftovers, leftovers_of

OPTIONS = b'[{"option_id":"yes"}]'
STOPPED = "the broker stopped while the turn was running"


def row(turn_id: str, state: TurnState, outcome: str | None = None) -> TurnRow:
    return TurnRow("s", turn_id, 1, "ann", f"id of {turn_id}", b"digest", state, outcome, b'"hi"')


@pytest.fixture
def restart(make_machine: Any, tray: Any) -> Any:
    """Take up what the tray has, in another machine with an emptied order of things."""

    def restarted(now: float = 0.0, **rules: Any) -> Any:
        machine = make_machine(**rules)
        tray.clear()
        machine.recover(list(tray.rows.values()), leftovers_of(tray.stored), now=now)
        return machine

    return restarted


@pytest.mark.parametrize("state", ["dispatching", "running", "awaiting_approval"])
def test_what_was_with_the_agent_is_lost(machine: Any, tray: Any, state: TurnState) -> None:
    leftovers = Leftovers(produced=frozenset({"t1"}), approvals={"a1": "t1"}, usage={"t1": b'{"tokens":3}'})
    machine.recover([row("t1", state)], leftovers, now=0.0)
    assert tray.out == ["approval.resolved", "turn.ended", "save ended"]
    assert tray.end("t1") == {"outcome": "lost", "partial": True, "reason": STOPPED, "usage": {"tokens": 3}}
    assert tray.data("approval.resolved") == [
        {"approval_id": "a1", "outcome": "void", "option_id": None, "resolved_by": None, "reason": STOPPED}
    ]
    assert not machine.busy
    assert tray.commands == []
    with pytest.raises(BrokerError, match="voided"):
        machine.answer("a1", "yes", by=None, now=0.0)


CAUSES = [
    (Cause("cancelled by ann", "ann"), {"outcome": "cancelled", "by": "ann", "reason": f"cancelled by ann; {STOPPED}"}),
    (
        Cause("too silent", deadline="idle"),
        {"outcome": "timed_out", "deadline": "idle", "reason": f"too silent; {STOPPED}"},
    ),
    (None, {"outcome": "cancelled", "by": None, "reason": f"the turn was being stopped; {STOPPED}"}),
]


@pytest.mark.parametrize(("cause", "data"), CAUSES)
def test_what_was_being_stopped_ends_by_its_cause(
    machine: Any, tray: Any, cause: Cause | None, data: dict[str, Any]
) -> None:
    machine.recover([row("t1", "cancelling")], Leftovers(causes={"t1": cause} if cause else {}), now=0.0)
    assert tray.end("t1") == {"partial": False, "forced": True, **data}


def test_what_waited_goes_on_in_order_and_what_ended_is_remembered(machine: Any, tray: Any, accept: Any) -> None:
    rows = [row("t1", "ended", "completed"), row("t2", "dispatching"), row("t3", "queued"), row("t4", "queued")]
    machine.recover(rows, Leftovers(), now=0.0)
    assert tray.data("turn.ended")[0]["partial"] is False
    assert machine.view()["turn"]["turn_id"] == "t3"
    assert [turn["turn_id"] for turn in machine.view()["queue"]] == ["t4"]
    assert machine.cancel("t1", by=None, now=0.0).outcome == "completed"
    with pytest.raises(BrokerError):
        accept(machine, "id of t1")
    assert tray.kinds("t1") == []


def test_turns_for_a_limited_agent_ask_for_their_place_again(
    tray: Any, accept: Any, make_machine: Any, restart: Any
) -> None:
    machine = make_machine(limited=True)
    first = accept(machine, "m1")
    accept(machine, "m2")
    restart(limited=True)
    assert tray.out == ["AskSlot"]
    assert tray.commands == [AskSlot(first, 1)]


def test_a_full_log_has_no_room_for_turns_that_waited(machine: Any, tray: Any, accept: Any, make_machine: Any) -> None:
    machine = make_machine()
    machine.overflow(now=0.0)
    tray.clear()
    machine.recover([row("t1", "running"), row("t2", "queued"), row("t3", "queued")], Leftovers(), now=0.0)
    assert [tray.end(turn_id)["outcome"] for turn_id in ("t1", "t2", "t3")] == ["lost", "failed", "failed"]
    assert tray.end("t3")["error"]["code"] == "too_large"
    assert "turn.started" not in tray.kinds()
    assert tray.commands == []


def test_an_interrupt_keeps_its_place(machine: Any, tray: Any, accept: Any, make_machine: Any, restart: Any) -> None:
    machine = make_machine(queue_limit=9)
    turns = [
        accept(machine, f"m{number}", if_busy=how) for number, how in enumerate(["queue", "queue", "interrupt"] * 2)
    ]
    order = [turn["turn_id"] for turn in machine.view()["queue"]]
    assert order == [turns[number] for number in (5, 2, 1, 3, 4)]
    again = restart(queue_limit=9)
    assert again.running.turn_id == order[0]
    assert [turn["turn_id"] for turn in again.view()["queue"]] == order[1:]


def test_a_changed_turn_is_told_as_changed_and_known_as_first_sent(
    machine: Any, tray: Any, accept: Any, restart: Any
) -> None:
    accept(machine, "m1")
    waiting = accept(machine, "m2")
    machine.edit(waiting, b'"other"', user="ann", now=0.0)
    again = restart()
    (start,) = tray.commands
    assert isinstance(start, StartTurn)
    assert (start.prompt.turn_id, start.prompt.content) == (waiting, b'"other"')
    assert accept(again, "m2") == waiting


def test_what_a_waiting_turn_tries_again_is_remembered(machine: Any, tray: Any, accept: Any, restart: Any) -> None:
    ended = accept(machine, "m1")
    machine.agent(TurnSettled(ended, "end_turn"), now=0.0)
    accept(machine, "m2")
    accept(machine, "m3", retry_of=ended)
    again = restart()
    assert again.view()["turn"]["retry_of"] == ended
    assert tray.data("turn.started")[-1]["retry_of"] == ended


def test_a_turn_has_waited_since_the_moment_inside_its_id(machine: Any, tray: Any) -> None:
    old, fresh, foreign = new_id(), new_id(), "imported"
    made = made_at(old)
    assert made is not None
    tray.now = made + 3_600_000
    old_row, fresh_row = (
        row(old, "queued"),
        row(f"{(made + 1000) >> 16:08x}-{(made + 1000) & 0xFFFF:04x}{fresh[13:]}", "queued"),
    )
    machine.recover([row("t1", "ended", "lost"), old_row, fresh_row, row(foreign, "queued")], Leftovers(), now=50.0)
    assert tray.end(old)["deadline"] == "queue"
    assert "turn.started" not in tray.kinds(old)
    assert machine.running.turn_id == fresh_row.turn_id
    machine.tick(51.0)
    assert [turn["turn_id"] for turn in machine.view()["queue"]] == [foreign]
    assert machine.next_deadline() == 110.0  # the start deadline of the one that runs


def test_a_turn_made_by_a_clock_ahead_of_ours_has_not_waited_less_than_nothing(make_machine: Any, tray: Any) -> None:
    machine = make_machine(limited=True)
    turn_id = new_id()
    tray.now = (made_at(turn_id) or 0) - 1_000_000
    machine.recover([row(turn_id, "queued")], Leftovers(), now=5.0)
    assert machine.next_deadline() == 3605.0


def test_who_answers_again_after_a_restart_learns_who_was_first(
    machine: Any, tray: Any, accept: Any, restart: Any
) -> None:
    turn_id = accept(machine)
    machine.agent(ApprovalRequested(turn_id, "k", "May I?", OPTIONS), now=0.0)
    (approval_id,) = (approval["approval_id"] for approval in machine.view()["approvals"])
    machine.answer(approval_id, "yes", by="bob", now=0.0)
    with pytest.raises(BrokerError, match="answered yes by bob"):
        restart().answer(approval_id, "yes", by="ann", now=0.0)


# -- what the log tells ----------------------------------------------------------------------------------


def record(kind: str, turn_id: str | None, **data: Any) -> Record:
    return Record(1, 0, kind, msgspec.json.encode(data), turn_id)


def test_the_log_tells_what_the_rows_do_not(machine: Any, tray: Any, accept: Any, make_machine: Any) -> None:
    machine = make_machine(queue_limit=9)
    turn_id = accept(machine, "m1")
    for key in ("k1", "k2"):
        machine.agent(ApprovalRequested(turn_id, key, "May I?", OPTIONS), now=0.0)
    first, second = (approval["approval_id"] for approval in machine.view()["approvals"])
    machine.answer(first, "yes", by="bob", now=0.0)
    machine.agent(AgentRecord(turn_id, "usage.updated", b'{"tokens":1}'), now=0.0)
    machine.agent(TextDelta(turn_id, "x"), now=0.0)
    urgent = accept(machine, "m2", if_busy="interrupt")
    found = leftovers_of(tray.stored)
    assert found.produced == {turn_id}
    assert found.usage == {turn_id: b'{"tokens":1}'}
    assert found.causes == {turn_id: Cause("interrupted by ann", "ann")}
    assert found.interrupts == {urgent}
    assert found.approvals == {}
    assert found.resolved[first].sentence() == "That approval was answered yes by bob."
    assert found.resolved[second].outcome == "cancelled"


def test_an_open_question_is_found_among_answered_ones(machine: Any, tray: Any, accept: Any) -> None:
    turn_id = accept(machine, "m1")
    for key in ("k1", "k2"):
        machine.agent(ApprovalRequested(turn_id, key, "May I?", OPTIONS), now=0.0)
    first, second = (approval["approval_id"] for approval in machine.view()["approvals"])
    machine.answer(first, "yes", by="bob", now=0.0)
    assert leftovers_of(tray.stored).approvals_of(turn_id) == [second]


def test_an_answer_whose_question_is_further_back_is_no_harm() -> None:
    resolved = record("approval.resolved", "t", approval_id="a", outcome="selected", option_id="yes", resolved_by=None)
    assert leftovers_of([resolved]).approvals == {}


@pytest.mark.parametrize("kind", OUTPUT)
def test_all_output_that_a_turn_had_makes_its_end_partial(kind: str) -> None:
    assert leftovers_of([record(kind, "t")]).produced == {"t"}


def test_other_records_are_passed_over() -> None:
    others = [record("session.opened", None), record("user.message", "t", content="x"), record("message.delta", None)]
    assert leftovers_of(others) == Leftovers()


def test_what_is_needed_of_the_log_is_named_once() -> None:
    needed = [*KINDS, *OUTPUT, *USAGE]
    assert len(set(needed)) == len(needed)


def test_what_an_agent_said_with_its_question_need_not_be_readable_for_its_turn_to_end() -> None:
    asked = Record(3, 0, "approval.requested", b'{"approval_id":"a1","tool":{"n":1e999}}', "t1")
    assert leftovers_of([asked]).approvals == {"a1": "t1"}
