"""Who gets a turn that no agent took, and when an agent is not asked at all: the plugin as the loader makes it."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from broker import config
from broker.config.units import format_duration
from broker.extensions.loader import Plugins, load
from broker.facade import Facade
from broker.hooks import Attempt, Degraded, HandTo, Stats, TurnEnded
from broker.stats import Agents
from broker.testing import ManualClock

AGENTS = ("claude", "gemini", "echo")
BUSY = "agent_unavailable"
PAGE = (Path(__file__).parents[2] / "docs" / "recovery.md").read_text()


class Desk:
    """The plugin behind its settings, and time in the test's hand."""

    def __init__(self, folder: Path, block: str) -> None:
        self.clock = ManualClock()
        self.stats = Stats()
        self.stats.agents = lambda: dict.fromkeys(AGENTS, Agents(None, None))
        self.file = folder / "config.yaml"
        self.plugins = self._load(block)
        assert self.plugins.problems == []
        self.plugins.create(Facade(self.stats, self.clock))
        self.plugin: Any = self.plugins.instances[0]

    def _load(self, block: str) -> Plugins:
        self.file.write_text(f"plugins: {{recovery: {block}}}")
        loaded = config.load(self.file, {}, {})
        return load(loaded.settings, loaded.file)

    def reload(self, block: str) -> bool:
        """Give it other settings while it runs."""
        self.file.write_text(f"plugins: {{recovery: {block}}}")
        checked = self.plugins.check(config.load(self.file, {}, {}).settings)
        return bool(self.plugin.reload(checked["recovery"]))

    def ask(self, *tried: str, turn: str = "t", code: str = BUSY, agent: str = "claude") -> Any:
        """Ask who gets a turn that these could not take."""
        return self.plugin.on_dispatch(
            Attempt("s", turn, agent, tried, code if tried else None, "No." if tried else None)
        )

    def end(self, outcome: str, turn: str = "t", agent: str = "claude", *, dispatched: bool = True) -> None:
        self.plugin.turn_ended(TurnEnded("s", turn, agent, outcome, 1.0, dispatched))

    def fail(self, times: int = 5, agent: str = "claude") -> None:
        """Have turns fail that the agent had taken."""
        for number in range(times):
            self.end("failed", f"failed {number}", agent)

    def state(self, agent: str = "claude") -> str:
        return str(self.plugin._breakers[agent].state)


Open = Callable[..., Desk]


@pytest.fixture
def desk(tmp_path: Path) -> Open:
    return lambda block="{}": Desk(tmp_path, block)


# -- tried again ------------------------------------------------------------------------------------


def test_a_turn_that_nobody_has_refused_goes_its_usual_way(desk: Open) -> None:
    assert desk().ask() is None


def test_an_agent_is_asked_again_after_growing_pauses_and_no_oftener_than_set(desk: Open) -> None:
    d = desk("{retries: 3, backoff: 1s, degraded: null, breaker: null}")
    for tries, (least, most) in enumerate([(0.5, 1), (1, 2), (2, 4)], 1):
        pauses = {d.ask(*["claude"] * tries).after for _ in range(50)}
        assert len(pauses) > 1
        assert least <= min(pauses) <= max(pauses) <= most
    assert d.ask(*["claude"] * 4) is None


def test_no_pause_is_longer_than_half_a_minute(desk: Open) -> None:
    d = desk("{retries: 10, backoff: 10s, breaker: null}")
    assert 15 <= d.ask(*["claude"] * 10).after <= 30


def test_a_turn_that_no_agent_would_take_is_not_tried_again_or_handed_on_and_counts_against_nobody(desk: Open) -> None:
    d = desk("{fallback: {claude: echo}, breaker: {failures: 1}}")
    for code in ("invalid_message", "too_large", "workspace_not_found"):
        assert d.ask("claude", code=code) is None
        d.end("failed")
    assert d.ask(turn="next") is None


def test_an_agent_that_is_broken_inside_is_not_asked_again_but_stood_in_for(desk: Open) -> None:
    assert desk("{fallback: {claude: echo}}").ask("claude", code="internal") == HandTo("echo")


# -- handed on, answered ------------------------------------------------------------------------------


