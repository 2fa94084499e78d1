"""A turn on its way to an agent that takes it: who could not, why, and how that is said; see `dispatching`."""

from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs
import msgspec

from broker.hooks import Degraded, HandTo
from broker.messages import AgentReady, Prompt

__all__ = ["Decided", "Decision", "Log", "Onward", "Way", "without_memory"]

_encode: Final = msgspec.json.Encoder().encode

Decision = HandTo | Degraded


@attrs.frozen(eq=False)
class Onward:
    """The next step on a turn's way is due; what the session tells itself, since only its mail may write to its log."""

    step: Callable[[], None]


class Log(Protocol):
    """What is asked of the session: to write, and to go on once that is durable."""

    @property
    def actor_ref(self) -> Any:
        """The session's reference."""

    def write(self, kind: str, data: bytes, turn_id: str | None = None) -> int:
        """Append a record."""

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Do this once everything written so far is durable."""


@attrs.frozen
class Decided:
    """What was said of a turn that waits; `unserved` if that was because its agent is not there at all."""

    turn_id: str
    decision: Decision
    unserved: bool = False


@attrs.define(eq=False)
class Way:
    """One dispatched turn's way.

    Attributes:
        prompt: what it says.
        home: the agent of its session.
        since: when it was dispatched.
        tried: the agents that could not take it.
        code: why the last of them could not, and ...
        message: ... in words.
        open: whether no agent has it: one was left, its time has not come, or a place is asked for.
    """

    prompt: Prompt
    home: str
    since: float
    tried: tuple[str, ...] = ()
    code: str | None = None
    message: str | None = None
    open: bool = False

    @property
    def turn_id(self) -> str:
        """The turn."""
        return self.prompt.turn_id

    def note(self, agent: str, code: str, message: str) -> None:
        """Note that an agent could not take it."""
        self.tried = (*self.tried, agent)
        self.code, self.message = code, message

    def reason(self, decision: Decision) -> str:
        """Say in words who could not take it, and what comes now."""
        last = self.tried[-1] if self.tried else self.home
        why = f"could not take the turn ({self.code}: {self.message})" if self.tried else "is not asked"
        return f"agent {last} {why}; {self._then(decision, last)}"

    def _then(self, decision: Decision, last: str) -> str:
        if isinstance(decision, Degraded):
            return "the broker answers itself"
        who = "it is asked again" if self.tried and decision.agent == last else f"agent {decision.agent} is asked"
        return f"{who} in {decision.after:.3g} s" if decision.after else who

    def record(self, decision: HandTo, leaves: str) -> bytes:
        """Return the data of the `activity` that tells viewers of it.

        Args:
            decision: who is asked now.
            leaves: who was before.
        """
        data: dict[str, Any] = {
            "late_of": None,
            "kind": "turn.handed_on",
            "from": leaves,
            "agent": decision.agent,
            "after": round(decision.after, 3),
            "reason": self.reason(decision),
        }
        if self.code is not None:
            data["error"] = {"code": self.code, "message": self.message}
        return _encode(data)


def without_memory(event: AgentReady) -> AgentReady:
    """Return it without what the agent calls the session, which says nothing to another agent."""
    data = msgspec.json.decode(event.data)
    data.pop("agent_session_id", None)
    return attrs.evolve(event, data=_encode(data), memory=None)
