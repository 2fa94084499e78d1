"""What each event does to a turn in each state: the table of PROTOCOL section 3, row by row."""

from hashlib import blake2b
from typing import Any

import attrs
import pytest

from broker.errors import BrokerError
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentRecord,
    ApprovalRequested,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnSettled,
)
from broker.turns import AnswerApproval, CancelTurn, CutLink, TurnMachine
from broker.turns.turn import digest_of

OPTIONS = b'[{"option_id":"yes"},{"option_id":"no"}]'


@pytest.fixture
def bring(accept: Any) -> Any:
    """Bring a turn into a state and return its id."""

    def brought(machine: TurnMachine, state: str) -> str:
        if state == "queued":
            accept(machine, "before")
        turn_id: str = accept(machine)
        if state in {"running", "awaiting_approval"}:
            machine.agent(TextDelta(turn_id, "so far"), now=0.0)
        if state == "awaiting_approval":
            machine.agent(ApprovalRequested(turn_id, "k", "May I?", OPTIONS), now=0.0)
        if state in {"cancelling", "ended"}:
            machine.cancel(turn_id, by="ann", now=0.0)
        if state == "ended":
            machine.agent(TurnSettled(turn_id, "cancelled"), now=0.0)
        return turn_id

    return brought


# -- how turns end -----------------------------------------------------------------------------------

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
def test_how_a_turn_ends(machine: Any, tray: Any, bring: Any, state: str, kind: type, outcome: str | None) -> None:
    turn_id = bring(machine, state)
    machine.agent(event_of(kind, turn_id), now=1.0)
    assert tray.rows[turn_id].outcome == outcome
    if outcome is None:
        assert "turn.ended" not in tray.kinds(turn_id)
    else:
        assert tray.end(turn_id)["outcome"] == outcome
        assert tray.rows[turn_id].content is None


@pytest.mark.parametrize("kind", [TurnSettled, TurnFailed])
def test_a_turn_that_ended_stays_as_it_ended(machine: Any, tray: Any, bring: Any, kind: type) -> None:
    turn_id = bring(machine, "ended")
    machine.agent(event_of(kind, turn_id), now=1.0)
    machine.agent(AgentLost("it died"), now=1.0)
    assert machine.cancel(turn_id, by="bob", now=1.0).outcome == "cancelled"
    assert tray.end(turn_id)["by"] == "ann"
    assert tray.data("activity")[0]["late_of"] == turn_id


@pytest.mark.parametrize("state", ["dispatching", "running", "awaiting_approval", "cancelling"])
def test_a_loss_ends_the_turn_it_names_and_no_other(
    machine: Any, tray: Any, accept: Any, bring: Any, state: str
) -> None:
    turn_id = bring(machine, state)
    waiting = accept(machine, "next")
    for other in (waiting, "t0"):
        machine.agent(AgentLost("it died", other), now=1.0)
        assert tray.records[-1] == ("activity", {"late_of": other, "kind": "agent.lost", "reason": "it died"}, None)
        assert machine.view()["turn"]["state"] == state
    machine.agent(AgentLost("it died", turn_id), now=2.0)
    assert tray.end(turn_id)["outcome"] == ("cancelled" if state == "cancelling" else "lost")
    assert machine.running.turn_id == waiting


def test_a_loss_that_comes_as_a_deadline_ended_its_turn_leaves_the_next_one_alone(
    machine: Any, tray: Any, accept: Any
) -> None:
    late, following = accept(machine, "late"), accept(machine, "following")
    machine.tick(60.0)
    machine.agent(AgentLost("killed", late), now=60.0)
    assert (tray.end(late)["deadline"], machine.running.turn_id) == ("start", following)


def test_a_piece_of_nothing_is_a_sign_of_life_and_no_output(machine: Any, tray: Any, accept: Any) -> None:
    turn_id = accept(machine)
    machine.agent(TextDelta(turn_id, ""), now=1.0)
    assert machine.view()["turn"]["state"] == "running"
    machine.agent(TurnSettled(turn_id, "end_turn"), now=2.0)
    assert tray.kinds(turn_id) == ["user.message", "turn.started", "turn.ended"]
    assert tray.end(turn_id)["empty"] is True


