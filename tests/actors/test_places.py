"""Agents that are few: turns of many sessions wait for a place, in order, visibly, and not for ever."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.actors.agent_mail import CutAgent
from broker.actors.supervisor import RESTARTS
from broker.config.profiles import Deadlines
from broker.messages import Principal
from broker.operations import Cancel, Close, Delete, Describe, Drop
from broker.testing import FakeAgent

ANN = Principal("ann", frozenset())


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent(capacity=1)


@pytest.fixture
async def house(make_house: Callable[..., Any], agent: FakeAgent) -> Any:
    return make_house(agent=agent)


@pytest.fixture
async def sessions(house: Any) -> list[str]:
    return [await house.create(owner="ann") for _ in range(3)]


def kinds(house: Any, session_id: str) -> list[str]:
    return [record.kind for record in house.disk.records(f"session:{session_id}")]


def outcomes(house: Any, session_id: str) -> list[str]:
    held = house.disk.records(f"session:{session_id}")
    return [msgspec.json.decode(r.data)["outcome"] for r in held if r.kind == "turn.ended"]


async def state(house: Any, session_id: str) -> str:
    """Return how the session's one turn stands."""
    view = await house.ask(session_id, Describe(ANN))
    (turn,) = [turn for turn in (view["turn"], *view["queue"]) if turn is not None]
    return str(turn["state"])


async def test_turns_of_several_sessions_share_the_places_in_the_order_of_their_coming(
    house: Any, sessions: list[str]
) -> None:
    started = [await house.start(session_id, by=ANN) for session_id in sessions]
    assert [accepted["status"] for accepted in started] == ["queued"] * 3
    first = await house.agent.turn()
    await house.settle()
    assert [await state(house, session_id) for session_id in sessions] == ["dispatching", "queued", "queued"]
    assert "turn.started" not in kinds(house, sessions[1])
    for accepted in started[1:]:
        assert house.agent.given.empty()
        first.settle()
        first = await house.agent.turn()
        assert first.prompt.turn_id == accepted["turn_id"]
    first.settle()
    await house.settle()
    assert [outcomes(house, session_id) for session_id in sessions] == [["completed"]] * 3


async def test_the_next_turn_of_a_session_stands_behind_those_of_others(house: Any, sessions: list[str]) -> None:
    for session_id in (sessions[0], sessions[0], sessions[1]):
        await house.start(session_id, by=ANN)
    order = []
    for _ in range(3):
        turn = await house.agent.turn()
        order.append(turn.prompt.session_id)
        turn.settle()
    assert order == [sessions[0], sessions[1], sessions[0]]


@pytest.mark.parametrize("leave", ["cancel", "drop", "close", "delete"])
async def test_a_turn_that_does_not_want_its_place_any_more_leaves_it_to_others(
    house: Any, sessions: list[str], leave: str
) -> None:
    await house.start(sessions[0], by=ANN)
    first = await house.agent.turn()
    gone = (await house.start(sessions[1], by=ANN))["turn_id"]
    await house.start(sessions[2], by=ANN)
    operations = {"cancel": Cancel(ANN, gone), "drop": Drop(ANN, gone), "close": Close(ANN), "delete": Delete(ANN)}
    await house.ask(sessions[1], operations[leave])
    await house.settle()
    first.settle()
    assert (await house.agent.turn()).prompt.session_id == sessions[2]
    assert house.agent.given.empty()


async def test_a_place_granted_to_a_turn_that_was_cancelled_meanwhile_is_given_back(
    house: Any, sessions: list[str]
) -> None:
    await house.start(sessions[0], by=ANN)
    first = await house.agent.turn()
    late = await house.start(sessions[1], by=ANN)
    await house.start(sessions[2], by=ANN)
    house.disk.gate.clear()
    first.settle()
    cancel = house.ask_later(sessions[1], Cancel(ANN, late["turn_id"]))
    await house.tick(20)
    house.disk.gate.set()
    assert (await cancel)["outcome"] == "cancelled"
    assert (await house.agent.turn()).prompt.session_id == sessions[2]
    assert "turn.started" not in kinds(house, sessions[1])


async def test_an_answer_to_an_ask_that_was_withdrawn_starts_nothing(house: Any, sessions: list[str]) -> None:
    """While the bridge is behind, a turn asks, stands back and asks again; its first place is another's by then."""
    house.bridge.hold()
    first = await house.start(sessions[0], by=ANN)
    other = await house.start(sessions[1], by=ANN)
    urgent = await house.start(sessions[0], by=ANN, if_busy="interrupt")
    await house.ask(sessions[0], Drop(ANN, urgent["turn_id"]))
    house.bridge.release()
    turn = await house.agent.turn()
    await house.settle()
    assert turn.prompt.turn_id == other["turn_id"]
    assert house.agent.given.empty()
    turn.settle()
    assert (await house.agent.turn()).prompt.turn_id == first["turn_id"]


