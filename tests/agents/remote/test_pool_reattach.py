"""Links that drop: turns go on exactly where they were, or are lost (PROTOCOL section 4)."""

from typing import Any

import pytest

from broker.agents.remote.frames import Running
from broker.messages import (
    AgentLost,
    AgentRecord,
    LinkStalled,
    TextDelta,
    TurnSettled,
    TurnTaken,
)

REATTACH = 30.0


# -- links that drop ---------------------------------------------------------------------------------


def test_a_turn_goes_on_where_it_was_once_its_agent_is_back(floor: Any) -> None:
    far, session = floor.started()
    far.say("delta", turn_id="t1", text="a", seq=1)
    floor.drop(far)
    assert session.news() == [TextDelta("t1", "a"), LinkStalled("t1", "the connection broke")]
    floor.clock.advance(REATTACH - 1)
    back = floor.agent(Running("t1", 3))
    assert back.heard() == [("turn_resume", {"turn_id": "t1", "seq": 1})]
    for seq, text in enumerate("abcd", 1):
        back.say("delta", turn_id="t1", text=text, seq=seq)
    back.say("turn_end", turn_id="t1", seq=5)
    texts = [TextDelta("t1", text) for text in "bcd"]
    assert session.news() == [TurnTaken("t1"), *texts, TurnSettled("t1", "end_turn")]
    floor.clock.advance(REATTACH)
    assert session.news() == []


def test_what_is_missing_after_a_resume_is_reported_once(floor: Any) -> None:
    far, session = floor.started()
    far.say("delta", turn_id="t1", text="a", seq=1)
    floor.drop(far)
    back = floor.agent(Running("t1", 5))
    session.news()
    back.say("delta", turn_id="t1", text="e", seq=5)
    back.say("delta", turn_id="t1", text="f", seq=6)
    hole = AgentRecord("t1", "debug", b'{"missing":[2,4]}')
    assert session.news() == [hole, TextDelta("t1", "e"), TextDelta("t1", "f")]


def test_an_agent_that_does_not_come_back_loses_its_turn(floor: Any) -> None:
    far, session = floor.started()
    floor.drop(far)
    session.news()
    floor.clock.advance(REATTACH)
    assert session.news() == [AgentLost("the connection broke, and did not come back within 30 s", "t1")]
    session.start("t2")
    assert floor.agent().turns() == ["t2"]


def test_an_agent_that_comes_back_without_its_turn_loses_it_at_once(floor: Any) -> None:
    far, session = floor.started()
    floor.drop(far)
    session.news()
    floor.agent(instance="another")
    assert session.news() == []
    floor.agent(instance="i")
    assert session.news() == [AgentLost("the agent came back without this turn", "t1")]


def test_of_agents_that_do_not_say_which_they_are_nobody_comes_back_without_a_turn(floor: Any) -> None:
    far, session = floor.started(instance=None)
    floor.drop(far)
    session.news()
    floor.agent(instance=None)
    assert session.news() == []
    back = floor.agent(Running("t1"), instance=None)
    assert session.news() == [TurnTaken("t1")]
    assert ("turn_resume", {"turn_id": "t1", "seq": 0}) in back.heard()


def test_an_agent_from_elsewhere_cannot_take_up_a_turn(floor: Any) -> None:
    far, session = floor.started(origin="alice")
    floor.drop(far)
    session.news()
    mallory = floor.agent(Running("t1"), origin="mallory")
    assert mallory.refused() == "forbidden"
    mallory.say("delta", turn_id="t1", text="x", seq=1)
    assert mallory.refused() == "forbidden"
    assert session.news() == []


def test_nor_can_a_turn_be_taken_from_an_agent_that_is_there(floor: Any) -> None:
    far, session = floor.started(instance="a")
    thief = floor.agent(Running("t1"), instance="b")
    assert thief.refused() == "forbidden"
    far.say("turn_end", turn_id="t1")
    assert session.news() == [TurnSettled("t1", "end_turn")]


