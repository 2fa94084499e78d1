"""Questions to people: durable, several at once, answered once, with what was offered (PROTOCOL section 3)."""

from typing import Any

import msgspec
import pytest

from broker.errors import BrokerError
from broker.messages import AgentLost, ApprovalRequested, TextDelta, TurnFailed, TurnSettled
from broker.turns import AnswerApproval, TurnMachine
from broker.turns.approvals import OPEN_LIMIT, RESOLVED_LIMIT

OPTIONS = (
    b'[{"option_id":"yes","name":"Yes","kind":"allow_once"},{"option_id":"always","kind":"allow_always"},'
    b'{"option_id":"no","kind":"reject_once"}]'
)


@pytest.fixture
def turn_id(machine: Any, run: Any) -> str:
    """A running turn."""
    begun: str = run(machine)
    return begun


def ask(machine: TurnMachine, key: str = "k", options: bytes = OPTIONS, *, tool: bytes | None = None) -> None:
    turn = machine.running
    assert turn is not None
    machine.agent(ApprovalRequested(turn.turn_id, key, "May I?", options, tool), now=0.0)


def approvals(machine: TurnMachine) -> list[str]:
    return [approval["approval_id"] for approval in machine.view()["approvals"]]


def test_a_question_is_saved_and_shown_until_it_is_answered(machine: Any, tray: Any, turn_id: str) -> None:
    tray.clear()
    ask(machine, tool=b'{"title":"rm"}')
    assert tray.out == ["approval.requested", "save awaiting_approval"]
    (view,) = machine.view()["approvals"]
    shown = msgspec.json.decode(msgspec.json.encode(view))
    assert shown == tray.data("approval.requested")[0]
    assert shown == {
        "approval_id": shown["approval_id"],
        "title": "May I?",
        "options": msgspec.json.decode(OPTIONS),
        "expires_at": "2023-11-15T22:13:20.000Z",
        "tool": {"title": "rm"},
    }


def test_an_answer_resolves_then_tells_the_agent_and_the_turn_runs_again(machine: Any, tray: Any, turn_id: str) -> None:
    ask(machine)
    (approval_id,) = approvals(machine)
    tray.clear()
    machine.answer(approval_id, "no", by="bob", now=1.0)
    assert tray.out == ["approval.resolved", "AnswerApproval"]
    assert tray.commands == [AnswerApproval(turn_id, "k", "no")]
    assert tray.data("approval.resolved") == [
        {"approval_id": approval_id, "outcome": "selected", "option_id": "no", "resolved_by": "bob"}
    ]
    assert machine.view()["turn"]["state"] == "running"


def test_a_turn_with_two_questions_waits_for_both(machine: Any, turn_id: str) -> None:
    ask(machine, "k1")
    ask(machine, "k2")
    first, second = approvals(machine)
    machine.answer(second, "yes", by=None, now=1.0)
    assert machine.view()["turn"]["state"] == "awaiting_approval"
    machine.answer(first, "yes", by=None, now=1.0)
    assert machine.view()["turn"]["state"] == "running"


def test_what_was_said_before_an_answer_is_written_before_it(machine: Any, tray: Any, turn_id: str) -> None:
    ask(machine)
    machine.agent(TextDelta(turn_id, "while "), now=0.0)
    machine.agent(TextDelta(turn_id, "waiting"), now=0.0)
    machine.answer(approvals(machine)[0], "yes", by=None, now=0.0)
    assert tray.kinds()[-2:] == ["message.delta", "approval.resolved"]


@pytest.mark.parametrize(
    ("approval_id", "option_id", "code"), [("unknown", "yes", "not_found"), (None, "maybe", "invalid_message")]
)
def test_a_wrong_answer_changes_nothing(
    machine: Any, tray: Any, turn_id: str, approval_id: str | None, option_id: str, code: str
) -> None:
    ask(machine)
    before = list(tray.out)
    with pytest.raises(BrokerError) as refused:
        machine.answer(approval_id or approvals(machine)[0], option_id, by=None, now=0.0)
    assert refused.value.code == code
    if code == "invalid_message":
        assert refused.value.hint == "one of: yes, always, no"
    assert tray.out == before


