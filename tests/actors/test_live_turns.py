"""Turns as a session lives them, with a bridge and an agent that does what the test says."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.errors import BrokerError
from broker.messages import AgentLost, Principal
from broker.operations import Answer, Cancel, Describe
from broker.testing import settled
from broker.turns.clocks import CANCEL_SECONDS
from broker.turns.speech import MERGE_BYTES, MERGE_SECONDS

ANN = Principal("ann", frozenset())
BOB = Principal("bob", frozenset({"admin"}))


@pytest.fixture
async def session_id(house: Any) -> str:
    created: str = await house.create(owner="ann")
    return created


def records(house: Any, session_id: str, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
    held = house.disk.records(f"session:{session_id}")
    return [(r.kind, msgspec.json.decode(r.data)) for r in held if r.kind in kinds or not kinds]


def ends(house: Any, session_id: str) -> list[dict[str, Any]]:
    return [data for _, data in records(house, session_id, "turn.ended")]


def texts(house: Any, session_id: str) -> list[str]:
    return [data["text"] for _, data in records(house, session_id, "message.delta")]


# -- one turn ----------------------------------------------------------------------------------------


async def test_a_turn_from_its_acceptance_to_its_end(house: Any, session_id: str) -> None:
    accepted = await house.start(session_id, "question", by=ANN, client_msg_id="m1")
    assert accepted == {
        "turn_id": accepted["turn_id"],
        "seq": 2,
        "status": "dispatching",
        "duplicate": False,
        "durable": False,
    }
    turn = await house.agent.turn()
    turn.say("thinking", thought=True)
    turn.say("an answer")
    turn.report("tool.started", b'{"tool_id":"t"}')
    turn.settle(usage=b'{"tokens":3}')
    await house.settle()
    assert [kind for kind, _ in records(house, session_id)][1:] == [
        "user.message",
        "turn.started",
        "thought.delta",
        "message.delta",
        "tool.started",
        "message.completed",
        "turn.ended",
    ]
    assert ends(house, session_id) == [
        {"outcome": "completed", "partial": True, "usage": {"tokens": 3}, "stop_reason": "end_turn"}
    ]
    assert all(
        r.turn_id == accepted["turn_id"]
        for r in house.disk.records(f"session:{session_id}")
        if r.kind != "session.opened"
    )


async def test_a_turn_that_produced_nothing_says_so(house: Any, session_id: str) -> None:
    await house.start(session_id, by=ANN)
    (await house.agent.turn()).settle()
    await house.settle()
    assert ends(house, session_id) == [
        {"outcome": "completed", "partial": False, "empty": True, "stop_reason": "end_turn"}
    ]


async def test_who_counts_turns_is_told_of_each_durable_end_once(house: Any, session_id: str) -> None:
    accepted = await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    house.clock.advance(2.5)
    turn.say("x")
    house.clock.advance(2.5)
    turn.settle()
    turn.settle()
    turn.die()
    await house.settle()
    assert house.ended == [(session_id, accepted["turn_id"], "fake", "completed", 5.0, True)]
    assert house.stats.first_token_seconds.cumulative()[-1] == 1


async def test_an_agent_that_fails_ends_the_turn_as_failed_with_its_code(house: Any, session_id: str) -> None:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.say("so far")
    turn.fail("rate_limited", "Slow down.")
    await house.settle()
    (end,) = ends(house, session_id)
    assert (end["outcome"], end["partial"]) == ("failed", True)
    assert end["error"] == {"code": "rate_limited", "message": "Slow down.", "retryable": False}


async def test_an_agent_that_cannot_be_started_fails_the_turn_and_the_next_one_may_work(
    house: Any, session_id: str
) -> None:
    house.agent.refuses = OSError("no such program")
    await house.start(session_id, by=ANN)
    await house.settle()
    await house.settle()
    (end,) = ends(house, session_id)
    assert (end["outcome"], end["error"]["code"]) == ("failed", "agent_unavailable")
    assert "no such program" not in str(end)
    house.agent.refuses = None
    await house.start(session_id, by=ANN)
    (await house.agent.turn()).settle()
    await house.settle()
    assert ends(house, session_id)[1]["outcome"] == "completed"


async def test_an_agent_that_dies_loses_the_turn_and_the_next_one_goes_on(house: Any, session_id: str) -> None:
    await house.start(session_id, by=ANN)
    await house.start(session_id, by=ANN)
    first = await house.agent.turn()
    first.say("half of ")
    first.die("it exited with status 1")
    second = await house.agent.turn()
    second.settle()
    await house.settle()
    lost, completed = ends(house, session_id)
    assert lost == {"outcome": "lost", "partial": True, "reason": "it exited with status 1"}
    assert completed["outcome"] == "completed"


async def test_a_turn_lost_before_its_agent_was_told_is_not_given_to_it_any_more(house: Any, session_id: str) -> None:
    await house.start(session_id, by=ANN)
    first = await house.agent.turn()
    second = house.start_later(session_id, ANN, "m2")
    await house.tick(5)
    session = house.place(f"session:{session_id}")
    house.disk.gate.clear()
    first.settle()  # which starts the second, once that is durable
    await house.tick(5)
    session.tell(AgentLost("the agent died"))
    await settled(session)
    house.disk.gate.set()
    await second
    await house.settle()
    assert [end["outcome"] for end in ends(house, session_id)] == ["completed", "lost"]
    assert house.agent.given.empty()


async def test_sessions_do_not_wait_for_each_other(house: Any, session_id: str) -> None:
    other = await house.create(owner="ann")
    await house.start(session_id, by=ANN)
    silent = await house.agent.turn()
    await house.start(other, by=ANN)
    (await house.agent.turn()).settle()
    await house.settle()
    assert ends(house, session_id) == []
    assert ends(house, other)[0]["outcome"] == "completed"
    assert len(house.agent.lines) == 2
    silent.settle()


async def test_turns_of_one_session_share_a_line(house: Any, session_id: str) -> None:
    for _ in range(3):
        await house.start(session_id, by=ANN)
        (await house.agent.turn()).settle()
        await house.settle()
    assert len(house.agent.lines) == 1


# -- idempotency (P4) --------------------------------------------------------------------------------


async def test_a_turn_sent_again_is_the_same_turn_at_every_stage(house: Any, session_id: str) -> None:
    first = await house.start(session_id, "hi", by=ANN, client_msg_id="m1")
    again = await house.start(session_id, "hi", by=ANN, client_msg_id="m1")
    assert again == first | {"duplicate": True}
    turn = await house.agent.turn()
    turn.say("x")
    await house.settle()
    assert (await house.start(session_id, "hi", by=ANN, client_msg_id="m1"))["status"] == "running"
    turn.settle()
    await house.settle()
    assert (await house.start(session_id, "hi", by=ANN, client_msg_id="m1"))["status"] == "ended"
    assert len(records(house, session_id, "user.message")) == 1
    assert house.agent.given.empty()


async def test_the_same_id_with_other_content_is_a_conflict_and_changes_nothing(house: Any, session_id: str) -> None:
    await house.start(session_id, "hi", by=ANN, client_msg_id="m1")
    before = records(house, session_id)
    with pytest.raises(BrokerError) as refusal:
        await house.start(session_id, "ho", by=ANN, client_msg_id="m1")
    assert (refusal.value.code, refusal.value.field) == ("conflict", "$.payload.client_msg_id")
    assert records(house, session_id) == before


async def test_two_users_may_use_the_same_id(house: Any, session_id: str) -> None:
    first = await house.start(session_id, "hi", by=ANN, client_msg_id="m1")
    second = await house.start(session_id, "ho", by=BOB, client_msg_id="m1")
    assert first["turn_id"] != second["turn_id"]


async def test_a_duplicate_is_answered_only_once_the_first_is_durable(house: Any, session_id: str) -> None:
    house.disk.gate.clear()
    first = house.start_later(session_id, ANN, "m1")
    second = house.start_later(session_id, ANN, "m1")
    await house.tick(20)
    assert not first.done()
    assert not second.done()
    house.disk.gate.set()
    assert (await second)["turn_id"] == (await first)["turn_id"]


# -- a busy session ----------------------------------------------------------------------------------


async def test_turns_queue_in_order_and_say_how_many_are_ahead(house: Any, session_id: str) -> None:
    for text in ("a", "b", "c"):
        await house.start(session_id, text, by=ANN)
    assert [data["ahead"] for _, data in records(house, session_id, "turn.queued")] == [1, 2]
    view = await house.ask(session_id, Describe(ANN))
    assert [queued["state"] for queued in view["queue"]] == ["queued", "queued"]
    for text in ("a", "b", "c"):
        turn = await house.agent.turn()
        assert msgspec.json.decode(turn.prompt.content) == text
        turn.settle()
    await house.settle()
    assert [end["outcome"] for end in ends(house, session_id)] == ["completed"] * 3


async def test_reject_and_a_full_queue_refuse_and_the_accepted_ones_go_on(make_house: Callable[..., Any]) -> None:
    house = make_house(queued_turns=1)
    session_id = await house.create(owner="ann")
    await house.start(session_id, by=ANN, if_busy="reject")
    with pytest.raises(BrokerError) as refusal:
        await house.start(session_id, by=ANN, if_busy="reject")
    assert refusal.value.code == "busy"
    await house.start(session_id, by=ANN)
    for if_busy in ("queue", "interrupt"):
        with pytest.raises(BrokerError) as refusal:
            await house.start(session_id, by=ANN, if_busy=if_busy)
        assert (refusal.value.code, refusal.value.retryable, refusal.value.retry_after) == ("queue_full", True, 1.0)
    for _ in range(2):
        (await house.agent.turn()).settle()
    await house.settle()
    assert len(ends(house, session_id)) == 2


async def test_interrupt_cancels_the_running_turn_and_comes_before_those_that_wait(house: Any, session_id: str) -> None:
    await house.start(session_id, "running", by=ANN)
    await house.start(session_id, "waiting", by=ANN)
    running = await house.agent.turn()
    answer = await house.start(session_id, "urgent", by=ANN, if_busy="interrupt")
    assert answer["status"] == "queued"
    await running.cancelled.wait()
    running.settle("cancelled")
    urgent = await house.agent.turn()
    assert urgent.prompt.content == b'"urgent"'
    urgent.settle()
    assert (await house.agent.turn()).prompt.content == b'"waiting"'
    assert [(end["outcome"], end.get("by")) for end in ends(house, session_id)] == [
        ("cancelled", "ann"),
        ("completed", None),
    ]


# -- cancel ------------------------------------------------------------------------------------------


async def test_a_queued_turn_is_cancelled_at_once_and_never_given_to_the_agent(house: Any, session_id: str) -> None:
    await house.start(session_id, by=ANN)
    waiting = await house.start(session_id, by=ANN)
    assert await house.ask(session_id, Cancel(BOB, waiting["turn_id"])) == {"status": "ended", "outcome": "cancelled"}
    assert ends(house, session_id) == [
        {"outcome": "cancelled", "partial": False, "by": "bob", "reason": "cancelled by bob"}
    ]
    (await house.agent.turn()).settle()
    await house.settle()
    assert house.agent.given.empty()


async def test_a_running_turn_is_asked_to_stop_and_what_it_still_says_is_kept(house: Any, session_id: str) -> None:
    accepted = await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.say("one ")
    cancel = Cancel(ANN, accepted["turn_id"])
    assert await house.ask(session_id, cancel) == {"status": "cancelling"}
    assert await house.ask(session_id, cancel) == {"status": "cancelling"}
    await turn.cancelled.wait()
    turn.say("more")
    turn.settle("end_turn")
    await house.settle()
    assert await house.ask(session_id, cancel) == {"status": "ended", "outcome": "cancelled"}
    kinds = [kind for kind, _ in records(house, session_id)]
    assert kinds.count("turn.cancelling") == kinds.count("turn.ended") == 1
    assert kinds[-3:] == ["message.delta", "message.completed", "turn.ended"]
    assert ends(house, session_id) == [
        {
            "outcome": "cancelled",
            "partial": True,
            "by": "ann",
            "reason": "cancelled by ann",
            "stop_reason": "end_turn",
        }
    ]


async def test_a_turn_that_nobody_knows_cannot_be_cancelled(house: Any, session_id: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, Cancel(ANN, "unknown"))
    assert refusal.value.code == "not_found"


async def test_an_agent_that_does_not_stop_is_cut_after_ten_seconds(house: Any, session_id: str) -> None:
    accepted = await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    await house.ask(session_id, Cancel(ANN, accepted["turn_id"]))
    await turn.cancelled.wait()
    house.clock.advance(CANCEL_SECONDS - 0.01)
    await house.settle()
    assert ends(house, session_id) == []
    house.clock.advance(0.02)
    await house.settle()
    await turn.line.closed.wait()
    (end,) = ends(house, session_id)
    assert (end["outcome"], end["forced"], end["by"]) == ("cancelled", True, "ann")
    turn.say("too late")
    await house.settle()
    assert records(house, session_id, "activity") == []
    await house.start(session_id, by=ANN)
    assert (await house.agent.turn()).line is not turn.line


async def test_an_agent_that_dies_while_it_is_being_cancelled_was_cancelled(house: Any, session_id: str) -> None:
    accepted = await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    await house.ask(session_id, Cancel(ANN, accepted["turn_id"]))
    turn.die()
    await house.settle()
    (end,) = ends(house, session_id)
    assert (end["outcome"], end["forced"]) == ("cancelled", True)


# -- what an agent says --------------------------------------------------------------------------------


async def test_frames_that_come_after_the_end_become_activity(house: Any, session_id: str) -> None:
    accepted = await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.settle()
    turn.say("late")
    turn.report("tool.updated", b'{"status":"done"}')
    turn.ask("k", "yes")
    turn.fail()
    await house.settle()
    late = [data for _, data in records(house, session_id, "activity")]
    assert [data["kind"] for data in late] == ["message.delta", "tool.updated", "approval.requested", "turn.failed"]
    assert {data["late_of"] for data in late} == {accepted["turn_id"]}
    assert len(ends(house, session_id)) == 1
    assert await turn.answers.get() == ("k", None)


async def test_the_first_delta_is_shown_at_once_and_the_next_ones_wait_for_each_other_for_40_ms(
    house: Any, session_id: str
) -> None:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    for word in ("a", "b", "c"):
        turn.say(word)
    await house.settle()
    assert texts(house, session_id) == ["a"]
    house.clock.advance(MERGE_SECONDS - 0.001)
    turn.say("d")
    await house.settle()
    assert texts(house, session_id) == ["a"]
    house.clock.advance(0.002)
    await house.settle()
    assert texts(house, session_id) == ["a", "bcd"]
    turn.say("e")
    house.clock.advance(MERGE_SECONDS)
    await house.settle()
    house.clock.advance(MERGE_SECONDS)
    await house.settle()
    assert texts(house, session_id) == ["a", "bcd", "e"]


async def test_four_kibibytes_do_not_wait(house: Any, session_id: str) -> None:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.say("first")
    for _ in range(4):
        turn.say("x" * (MERGE_BYTES // 4))
    await house.settle()
    assert texts(house, session_id) == ["first", "x" * MERGE_BYTES]


async def test_any_other_record_flushes_the_deltas_first_and_the_message_ends_whole(
    house: Any, session_id: str
) -> None:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    for word in ("one ", "two ", "three "):
        turn.say(word)
    turn.report("tool.started", b'{"tool_id":"t"}')
    turn.say("four")
    turn.settle()
    await house.settle()
    assert [kind for kind, _ in records(house, session_id)][3:] == [
        "message.delta",
        "message.delta",
        "tool.started",
        "message.delta",
        "message.completed",
        "turn.ended",
    ]
    ((_, completed),) = records(house, session_id, "message.completed")
    assert completed["content"] == "one two three four"
    assert {data["message_id"] for _, data in records(house, session_id, "message.delta")} == {completed["message_id"]}


async def test_another_operation_flushes_the_deltas_first_too(house: Any, session_id: str) -> None:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.say("a")
    turn.say("b")
    await house.settle()
    await house.start(session_id, by=ANN)
    assert [kind for kind, _ in records(house, session_id)][-3:] == ["message.delta", "user.message", "turn.queued"]


# -- approvals -----------------------------------------------------------------------------------------


async def asked(house: Any, session_id: str) -> tuple[Any, str]:
    """Start a turn whose agent asks for an approval; return the turn and the approval's id."""
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.ask("key", "yes", "no")
    await house.settle()
    return turn, records(house, session_id, "approval.requested")[-1][1]["approval_id"]


