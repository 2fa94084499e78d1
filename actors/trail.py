"""What is noted of each turn's way through its session: from its records, and from what its agent says."""

from typing import Final

import msgspec

from broker import operations as ops
from broker.messages import AgentEvent, AgentLost, AgentReady, TurnRow, TurnTaken
from broker.traces import Traces

__all__ = ["NEWS", "NOTED", "Trail"]

_STEPS: Final = {
    "user.message": "accepted",
    "turn.queued": "queued",
    "turn.started": "dispatching",
    "turn.edited": "edited",
    "approval.requested": "waits for an answer",
    "approval.resolved": "goes on",
}
"""What a turn's trace calls that which these records tell ..."""
_HITCHES: Final = {"turn.stalled": "stalled", "turn.cancelling": "cancelling", "turn.ended": "ended"}
"""... and these, which may tell a reason as well."""
NOTED: Final = frozenset(_STEPS) | frozenset(_HITCHES)
"""Kinds of records that are noted; others need not be shown to a trail."""
NEWS: Final = frozenset({TurnTaken, AgentReady, AgentLost})
"""What agents say that is noted; of their output only the first piece."""
_COMPLETED: Final = b'{"outcome":"completed"'


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Why(msgspec.Struct):
    """What a turn's records say of the reason they were written for."""

    outcome: str | None = None
    reason: str | None = None
    deadline: str | None = None
    error: _Error | None = None


_why: Final = msgspec.json.Decoder(_Why).decode


class Trail:
    """Notes the way of one session's turns.

    Args:
        traces: where it is noted.
        session_id: the session.

    Attributes:
        start: what is being accepted: whose turn a `user.message` belongs to.
    """

    def __init__(self, traces: Traces, session_id: str) -> None:
        self._note = traces.note
        self._traces = traces
        self._session_id = session_id
        self.start: ops.Start | None = None

    def take_up(self, row: TurnRow) -> None:
        """Note that a turn was found that an earlier incarnation of the session left open."""
        self._begin(row.turn_id, row.client_msg_id, row.user)
        self._note(row.turn_id, "session", "taken up")

    def write(self, kind: str, data: bytes, turn_id: str) -> None:
        """Note what a record of a turn tells, one of a kind that is `NOTED`."""
        step = _STEPS.get(kind)
        if step is None:
            self._note(turn_id, "session", _HITCHES[kind], _reason(data))
            return
        if kind == "user.message" and self.start is not None:
            self._begin(turn_id, self.start.client_msg_id, self.start.by.user)
        self._note(turn_id, "session", step)

    def hear(self, event: AgentEvent, running: str | None) -> None:
        """Note what an agent says that is `NEWS`; `running` is the turn that it has."""
        match event:
            case TurnTaken(turn_id=turn_id):
                self._note(turn_id, "agent", "taken")
            case AgentReady() if running is not None:
                self._note(running, "agent", "ready")
            case AgentLost(reason=reason) if running is not None:
                self._note(running, "agent", "lost", reason)

    def hear_first(self, turn_id: str) -> None:
        """Note the first output of a turn."""
        self._note(turn_id, "agent", "first output")

    def cut(self, turn_id: str) -> None:
        """Note that a turn's agent is cut off."""
        self._note(turn_id, "bridge", "cut")

    def show(self, turn_id: str, viewers: int) -> None:
        """Note that a turn's end was told to those who follow the session."""
        self._note(turn_id, "followers", f"shown to {viewers} viewers")

    def _begin(self, turn_id: str, client_msg_id: str, user: str | None) -> None:
        self._traces.begin(turn_id, session_id=self._session_id, client_msg_id=client_msg_id, user=user)


def _reason(data: bytes) -> str | None:
    """Return why a turn is held up, or ended otherwise than by itself."""
    if data.startswith(_COMPLETED):
        return None
    why = _why(data)
    if why.outcome == "completed":
        return None
    error = None if why.error is None else f"{why.error.code}: {why.error.message}"
    deadline = None if why.deadline is None else f"deadline {why.deadline}"
    return ", ".join(filter(None, (why.outcome, deadline, why.reason or error))) or None