def test_text_that_is_taken_back_is_output_under_the_id_that_viewers_know(machine: Any, tray: Any, accept: Any) -> None:
    turn_id = accept(machine)
    machine.agent(TextReplaced(turn_id, "", message_id="m"), now=0.5)
    machine.agent(TextDelta(turn_id, "four", message_id="m"), now=1.0)
    machine.agent(TextReplaced(turn_id, "five", message_id="m"), now=2.0)
    machine.agent(TurnSettled(turn_id, "end_turn", last=False), now=3.0)
    machine.agent(TextReplaced(turn_id, "six", message_id="m"), now=3.1)
    machine.tick(3.2)
    of_message = [data for kind, data, of in tray.records if of == turn_id and kind.startswith("message.")]
    assert [data.get("text", data.get("content")) for data in of_message] == ["four", "five", "six", "six"]
    assert len({data["message_id"] for data in of_message}) == 1
    assert tray.end(turn_id)["partial"] is True


def test_a_message_of_the_last_turn_is_not_replaced_in_this_one(machine: Any, tray: Any, run: Any) -> None:
    first = run(machine, "m1", said="old")
    machine.agent(TurnSettled(first, "end_turn"), now=1.0)
    second = run(machine, "m2")
    machine.agent(TextReplaced(second, "new"), now=2.0)
    machine.agent(TurnSettled(second, "end_turn"), now=3.0)
    assert tray.kinds(second)[-3:] == ["message.delta", "message.completed", "turn.ended"]
    assert tray.data("message.replaced") == []


WORDS: list[tuple[AgentEvent, dict[str, Any]]] = [
    (TurnSettled("", "end_turn"), {"outcome": "completed", "partial": False, "empty": True, "stop_reason": "end_turn"}),
    (
        TurnSettled("", "max_tokens"),
        {
            "outcome": "completed",
            "partial": False,
            "empty": True,
            "reason": "the agent reached its limit of tokens",
            "stop_reason": "max_tokens",
        },
    ),
    (
        TurnFailed("", "overloaded", "Too busy.", retryable=True),
        {
            "outcome": "failed",
            "partial": False,
            "reason": "Too busy.",
            "error": {"code": "overloaded", "message": "Too busy.", "retryable": True},
        },
    ),
    (AgentLost("it died"), {"outcome": "lost", "partial": False, "reason": "it died"}),
    (AgentLost(""), {"outcome": "lost", "partial": False, "reason": "the agent gave no reason"}),
]


@pytest.mark.parametrize(("event", "data"), WORDS)
def test_an_end_says_why_in_words(machine: Any, tray: Any, accept: Any, event: Any, data: dict[str, Any]) -> None:
    turn_id = accept(machine)
    if not isinstance(event, AgentLost):
        event = attrs.evolve(event, turn_id=turn_id)
    machine.agent(event, now=1.0)
    assert tray.end(turn_id) == data


@pytest.mark.parametrize(
    ("kind", "partial"),
    [
        ("tool.started", True),
        ("plan.updated", True),
        ("vendor.image", True),
        ("usage.updated", False),
        ("debug", False),
    ],
)
def test_what_counts_as_output(machine: Any, tray: Any, accept: Any, kind: str, partial: bool) -> None:
    turn_id = accept(machine)
    machine.agent(AgentRecord(turn_id, kind, b"{}"), now=0.0)
    machine.agent(TurnSettled(turn_id, "end_turn"), now=0.0)
    end = tray.end(turn_id)
    assert (end["partial"], end.get("empty", False)) == (partial, not partial)


USAGES = [
    ([], b'{"tokens":7}', {"tokens": 7}),
    ([b'{"tokens":1}', b'{"tokens":2}'], None, {"tokens": 2}),
    ([b'{"tokens":1}'], b'{"tokens":7}', {"tokens": 7}),
    ([], None, None),
]