async def test_an_approval_is_answered_by_the_first_who_chooses_what_was_offered(house: Any, session_id: str) -> None:
    turn, approval_id = await asked(house, session_id)
    view = await house.ask(session_id, Describe(ANN))
    assert (view["turn"]["state"], view["approvals"][0]["approval_id"]) == ("awaiting_approval", approval_id)
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, Answer(ANN, approval_id, "maybe"))
    assert (refusal.value.code, refusal.value.hint) == ("invalid_message", "one of: yes, no")
    assert await house.ask(session_id, Answer(BOB, approval_id, "yes")) == {
        "resolved_by": "bob",
        "option_id": "yes",
        "durable": False,
    }
    assert await turn.answers.get() == ("key", "yes")
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, Answer(ANN, approval_id, "no"))
    assert refusal.value.code == "already_resolved"
    assert turn.answers.empty()
    assert (await house.ask(session_id, Describe(ANN)))["turn"]["state"] == "running"
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, Answer(ANN, "unknown", "yes"))
    assert refusal.value.code == "not_found"


async def test_cancelling_answers_the_open_approvals_and_those_that_come_later(house: Any, session_id: str) -> None:
    turn, approval_id = await asked(house, session_id)
    await house.ask(session_id, Cancel(ANN, turn.prompt.turn_id))
    assert await turn.answers.get() == ("key", None)
    turn.ask("another", "yes")
    await house.settle()
    assert await turn.answers.get() == ("another", None)
    ((_, resolved),) = records(house, session_id, "approval.resolved")
    assert (resolved["approval_id"], resolved["outcome"]) == (approval_id, "cancelled")


