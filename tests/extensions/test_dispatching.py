"""Who is to have a turn, as plugins say: the first that says anything, and nobody who makes no sense."""

from typing import Any

import attrs
import pytest

from broker.errors import BrokerError
from broker.extensions.dispatch import Hooks
from broker.extensions.dispatching import decide
from broker.hooks import Attempt, Degraded, HandTo, NoSettings, Plugin, Stats

ATTEMPT = Attempt("s", "t", "claude")
AGENTS = ("claude", "echo")


def says(name: str, answer: Any) -> Plugin:
    """Make a plugin that answers like this, or raises it."""

    def on_dispatch(self: Plugin, attempt: Attempt) -> Any:
        assert attempt == attrs.evolve(ATTEMPT, last=attempt.last)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    made: Plugin = type(name.title(), (Plugin,), {"name": name})(NoSettings(), None)
    type(made).on_dispatch = on_dispatch  # type: ignore[method-assign]  # past the checks of the class
    return made


def ask(*plugins: Plugin) -> tuple[Any, dict[str, int]]:
    stats = Stats()
    return decide(Hooks(plugins, stats), AGENTS, ATTEMPT), dict(stats.plugin_errors)


def test_the_first_that_says_anything_is_followed() -> None:
    first, second = HandTo("echo", 0.5), Degraded("Sorry.")
    assert ask() == (None, {})
    assert ask(says("none", None)) == (None, {})
    assert ask(says("none", None), says("one", first), says("two", second)) == (first, {})
    assert ask(says("two", second), says("one", first)) == (second, {})


async def later() -> None:
    """What no plain hook returns."""


@pytest.mark.parametrize(
    "bug",
    [
        LookupError("a bug"),
        SystemExit(),
        KeyboardInterrupt(),
        BrokerError("forbidden"),
        "echo",
        False,
        HandTo("nobody"),
    ],
    ids=repr,
)
def test_one_that_fails_is_counted_and_the_next_is_asked(bug: Any) -> None:
    assert ask(says("buggy", bug)) == (None, {"buggy": 1})
    assert ask(says("buggy", bug), says("one", HandTo("echo"))) == (HandTo("echo"), {"buggy": 1})


def test_what_would_have_to_be_awaited_is_no_answer() -> None:
    assert ask(says("late", later())) == (None, {"late": 1})


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), 3601, "1s"])
def test_a_pause_that_makes_no_sense_cannot_be_said(after: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        HandTo("echo", after)


@pytest.mark.parametrize("text", [None, 5, "", "half a \ud83d", "a" * 16385])
def test_an_answer_that_is_no_text_or_too_long_cannot_be_said(text: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Degraded(text)


@pytest.mark.parametrize("agent", [None, 5, "", "\ud83d"])
def test_an_agent_whose_name_is_none_cannot_be_said(agent: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        HandTo(agent)


def test_what_was_refused_too_often_is_only_answered_and_the_next_is_asked_for_that() -> None:
    attempt = attrs.evolve(ATTEMPT, last=True)
    stats, again, sorry = Stats(), says("again", HandTo("echo")), says("sorry", Degraded("Sorry."))
    assert decide(Hooks([again, sorry], stats), AGENTS, attempt) == Degraded("Sorry.")
    assert decide(Hooks([again], stats), AGENTS, attempt) is None
    assert stats.plugin_errors == {"again": 2}


def test_what_is_said_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        HandTo("echo").agent = "claude"  # type: ignore[misc]