@pytest.mark.parametrize(("updates", "settled", "usage"), USAGES)
def test_an_end_tells_what_the_turn_cost(
    machine: Any, tray: Any, accept: Any, updates: list[bytes], settled: bytes | None, usage: Any
) -> None:
    turn_id = accept(machine)
    for update in updates:
        machine.agent(AgentRecord(turn_id, "usage.updated", update), now=0.0)
    machine.agent(TurnSettled(turn_id, "end_turn", settled), now=0.0)
    assert tray.end(turn_id).get("usage") == usage


# -- cancelling --------------------------------------------------------------------------------------

CANCELS = [
    ("queued", "ended", []),
    ("dispatching", "cancelling", [CancelTurn]),
    ("running", "cancelling", [CancelTurn]),
    ("awaiting_approval", "cancelling", [AnswerApproval, CancelTurn]),
    ("cancelling", "cancelling", []),
    ("ended", "ended", []),
]


@pytest.mark.parametrize(("state", "after", "commands"), CANCELS)
def test_what_cancelling_does(
    machine: Any, tray: Any, bring: Any, state: str, after: str, commands: list[type]
) -> None:
    turn_id = bring(machine, state)
    tray.clear()
    assert machine.cancel(turn_id, by="bob", now=0.0).state == after
    assert [type(command) for command in tray.commands] == commands
    assert tray.rows[turn_id].state == after


def test_a_turn_that_is_being_stopped_shows_by_whom(machine: Any, tray: Any, bring: Any) -> None:
    turn_id = bring(machine, "running")
    machine.cancel(turn_id, by="bob", now=0.0)
    machine.cancel(turn_id, by="ann", now=0.0)
    assert tray.data("turn.cancelling") == [{"by": "bob", "reason": "cancelled by bob"}]
    assert machine.view()["turn"]["cancelling"] == {"by": "bob"}


def test_an_unknown_turn_cannot_be_cancelled(machine: Any) -> None:
    with pytest.raises(BrokerError) as refused:
        machine.cancel("unknown", by=None, now=0.0)
    assert refused.value.code == "not_found"


# -- sending again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "running", "cancelling", "ended"])
def test_the_same_id_is_the_same_turn_and_other_content_a_conflict(
    machine: Any, tray: Any, bring: Any, accept: Any, state: str
) -> None:
    turn_id = bring(machine, state)
    before = list(tray.out)
    how: dict[str, Any] = {"user": "ann", "client_msg_id": "m1", "if_busy": "reject", "now": 9.0}
    again = machine.accept(content=b'"hi"', **how)
    assert (again.turn_id, again.status, again.duplicate) == (turn_id, state, True)
    assert tray.records[again.seq - 1][0] == "user.message"
    with pytest.raises(BrokerError) as refused:
        machine.accept(content=b'"ho"', **how)
    assert (refused.value.code, refused.value.field) == ("conflict", "$.payload.client_msg_id")
    assert tray.out == before


def test_the_same_id_with_other_metadata_is_a_conflict(machine: Any) -> None:
    how: dict[str, Any] = {"user": "ann", "client_msg_id": "m1", "if_busy": "reject", "content": b'"hi"', "now": 0.0}
    first = machine.accept(**how, metadata=b'{"a":1}')
    assert machine.accept(**how, metadata=b'{"a":1}').turn_id == first.turn_id
    for other in (b'{"a":2}', b"{}"):
        with pytest.raises(BrokerError) as refused:
            machine.accept(**how, metadata=other)
        assert refused.value.code == "conflict"


def test_a_message_without_metadata_is_known_by_its_content_alone_as_ever() -> None:
    assert digest_of(b'"hi"', b"{}").hex() == blake2b(b'"hi"', digest_size=16).hexdigest()


def test_the_same_id_of_somebody_else_is_another_turn(machine: Any, accept: Any) -> None:
    assert accept(machine) != accept(machine, user="bob") != accept(machine, user=None)
    assert machine.knows("bob", "m1")
    assert not machine.knows("eve", "m1")