def test_the_next_in_line_is_asked_and_in_the_end_the_broker_answers(desk: Open) -> None:
    d = desk("{retries: 0, fallback: {claude: gemini, gemini: echo}, degraded: {text: Sorry.}}")
    assert d.ask("claude") == HandTo("gemini")
    assert d.ask("claude", "gemini") == HandTo("echo")
    assert d.ask("claude", "gemini", "echo") == Degraded("Sorry.")


def test_each_in_line_is_asked_as_often_as_set(desk: Open) -> None:
    d = desk("{retries: 1, backoff: 0, fallback: {claude: echo}}")
    assert d.ask("claude") == HandTo("claude")
    assert d.ask("claude", "claude") == HandTo("echo")
    assert d.ask("claude", "claude", "echo") == HandTo("echo")
    assert isinstance(d.ask("claude", "claude", "echo", "echo"), Degraded)


def test_without_an_answer_of_the_broker_s_a_turn_fails_as_always(desk: Open) -> None:
    assert desk("{retries: 0, degraded: null}").ask("claude") is None


def test_the_answer_says_something_by_default(desk: Open) -> None:
    answer = desk("{retries: 0}").ask("claude")
    assert answer == Degraded(
        "The assistant cannot answer at the moment. Your message was kept; please send it again in a while."
    )


# -- the breaker ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["failed", "lost", "timed_out"])
def test_failures_within_the_window_open_the_breaker_and_nobody_waits_any_more(desk: Open, outcome: str) -> None:
    d = desk("{fallback: {claude: echo}}")
    for number in range(5):
        assert d.ask(turn=f"{number}") is None
        d.end(outcome, f"{number}")
    assert d.state() == "open"
    assert d.ask() == HandTo("echo")
    assert d.ask(agent="gemini") is None


def test_failures_that_are_far_apart_open_nothing(desk: Open) -> None:
    d = desk("{breaker: {failures: 2, window: 10s}}")
    for _ in range(10):
        d.fail(1)
        d.clock.advance(10.1)
    assert d.state() == "closed"
    d.fail(1)
    d.clock.advance(9.9)
    d.fail(1)
    assert d.state() == "open"


@pytest.mark.parametrize("outcome", ["completed", "cancelled"])
def test_what_ends_well_opens_nothing(desk: Open, outcome: str) -> None:
    d = desk("{breaker: {failures: 1}}")
    d.end(outcome)
    assert d.ask() is None


@pytest.mark.parametrize("outcome", ["failed", "lost", "timed_out", "completed"])
def test_a_turn_that_no_agent_was_given_says_nothing_of_any(desk: Open, outcome: str) -> None:
    d = desk("{breaker: {failures: 1, open: 30s}}")
    d.end(outcome, dispatched=False)
    assert d.ask() is None
    d.fail(1)
    d.clock.advance(30)
    assert d.ask(turn="trial") is None
    d.end(outcome, "trial", dispatched=False)
    assert d.state() == "half-open"
    assert d.ask(turn="next") is None


def test_a_turn_that_was_refused_too_often_is_answered(desk: Open) -> None:
    d = desk("{retries: 10, breaker: null}")
    tried = ("claude",) * 5
    attempt = Attempt("s", "t", "claude", tried, BUSY, "No.", 1.0)
    assert isinstance(d.plugin.on_dispatch(attempt), HandTo)
    assert isinstance(d.plugin.on_dispatch(attrs.evolve(attempt, last=True)), Degraded)


def test_a_trial_that_never_came_to_its_agent_is_given_back(desk: Open) -> None:
    d = desk("{retries: 0, fallback: {claude: echo}, breaker: {failures: 1, open: 30s}}")
    d.fail(1, "echo")
    d.clock.advance(30)
    assert d.ask("claude", turn="trial") == HandTo("echo")
    d.end("cancelled", "trial")  # before the line led anywhere else
    d.plugin._breakers["claude"].state = "closed"
    assert d.ask("claude", turn="next") == HandTo("echo")


def test_refusals_count_once_each_and_a_turn_that_fails_for_them_not_again(desk: Open) -> None:
    d = desk("{retries: 1, backoff: 0, degraded: null, breaker: {failures: 3}}")
    assert d.ask("claude") == HandTo("claude")
    assert d.ask("claude", "claude") is None
    d.end("failed")
    assert d.state() == "closed"
    d.end("failed", "another")
    assert d.state() == "open"