# -- the broker starts again (P5) ----------------------------------------------------------------------


async def test_after_a_restart_what_was_dispatched_is_lost_and_what_waited_goes_on(
    house: Any, session_id: str, make_house: Callable[..., Any]
) -> None:
    first, approval_id = await asked(house, session_id)
    second = await house.start(session_id, "second", by=ANN, client_msg_id="m2")
    await house.start(session_id, "third", by=ANN)
    first.say("half")
    await house.settle()
    await house.kill()
    house = make_house()
    await house.wake()
    turn = await house.agent.turn()
    assert (turn.prompt.turn_id, turn.prompt.content) == (second["turn_id"], b'"second"')
    turn.settle()
    (await house.agent.turn()).settle()
    await house.settle()
    outcomes = [end["outcome"] for end in ends(house, session_id)]
    assert outcomes == ["lost", "completed", "completed"]
    assert ends(house, session_id)[0]["partial"] is True
    ((_, resolved),) = records(house, session_id, "approval.resolved")
    assert (resolved["approval_id"], resolved["outcome"]) == (approval_id, "void")
    held = house.disk.records(f"session:{session_id}")
    assert [record.seq for record in held] == list(range(1, len(held) + 1))
    again = await house.start(session_id, "second", by=ANN, client_msg_id="m2")
    assert (again["turn_id"], again["duplicate"]) == (second["turn_id"], True)
    with pytest.raises(BrokerError, match="same id"):
        await house.start(session_id, "another", by=ANN, client_msg_id="m2")


async def test_a_dispatched_turn_without_output_is_lost_too_but_not_partial(
    house: Any, session_id: str, make_house: Callable[..., Any]
) -> None:
    await house.start(session_id, by=ANN)
    await house.kill()
    house = make_house()
    await house.wake()
    await house.settle()
    (end,) = ends(house, session_id)
    assert (end["outcome"], end["partial"]) == ("lost", False)
    await house.kill()
    house = make_house()
    await house.wake()
    assert len(ends(house, session_id)) == 1


async def test_a_broker_that_stops_in_an_orderly_way_ends_what_runs_and_keeps_what_waits(
    house: Any, session_id: str, make_house: Callable[..., Any]
) -> None:
    await house.start(session_id, by=ANN)
    await house.start(session_id, "waits", by=ANN)
    await house.stop_session(session_id)
    assert [end["outcome"] for end in ends(house, session_id)] == ["lost"]
    await house.stop()
    house = make_house()
    await house.wake()
    assert (await house.agent.turn()).prompt.content == b'"waits"'