@pytest.mark.parametrize("end", ["die", "fail", "force"])
async def test_a_place_is_free_again_however_the_turn_ended(house: Any, sessions: list[str], end: str) -> None:
    accepted = await house.start(sessions[0], by=ANN)
    turn = await house.agent.turn()
    await house.start(sessions[1], by=ANN)
    if end == "force":
        await house.ask(sessions[0], Cancel(ANN, accepted["turn_id"]))
        await house.pass_time(11, step=11)
    else:
        getattr(turn, end)()
    assert (await house.agent.turn()).prompt.session_id == sessions[1]


async def test_a_session_that_fails_frees_its_place_and_asks_again_for_what_waits(
    house: Any, sessions: list[str]
) -> None:
    for session_id in (sessions[0], sessions[0], sessions[1]):
        await house.start(session_id, by=ANN)
    await house.agent.turn()
    house.place(f"session:{sessions[0]}").tell(Cancel(ANN, "unknown"))  # nobody asks, so nobody can be refused
    second = await house.agent.turn()
    assert second.prompt.session_id == sessions[1]
    await house.settle()
    assert outcomes(house, sessions[0]) == ["lost"]
    second.settle()
    assert (await house.agent.turn()).prompt.session_id == sessions[0]


async def test_while_there_is_no_agent_a_turn_waits_for_one_as_long_as_it_may_take_to_start(
    make_house: Callable[..., Any], agent: FakeAgent
) -> None:
    agent.capacity = 0
    house = make_house(agent=agent, deadlines=Deadlines(start=30))
    first, second = [await house.create(owner="ann") for _ in range(2)]
    await house.start(first, by=ANN)
    await house.pass_time(20, step=20)
    await house.start(second, by=ANN)
    await house.pass_time(10, step=10)
    assert outcomes(house, first) == ["failed"]
    assert "turn.started" not in kinds(house, first)
    agent.capacity = 1
    assert (await house.agent.turn()).prompt.session_id == second


async def test_a_turn_that_waits_for_busy_agents_has_until_the_queue_s_deadline(
    make_house: Callable[..., Any], agent: FakeAgent
) -> None:
    house = make_house(agent=agent, deadlines=Deadlines(start=30, queue=100, stalled=0, idle=0))
    first, second = [await house.create(owner="ann") for _ in range(2)]
    await house.start(first, by=ANN)
    (await house.agent.turn()).take()
    await house.start(second, by=ANN)
    await house.pass_time(99, step=99)
    assert outcomes(house, second) == []
    await house.pass_time(1, step=1)
    assert outcomes(house, second) == ["timed_out"]


async def test_a_bridge_that_fails_loses_what_ran_and_those_who_waited_come_next(
    house: Any, sessions: list[str]
) -> None:
    for session_id in sessions:
        await house.start(session_id, by=ANN)
    await house.agent.turn()
    await house.settle()
    house.bridge.tell(CutAgent([]))  # type: ignore[arg-type]
    turn = await house.agent.turn()
    assert turn.prompt.session_id == sessions[1]
    assert outcomes(house, sessions[0]) == ["lost"]
    turn.settle()
    assert (await house.agent.turn()).prompt.session_id == sessions[2]


async def test_a_turn_whose_bridge_stays_dead_fails_instead_of_waiting_for_a_place(
    house: Any, sessions: list[str]
) -> None:
    for _ in range(RESTARTS + 1):
        house.bridge.tell(CutAgent([]))  # type: ignore[arg-type]
        await house.pass_time(2, step=1)
    assert not house.bridge.is_alive()
    await house.start(sessions[0], by=ANN)
    await house.settle()
    assert outcomes(house, sessions[0]) == ["failed"]


async def test_after_a_restart_what_waited_for_a_place_waits_again(
    house: Any, sessions: list[str], make_house: Callable[..., Any]
) -> None:
    for session_id in sessions:
        await house.start(session_id, by=ANN)
    await house.agent.turn()
    await house.settle()
    await house.kill()
    house = make_house(agent=FakeAgent(capacity=1))
    await house.wake()
    served = []
    for _ in range(2):
        turn = await house.agent.turn()
        served.append(turn.prompt.session_id)
        assert house.agent.given.empty()
        turn.settle()
    assert sorted(served) == sorted(sessions[1:])
    await house.settle()
    assert outcomes(house, sessions[0]) == ["lost"]
