"""Tries turns again that no agent took up, hands them to another agent, or has the broker answer and say so.

docs/recovery.md is its manual. It is asked (`on_dispatch`) before an agent is given a turn and when one could not take
it, and never about a turn that an agent has taken: what became of that is unknown, and nobody runs it twice.

Each agent has a breaker. It opens when the agent fails too often, and for a while nobody has to wait for that agent;
then one turn is let through, and what becomes of it closes the breaker or opens it again.
"""

import logging
import random
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import attrs
from aiohttp import web
from msgspec import Meta

from broker.errors import ERRORS
from broker.hooks import Attempt, Broker, Degraded, Duration, HandTo, Plugin, Positive, Route, TurnEnded

log = logging.getLogger(__name__)

AGENTS_OWN: Final = frozenset({code for code, kind in ERRORS.items() if kind.retryable} | {"internal"})
"""Codes that tell of the agent; any other is about the turn, which no agent would take."""
FAILED: Final = frozenset({"failed", "lost", "timed_out"})
"""Outcomes that count against an agent (PROTOCOL section 3)."""
LONGEST_PAUSE: Final = 30.0
"""Seconds between two tries, however many there were."""
REMEMBERED: Final = 10_000
"""Turns of which it is remembered that their end is not to be counted; each is on its way to it."""
SORRY: Final = "The assistant cannot answer at the moment. Your message was kept; please send it again in a while."


@attrs.frozen(kw_only=True)
class BreakerSettings:
    """When an agent is not asked any more, and for how long.

    Attributes:
        failures: So many within the window open it.
        window: How long a failure counts.
        open: How long the agent is not asked then; after that one turn at a time is let through to try it.
    """

    failures: Annotated[int, Meta(ge=1, le=1000)] = 5
    window: Annotated[Duration, Positive] = 60.0
    open: Annotated[Duration, Positive] = 30.0


@attrs.frozen(kw_only=True)
class DegradedSettings:
    """What people are answered where no agent can.

    Attributes:
        text: The answer.
    """

    text: Annotated[str, Meta(min_length=1, max_length=16384)] = SORRY

    def __attrs_post_init__(self) -> None:
        Degraded(self.text)  # which refuses, at the start, what could not be said when it is needed


@attrs.frozen(kw_only=True)
class RecoverySettings:
    """What stands under `recovery:`.

    Attributes:
        retries: How often an agent is asked again that could not take a turn.
        backoff: Pause before the first of these; each one after it takes twice as long, at most 30s, less some jitter.
        fallback: Who is asked in the place of whom, by the names of their profiles.
        breaker: When an agent is not asked any more; null for never.
        degraded: What the broker answers itself where nobody else can; null to let such a turn fail.
    """

    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    backoff: Duration = 0.5
    fallback: dict[str, str] = attrs.Factory(dict)
    breaker: BreakerSettings | None = BreakerSettings()
    degraded: DegradedSettings | None = DegradedSettings()

    def __attrs_post_init__(self) -> None:
        for agent in self.fallback:
            chain = [agent]
            while (following := self.fallback.get(chain[-1])) is not None:
                chain.append(following)
                if following in chain[:-1]:
                    raise ValueError(f"fallback goes round in a circle: {' → '.join(chain)}")


class Breaker:
    """Whether one agent is asked.

    Args:
        agent: whose.
        settings: when it opens, and for how long.

    Attributes:
        state: `closed`, `open` or `half-open`.
    """

    def __init__(self, agent: str, settings: BreakerSettings) -> None:
        self.state = "closed"
        self._agent = agent
        self._settings = settings
        self._failures: deque[float] = deque(maxlen=settings.failures)
        self._until = 0.0
        self._trial: str | None = None

    def admits(self, turn_id: str, now: float) -> bool:
        """Tell whether the agent may be given this turn; a trial that never ends makes room for another in time."""
        if self.state == "closed" or turn_id == self._trial:
            return True
        if now < self._until:
            return False
        self._trial, self._until = turn_id, now + self._settings.open
        self._become("half-open", logging.INFO, "one turn is let through")
        return True

    def fail(self, turn_id: str, now: float) -> None:
        """Count a failure; half-open, only what became of the trial counts."""
        if self.state == "closed":
            self._failures.append(now)
            often = len(self._failures) == self._settings.failures
            if often and now - self._failures[0] <= self._settings.window:
                self._open(now, f"{self._settings.failures} failures within {self._settings.window:g} s")
        elif turn_id == self._trial:
            self._open(now, "the turn that was let through failed as well")

    def succeed(self, turn_id: str) -> None:
        """Take note that a turn was completed."""
        if turn_id == self._trial:
            self._trial = None
            self._failures.clear()
            self._become("closed", logging.INFO, "the turn that was let through was completed")

    def forget(self, turn_id: str) -> None:
        """Take note that a turn says nothing about the agent; if it was to try it, the next one will."""
        if turn_id == self._trial:
            self._trial, self._until = None, 0.0

    def describe(self, now: float) -> dict[str, Any]:
        """Return how it stands, as JSON-able values."""
        since = now - self._settings.window
        shown: dict[str, Any] = {"state": self.state}
        if self.state == "closed":
            shown["failures"] = sum(at >= since for at in self._failures)
        elif self.state == "open":
            shown["seconds"] = round(max(0.0, self._until - now), 3)
        return shown

    def _open(self, now: float, why: str) -> None:
        self._trial, self._until = None, now + self._settings.open
        self._failures.clear()
        self._become("open", logging.WARNING, f"{why}; it is not asked for {self._settings.open:g} s")

    def _become(self, state: str, level: int, why: str) -> None:
        if state != self.state:
            log.log(level, "agent %s: breaker %s, %s", self._agent, state, why)
        self.state = state