def test_nor_can_one_that_waits_for_a_place(floor: Any) -> None:
    _, _ = floor.started(instance="a")
    waiting = floor.session("s2")
    waiting.start("t2")
    thief = floor.agent(Running("t2"), instance="b")
    assert [kind for kind, _ in thief.heard()] == ["error", "turn_start"]  # the turn, as to anybody, from its start
    thief.say("turn_end", turn_id="t2")
    assert waiting.news() == [TurnSettled("t2", "end_turn")]
    assert floor.pool.capacity == 2


def test_whoever_names_many_turns_of_others_is_told_so_once(floor: Any) -> None:
    far, _ = floor.started(capacity=100, instance="a")
    names = [Running("t1")]
    for number in range(2, 50):
        floor.session(f"s{number}").start(f"t{number}")
        names.append(Running(f"t{number}"))
    thief = floor.agent(*names, instance="b")
    assert thief.refused() == "forbidden"
    assert thief.errors == {"forbidden": 1}
    assert len(far.member.jobs) == 49


def test_what_an_agent_makes_up_takes_its_own_places_and_leaves_with_it(floor: Any) -> None:
    far, session = floor.started(instance="a")
    far.say("turn_end", turn_id="t1")
    session.news()
    liar = floor.agent(*[Running(f"x{number}") for number in range(2000)], Running("x0"), instance="b", origin="b")
    assert liar.heard()[-1][0] == "error"  # one of them twice
    assert floor.pool.capacity == 1
    floor.drop(liar)
    assert floor.clock.waiting == 0
    far.say("delta", turn_id="t1", text="late")
    assert session.news() == [TextDelta("t1", "late")]  # it has not been forgotten for all the others


def test_an_agent_that_is_back_before_it_was_missed_replaces_itself(floor: Any) -> None:
    far, session = floor.started()
    back = floor.agent(Running("t1"))
    assert far.closed == 4509
    assert [type(event) for event in session.news()] == [LinkStalled, TurnTaken]
    back.say("turn_end", turn_id="t1")
    far.say("delta", turn_id="t1", text="from the old link")
    assert session.news() == [TurnSettled("t1", "end_turn")]
    assert floor.pool.capacity == 1


def test_output_that_was_not_counted_cannot_go_on(floor: Any) -> None:
    far, session = floor.started()
    far.say("delta", turn_id="t1", text="a")
    floor.drop(far)
    assert session.news()[1:] == [AgentLost("the connection broke", "t1")]


def test_who_leaves_with_a_good_bye_does_not_come_back(floor: Any) -> None:
    far, session = floor.started()
    floor.drop(far, clean=True)
    assert session.news() == [AgentLost("the connection broke", "t1")]


def test_without_a_time_to_reattach_a_turn_is_lost_at_once(impatient: Any) -> None:
    far, session = impatient.started()
    impatient.drop(far)
    assert session.news() == [AgentLost("the connection broke", "t1")]


def test_what_was_said_to_an_agent_that_was_away_is_told_once_it_is_back(floor: Any) -> None:
    far, session = floor.started()
    far.say("approval_request", turn_id="t1", approval_id="q", options=[{"id": "y"}], seq=1)
    floor.drop(far)
    session.line.answer_approval("t1", "q", "y")
    session.line.cancel_turn("t1")
    back = floor.agent(Running("t1", 1))
    assert back.heard() == [
        ("turn_resume", {"turn_id": "t1", "seq": 1}),
        ("turn_cancel", {"turn_id": "t1"}),
        ("approval_answer", {"turn_id": "t1", "approval_id": "q", "option_id": "y"}),
    ]
    again = floor.agent(Running("t1", 1))
    assert len(again.heard()) == 3  # the link before may have taken all of it with it


