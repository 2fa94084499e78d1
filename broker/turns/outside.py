"""What an agent says that changes no turn: about itself, too late, or of a turn nobody knows."""

from typing import Any, Final

import msgspec

from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentReady,
    AgentRecord,
    ApprovalRequested,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)
from broker.turns.commands import AnswerApproval, Out

__all__ = ["about_agent", "note", "refuse", "reportable"]

_OURS: Final = ("turn.", "message.", "thought.", "approval.", "user.", "session.", "variables.", "activity")
"""How the kinds of records begin that are the broker's own words."""
_KEPT: Final[dict[type, tuple[str, ...]]] = {
    TextReplaced: ("message.replaced", "thought", "text"),
    ApprovalRequested: ("approval.requested", "title"),
    TurnTaken: ("turn.taken",),
    TurnSettled: ("turn.settled", "stop_reason"),
    TurnFailed: ("turn.failed", "message"),
    AgentLost: ("agent.lost", "reason"),
}
"""What is kept of an event that came outside of its turn: a word for it, and these of its fields."""
_encode: Final = msgspec.json.Encoder().encode


def about_agent(event: AgentEvent) -> bool:
    """Tell whether the agent speaks of itself rather than of a turn, even while it has one."""
    return isinstance(event, AgentReady) or (isinstance(event, AgentRecord) and event.kind.startswith("agent."))


def reportable(kind: str) -> bool:
    """Tell whether an agent's report may become a record of this kind, for what the broker says is not for agents."""
    return not kind.startswith(_OURS)


def note(event: AgentEvent, out: Out) -> None:
    """Keep what came outside of its turn; a frame of a turn that has ended becomes `activity` (PROTOCOL section 3)."""
    match event:
        case AgentReady(data=data):
            out.write("agent.state", data)
            return
        case AgentRecord(turn_id=turn_id, kind=kind, data=data) if _of_no_turn(turn_id, kind):
            out.write(kind, data)
            return
        case ApprovalRequested(turn_id=turn_id, key=key):
            out.command(AnswerApproval(turn_id, key, None))
    if kept := _kept(event):
        out.write("activity", _encode({"late_of": event.turn_id, **kept}))


def _kept(event: AgentEvent) -> dict[str, Any]:
    """Return what is kept of an event: nothing of variables, the session's affair, or of a link that is down."""
    match event:
        case AgentRecord(kind=kind, data=data):
            return {"kind": kind, "data": msgspec.Raw(data)}
        case TextDelta(text=text, thought=thought):
            return {"kind": "thought.delta" if thought else "message.delta", "text": text}
    word, *fields = _KEPT.get(type(event), ("",))
    return {"kind": word, **{field: getattr(event, field) for field in fields}} if word else {}


def refuse(event: ApprovalRequested, reason: str, out: Out) -> None:
    """Answer a question of the running turn as cancelled, since no person can be asked, and say why in the log."""
    out.command(AnswerApproval(event.turn_id, event.key, None))
    data = {"late_of": None, "kind": "approval.requested", "title": event.title, "reason": reason}
    out.write("activity", _encode(data), event.turn_id)


def _of_no_turn(turn_id: str | None, kind: str) -> bool:
    """Tell whether a record may stand in the log as it is, without a turn."""
    return kind.startswith("agent.") or (turn_id is None and kind.startswith(("vendor.", "debug")))
