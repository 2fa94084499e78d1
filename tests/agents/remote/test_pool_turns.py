"""Turns at the agents of a pool: given out by load, answered, cancelled and cut (PROTOCOL section 4)."""

from typing import Any

import pytest

from broker.agents.port import Configuration, Opening
from broker.agents.remote.frames import Running
from broker.agents.remote.member import LET_GO
from broker.errors import BrokerError, CloseCode
from broker.messages import (
    AgentLost,
    AgentRecord,
    ApprovalRequested,
    Prompt,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)

REATTACH = 30.0


# -- turns -------------------------------------------------------------------------------------------


def test_an_agent_is_welcomed_and_given_turns(floor: Any) -> None:
    far, session = floor.agent(), floor.session()
    assert far.told[0]["type"] == "welcome"
    assert far.told[0]["data"] == {"agent": "coder", "heartbeat": 15.0}
    session.start("t1", "hello")
    assert far.heard() == [
        (
            "turn_start",
            {
                "turn_id": "t1",
                "session_id": "s1",
                "content": "hello",
                "messages": [],
                "variables": {},
                "workspace_dir": "/w",
            },
        )
    ]


def test_what_an_agent_says_of_its_turn_is_heard_in_order_until_its_end(floor: Any) -> None:
    far, session = floor.started()
    far.say("turn_accepted", turn_id="t1", seq=1)
    far.say("delta", turn_id="t1", text="a", seq=2)
    far.say("tool", turn_id="t1", tool_id="x", seq=3)
    far.say("weather", turn_id="t1", seq=4)
    far.say("turn_end", turn_id="t1", stop_reason="end_turn", seq=5)
    assert session.news() == [
        TurnTaken("t1"),
        TextDelta("t1", "a"),
        AgentRecord("t1", "tool.started", b'{"tool_id":"x"}'),
        AgentRecord("t1", "vendor.weather", b'{"turn_id": "t1", "seq": 4}'),
        TurnSettled("t1", "end_turn"),
    ]
    session.start("t2")
    assert far.turns() == ["t2"]


def test_a_line_has_one_turn_at_a_time(floor: Any) -> None:
    _, session = floor.started(capacity=2)
    session.start("t2")
    (event,) = session.news()
    assert isinstance(event, TurnFailed)
    assert (event.turn_id, event.code) == ("t2", "busy")


def test_a_question_is_asked_and_answered(floor: Any) -> None:
    far, session = floor.started()
    far.say("approval_request", turn_id="t1", approval_id="q", title="?", options=[{"id": "y"}], seq=1)
    (event,) = session.news()
    assert isinstance(event, ApprovalRequested)
    session.line.answer_approval("t1", event.key, "y")
    session.line.answer_approval("t1", "q2", None)
    session.line.answer_approval("other", "q3", "y")
    assert far.heard() == [
        ("approval_answer", {"turn_id": "t1", "approval_id": "q", "option_id": "y"}),
        ("approval_answer", {"turn_id": "t1", "approval_id": "q2", "option_id": None}),
    ]


def test_a_cancel_reaches_the_agent_once_and_its_end_ends_the_turn(floor: Any) -> None:
    far, session = floor.started()
    session.line.cancel_turn("other")
    session.line.cancel_turn("t1")
    session.line.cancel_turn("t1")
    assert far.heard() == [("turn_cancel", {"turn_id": "t1"})]
    far.say("turn_end", turn_id="t1", stop_reason="cancelled")
    assert session.news() == [TurnSettled("t1", "cancelled")]


@pytest.mark.parametrize(
    "odd",
    [{"stop_reason": None}, {"stop_reason": 0}, {"usage": [1]}, {"seq": 0}, {"seq": 2.5}],
)
def test_an_end_that_cannot_be_read_is_an_end(floor: Any, odd: dict[str, Any]) -> None:
    far, session = floor.started()
    far.say("turn_end", **{"turn_id": "t1", "seq": 1} | odd)
    assert session.news() == [TurnSettled("t1", "unknown")]
    assert far.refused().startswith("invalid_")
    session.start("t2")
    assert far.turns() == ["t2"]


