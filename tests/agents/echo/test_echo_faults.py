"""The echo's faults, one by one, as a session would hear them."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.agents.echo.agent import EchoAgent, EchoLink
from broker.agents.echo.faults import FAULTS
from broker.agents.echo.play import Timer
from broker.agents.port import Opening
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentRecord,
    ApprovalRequested,
    Prompt,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)
from broker.testing import ManualClock

TAKEN = TurnTaken("t1")
SETTLED = TurnSettled("t1", "end_turn")
CANCELLED = TurnSettled("t1", "cancelled")


class Stage:
    """A line to an echo with faults, its time in the test's hand, and what it said since it was last asked."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self._heard: list[AgentEvent] = []
        agent = EchoAgent(faults=True, call_later=self.clock.call_later, **settings)
        self.link: EchoLink = agent.open(Opening("s1"), self._heard.append)

    def ask(self, text: object, turn_id: str = "t1") -> list[AgentEvent]:
        self.link.start_turn(Prompt("s1", turn_id, msgspec.json.encode(text)))
        return self.heard()

    def after(self, seconds: float) -> list[AgentEvent]:
        self.clock.advance(seconds)
        return self.heard()

    def heard(self) -> list[AgentEvent]:
        heard = self._heard[:]
        self._heard.clear()
        return heard


def said(*words: str, turn_id: str = "t1") -> list[AgentEvent]:
    return [TextDelta(turn_id, word) for word in words]


def text_of(events: list[AgentEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_without_leave_a_prompt_that_begins_with_a_slash_is_echoed():
    heard: list[AgentEvent] = []
    EchoAgent().open(Opening("s1"), heard.append).start_turn(Prompt("s1", "t1", b'"/crash now"'))
    assert heard == [*said("/crash ", "now"), SETTLED]


def test_with_leave_any_other_prompt_is_echoed_as_ever(stage: Stage):
    assert stage.ask("no /crash here") == [*said("no ", "/crash ", "here"), SETTLED]
    assert stage.clock.waiting == 0


def test_a_fault_may_be_asked_for_in_blocks(stage: Stage):
    assert stage.ask([{"type": "text", "text": "/crash"}]) == [TAKEN, AgentLost("the echo was told to crash", "t1")]


def test_delay_waits_before_each_word(stage: Stage):
    assert stage.ask("/delay 2s one two") == [TAKEN]
    assert stage.after(1.9) == []
    assert stage.after(0.1) == said("one ")
    assert stage.after(2) == [*said("two"), SETTLED]


def test_a_delayed_answer_is_cancelled_like_any_other(stage: Stage):
    stage.ask("/delay 2s one two")
    stage.link.cancel_turn("t1")
    assert stage.heard() == [CANCELLED]
    assert stage.after(60) == []


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("/delay soon", "/delay: expected a duration such as 30s, 1h30m or 200ms."),
        ("/delay 3", "/delay: a duration needs a unit; write 3s."),
        ("/flood many", "/flood: expected a number of tokens, at most 1000000."),
        ("/flood 1000001", "/flood: expected a number of tokens, at most 1000000."),
        ("/flood -1", "/flood: expected a number of tokens, at most 1000000."),
    ],
)
def test_a_fault_that_is_asked_for_in_an_unclear_way_says_so(stage: Stage, prompt: str, sentence: str):
    events = stage.ask(prompt)
    assert (text_of(events), events[-1]) == (sentence, SETTLED)


@pytest.mark.parametrize("name", ["foo", "", " crash", "x" * 9999])
def test_an_unknown_fault_is_told_in_the_answer(stage: Stage, name: str):
    events = stage.ask(f"/{name}")
    assert text_of(events) == f"There is no fault /{name.partition(' ')[0][:40]}. Ask for /help."
    assert events[-1] == SETTLED


def test_help_names_them_all(stage: Stage):
    events = stage.ask("/help")
    assert events[-1] == SETTLED
    lines = text_of(events).splitlines()[1:]
    assert [line.split()[0] for line in lines] == [f"/{name}" for name in FAULTS]


