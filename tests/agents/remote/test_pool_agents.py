"""Agents of a pool that send what they should not: told to them alone, and nobody else pays."""

from typing import Any

import pytest

from broker.agents.remote.frames import Running
from broker.agents.remote.member import ERRORS_PER_MINUTE
from broker.messages import (
    TextDelta,
    TurnSettled,
    VariablesSet,
)

# -- agents that misbehave ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("delta", {"turn_id": "t1", "text": "x"}),
        ("turn_end", {"turn_id": "t1"}),
        ("turn_end", {"turn_id": "unheard of"}),
        ("variables", {"session_id": "s1", "set": {}}),
        ("variables", {"session_id": "s2", "turn_id": "t1", "set": {}}),
        ("weather", {"turn_id": "t1"}),
    ],
)
def test_another_agents_turn_cannot_be_touched(floor: Any, kind: str, data: Any) -> None:
    _, session = floor.started(instance="a")
    other = floor.agent(instance="b")
    floor.session("s2").start("t2")
    other.heard()
    other.say(kind, **data)
    assert other.refused() == "forbidden"
    assert session.news() == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"{", "invalid_json"),
        (b'"x"', "invalid_message"),
        (b'{"type":"delta","data":{}}', "invalid_message"),
        (b'{"type":"delta","data":{"turn_id":"t1"}}', "invalid_message"),
        (b'{"type":"delta","data":{"turn_id":"t1","text":"x","seq":0}}', "invalid_message"),
        (b'{"type":"delta","data":{"turn_id":"t1","text":"x","kind":"shout"}}', "invalid_message"),
        (b'{"type":"delta","data":[]}', "invalid_message"),
        (b'{"type":"hello","data":{"agent":"coder"}}', "invalid_message"),
        (b'{"type":"weather","data":[]}', "invalid_message"),
    ],
)
def test_garbage_is_told_to_its_sender_and_ends_nothing(floor: Any, frame: bytes, code: str) -> None:
    far, session = floor.started()
    far.member.feed(frame)
    assert far.refused() == code
    assert (session.news(), far.closed) == ([], None)


def test_an_error_says_which_frame_it_is_about(floor: Any) -> None:
    far, _ = floor.started()
    far.say("delta", turn_id="t1")
    ((_, data),) = far.heard()
    assert far.errors == {"invalid_message": 1}
    assert data["refers_to"] == "f1"
    assert data["field"] == "$.data"


def test_what_is_for_nobody_is_passed_over_without_a_word(floor: Any) -> None:
    far, session = floor.started()
    for kind in ("pong", "error", "weather"):
        far.say(kind, text="x")
    assert (far.heard(), session.news()) == ([], [])


def test_a_ping_is_answered(floor: Any) -> None:
    far, _ = floor.started()
    far.say("ping")
    assert far.heard() == [("pong", {})]


def test_too_much_garbage_ends_the_link(floor: Any) -> None:
    far, _ = floor.started()
    for _ in range(ERRORS_PER_MINUTE):
        far.say("delta")
    assert far.closed is None
    far.say("delta")
    assert far.closed == 1008


def test_garbage_now_and_then_does_not(floor: Any) -> None:
    far, _ = floor.started()
    for _ in range(3 * ERRORS_PER_MINUTE):
        far.say("delta")
        floor.clock.advance(2)
    assert far.closed is None


def test_variables_are_those_of_the_session_whose_turn_runs(floor: Any) -> None:
    far, session = floor.started()
    far.say("variables", session_id="s1", set={"a": 1})
    far.say("variables", session_id="s1", turn_id="t1", seq=1, set={"b": None})
    assert session.news() == [VariablesSet("t1", b'{"a":1}'), VariablesSet("t1", b'{"b":null}')]
    far.say("turn_end", turn_id="t1")
    far.say("variables", session_id="s1", set={"a": 2})
    assert far.refused() == "forbidden"


def test_of_two_turns_of_a_session_the_one_that_runs_sets_variables(floor: Any) -> None:
    far, session = floor.started()
    far.say("turn_end", turn_id="t1", seq=1)
    session.start("t2")
    floor.drop(far)
    session.news()
    back = floor.agent(Running("t1", 1), Running("t2", 0))
    back.say("variables", session_id="s1", set={"a": 1})
    assert VariablesSet("t2", b'{"a":1}') in session.news()


def test_a_late_word_is_passed_on_as_such_and_a_second_end_too(floor: Any) -> None:
    far, session = floor.started()
    far.say("turn_end", turn_id="t1")
    session.start("t2")
    session.news()
    far.say("delta", turn_id="t1", text="late")
    far.say("turn_end", turn_id="t1")
    assert session.news() == [TextDelta("t1", "late"), TurnSettled("t1", "end_turn")]
    far.say("turn_end", turn_id="t2")
    assert session.news() == [TurnSettled("t2", "end_turn")]