@pytest.mark.parametrize("odd", [{"code": 500}, {"message": None}, {"seq": "1"}])
def test_an_error_that_cannot_be_read_is_an_error(floor: Any, odd: dict[str, Any]) -> None:
    far, session = floor.started()
    far.say("turn_error", **{"turn_id": "t1", "code": "failed", "message": "No."} | odd)
    assert session.news() == [TurnFailed("t1", "agent_unavailable", "The agent's last word cannot be read.")]
    assert far.refused() == "invalid_message"
    session.start("t2")
    assert far.turns() == ["t2"]


def test_an_end_that_cannot_be_read_ends_no_turn_of_another_agent(floor: Any) -> None:
    far, session = floor.started(instance="a")
    other = floor.agent(instance="b")
    for about in ({"turn_id": "t1"}, {"turn_id": "made up"}, {"turn_id": 1}, {}):
        other.heard()
        other.say("turn_end", stop_reason=None, **about)
        assert other.refused() == "invalid_message"
    assert session.news() == []
    assert list(far.member.jobs) == ["t1"]


async def test_a_cut_turn_frees_its_place_by_an_end_that_cannot_be_read(floor: Any) -> None:
    far, session = floor.started()
    await session.line.close()
    far.say("turn_end", turn_id="t1", stop_reason=None)
    assert session.news() == []
    assert floor.capacities == [1, 0, 1]


def test_there_is_nothing_to_configure(floor: Any) -> None:
    told: list[BrokerError | None] = []
    floor.session().line.configure(Configuration(mode="fast"), told.append)
    assert told[0] is not None
    assert told[0].code == "not_found"


# -- sharing the load --------------------------------------------------------------------------------


def test_turns_go_where_there_is_most_room(floor: Any) -> None:
    small, large = floor.agent(capacity=1, instance="a"), floor.agent(capacity=4, instance="b")
    for number in range(5):
        floor.session(f"s{number}").start(f"t{number}")
    assert (len(small.turns()), len(large.turns())) == (1, 4)


def test_agents_with_the_same_room_take_turns(floor: Any) -> None:
    one, two = floor.agent(instance="a"), floor.agent(instance="b")
    session = floor.session()
    for number in range(4):
        session.start(f"t{number}")
        for far in (one, two):
            if f"t{number}" in far.member.jobs:
                far.say("turn_end", turn_id=f"t{number}")
    assert (one.turns(), two.turns()) == (["t0", "t2"], ["t1", "t3"])


def test_a_turn_too_many_waits_for_a_place(floor: Any) -> None:
    far, _ = floor.started()
    second, third = floor.session("s2"), floor.session("s3")
    second.start("t2")
    third.start("t3")
    assert far.turns() == []
    far.say("turn_end", turn_id="t1")
    assert far.turns() == ["t2"]
    other = floor.agent(instance="j")
    assert other.turns() == ["t3"]


def test_a_turn_waits_while_its_agent_has_not_read_those_before(floor: Any) -> None:
    far, session = floor.agent(capacity=2), floor.session()
    far.full = True
    session.start("t1")
    assert far.turns() == []
    far.full = False
    far.on_room()
    assert far.turns() == ["t1"]


@pytest.mark.parametrize("waits", [False, True])
def test_a_turn_that_cannot_be_written_fails_alone(floor: Any, waits: bool) -> None:
    """It waits for a place that another session's agent frees: that one must not pay."""
    far, session = floor.started(capacity=1 if waits else 2)
    broken: list[Any] = []
    line = floor.pool.open(Opening("s2"), broken.append)
    line.start_turn(Prompt("s2", "t2", b'"x"', workspace_dir="\udcff"))
    far.say("turn_end", turn_id="t1")
    assert session.news() == [TurnSettled("t1", "end_turn")]
    (event,) = broken
    assert (event.turn_id, event.code) == ("t2", "internal")
    session.start("t3")
    assert far.turns() == ["t3"]


