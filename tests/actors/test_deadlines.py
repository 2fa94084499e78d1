"""Every accepted turn ends, exactly once, in time (P5): as the session lives it, with time that is moved by hand."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.config.profiles import Deadlines
from broker.errors import BrokerError
from broker.messages import LinkStalled, Principal
from broker.operations import Answer, Cancel, Describe, Share
from broker.turns.clocks import CANCEL_SECONDS, TALK_SECONDS

ANN = Principal("ann", frozenset())
BOB = Principal("bob", frozenset())


@pytest.fixture
async def session_id(house: Any) -> str:
    created: str = await house.create(owner="ann")
    return created


def records(house: Any, session_id: str, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
    held = house.disk.records(f"session:{session_id}")
    return [(r.kind, msgspec.json.decode(r.data)) for r in held if r.kind in kinds or not kinds]


def only_end(house: Any, session_id: str) -> dict[str, Any]:
    (end,) = [data for _, data in records(house, session_id, "turn.ended")]
    return end


async def running(house: Any, session_id: str, **more: Any) -> Any:
    """Start a turn and let its agent take it."""
    await house.start(session_id, by=ANN, **more)
    turn = await house.agent.turn()
    turn.take()
    await house.settle()
    return turn


async def asking(house: Any, session_id: str) -> tuple[Any, str]:
    """Start a turn whose agent asks; return it and the approval's id."""
    turn = await running(house, session_id)
    turn.ask("key", "yes", "no")
    await house.settle()
    return turn, records(house, session_id, "approval.requested")[-1][1]["approval_id"]


async def test_an_agent_that_does_not_take_the_turn_fails_it_after_a_minute_and_is_cut(
    house: Any, session_id: str
) -> None:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    await house.pass_time(59, step=59)
    assert records(house, session_id, "turn.ended") == []
    await house.pass_time(1, step=1)
    end = only_end(house, session_id)
    assert (end["outcome"], end["deadline"], end["error"]["code"]) == ("failed", "start", "agent_unavailable")
    await turn.line.closed.wait()


async def test_an_agent_that_took_the_turn_has_all_the_time_there_is(make_house: Callable[..., Any]) -> None:
    house = make_house(deadlines=Deadlines(stalled=0, idle=0))
    session_id = await house.create(owner="ann")
    turn = await running(house, session_id)
    assert (await house.ask(session_id, Describe(ANN)))["turn"]["state"] == "running"
    await house.pass_time(86400, step=600)
    turn.settle()
    await house.settle()
    assert only_end(house, session_id)["outcome"] == "completed"


async def test_silence_is_told_then_cancelled_and_an_agent_that_still_hangs_is_cut(house: Any, session_id: str) -> None:
    turn = await running(house, session_id)
    await house.pass_time(44, step=44)
    assert records(house, session_id, "turn.stalled") == []
    await house.pass_time(1, step=1)
    ((_, stalled),) = records(house, session_id, "turn.stalled")
    assert stalled["silent"] == 45
    assert (await house.ask(session_id, Describe(ANN)))["turn"]["stalled"] is True
    await house.pass_time(254, step=254)
    assert not turn.cancelled.is_set()
    await house.pass_time(1, step=1)
    assert turn.cancelled.is_set()
    ((_, cancelling),) = records(house, session_id, "turn.cancelling")
    assert cancelling["deadline"] == "idle"
    await house.pass_time(CANCEL_SECONDS, step=1)
    end = only_end(house, session_id)
    assert (end["outcome"], end["deadline"], end["forced"]) == ("timed_out", "idle", True)
    await turn.line.closed.wait()


async def test_a_silent_agent_that_obeys_the_cancel_is_not_cut_and_the_turn_has_timed_out_all_the_same(
    house: Any, session_id: str
) -> None:
    turn = await running(house, session_id)
    await house.pass_time(300, step=10)
    assert turn.cancelled.is_set()
    turn.settle("cancelled")
    await house.settle()
    end = only_end(house, session_id)
    assert (end["outcome"], end["deadline"], "forced" in end) == ("timed_out", "idle", False)
    assert not turn.line.closed.is_set()


