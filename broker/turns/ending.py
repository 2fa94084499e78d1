"""Why turns are stopped and how they end, in the words of the log (PROTOCOL section 3)."""

from typing import Any, Final, Literal

import attrs
import msgspec

from broker.config.profiles import Deadlines

__all__ = [
    "AGENT_GONE",
    "FULL",
    "WORDLESS",
    "Cause",
    "Deadline",
    "Ending",
    "Outcome",
    "error_of",
    "span",
    "stopped",
    "timed_out",
    "words_of",
]

Outcome = Literal["completed", "cancelled", "failed", "timed_out", "lost"]
Deadline = Literal["start", "idle", "approval", "queue", "turn"]
"""The deadlines that can end a turn; named as in an agent's profile."""

AGENT_GONE: Final = "agent_unavailable"
FULL: Final = "the session's log is full"
WORDLESS: Final = "the agent gave no reason"
"""What is said of an agent, or a way to it, that failed without a word."""

_REASONS: Final[dict[Deadline, str]] = {
    "start": "the agent did not take the turn within {}",
    "idle": "the agent said nothing for {}",
    "approval": "nobody answered the agent's question within {}",
    "queue": "the turn waited for longer than {}",
    "turn": "the turn took longer than {}",
}
_STOPS: Final = {
    "max_tokens": "the agent reached its limit of tokens",
    "max_turn_requests": "the agent reached its limit of requests",
    "refusal": "the agent refused to go on",
    "cancelled": "the agent stopped by itself",
}
_encode: Final = msgspec.json.Encoder().encode


@attrs.frozen
class Cause:
    """Why a turn is being stopped; it stays the cause, whatever comes on top of it.

    Attributes:
        reason: for a person.
        by: who stopped it, None for an anonymous person; without meaning for a deadline.
        deadline: the deadline that struck, None if a person stopped it.
    """

    reason: str
    by: str | None = None
    deadline: Deadline | None = None

    @property
    def outcome(self) -> Outcome:
        """How the turn ends, whatever the agent says."""
        return "cancelled" if self.deadline is None else "timed_out"

    def data(self) -> bytes:
        """Return the data of its `turn.cancelling`."""
        data = {"by": self.by, "reason": self.reason}
        if self.deadline is not None:
            data["deadline"] = self.deadline
        return _encode(data)

    def view(self) -> dict[str, Any]:
        """Return what people who attach are told of it."""
        return {"by": self.by} if self.deadline is None else {"deadline": self.deadline}


@attrs.define(kw_only=True)
class Ending:
    """How a turn ended: the data of its `turn.ended`.

    Attributes:
        outcome: the word for it.
        partial: whether any output was logged.
        by: who cancelled it, None for an anonymous person; without meaning for other outcomes.
        forced: whether the agent had to be cut off, or went, before it had settled the cancelled turn.
        deadline: the deadline that struck.
        reason: for a person.
        error: `{code, message, retryable}` of a turn that failed.
        stop_reason: the agent's word for why it is over.
        usage: JSON of what it cost.
        degraded: whether the broker answered in the place of an agent.
    """

    outcome: Outcome
    partial: bool = False
    by: str | None = None
    forced: bool = False
    deadline: Deadline | None = None
    reason: str | None = None
    error: dict[str, Any] | None = None
    stop_reason: str | None = None
    usage: bytes | None = None
    degraded: bool = False

    def obey(self, cause: Cause, *, forced: bool) -> None:
        """Make this the ending of a turn that was being stopped: the cause decides, whatever the agent says then."""
        self.outcome, self.by, self.deadline, self.forced = cause.outcome, cause.by, cause.deadline, forced
        self.reason = f"{cause.reason}; {self.reason}" if forced else cause.reason

    def data(self) -> bytes:
        """Return the data of the record."""
        data: dict[str, Any] = {"outcome": self.outcome, "partial": self.partial}
        if self.outcome == "completed":
            if not self.partial:
                data["empty"] = True
        elif self.outcome == "cancelled":
            data["by"] = self.by
        data.update({flag: True for flag in ("forced", "degraded") if getattr(self, flag)})
        for field in ("deadline", "reason", "error", "stop_reason"):
            value = getattr(self, field)
            if value is not None:
                data[field] = value
        if self.usage is not None:
            data["usage"] = msgspec.Raw(self.usage)
        return _encode(data)


def stopped(how: str, by: str | None) -> Cause:
    """Return the cause that a person is, who stopped a turn."""
    return Cause(how if by is None else f"{how} by {by}", by)


def timed_out(deadline: Deadline, deadlines: Deadlines) -> Cause:
    """Return the cause that a deadline is, with its limit in words."""
    limit: float = getattr(deadlines, deadline)
    return Cause(_REASONS[deadline].format(span(limit)), deadline=deadline)


def error_of(code: str, message: str, *, retryable: bool) -> dict[str, Any]:
    """Return the `error` of a turn that failed."""
    return {"code": code, "message": message, "retryable": retryable}


def words_of(stop_reason: str | None) -> str | None:
    """Return what a stop reason says to a person; None if it says nothing that is not plain."""
    return _STOPS.get(stop_reason or "")


def span(seconds: float) -> str:
    """Write seconds as people say them: 45 s, 5 min, 24 h."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