def test_an_answer_that_may_have_been_lost_with_its_link_is_brought_again(floor: Any) -> None:
    far, session = floor.started()
    far.say("approval_request", turn_id="t1", approval_id="q", options=[{"id": "y"}], seq=1)
    session.line.answer_approval("t1", "q", "y")
    answer = ("approval_answer", {"turn_id": "t1", "approval_id": "q", "option_id": "y"})
    assert far.heard() == [answer]
    floor.drop(far)
    assert floor.agent(Running("t1", 1)).heard()[1:] == [answer]


def test_of_answers_beyond_counting_the_newest_are_brought_again(floor: Any) -> None:
    far, session = floor.started()
    for number in range(1000):
        session.line.answer_approval("t1", f"q{number}", "y")
    floor.drop(far)
    brought = [data["approval_id"] for _, data in floor.agent(Running("t1")).heard()[1:]]
    assert brought == [f"q{number}" for number in range(900, 1000)]


def test_an_agent_that_does_not_know_that_its_end_was_heard_says_it_again_and_has_its_place_back(floor: Any) -> None:
    far, session = floor.started()
    far.say("turn_end", turn_id="t1", seq=1)
    floor.drop(far)
    assert session.news() == [TurnSettled("t1", "end_turn")]
    back = floor.agent(Running("t1", 1))
    assert back.heard() == [("turn_cancel", {"turn_id": "t1"})]
    assert floor.pool.capacity == 0
    back.say("turn_end", turn_id="t1", seq=1)
    assert floor.pool.capacity == 1
    assert (back.heard(), session.news()) == ([], [])
    session.start("t2")
    assert back.turns() == ["t2"]


def test_an_end_is_heard_even_if_its_number_was_there_before(floor: Any) -> None:
    far, session = floor.started()
    far.say("delta", turn_id="t1", text="a", seq=1)
    far.say("turn_end", turn_id="t1", seq=1)
    assert session.news() == [TextDelta("t1", "a"), TurnSettled("t1", "end_turn")]
    assert floor.pool.capacity == 1


@pytest.mark.parametrize("cut", [False, True])
async def test_what_nobody_waits_for_any_more_is_stopped_and_takes_its_place_until_then(floor: Any, cut: bool) -> None:
    """What a lost turn's agent still says is late; of one that was cut nothing is heard."""
    far, session = floor.started()
    floor.drop(far)
    if cut:
        await session.line.close()
    floor.clock.advance(REATTACH)
    session.news()
    back = floor.agent(Running("t1", 4))
    assert back.heard() == [("turn_cancel", {"turn_id": "t1"})]
    assert floor.pool.capacity == 0
    back.say("delta", turn_id="t1", text="late", seq=1)
    assert session.news() == ([] if cut else [TextDelta("t1", "late")])
    back.say("turn_end", turn_id="t1", seq=2)
    assert floor.pool.capacity == 1


def test_a_turn_that_the_broker_never_heard_of_is_stopped(floor: Any) -> None:
    far = floor.agent(Running("of an earlier run", 4))
    assert far.heard() == [("turn_cancel", {"turn_id": "of an earlier run"})]
    far.say("delta", turn_id="of an earlier run", text="x", seq=5)
    far.say("turn_end", turn_id="of an earlier run")
    assert far.heard() == []
    assert floor.capacities == [1]


def test_a_link_that_drops_again_waits_anew(floor: Any) -> None:
    far, session = floor.started()
    floor.drop(far)
    floor.clock.advance(REATTACH - 1)
    back = floor.agent(Running("t1"))
    floor.drop(back)
    floor.clock.advance(REATTACH - 1)
    assert [type(event) for event in session.news()] == [LinkStalled, TurnTaken, LinkStalled]
    floor.clock.advance(1)
    assert [type(event) for event in session.news()] == [AgentLost]


def test_leaving_twice_is_leaving_once(floor: Any) -> None:
    far, session = floor.started()
    floor.drop(far)
    session.news()
    floor.drop(far)
    assert session.news() == []