LATE = [
    ("answered", "answered yes by bob"),
    ("answered by nobody known", "answered yes by anonymous"),
    ("settled", "voided"),
    ("lost", "voided"),
    ("cancelled", "cancelled with its turn"),
    ("expired", "expired"),
]


@pytest.mark.parametrize(("how", "words"), LATE)
def test_a_second_answer_is_told_how_it_was_resolved(
    machine: Any, tray: Any, turn_id: str, how: str, words: str
) -> None:
    ask(machine)
    (approval_id,) = approvals(machine)
    match how:
        case "answered" | "answered by nobody known":
            machine.answer(approval_id, "yes", by="bob" if how == "answered" else None, now=0.0)
        case "settled":
            machine.agent(TurnSettled(turn_id, "end_turn"), now=0.0)
        case "lost":
            machine.agent(AgentLost("it died"), now=0.0)
        case "cancelled":
            machine.cancel(turn_id, by="ann", now=0.0)
        case _:
            machine.tick(86_400.0)
    before = list(tray.out)
    with pytest.raises(BrokerError, match=words) as refused:
        machine.answer(approval_id, "no", by="ann", now=86_400.0)
    assert refused.value.code == "already_resolved"
    assert tray.out == before


ENDINGS: list[tuple[str, Any, bool]] = [
    ("settled", lambda of: TurnSettled(of, "end_turn"), True),
    ("failed", lambda of: TurnFailed(of, "internal", "It broke."), True),
    ("lost", lambda _: AgentLost("it died"), False),
]


@pytest.mark.parametrize(("event", "told"), [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS])
def test_the_end_of_its_turn_voids_a_question_and_an_agent_that_is_there_is_told(
    machine: Any, tray: Any, turn_id: str, event: Any, told: bool
) -> None:
    ask(machine)
    tray.clear()
    machine.agent(event(turn_id), now=1.0)
    (resolved,) = tray.data("approval.resolved")
    assert (resolved["outcome"], resolved["resolved_by"]) == ("void", None)
    assert resolved["reason"]
    assert (AnswerApproval(turn_id, "k", None) in tray.commands) == told
    assert tray.end(turn_id)
    assert approvals(machine) == []


def test_a_cancel_writes_first_then_closes_the_questions_then_asks_the_agent(
    machine: Any, tray: Any, turn_id: str
) -> None:
    ask(machine)
    tray.clear()
    machine.cancel(turn_id, by="ann", now=0.0)
    assert tray.out == ["turn.cancelling", "approval.resolved", "AnswerApproval", "save cancelling", "CancelTurn"]
    (resolved,) = tray.data("approval.resolved")
    assert (resolved["outcome"], resolved["resolved_by"]) == ("cancelled", "ann")


def test_a_question_in_a_turn_that_is_being_stopped_is_answered_as_cancelled(
    machine: Any, tray: Any, turn_id: str
) -> None:
    machine.cancel(turn_id, by="ann", now=0.0)
    ask(machine)
    assert tray.commands[-1] == AnswerApproval(turn_id, "k", None)
    assert tray.records[-1][:2] == (
        "activity",
        {
            "late_of": None,
            "kind": "approval.requested",
            "title": "May I?",
            "reason": "the turn is being stopped",
        },
    )
    assert machine.view()["turn"]["state"] == "cancelling"