def test_silence_takes_the_turn_and_says_nothing_until_it_is_cancelled(stage: Stage):
    assert stage.ask("/silence") == [TAKEN]
    assert stage.clock.waiting == 0
    stage.link.answer_approval("t1", "ask", "allow")
    assert stage.heard() == []
    stage.link.cancel_turn("t1")
    assert stage.heard() == [CANCELLED]


def test_silence_may_follow_some_words(stage: Stage):
    assert stage.ask("/silence after 2 one two three") == [TAKEN, *said("one ", "two ")]
    assert stage.after(1e6) == []


def test_ignore_does_not_even_take_the_turn(stage: Stage):
    assert stage.ask("/ignore") == []


def test_after_a_crash_the_next_turn_is_taken(stage: Stage):
    assert stage.ask("/crash after 1 one two") == [TAKEN, *said("one "), AgentLost("the echo was told to crash", "t1")]
    assert stage.ask("hello", "t2") == [*said("hello", turn_id="t2"), TurnSettled("t2", "end_turn")]


def test_double_settles_twice(stage: Stage):
    assert stage.ask("/double one two") == [TAKEN, *said("one ", "two"), SETTLED, SETTLED]


def test_stray_says_one_thing_more_after_a_settle_that_is_not_the_last(stage: Stage):
    assert stage.ask("/stray one") == [TAKEN, *said("one"), TurnSettled("t1", "end_turn", last=False)]
    assert stage.after(0.05) == said(" and a stray word")


def test_a_turn_that_comes_before_the_stray_word_is_taken_and_the_word_is_left_out(stage: Stage):
    stage.ask("/stray one")
    assert stage.ask("/double x", "t2")[1:] == [TextDelta("t2", "x"), *[TurnSettled("t2", "end_turn")] * 2]
    assert stage.after(1) == []


def test_a_cancel_after_the_settle_stops_the_stray_word_and_settles_nothing(stage: Stage):
    stage.ask("/stray one")
    stage.link.cancel_turn("t1")
    assert stage.after(1) == []


def test_garbage_has_odd_kinds_turns_of_nobody_and_late_text_around_a_whole_answer(stage: Stage):
    events = stage.ask("/garbage one two")
    own = [event for event in events if getattr(event, "turn_id", None) == "t1"]
    settle = own.index(SETTLED)
    assert text_of(own[:settle]) == "one two"
    assert {event.kind for event in own[:settle] if isinstance(event, AgentRecord)} == {
        "vendor.garbage",
        "no.such.kind",
    }
    assert [type(event) for event in own[settle + 1 :]] == [TextDelta, AgentRecord]
    strangers = {type(event) for event in events if getattr(event, "turn_id", None) == "no-such-turn"}
    assert strangers == {TextDelta, ApprovalRequested, TurnSettled, TurnFailed}
    for event in events:
        if isinstance(event, AgentRecord):
            assert isinstance(msgspec.json.decode(event.data), dict)


def test_a_flood_comes_in_slices_between_which_the_loop_breathes():
    heard: list[AgentEvent] = []
    clock = ManualClock()
    breaths: list[int] = []

    def call_later(seconds: float, then: Callable[[], None]) -> Timer:
        breaths.append(len(heard))
        return clock.call_later(seconds, then)

    EchoAgent(faults=True, call_later=call_later).open(Opening("s1"), heard.append).start_turn(
        Prompt("s1", "t1", b'"/flood 600"')
    )
    clock.advance(0)
    assert breaths == [1 + 256, 1 + 512]
    assert text_of(heard) == "".join(f"{number} " for number in range(1, 601))
    assert (heard[0], heard[-1]) == (TAKEN, SETTLED)


def test_a_flood_stops_while_the_broker_is_behind_and_goes_on_after_it(stage: Stage):
    stage.ask("/flood 300")
    stage.link.pause()
    assert stage.after(60) == []
    stage.link.resume()
    assert text_of(stage.heard()) == "".join(f"{number} " for number in range(257, 301))


