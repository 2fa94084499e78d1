"""What an agent says that changes no turn: about itself, too late, or of a turn nobody knows."""

from typing import Any, Final

import msgspec

from broker.messages import (
    AgentEvent,
    AgentReady,
    AgentRecord,
    ApprovalRequested,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)
from broker.turns.commands import AnswerApproval, Out

__all__ = ["about_agent", "note", "refuse"]

_encode: Final = msgspec.json.Encoder().encode


def about_agent(event: AgentEvent) -> bool:
    """Tell whether the agent speaks of itself rather than of a turn, even while it has one."""
    return isinstance(event, AgentReady) or (isinstance(event, AgentRecord) and event.kind.startswith("agent."))


def note(event: AgentEvent, out: Out) -> None:
    """Keep what came outside of its turn; a frame of a turn that has ended becomes `activity` (PROTOCOL section 3)."""
    match event:
        case AgentReady(data=data):
            out.write("agent.state", data)
        case AgentRecord(turn_id=turn_id, kind=kind, data=data) if _of_no_turn(turn_id, kind):
            out.write(kind, data)
        case AgentRecord(turn_id=turn_id, kind=kind, data=data):
            _write(out, turn_id, {"kind": kind, "data": msgspec.Raw(data)})
        case TextDelta(turn_id=turn_id, text=text, thought=thought):
            _write(out, turn_id, {"kind": "thought.delta" if thought else "message.delta", "text": text})
        case ApprovalRequested(turn_id=turn_id, key=key, title=title):
            out.command(AnswerApproval(turn_id, key, None))
            _write(out, turn_id, {"kind": "approval.requested", "title": title})
        case TurnTaken(turn_id=turn_id):
            _write(out, turn_id, {"kind": "turn.taken"})
        case TurnSettled(turn_id=turn_id, stop_reason=stop_reason):
            _write(out, turn_id, {"kind": "turn.settled", "stop_reason": stop_reason})
        case TurnFailed(turn_id=turn_id, message=message):
            _write(out, turn_id, {"kind": "turn.failed", "message": message})
        case _:
            pass  # variables are the session's affair, and a link that is down has nothing to say


def refuse(event: ApprovalRequested, reason: str, out: Out) -> None:
    """Answer a question of the running turn as cancelled, since no person can be asked, and say why in the log."""
    out.command(AnswerApproval(event.turn_id, event.key, None))
    data = {"late_of": None, "kind": "approval.requested", "title": event.title, "reason": reason}
    out.write("activity", _encode(data), event.turn_id)


def _of_no_turn(turn_id: str | None, kind: str) -> bool:
    """Tell whether a record may stand in the log as it is, without a turn."""
    return kind.startswith("agent.") or (turn_id is None and kind.startswith(("vendor.", "debug")))


def _write(out: Out, late_of: str | None, data: dict[str, Any]) -> None:
    out.write("activity", _encode({"late_of": late_of, **data}))
