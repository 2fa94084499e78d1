"""What is noted of each turn's way through its session: from its records, and from what its agent says."""

from collections.abc import Iterable
from typing import Final

import msgspec

from broker.errors import BrokerError
from broker.messages import AgentEvent, AgentLost, AgentReady, Record, TurnRow, TurnTaken
from broker.traces import Traces

__all__ = ["NEWS", "Trail"]

_STEPS: Final = {
    "user.message": "accepted",
    "turn.queued": "queued",
    "turn.started": "dispatching",
    "turn.edited": "edited",
    "approval.requested": "waits for an answer",
    "approval.resolved": "goes on",
    "turn.stalled": "stalled",
    "turn.cancelling": "cancelling",
    "turn.ended": "ended",
}
"""What a turn's trace calls that which these records tell."""
_REASONED: Final = frozenset({"turn.stalled", "turn.cancelling", "turn.ended"})
"""Records that may tell a reason as well."""
NEWS: Final = frozenset({TurnTaken, AgentReady, AgentLost})
"""What agents say that is noted; of their output only the first piece."""
_COMPLETED: Final = b'{"outcome":"completed"'
_CANCELLED: Final = b'{"outcome":"cancelled"'


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
    """

    def __init__(self, traces: Traces, session_id: str) -> None:
        self._note = traces.note
        self._traces = traces
        self._session_id = session_id

    def begin(self, turn_id: str, client_msg_id: str, user: str | None) -> None:
        """Begin the trace of a turn that is being accepted."""
        self._traces.begin(turn_id, session_id=self._session_id, client_msg_id=client_msg_id, user=user)

    def take_up(self, row: TurnRow) -> None:
        """Note that a turn was found that an earlier incarnation of the session left open."""
        self.begin(row.turn_id, row.client_msg_id, row.user)
        self._note(row.turn_id, "session", "taken up")

    def follow(self, records: Iterable[Record]) -> list[tuple[str, int, str]]:
        """Note what records tell that have become durable; return of turns that ended badly their id, when and why."""
        troubles: list[tuple[str, int, str]] = []
        for record in records:
            step = _STEPS.get(record.kind)
            if step is not None and record.turn_id is not None:
                reason = _reason(record.data) if record.kind in _REASONED else None
                self._note(record.turn_id, "session", step, reason)
                if reason is not None and step == "ended" and not record.data.startswith(_CANCELLED):
                    troubles.append((record.turn_id, record.at, reason))
        return troubles

    def miss(self, records: Iterable[Record], error: BrokerError) -> None:
        """Note the turns of which the store refused something."""
        for turn_id in {record.turn_id for record in records if record.turn_id is not None}:
            self._note(turn_id, "store", "refused", f"{error.code}: {error.message}")

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
        self._note(turn_id, "followers", "shown to 1 viewer" if viewers == 1 else f"shown to {viewers} viewers")


def _reason(data: bytes) -> str | None:
    """Return why a turn is held up, or ended otherwise than by itself."""
    if data.startswith(_COMPLETED):
        return None
    why = _why(data)
    if why.outcome == "completed":
        return None
    error = None if why.error is None else f"{why.error.code}: {why.error.message}"
    deadline = None if why.deadline is None else f"deadline {why.deadline}"
    reason = why.reason or error
    said = reason is not None and reason.startswith(why.outcome or " ")  # "cancelled by ann" is enough
    return ", ".join(filter(None, (None if said else why.outcome, deadline, reason))) or None
