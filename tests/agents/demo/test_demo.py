"""The demo agent: the same words for the same prompt, in their own time, and heeding whoever watches."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.agents.demo.agent import DemoAgent, DemoLink
from broker.agents.port import Opening
from broker.messages import (
    AgentEvent,
    AgentRecord,
    ApprovalRequested,
    Prompt,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)


class Timers:
    """Timers that go off when told to."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, then: Callable[[], None]) -> "Timers":
        self.due.append((seconds, then))
        return self

    def cancel(self) -> None:
        self.due.clear()

    def run(self, until: Callable[[], Any] = lambda: False) -> float:
        """Let time pass until nothing is due any more, or something is so; return how many seconds."""
        passed = 0.0
        while self.due and not until():
            seconds, then = self.due.pop()
            passed += seconds
            then()
        return passed


class Stage:
    """A link to a demo agent, and what it says."""

    def __init__(self, **settings: Any) -> None:
        self.timers = Timers()
        self.heard: list[AgentEvent] = []
        agent = DemoAgent(**settings, call_later=self.timers.call_later)
        self.link: DemoLink = agent.open(Opening("s1"), self.heard.append)

    def ask(self, content: object) -> None:
        self.link.start_turn(Prompt("s1", "t1", msgspec.json.encode(content)))

    def text(self, *, thought: bool = False) -> str:
        deltas = (event for event in self.heard if isinstance(event, TextDelta))
        return "".join(delta.text for delta in deltas if delta.thought == thought)

    def asks(self) -> bool:
        return isinstance(self.heard[-1], ApprovalRequested)


def told(content: object, **settings: Any) -> Stage:
    stage = Stage(**settings)
    stage.ask(content)
    stage.timers.run()
    return stage


def test_it_thinks_uses_a_tool_and_answers_token_by_token() -> None:
    stage = told("What is  this?")
    taken, *said, settled = stage.heard
    assert taken == TurnTaken("t1")
    assert settled == TurnSettled("t1", "end_turn")
    assert "No model is asked" in stage.text(thought=True)
    assert "You wrote “What is this?”." in stage.text()
    records = [msgspec.json.decode(event.data) for event in said if isinstance(event, AgentRecord)]
    assert [record["status"] for record in records] == ["in_progress", "completed"]
    assert records[1]["content"][0]["content"]["text"] == "3 words"
    assert "it counted 3 words in" in stage.text()
    tokens = [event for event in said if isinstance(event, TextDelta)]
    assert len(tokens) > 50
    assert max(len(token.text.strip()) for token in tokens) < 10


def test_the_same_prompt_is_answered_with_the_same() -> None:
    assert told("Hello").heard == told("Hello").heard


def test_the_pace_is_the_profiles() -> None:
    slow, fast = Stage(pace=10.0), Stage(pace=100.0)
    for stage in (slow, fast):
        stage.ask("Hello")
    assert slow.timers.run() == pytest.approx(10 * fast.timers.run())


@pytest.mark.parametrize(("option", "words"), [("allow", "You let me go on"), ("reject", "left it at that")])
def test_who_says_ask_is_asked(option: str, words: str) -> None:
    stage = told("Please ASK me first")
    assert stage.asks()
    before = stage.text()
    stage.link.answer_approval("t1", "demo", option)
    stage.timers.run()
    assert words in stage.text().removeprefix(before)
    assert stage.heard[-1] == TurnSettled("t1", "end_turn")


def test_an_answer_that_does_not_come_ends_the_turn_as_cancelled() -> None:
    stage = told("I have to approve")
    stage.link.answer_approval("t1", "demo", None)
    assert stage.heard[-1] == TurnSettled("t1", "cancelled")


def test_a_task_is_no_question() -> None:
    assert isinstance(told("a task in a basket").heard[-1], TurnSettled)


def test_a_cancel_is_heeded_at_once_and_nothing_comes_after() -> None:
    stage = Stage()
    stage.ask("Hello")
    stage.timers.run(lambda: len(stage.heard) > 20)
    stage.link.cancel_turn("t1")
    said = len(stage.heard)
    assert stage.heard[-1] == TurnSettled("t1", "cancelled")
    stage.timers.run()
    assert len(stage.heard) == said


def test_it_holds_while_the_store_is_behind() -> None:
    stage = Stage()
    stage.ask("Hello")
    stage.link.pause()
    stage.timers.run()
    held = len(stage.heard)
    stage.link.resume()
    stage.timers.run()
    assert held < 5
    assert stage.heard == told("Hello").heard


@pytest.mark.parametrize("content", [5, {"a": 1}])
def test_what_is_no_content_is_refused(content: object) -> None:
    (failed,) = told(content).heard
    assert isinstance(failed, TurnFailed)
    assert failed.code == "invalid_message"


def test_a_long_prompt_is_quoted_in_part() -> None:
    stage = told("x" * 10_000)
    assert f"“{'x' * 79}…”" in stage.text()