def test_a_breaker_that_opens_while_a_turn_is_tried_ends_the_tries(desk: Open) -> None:
    d = desk("{retries: 10, backoff: 0, fallback: {claude: echo}, breaker: {failures: 2}}")
    assert d.ask("claude") == HandTo("claude")
    assert d.ask("claude", "claude") == HandTo("echo")


def test_a_failure_counts_for_the_agent_that_had_the_turn(desk: Open) -> None:
    d = desk("{fallback: {claude: echo}, breaker: {failures: 1}, retries: 0}")
    assert d.ask("claude") == HandTo("echo")
    d.end("failed", agent="echo")
    assert (d.state("claude"), d.state("echo")) == ("open", "open")
    assert isinstance(d.ask(turn="next"), Degraded)


def test_an_open_breaker_skips_the_agents_in_line_whose_own_is_open(desk: Open) -> None:
    d = desk("{fallback: {claude: gemini, gemini: echo}, breaker: {failures: 1}}")
    d.fail(1, "claude")
    d.fail(1, "gemini")
    assert d.ask() == HandTo("echo")


def test_an_open_breaker_with_nobody_to_turn_to_changes_nothing(desk: Open) -> None:
    d = desk("{degraded: null, breaker: {failures: 1}}")
    d.fail(1)
    assert d.ask() is None


def test_one_turn_is_let_through_after_a_while_and_closes_the_breaker(desk: Open) -> None:
    d = desk("{breaker: {failures: 1, open: 30s}}")
    d.fail(1)
    d.clock.advance(29.9)
    assert isinstance(d.ask(turn="early"), Degraded)
    d.end("completed", "early")
    d.clock.advance(0.1)
    assert d.ask(turn="trial") is None
    assert d.ask(turn="trial") is None  # as it is asked about again, once there is a place for it
    assert isinstance(d.ask(turn="other"), Degraded)
    d.end("completed", "other")
    assert d.state() == "half-open"
    d.end("completed", "trial")
    assert d.state() == "closed"
    assert d.ask(turn="later") is None


@pytest.mark.parametrize("how", ["refused", "failed"])
def test_a_trial_that_fails_opens_the_breaker_again(desk: Open, how: str) -> None:
    d = desk("{breaker: {failures: 3, open: 30s}}")
    d.fail(3)
    d.clock.advance(30)
    assert d.ask(turn="trial") is None
    if how == "refused":
        assert isinstance(d.ask("claude", turn="trial"), Degraded)
    else:
        d.end("failed", "trial")
    assert d.state() == "open"
    d.clock.advance(29.9)
    assert isinstance(d.ask(turn="early"), Degraded)
    d.clock.advance(0.1)
    assert d.ask(turn="second trial") is None


def test_only_the_trial_tells_how_the_agent_is(desk: Open) -> None:
    d = desk("{breaker: {failures: 1, open: 30s}}")
    d.fail(1)
    d.clock.advance(30)
    assert d.ask(turn="trial") is None
    d.end("failed", "from before")
    d.end("completed", "from before too")
    assert d.state() == "half-open"


@pytest.mark.parametrize("how", ["cancelled", "its own fault"])
def test_a_trial_that_says_nothing_leaves_the_next_turn_to_try(desk: Open, how: str) -> None:
    d = desk("{breaker: {failures: 1, open: 30s}}")
    d.fail(1)
    d.clock.advance(30)
    assert d.ask(turn="trial") is None
    if how == "cancelled":
        d.end("cancelled", "trial")
    else:
        assert d.ask("claude", turn="trial", code="invalid_message") is None
    assert d.ask(turn="next") is None
    assert isinstance(d.ask(turn="other"), Degraded)


def test_a_trial_that_never_ends_makes_room_for_another(desk: Open) -> None:
    d = desk("{breaker: {failures: 1, open: 30s}}")
    d.fail(1)
    d.clock.advance(30)
    assert d.ask(turn="trial") is None
    d.clock.advance(30)
    assert d.ask(turn="second trial") is None
    assert isinstance(d.ask(turn="third"), Degraded)


def test_without_a_breaker_nothing_opens(desk: Open) -> None:
    d = desk("{breaker: null}")
    d.fail(100)
    assert d.ask() is None