async def test_each_word_of_the_agent_begins_the_silence_anew(house: Any, session_id: str) -> None:
    turn = await running(house, session_id)
    for _ in range(20):
        await house.pass_time(40, step=20)
        turn.say("still here ")
        await house.settle()
    assert records(house, session_id, "turn.stalled", "turn.cancelling") == []


async def test_an_agent_that_talks_on_although_it_was_cancelled_is_cut_sooner(house: Any, session_id: str) -> None:
    turn = await running(house, session_id)
    await house.ask(session_id, Cancel(ANN, turn.prompt.turn_id))
    for _ in range(round(TALK_SECONDS / 0.4) + 1):
        turn.say("and on ")
        await house.pass_time(0.4)
    end = only_end(house, session_id)
    assert (end["outcome"], end["by"], end["forced"], end["partial"]) == ("cancelled", "ann", True, True)
    await turn.line.closed.wait()
    await house.start(session_id, by=ANN)
    assert (await house.agent.turn()).line is not turn.line


async def test_a_question_waits_a_day_for_its_answer_and_expires(house: Any, session_id: str) -> None:
    turn, approval_id = await asking(house, session_id)
    ((_, requested),) = records(house, session_id, "approval.requested")
    assert requested["expires_at"] == "2023-11-15T22:13:20.000Z"
    await house.pass_time(86399, step=86399)
    assert records(house, session_id, "approval.resolved", "turn.stalled") == []
    await house.pass_time(1, step=1)
    assert await turn.answers.get() == ("key", None)
    ((_, resolved),) = records(house, session_id, "approval.resolved")
    assert resolved["outcome"] == "expired"
    turn.settle("cancelled")
    await house.settle()
    assert only_end(house, session_id)["deadline"] == "approval"
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, Answer(ANN, approval_id, "yes"))
    assert refusal.value.code == "already_resolved"


async def test_a_turn_that_waits_behind_others_for_an_hour_is_never_given_to_the_agent(
    make_house: Callable[..., Any],
) -> None:
    house = make_house(deadlines=Deadlines(stalled=0, idle=0))
    session_id = await house.create(owner="ann")
    turn = await running(house, session_id)
    await house.start(session_id, by=ANN)
    await house.pass_time(3599, step=3599)
    assert records(house, session_id, "turn.ended") == []
    await house.pass_time(1, step=1)
    end = only_end(house, session_id)
    assert (end["outcome"], end["deadline"]) == ("timed_out", "queue")
    turn.settle()
    await house.settle()
    assert house.agent.given.empty()


async def test_a_turn_may_have_a_deadline_as_a_whole(make_house: Callable[..., Any]) -> None:
    house = make_house(deadlines=Deadlines(turn=90))
    session_id = await house.create(owner="ann")
    turn = await running(house, session_id)
    for _ in range(3):
        await house.pass_time(30, step=30)
        turn.say("on and on ")
    await house.settle()
    assert turn.cancelled.is_set()
    turn.settle()
    await house.settle()
    assert only_end(house, session_id)["deadline"] == "turn"


async def test_stray_output_after_the_settle_is_waited_for_and_then_comes_too_late(house: Any, session_id: str) -> None:
    turn = await running(house, session_id)
    turn.settle(last=False)
    turn.say("stray")
    await house.settle()
    assert records(house, session_id, "turn.ended") == []
    await house.pass_time(0.2, step=0.2)
    turn.say("late")
    await house.settle()
    kinds = [kind for kind, _ in records(house, session_id)]
    assert kinds[-4:] == ["message.delta", "message.completed", "turn.ended", "activity"]
    assert only_end(house, session_id)["outcome"] == "completed"