# -- the session's life ------------------------------------------------------------------------------


def test_halting_ends_what_runs_and_starts_nothing_more(machine: Any, tray: Any, accept: Any) -> None:
    running, waiting = accept(machine, "m1"), accept(machine, "m2")
    machine.halt("the broker stops", now=1.0)
    late = accept(machine, "m3")
    assert tray.end(running) == {"outcome": "lost", "partial": False, "reason": "the broker stops"}
    assert [tray.rows[turn].state for turn in (waiting, late)] == ["queued", "queued"]
    assert len(tray.commands) == 1
    assert machine.next_deadline() is None
    machine.tick(1e9)
    assert [tray.rows[turn].state for turn in (waiting, late)] == ["queued", "queued"]


def test_closing_cancels_all_and_the_agent_may_still_settle(machine: Any, tray: Any, accept: Any) -> None:
    running, *waiting = (accept(machine, f"m{number}") for number in range(3))
    machine.close("ann", now=0.0)
    reason = "the session was closed by ann"
    for turn_id in waiting:
        assert tray.end(turn_id) == {"outcome": "cancelled", "partial": False, "by": "ann", "reason": reason}
    assert tray.rows[running].state == "cancelling"
    machine.agent(TurnSettled(running, "cancelled"), now=0.0)
    assert tray.end(running)["reason"] == reason
    assert not machine.busy


def test_closing_a_session_whose_turn_waits_for_a_place_asks_for_no_other(
    make_machine: Any, tray: Any, accept: Any
) -> None:
    machine = make_machine(limited=True)
    accept(machine, "m1")
    accept(machine, "m2")
    tray.clear()
    machine.close(None, now=0.0)
    assert tray.commands == []
    assert not machine.busy


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_full_log_cuts_the_turn_that_fills_it(machine: Any, tray: Any, bring: Any, cancelled: bool) -> None:
    turn_id = bring(machine, "running")
    if cancelled:
        machine.cancel(turn_id, by="ann", now=1.0)
    machine.overflow(now=2.0)
    assert tray.commands[-1] == CutLink(turn_id)
    end = tray.end(turn_id)
    assert end["error"]["code"] == "too_large"
    assert (end["outcome"], end.get("forced")) == (("cancelled", True) if cancelled else ("failed", None))


@pytest.mark.parametrize("limited", [False, True])
def test_a_full_log_ends_the_turns_that_wait_without_their_agent(
    make_machine: Any, tray: Any, accept: Any, limited: bool
) -> None:
    machine = make_machine(limited=limited, queue_limit=3)
    turns = [accept(machine, key) for key in ("m1", "m2", "m3")][not limited :]
    started = tray.kinds().count("turn.started")
    machine.overflow(now=1.0)
    reason = "the session's log is full"
    for turn_id in turns:
        assert tray.end(turn_id) == {
            "outcome": "failed",
            "partial": False,
            "reason": reason,
            "error": {"code": "too_large", "message": reason, "retryable": False},
        }
    assert tray.kinds().count("turn.started") == started
    assert not machine.busy
    assert tray.end(accept(machine, "m4"))["error"]["code"] == "too_large"


def test_an_agent_that_fills_the_log_without_a_turn_is_cut_once_and_heard_no_more(machine: Any, tray: Any) -> None:
    for _ in range(2):
        machine.overflow(now=0.0)
    machine.agent(TextDelta("ended", "late"), now=1.0)
    machine.agent(AgentRecord(None, "debug", b"{}"), now=1.0)
    assert tray.out == ["CutLink"]
    assert tray.commands == [CutLink(None)]


def test_a_machine_that_does_nothing_waits_for_nothing(machine: Any, bring: Any) -> None:
    assert machine.next_deadline() is None
    bring(machine, "ended")
    assert machine.next_deadline() is None
    assert machine.view() == {"turn": None, "queue": [], "approvals": []}