def test_each_change_of_a_breaker_is_a_line_of_the_log(desk: Open, caplog: pytest.LogCaptureFixture) -> None:
    d = desk("{breaker: {failures: 2, open: 30s, window: 1m}}")
    with caplog.at_level(logging.INFO):
        d.fail(2)
        d.ask(turn="no line")
        d.clock.advance(30)
        d.ask(turn="trial")
        d.end("completed", "trial")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "agent claude: breaker open, 2 failures within 60 s; it is not asked for 30 s"),
        ("INFO", "agent claude: breaker half-open, one turn is let through"),
        ("INFO", "agent claude: breaker closed, the turn that was let through was completed"),
    ]


def test_what_is_remembered_of_turns_is_bounded_and_goes_with_them(desk: Open) -> None:
    d = desk("{retries: 0}")
    d.ask("claude", turn="one")
    d.end("completed", "one")
    assert not d.plugin._counted
    for number in range(10_100):
        d.ask("claude", turn=f"{number}")
    assert len(d.plugin._counted) == 10_000
    assert len(d.plugin._breakers["claude"]._failures) <= 5


# -- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{fallback: {claude: claude}}", "fallback goes round in a circle: claude → claude"),
        ("{fallback: {a: b, b: c, c: b}}", "fallback goes round in a circle: a → b → c → b"),
        ("{retries: -1}", "retries"),
        ("{retries: 11}", "retries"),
        ("{breaker: {failures: 0}}", "failures"),
        ("{breaker: {window: 0}}", "window"),
        ("{degraded: {text: ''}}", "text"),
        ("{degrade: null}", "degraded"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_their_place(tmp_path: Path, block: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(f"plugins: {{recovery: {block}}}")
    loaded = config.load(tmp_path / "config.yaml", {}, {})
    (problem,) = load(loaded.settings, loaded.file).problems
    assert said in problem.render()


async def test_an_agent_that_is_not_there_keeps_the_broker_from_starting(desk: Open) -> None:
    d = desk("{fallback: {claude: gpt}}")
    await d.plugins.start()
    (problem,) = d.plugins.problems
    assert "fallback names an agent 'gpt', which is not there; there are: claude, gemini, echo" in problem.message


async def test_settings_change_while_it_runs_if_they_can_be_followed(desk: Open) -> None:
    d = desk("{retries: 0, degraded: null, breaker: {failures: 1}}")
    await d.plugins.start()
    assert d.plugins.problems == []
    d.fail(1)
    assert d.reload("{retries: 0, fallback: {claude: echo}, breaker: {failures: 1}}") is True
    assert (d.state(), d.ask()) == ("open", HandTo("echo"))
    with pytest.raises(ValueError, match="which is not there"):
        d.reload("{fallback: {claude: gpt}}")
    assert d.ask() == HandTo("echo")
    assert d.reload("{breaker: {failures: 2}}") is True
    assert d.ask() is None


# -- the manual -----------------------------------------------------------------------------------------


def test_the_page_names_each_setting_with_its_default(desk: Open) -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `?(.+?)`? \|", section("## Settings"), re.MULTILINE))
    settings = desk().plugin.settings
    named = {name for name in rows if "." not in name} | {name.partition(".")[0] for name in rows}
    assert named == {field.name for field in attrs.fields(type(settings))}
    shown = {
        "retries": str(settings.retries),
        "backoff": format_duration(settings.backoff),
        "fallback": str(settings.fallback),
        "breaker.failures": str(settings.breaker.failures),
        "breaker.window": format_duration(settings.breaker.window),
        "breaker.open": format_duration(settings.breaker.open),
        "degraded.text": "a sentence in English",
    }
    assert rows == shown


def test_the_examples_on_the_page_are_settings(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        (tmp_path / "config.yaml").write_text(example)
        loaded = config.load(tmp_path / "config.yaml", {}, {})
        assert load(loaded.settings, loaded.file).problems == []


def test_the_page_names_the_states_of_a_breaker() -> None:
    states = re.findall(r"^\| `([\w-]+)` \|", section("## The breaker"), re.MULTILINE)
    assert states == ["closed", "open", "half-open"]


def section(heading: str) -> str:
    return PAGE.split(f"\n{heading}\n")[1].split("\n## ")[0]