async def test_a_link_that_is_down_is_told_and_one_that_comes_back_goes_on(house: Any, session_id: str) -> None:
    turn = await running(house, session_id)
    turn.emit(LinkStalled(turn.prompt.turn_id, "the line is dead"))
    await house.settle()
    ((_, stalled),) = records(house, session_id, "turn.stalled")
    assert stalled == {"link": "down", "reason": "the line is dead"}
    turn.settle()
    await house.settle()
    assert only_end(house, session_id)["outcome"] == "completed"


async def test_an_agent_that_dies_with_a_question_open_loses_the_turn_and_the_question_is_void(
    house: Any, session_id: str
) -> None:
    turn, approval_id = await asking(house, session_id)
    turn.die("the agent was killed by signal 9")
    await house.settle()
    ((_, resolved),) = records(house, session_id, "approval.resolved")
    assert (resolved["approval_id"], resolved["outcome"]) == (approval_id, "void")
    assert only_end(house, session_id)["reason"] == "the agent was killed by signal 9"
    assert (await house.ask(session_id, Describe(ANN)))["approvals"] == []


async def test_of_two_who_answer_at_once_one_wins_and_the_other_learns_who(house: Any, session_id: str) -> None:
    turn, approval_id = await asking(house, session_id)
    await house.ask(session_id, Share(ANN, "bob", "member"))
    first = house.ask_later(session_id, Answer(BOB, approval_id, "no"))
    second = house.ask_later(session_id, Answer(ANN, approval_id, "yes"))
    assert (await first)["resolved_by"] == "bob"
    with pytest.raises(BrokerError, match="answered no by bob") as refusal:
        await second
    assert refusal.value.code == "already_resolved"
    assert await turn.answers.get() == ("key", "no")
    assert turn.answers.empty()


async def test_a_turn_that_ended_leaves_no_timer_that_does_anything(house: Any, session_id: str) -> None:
    turn = await running(house, session_id)
    turn.settle()
    await house.settle()
    before = records(house, session_id)
    await house.pass_time(400, step=100)
    assert records(house, session_id) == before


# -- everything open when the broker is killed ------------------------------------------------------------


async def test_a_restart_with_everything_open_ends_what_ran_and_goes_on_with_what_waited_in_its_order(
    house: Any, session_id: str, make_house: Callable[..., Any]
) -> None:
    turn, approval_id = await asking(house, session_id)
    turn.report("usage.updated", b'{"tokens":7}')
    turn.say("half")
    later = await house.start(session_id, "later", by=ANN)
    urgent = await house.start(session_id, "urgent", by=ANN, if_busy="interrupt")
    await turn.cancelled.wait()
    await house.settle()
    await house.kill()
    house = make_house()
    await house.wake()
    await house.settle()
    end = only_end(house, session_id)
    assert (end["outcome"], end["by"], end["forced"], end["partial"]) == ("cancelled", "ann", True, True)
    assert end["usage"] == {"tokens": 7}
    resolved = [data for _, data in records(house, session_id, "approval.resolved")]
    assert [data["approval_id"] for data in resolved] == [approval_id]
    for accepted in (urgent, later):
        turn = await house.agent.turn()
        assert turn.prompt.turn_id == accepted["turn_id"]
        turn.settle()
    await house.settle()
    ended = [r.turn_id for r in house.disk.records(f"session:{session_id}") if r.kind == "turn.ended"]
    assert len(ended) == len(set(ended)) == 3
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, Answer(ANN, approval_id, "yes"))
    assert refusal.value.code == "already_resolved"


async def test_questions_are_found_although_a_flood_came_after_them(
    house: Any, session_id: str, make_house: Callable[..., Any]
) -> None:
    turn, approval_id = await asking(house, session_id)
    for number in range(3000):
        turn.report("tool.updated", b'{"tool_id":"%d"}' % number)
    await house.settle()
    await house.kill()
    house = make_house()
    await house.wake()
    await house.settle()
    ((_, resolved),) = records(house, session_id, "approval.resolved")
    assert (resolved["approval_id"], resolved["outcome"]) == (approval_id, "void")
    assert only_end(house, session_id)["outcome"] == "lost"