def test_a_turn_that_waits_for_a_place_is_cancelled_at_once(floor: Any) -> None:
    session = floor.session()
    session.start("t1")
    session.line.cancel_turn("t1")
    assert session.news() == [TurnSettled("t1", "cancelled")]
    assert floor.agent().turns() == []


async def test_a_turn_that_waits_for_a_place_is_not_given_out_once_its_line_was_cut(floor: Any) -> None:
    session = floor.session()
    session.start("t1")
    await session.line.close()
    assert floor.agent().turns() == []
    assert session.news() == []


def test_the_capacity_is_that_of_the_agents_there_are(floor: Any) -> None:
    assert floor.pool.capacity == 0
    one = floor.agent(capacity=2, instance="a")
    floor.agent(capacity=3, instance="b")
    floor.drop(one)
    assert floor.capacities == [2, 5, 3]


def test_a_turn_that_waits_for_its_agent_takes_no_place_of_another(floor: Any) -> None:
    """Two turns were counted; one of them is nowhere, so the other agent's place may be given to a third."""
    far, _ = floor.started(instance="a")
    floor.agent(instance="b")
    floor.drop(far)
    assert floor.pool.capacity == 2
    floor.clock.advance(REATTACH)
    assert floor.pool.capacity == 1
    assert floor.capacities == [1, 2, 1]


def test_an_agent_that_drains_ends_its_turns_and_gets_no_more(floor: Any) -> None:
    far, session = floor.started(capacity=3, instance="a")
    far.say("drain")
    floor.session("s2").start("t2")
    assert far.turns() == []
    assert floor.pool.capacity == 1
    other = floor.agent(instance="b")
    assert other.turns() == ["t2"]
    far.say("turn_end", turn_id="t1")
    assert session.news() == [TurnSettled("t1", "end_turn")]
    assert floor.capacities == [3, 1, 2, 1]


def test_a_turn_that_crosses_its_agents_leave_goes_to_another(floor: Any) -> None:
    far, session = floor.started(instance="a")
    far.say("drain")
    far.say("turn_error", turn_id="t1", code="unavailable", message="The worker is stopping.")
    assert floor.pool.capacity == 0
    floor.drop(far, clean=True)
    assert session.news() == []
    other = floor.agent(instance="b")
    assert other.turns() == ["t1"]
    other.say("turn_end", turn_id="t1")
    assert session.news() == [TurnSettled("t1", "end_turn")]


@pytest.mark.parametrize("begun", ["accepted", "cancelled", "broken", "not leaving"])
def test_any_other_error_ends_the_turn(floor: Any, begun: str) -> None:
    far, session = floor.started(instance="a")
    floor.agent(instance="b")
    if begun == "accepted":
        far.say("turn_accepted", turn_id="t1")
    elif begun == "cancelled":
        session.line.cancel_turn("t1")
    if begun != "not leaving":
        far.say("drain")
    far.say("turn_error", turn_id="t1", code="failed" if begun == "broken" else "unavailable", message="No.")
    assert [type(event) for event in session.news()][-1] is TurnFailed