# -- policy ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "option_id"), [("allow", "yes"), ("reject", "no")])
def test_a_policy_answers_at_once_with_records_like_a_persons(
    make_machine: Any, tray: Any, run: Any, policy: str, option_id: str
) -> None:
    machine = make_machine(approvals=policy)
    turn_id = run(machine)
    tray.clear()
    ask(machine)
    assert tray.out == ["approval.requested", "approval.resolved", "AnswerApproval"]
    requested, resolved = tray.data("approval.requested")[0], tray.data("approval.resolved")[0]
    assert set(requested) == {"approval_id", "title", "options", "expires_at"}
    assert resolved == {
        "approval_id": requested["approval_id"],
        "outcome": "selected",
        "option_id": option_id,
        "resolved_by": "policy",
    }
    assert tray.commands == [AnswerApproval(turn_id, "k", option_id)]
    assert machine.view()["turn"]["state"] == "running"
    with pytest.raises(BrokerError, match="by policy"):
        machine.answer(requested["approval_id"], "yes", by="ann", now=0.0)


@pytest.mark.parametrize(
    ("policy", "kind", "asks"),
    [
        ("allow", "allow_always", False),
        ("reject", "reject_always", False),
        ("allow", "reject_once", True),
        ("reject", "allow_once", True),
    ],
)
def test_a_policy_without_an_option_of_its_kind_asks_a_person(
    make_machine: Any, run: Any, policy: str, kind: str, asks: bool
) -> None:
    machine = make_machine(approvals=policy)
    run(machine)
    ask(machine, options=msgspec.json.encode([{"option_id": "x", "kind": kind}]))
    assert bool(approvals(machine)) == asks


# -- what cannot be read, and too much -----------------------------------------------------------------

UNREADABLE = [
    b"",
    b"nonsense",
    b"\xff\xfe",
    b"null",
    b'"yes"',
    b"{}",
    b"[]",
    b"[1,null]",
    b'[{"option_id":7}]',
    b"[" * 10_000,
]


@pytest.mark.parametrize("options", UNREADABLE)
@pytest.mark.parametrize("policy", ["ask", "allow"])
def test_a_question_that_offers_nothing_readable_is_refused_and_noted(
    make_machine: Any, tray: Any, run: Any, options: bytes, policy: str
) -> None:
    machine = make_machine(approvals=policy)
    turn_id = run(machine)
    ask(machine, options=options)
    assert tray.commands[-1] == AnswerApproval(turn_id, "k", None)
    assert tray.data("activity")[0]["reason"] == "it offers nothing that could be chosen"
    assert (approvals(machine), machine.view()["turn"]["state"]) == ([], "running")


def test_of_some_options_those_that_can_be_read_are_offered(machine: Any, tray: Any, turn_id: str) -> None:
    ask(machine, options=b'[7,{"option_id":"yes","kind":3},{"name":"none"}]', tool=b"nonsense")
    (data,) = tray.data("approval.requested")
    assert data["options"] == [{"option_id": "yes", "kind": 3}]
    assert "tool" not in data
    machine.answer(data["approval_id"], "yes", by=None, now=0.0)
    assert tray.commands[-1] == AnswerApproval(turn_id, "k", "yes")


def test_so_many_questions_may_be_open_and_more_are_refused(machine: Any, tray: Any, turn_id: str) -> None:
    for number in range(OPEN_LIMIT + 1):
        ask(machine, str(number))
    assert len(approvals(machine)) == OPEN_LIMIT
    assert tray.commands[-1] == AnswerApproval(turn_id, str(OPEN_LIMIT), None)
    assert tray.data("activity")[0]["reason"] == f"{OPEN_LIMIT} questions of the turn are open already"
    machine.answer(approvals(machine)[0], "yes", by=None, now=0.0)
    ask(machine, "one more")
    assert len(approvals(machine)) == OPEN_LIMIT


def test_so_many_answers_are_remembered(make_machine: Any, tray: Any, run: Any) -> None:
    machine = make_machine(approvals="allow")
    run(machine)
    for number in range(RESOLVED_LIMIT + 1):
        ask(machine, str(number))
    resolved = [data["approval_id"] for data in tray.data("approval.resolved")]
    for approval_id, code in ((resolved[0], "not_found"), (resolved[1], "already_resolved")):
        with pytest.raises(BrokerError) as refused:
            machine.answer(approval_id, "yes", by=None, now=0.0)
        assert refused.value.code == code
