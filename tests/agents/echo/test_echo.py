"""The echo agent."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.agents.echo.agent import EchoAgent, EchoLink, chunks_of
from broker.agents.echo.link import text_of
from broker.agents.port import News, Opening, UserFeedback
from broker.errors import BrokerError
from broker.messages import AgentEvent, Prompt, TextDelta, TurnFailed, TurnSettled


class HandClock:
    """Timers that go off when told to."""

    def __init__(self) -> None:
        self.due = []

    def call_later(self, seconds: float, then: Callable[[], None]):
        timer = HandTimer(self, seconds, then)
        self.due.append(timer)
        return timer

    def ring(self):
        self.due.pop(0).then()


class HandTimer:
    def __init__(self, clock: HandClock, seconds: float, then: Callable[[], None]) -> None:
        self.clock, self.seconds, self.then = clock, seconds, then

    def cancel(self):
        if self in self.clock.due:
            self.clock.due.remove(self)


def opened(**settings: Any) -> tuple[EchoLink, list[AgentEvent]]:
    heard: list[AgentEvent] = []
    return EchoAgent(**settings).open(Opening("s1"), heard.append), heard


def prompt(content: object, turn_id: str = "t1") -> Prompt:
    return Prompt("s1", turn_id, msgspec.json.encode(content))


@given(st.text(), st.sampled_from(["word", "char"]))
def test_the_chunks_joined_are_the_text(text: str, chunk: Literal["word", "char"]):
    assert "".join(chunks_of(text, chunk)) == text


def test_words_come_with_the_space_behind_them():
    assert chunks_of("  two  words\n", "word") == ["  ", "two  ", "words\n"]


def test_blocks_without_text_are_named():
    blocks = [{"type": "text", "text": "see "}, {"type": "image", "data": "…"}, {"type": "text", "text": "!"}]
    assert text_of(msgspec.json.encode(blocks)) == "see [image]!"


def test_without_a_delay_all_is_said_before_start_turn_returns():
    link, heard = opened()
    link.start_turn(prompt("hello world"))
    assert heard == [TextDelta("t1", "hello "), TextDelta("t1", "world"), TurnSettled("t1", "end_turn")]


def test_a_long_answer_is_said_in_stretches_so_that_the_loop_can_see_to_others():
    clock = HandClock()
    link, heard = opened(call_later=clock.call_later)
    words = [f"{n} " for n in range(600)]
    link.start_turn(prompt("".join(words)))
    lengths = [len(heard)]
    while clock.due:
        clock.ring()
        lengths.append(len(heard))
    assert lengths == [256, 512, 600, 601]
    assert heard == [*(TextDelta("t1", word) for word in words), TurnSettled("t1", "end_turn")]


def test_an_empty_prompt_settles_without_text():
    link, heard = opened()
    link.start_turn(prompt(""))
    assert heard == [TurnSettled("t1", "end_turn")]


@pytest.mark.parametrize("content", [b"7", b"{", b'"\xff"', b'[{"text": "no type"}]'])
def test_content_of_no_known_shape_fails_the_turn(content: bytes):
    link, heard = opened()
    link.start_turn(Prompt("s1", "t1", content))
    assert [(type(event), event.code) for event in heard] == [(TurnFailed, "invalid_message")]


def test_a_delay_lies_between_two_chunks():
    clock = HandClock()
    link, heard = opened(delay=0.25, chunk="char", call_later=clock.call_later)
    link.start_turn(prompt("abc"))
    assert heard == [TextDelta("t1", "a")]
    assert [timer.seconds for timer in clock.due] == [0.25]
    clock.ring()
    clock.ring()
    assert heard[1:] == [TextDelta("t1", "b"), TextDelta("t1", "c"), TurnSettled("t1", "end_turn")]
    assert clock.due == []


def test_cancel_settles_a_stream_as_cancelled_once():
    clock = HandClock()
    link, heard = opened(delay=1, call_later=clock.call_later)
    link.start_turn(prompt("one two three"))
    link.cancel_turn("another")
    assert heard == [TextDelta("t1", "one ")]
    link.cancel_turn("t1")
    link.cancel_turn("t1")
    assert heard == [TextDelta("t1", "one "), TurnSettled("t1", "cancelled")]
    assert clock.due == []


def test_a_second_turn_while_one_streams_is_refused_and_the_first_goes_on():
    clock = HandClock()
    link, heard = opened(delay=1, call_later=clock.call_later)
    link.start_turn(prompt("one two"))
    link.start_turn(prompt("three", "t2"))
    clock.ring()
    assert [type(event).__name__ for event in heard] == ["TextDelta", "TurnFailed", "TextDelta", "TurnSettled"]
    assert (heard[1].turn_id, heard[1].code) == ("t2", "busy")


async def test_close_ends_a_stream_without_a_word():
    clock = HandClock()
    link, heard = opened(delay=1, call_later=clock.call_later)
    link.start_turn(prompt("one two"))
    await link.close()
    await link.close()
    assert heard == [TextDelta("t1", "one ")]
    assert clock.due == []


async def test_time_is_the_running_loops_if_no_other_is_given(ear: Any):
    link = EchoAgent(delay=0.001).open(Opening("s1"), ear.emit)
    link.start_turn(prompt("a b"))
    assert await ear.until() == [TextDelta("t1", "a "), TextDelta("t1", "b"), TurnSettled("t1", "end_turn")]


def test_as_the_agent_of_projects_it_answers_feedback_with_itself() -> None:
    answers: list[bytes | BrokerError] = []
    link = EchoAgent().open_projects(lambda said, taken: None, lambda: None)
    link.tell(News("p1", "project_message", 1, b"null", b"1", 0))
    link.ask(UserFeedback("p1", "u1", b"null", b'{"like" : 1}', 0), answers.append)
    link.forget("p1", "u1")
    assert answers == [b'{"like" : 1}']