def test_there_is_an_end_to_how_many_agents_a_profile_takes(floor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.agents.remote.pool.MEMBERS", 1)
    floor.agent(instance="a")
    with pytest.raises(BrokerError) as refused:
        floor.agent(instance="b")
    assert refused.value.code == "overloaded"


# -- lines that are cut ------------------------------------------------------------------------------


async def test_a_cut_turn_is_asked_to_stop_and_heard_no_more(floor: Any) -> None:
    far, session = floor.started()
    await session.line.close()
    assert far.heard() == [("turn_cancel", {"turn_id": "t1"})]
    far.say("delta", turn_id="t1", text="x", seq=1)
    far.say("variables", turn_id="t1", session_id="s1", set={}, seq=2)
    far.say("turn_end", turn_id="t1", seq=3)
    assert (far.heard(), session.news()) == ([], [])


async def test_a_cut_turn_keeps_its_place_until_its_agent_lets_go_of_it(floor: Any) -> None:
    far, session = floor.started()
    await session.line.close()
    assert floor.pool.capacity == 0
    floor.session("s2").start("t2")
    far.heard()
    far.say("turn_error", turn_id="t1", code="x", message="y")
    assert far.turns() == ["t2"]
    assert floor.capacities == [1, 0, 1]


async def test_an_agent_that_lets_go_of_nothing_gets_its_place_back_after_a_while(floor: Any) -> None:
    far, session = floor.started()
    await session.line.close()
    floor.session("s2").start("t2")
    far.heard()
    floor.clock.advance(LET_GO - 1)
    assert far.turns() == []
    floor.clock.advance(1)
    assert far.turns() == ["t2"]
    assert floor.pool.capacity == 1


async def test_an_agent_gets_no_turn_of_a_session_whose_cut_one_it_still_runs(floor: Any) -> None:
    far, session = floor.started(capacity=2)
    await session.line.close()
    again, other = floor.session("s1"), floor.session("s2")
    again.start("t2")
    other.start("t3")
    assert far.turns() == ["t3"]
    far.say("turn_end", turn_id="t1")
    assert far.turns() == ["t2"]


async def test_a_session_goes_on_at_another_agent_meanwhile(floor: Any) -> None:
    _, session = floor.started(instance="a")
    other = floor.agent(instance="b")
    await session.line.close()
    floor.session("s1").start("t2")
    assert other.turns() == ["t2"]


async def test_closing_twice_or_after_the_end_says_nothing(floor: Any) -> None:
    far, session = floor.started()
    far.say("turn_end", turn_id="t1")
    far.heard()
    await session.line.close()
    await session.line.close()
    assert far.heard() == []
    assert floor.pool.capacity == 1


# -- backpressure and the end ------------------------------------------------------------------------


def test_an_agent_is_not_read_while_any_of_its_sessions_is_behind(floor: Any) -> None:
    far, one = floor.started(capacity=2)
    two = floor.session("s2")
    two.start("t2")
    one.line.pause()
    two.line.pause()
    two.line.resume()
    assert far.paused
    one.line.resume()
    assert not far.paused


def test_a_turn_that_ends_holds_up_nobody(floor: Any) -> None:
    far, session = floor.started()
    session.line.pause()
    far.say("turn_end", turn_id="t1")
    assert not far.paused


async def test_nor_does_one_that_is_cut(floor: Any) -> None:
    far, session = floor.started()
    session.line.pause()
    await session.line.close()
    assert not far.paused


def test_a_session_that_is_behind_holds_up_whoever_gets_its_turn(floor: Any) -> None:
    session = floor.session()
    session.start("t1")
    session.line.pause()
    far = floor.agent()
    assert far.paused
    floor.drop(far)
    back = floor.agent(Running("t1"))
    assert back.paused
    back.say("turn_end", turn_id="t1")
    session.start("t2")
    assert back.paused
    session.line.resume()
    assert not back.paused


def test_hanging_up_closes_all_links_and_ends_all_turns(floor: Any) -> None:
    far, one = floor.started(instance="a")
    away = floor.agent(instance="b")
    two = floor.session("s2")
    two.start("t2")
    floor.drop(away)
    two.news()
    three = floor.session("s3")
    three.start("t3")
    floor.pool.hang_up(CloseCode.SERVICE_RESTART)
    assert far.closed == 1012
    for session, turn_id in ((one, "t1"), (two, "t2"), (three, "t3")):
        assert session.news() == [AgentLost("the broker stopped while the turn was running", turn_id)]
    assert floor.pool.capacity == 0
    assert floor.clock.waiting == 0
    with pytest.raises(BrokerError, match="stopping"):
        floor.agent()