class Recovery(Plugin):
    """Has turns that no agent took up tried again, handed to another agent, or answered by the broker itself."""

    version = "1.0"
    Settings = RecoverySettings
    settings: RecoverySettings

    def __init__(self, settings: RecoverySettings, broker: Broker) -> None:
        super().__init__(settings, broker)
        self._breakers: dict[str, Breaker] = {}
        self._counted: OrderedDict[str, None] = OrderedDict()  # turns whose end is not to be counted

    async def start(self) -> None:
        """Check that all agents of the settings are there.

        Raises:
            ValueError: one is not.
        """
        self._check(self.settings)

    def reload(self, settings: RecoverySettings) -> bool:
        """Take over all settings; breakers that are to go by others are closed.

        Raises:
            ValueError: an agent is not there.
        """
        self._check(settings)
        if settings.breaker != self.settings.breaker:
            self._breakers.clear()
        self.settings = settings
        return True

    def routes(self) -> Sequence[Route]:
        """Show the breakers to operators."""
        return (Route("GET", "/recovery", self.show, scope="admin"),)

    async def show(self, request: web.Request) -> web.Response:
        """Answer how each breaker stands, by agent."""
        now = self.broker.monotonic()
        return web.json_response({agent: breaker.describe(now) for agent, breaker in self._breakers.items()})

    def on_dispatch(self, attempt: Attempt) -> HandTo | Degraded | None:
        """Say who gets a turn: for a start its agent, unless that is known to fail; else whoever is left."""
        if attempt.code is None:
            return None if self._admits(attempt.agent, attempt) else self._go_on_from(attempt.agent, attempt)
        agent, now = attempt.tried[-1], self.broker.monotonic()
        breaker = self._breaker(agent)
        if attempt.code not in AGENTS_OWN:
            if breaker is not None:
                breaker.forget(attempt.turn_id)
            self._leave_uncounted(attempt.turn_id)
            return None
        if breaker is not None:
            breaker.fail(attempt.turn_id, now)
        if attempt.last:
            return self._answer(attempt)
        tries = attempt.tried.count(agent)
        if tries <= self.settings.retries and ERRORS[attempt.code].retryable and self._admits(agent, attempt):
            return HandTo(agent, self._pause(tries))
        return self._go_on_from(agent, attempt)

    def turn_ended(self, turn: TurnEnded) -> None:
        """Count what became of a turn for or against the agent that had it, once."""
        turn_id, breaker = turn.turn_id, self._breaker(turn.agent)
        if turn_id in self._counted:
            del self._counted[turn_id]
        elif breaker is not None and turn.dispatched:
            if turn.outcome in FAILED:
                breaker.fail(turn_id, self.broker.monotonic())
            elif turn.outcome == "completed":
                breaker.succeed(turn_id)
        for other in self._breakers.values():  # it may have been to try an agent that it never came to
            other.forget(turn_id)

    # -- inside -------------------------------------------------------------------------------------

    def _go_on_from(self, agent: str, attempt: Attempt) -> HandTo | Degraded | None:
        """Hand a turn to the next agent in line that may be asked, or answer it; None if there is no way on."""
        following = self.settings.fallback.get(agent)
        while following is not None:
            if following not in attempt.tried and self._admits(following, attempt):
                return HandTo(following)
            following = self.settings.fallback.get(following)
        return self._answer(attempt)

    def _answer(self, attempt: Attempt) -> Degraded | None:
        """Have the broker answer a turn; None if it is not to."""
        self._leave_uncounted(attempt.turn_id)
        degraded = self.settings.degraded
        return None if degraded is None else Degraded(degraded.text)

    def _leave_uncounted(self, turn_id: str) -> None:
        """Do not count how a turn ends: why is known already, or no fault of an agent's."""
        self._counted[turn_id] = None
        if len(self._counted) > REMEMBERED:
            self._counted.popitem(last=False)

    def _admits(self, agent: str, attempt: Attempt) -> bool:
        breaker = self._breaker(agent)
        return breaker is None or breaker.admits(attempt.turn_id, self.broker.monotonic())

    def _breaker(self, agent: str) -> Breaker | None:
        settings = self.settings.breaker
        if settings is None:
            return None
        breaker = self._breakers.get(agent)
        if breaker is None:  # as many as there are profiles, of the configuration and of sessions that outlived theirs
            breaker = self._breakers[agent] = Breaker(agent, settings)
        return breaker

    def _pause(self, tries: int) -> float:
        longest = min(self.settings.backoff * 2.0 ** (tries - 1), LONGEST_PAUSE)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - so that not all come back at once; no secret

    def _check(self, settings: RecoverySettings) -> None:
        agents: Mapping[str, Any] = self.broker.stats.agents()
        for agent in (*settings.fallback, *settings.fallback.values()):
            if agent not in agents:
                there = ", ".join(agents)
                raise ValueError(f"fallback names an agent {agent!r}, which is not there; there are: {there}")