def test_what_was_held_back_is_not_said_after_a_cancel(stage: Stage):
    stage.ask("/flood 300")
    stage.link.pause()
    assert stage.after(60) == []
    stage.link.cancel_turn("t1")
    stage.link.resume()
    assert stage.heard() == [CANCELLED]


def test_a_turn_begun_while_the_broker_is_behind_stops_at_its_first_wait(stage: Stage):
    stage.link.pause()
    assert len(stage.ask("/flood 300")) == 257
    assert stage.after(60) == []


def test_stubborn_goes_on_whatever_it_is_told():
    stage = Stage(delay=0.25)
    assert stage.ask("/stubborn la la") == [TAKEN, *said("la ")]
    stage.link.cancel_turn("t1")
    assert text_of(stage.after(1)) == "la " * 4
    assert text_of(stage.after(9)) == "la " * 36


async def test_a_line_that_is_cut_says_nothing_more(stage: Stage):
    stage.ask("/stubborn la")
    await stage.link.close()
    await stage.link.close()
    assert stage.after(60) == []
    assert stage.clock.waiting == 0


def test_deaf_neither_answers_nor_heeds_a_cancel(stage: Stage):
    assert stage.ask("/deaf") == [TAKEN]
    stage.link.cancel_turn("t1")
    assert stage.after(1e6) == []
    assert [event.code for event in stage.ask("hello", "t2")] == ["busy"]


@pytest.mark.parametrize(
    ("option", "answer"),
    [
        ("allow", [*said("one ", "two"), SETTLED]),
        ("reject", [*said("I ", "may ", "not."), SETTLED]),
        (None, [CANCELLED]),
    ],
)
def test_ask_goes_on_by_the_answer(stage: Stage, option: str | None, answer: list[AgentEvent]):
    taken, question = stage.ask("/ask one two")
    assert (taken, type(question)) == (TAKEN, ApprovalRequested)
    assert question.title == 'May I say "one two"?'
    kinds = {offer["option_id"]: offer["kind"] for offer in msgspec.json.decode(question.options)}
    assert kinds == {"allow": "allow_once", "reject": "reject_once"}
    stage.link.answer_approval("another", question.key, option)
    assert stage.heard() == []
    stage.link.answer_approval("t1", question.key, option)
    stage.link.answer_approval("t1", question.key, option)
    stage.link.cancel_turn("t1")
    assert stage.heard() == answer


def test_an_answer_that_comes_twice_hurries_nothing():
    stage = Stage(delay=1)
    stage.ask("/ask one two")
    stage.link.answer_approval("t1", "ask", "allow")
    stage.link.answer_approval("t1", "ask", "allow")
    assert stage.heard() == said("one ")
    assert stage.after(1) == [*said("two"), SETTLED]


def test_fail_ends_the_turn_with_the_sentence_it_is_given(stage: Stage):
    assert stage.ask("/fail No luck today.") == [TAKEN, TurnFailed("t1", "agent_unavailable", "No luck today.")]
    assert stage.ask("/fail", "t2")[1].message == "The echo was told to fail."


def test_refuse_does_not_take_the_turn(stage: Stage):
    assert stage.ask("/refuse Not today.") == [TurnFailed("t1", "agent_unavailable", "Not today.")]


@pytest.mark.parametrize("name", sorted(FAULTS))
async def test_whatever_was_played_a_cut_line_is_silent(stage: Stage, name: str):
    stage.ask(f"/{name} 1s 1 after 1 words")
    await stage.link.close()
    assert (stage.after(1e6), stage.clock.waiting) == ([], 0)


def test_chunks_and_delay_are_the_profiles():
    stage = Stage(delay=0.5, chunk="char")
    assert stage.ask("/double ab") == [TAKEN, *said("a")]
    assert stage.after(0.5) == [*said("b"), SETTLED, SETTLED]
