"""The turn machine: what a session's turns may do, without a loop, a store or an agent.

Events go in as method calls; records, rows to save and commands to the agent come out through the
`Out` port, in the order in which they have to take effect. Whoever drives the machine makes them
durable first and carries out the commands afterwards (PROTOCOL sections 1 and 3). Time comes in as
an argument, so that a test moves it by hand.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from broker.errors import BrokerError
from broker.ids import new_id
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentRecord,
    ApprovalRequested,
    Prompt,
    TextDelta,
    TurnFailed,
    TurnRow,
    TurnSettled,
)
from broker.operations import IfBusy
from broker.turns.commands import Accepted, AnswerApproval, CancelTurn, CutLink, Out, StartTurn
from broker.turns.speech import Speech
from broker.turns.turn import Approval, Turn, digest_of

__all__ = ["CANCEL_SECONDS", "TurnMachine"]

CANCEL_SECONDS: Final = 10.0
"""How long an agent may take to settle a cancelled turn before its link is cut (PROTOCOL section 3)."""

_encode: Final = msgspec.json.Encoder().encode


class TurnMachine:
    """The turns of one session: one running, the others in a bounded queue, each ending exactly once."""

    def __init__(self, session_id: str, out: Out, *, queue_limit: int, agent: str, workspace_dir: str | None) -> None:
        self.variables = b"{}"
        self._session_id = session_id
        self._out = out
        self._queue_limit = queue_limit
        self._agent = agent
        self._workspace_dir = workspace_dir
        self._turns: dict[str, Turn] = {}
        self._by_client: dict[tuple[str | None, str], Turn] = {}
        self._queue: deque[Turn] = deque()
        self._speech = Speech(out)
        self._halted = False
        self._resolved: dict[str, tuple[str | None, str | None]] = {}
        self.running: Turn | None = None
        self.force_at: float | None = None

    # -- what people do ---------------------------------------------------------------------------

    def accept(self, *, user: str | None, client_msg_id: str, content: bytes, if_busy: IfBusy, now: float) -> Accepted:
        """Accept a turn, or recognise one that was accepted before (P4).

        Raises:
            BrokerError: `conflict`, `busy` or `queue_full`; nothing has changed then.
        """
        digest = digest_of(content)
        known = self._by_client.get((user, client_msg_id))
        if known is not None:
            if known.digest != digest:
                raise BrokerError("conflict", field="$.payload.client_msg_id", hint="use a new client_msg_id")
            return Accepted(known.turn_id, known.seq, known.state, duplicate=True)
        self._check_room(if_busy)
        self._speech.flush()
        turn = Turn(new_id(), 0, user, client_msg_id, digest, content)
        turn.seq = self._write_user_message(turn)
        self._remember(turn)
        self._enqueue(turn, first=if_busy == "interrupt")
        if if_busy == "interrupt" and self.running is not None:
            self.cancel(self.running.turn_id, by=user, now=now)
        self._dispatch_next()
        if turn.state == "queued":
            self._out.save(turn.row(self._session_id))
        return Accepted(turn.turn_id, turn.seq, turn.state, duplicate=False)

    def cancel(self, turn_id: str, *, by: str | None, now: float) -> Turn:
        """Cancel a turn and return it; a turn that is ending or has ended is left as it is.

        Raises:
            BrokerError: `not_found`.
        """
        turn = self._turns.get(turn_id)
        if turn is None:
            raise BrokerError("not_found", "This session has no such turn.", field="$.payload.turn_id")
        if turn.state in {"ended", "cancelling"}:
            return turn
        turn.cancelled_by = by
        if turn is not self.running:
            self._queue.remove(turn)
            self._end(turn, "cancelled", by=by)
            return turn
        self._speech.flush()
        turn.state = "cancelling"
        self._out.write("turn.cancelling", _encode({"by": by}), turn.turn_id)
        self._void_approvals(turn, tell_agent=True)
        self._out.save(turn.row(self._session_id))
        self._out.command(CancelTurn(turn.turn_id))
        self.force_at = now + CANCEL_SECONDS
        return turn

    def answer(self, approval_id: str, option_id: str, *, by: str | None) -> None:
        """Answer a question of the agent's; the first valid answer wins.

        Raises:
            BrokerError: `already_resolved`, `not_found`, or `invalid_message` for an option never offered.
        """
        if approval_id in self._resolved:
            who, option = self._resolved[approval_id]
            said = f"answered {option} by {who or 'anonymous'}" if option else "voided"
            raise BrokerError("already_resolved", f"That approval was {said}.")
        turn = self.running
        if turn is None or approval_id not in turn.approvals:
            raise BrokerError("not_found", "This session has no such approval.", field="$.payload.approval_id")
        approval = turn.approvals[approval_id]
        offered = [option.get("option_id") for option in msgspec.json.decode(approval.options)]
        if option_id not in offered:
            hint = f"one of: {', '.join(map(str, offered))}"
            raise BrokerError("invalid_message", "That option was not offered.", field="$.payload.option_id", hint=hint)
        self._speech.flush()
        self._resolve(turn, approval, by=by, option_id=option_id)
        self._out.command(AnswerApproval(turn.turn_id, approval.key, option_id))
        if not turn.approvals:
            turn.state = "running"

    # -- what the agent says ------------------------------------------------------------------------

    def agent(self, event: AgentEvent, *, now: float) -> None:
        """Take what the agent said. What belongs to no running turn becomes `activity`."""
        if isinstance(event, AgentLost):
            self.lose(event.reason)
            return
        turn = self.running
        if turn is None or event.turn_id != turn.turn_id:
            self._note_activity(event)
            return
        if isinstance(event, AgentRecord) and event.kind.startswith("agent."):
            self._speech.flush()
            self._out.write(event.kind, event.data)  # about the agent, not of the turn: it says nothing of an answer
            return
        if turn.state == "dispatching":
            turn.state = "running"
        match event:
            case TextDelta():
                turn.produced = True
                self._speech.add(event, now)
            case AgentRecord():
                self._speech.flush()
                turn.produced = True
                self._out.write(event.kind, event.data, turn.turn_id)
            case ApprovalRequested():
                self._open_approval(turn, event)
            case TurnSettled():
                outcome = "cancelled" if turn.state == "cancelling" else "completed"
                self._end(turn, outcome, stop_reason=event.stop_reason, usage=event.usage)
            case TurnFailed():
                error = {"code": event.code, "message": event.message, "retryable": event.retryable}
                outcome = "cancelled" if turn.state == "cancelling" else "failed"
                self._end(turn, outcome, error=error)
        self._dispatch_next()

    def lose(self, reason: str) -> None:
        """End the running turn because its agent, or the way to it, is gone: the outcome is unknown."""
        turn = self.running
        if turn is None:
            return
        if turn.state == "cancelling":
            self._end(turn, "cancelled", forced=True, reason=reason)
        else:
            self._end(turn, "lost", reason=reason)
        self._dispatch_next()

    def halt(self, reason: str) -> None:
        """End what runs and start nothing more: the broker stops, and queued turns go on after it (P5)."""
        self._halted = True
        self.lose(reason)

    # -- what time does -----------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `tick` should be called next, on the clock of `now`; None for not at all."""
        flush_at, force_at = self._speech.flush_at, self.force_at
        if flush_at is None or force_at is None:
            return flush_at if force_at is None else force_at
        return min(flush_at, force_at)

    def tick(self, now: float) -> None:
        """Do what is due."""
        flush_at = self._speech.flush_at
        if flush_at is not None and now >= flush_at:
            self._speech.flush()
        if self.force_at is not None and now >= self.force_at and self.running is not None:
            turn = self.running
            self._out.command(CutLink(turn.turn_id))
            self._end(turn, "cancelled", forced=True, reason=f"the agent did not stop within {CANCEL_SECONDS:g} s")
            self._dispatch_next()

    # -- the session's life -------------------------------------------------------------------------

    def recover(self, rows: Iterable[TurnRow], *, produced: str | None, approvals: Iterable[tuple[str, str]]) -> None:
        """Take up the turns of an earlier run: what was dispatched is lost, what was queued goes on (P5).

        Args:
            rows: all turns of the session, in the order of their acceptance.
            produced: the turn to which the log's last output belongs.
            approvals: (turn id, approval id) of the questions that nobody answered.
        """
        open_approvals: dict[str, list[str]] = {}
        for turn_id, approval_id in approvals:
            open_approvals.setdefault(turn_id, []).append(approval_id)
        for row in rows:
            turn = Turn(row.turn_id, row.seq, row.user, row.client_msg_id, row.digest, row.content, row.state)
            turn.outcome = row.outcome
            self._remember(turn)
            if row.outcome is not None:
                continue
            if row.state == "queued":
                self._queue.append(turn)
                continue
            turn.produced = turn.turn_id == produced
            for approval_id in open_approvals.get(turn.turn_id, ()):
                turn.approvals[approval_id] = Approval(approval_id, "", "", b"[]", None)
            self._end(turn, "lost", reason="the broker stopped while the turn was running")
        self._dispatch_next()

    def close(self, by: str | None, now: float) -> None:
        """Cancel everything: the session is being closed."""
        for turn in list(self._queue):
            self.cancel(turn.turn_id, by=by, now=now)
        if self.running is not None:
            self.cancel(self.running.turn_id, by=by, now=now)

    def knows(self, user: str | None, client_msg_id: str) -> bool:
        """Tell whether a turn was accepted under this id before, so that sending it again is answered again (P4)."""
        return (user, client_msg_id) in self._by_client

    @property
    def busy(self) -> bool:
        """Whether any turn has not ended."""
        return self.running is not None or bool(self._queue)

    def view(self) -> dict[str, Any]:
        """Return what a client that attaches is told: `turn`, `queue` and `approvals`."""
        turn = self.running
        approvals = [] if turn is None else [a.view() for a in turn.approvals.values()]
        return {
            "turn": None if turn is None else turn.view(),
            "queue": [queued.view() for queued in self._queue],
            "approvals": approvals,
        }

    # -- inside -------------------------------------------------------------------------------------

    def _check_room(self, if_busy: IfBusy) -> None:
        if self.running is None and not self._queue:
            return
        if if_busy == "reject":
            raise BrokerError("busy", hint='send it with if_busy "queue", or cancel the running turn')
        if len(self._queue) >= self._queue_limit:
            raise BrokerError("queue_full", f"{self._queue_limit} turns are waiting already.", retry_after=1.0)

    def _write_user_message(self, turn: Turn) -> int:
        message: dict[str, Any] = {
            "message_id": turn.turn_id,
            "role": "user",
            "content": msgspec.Raw(turn.content or b'""'),
            "client_msg_id": turn.client_msg_id,
            "author": turn.user,
        }
        return self._out.write("user.message", _encode(message), turn.turn_id)

    def _remember(self, turn: Turn) -> None:
        self._turns[turn.turn_id] = turn
        self._by_client[turn.user, turn.client_msg_id] = turn

    def _enqueue(self, turn: Turn, *, first: bool) -> None:
        """Put a turn into the queue; one that need not wait is dispatched in the same write, whose record says so."""
        ahead = (self.running is not None) + (0 if first else len(self._queue))
        if first:
            self._queue.appendleft(turn)
        else:
            self._queue.append(turn)
        if ahead or self._halted:
            self._out.write("turn.queued", b'{"ahead":%d}' % ahead, turn.turn_id)

    def _dispatch_next(self) -> None:
        """Start the next turn if none is running: written as dispatched before the agent is told."""
        if self._halted or self.running is not None or not self._queue:
            return
        turn = self.running = self._queue.popleft()
        turn.state = "dispatching"
        self._out.write("turn.started", _encode({"agent": self._agent}), turn.turn_id)
        self._out.save(turn.row(self._session_id))
        prompt = Prompt(self._session_id, turn.turn_id, turn.content or b'""', self.variables, self._workspace_dir)
        self._out.command(StartTurn(prompt))

    def _open_approval(self, turn: Turn, event: ApprovalRequested) -> None:
        self._speech.flush()
        approval = Approval(new_id(), event.key, event.title, event.options, event.tool)
        if turn.state == "cancelling":
            self._out.command(AnswerApproval(turn.turn_id, event.key, None))
            return
        turn.approvals[approval.approval_id] = approval
        turn.state = "awaiting_approval"
        self._out.write("approval.requested", _encode(approval.view()), turn.turn_id)
        self._out.save(turn.row(self._session_id))

    def _resolve(self, turn: Turn, approval: Approval, *, by: str | None, option_id: str | None) -> None:
        del turn.approvals[approval.approval_id]
        self._resolved[approval.approval_id] = (by, option_id)
        data = {
            "approval_id": approval.approval_id,
            "outcome": "selected" if option_id else "void",
            "option_id": option_id,
            "resolved_by": by,
        }
        self._out.write("approval.resolved", _encode(data), turn.turn_id)

    def _void_approvals(self, turn: Turn, *, tell_agent: bool) -> None:
        for approval in list(turn.approvals.values()):
            self._resolve(turn, approval, by=turn.cancelled_by, option_id=None)
            if tell_agent:
                self._out.command(AnswerApproval(turn.turn_id, approval.key, None))

    def _end(self, turn: Turn, outcome: str, **more: Any) -> None:
        """Write the one `turn.ended` of a turn: its last record."""
        if turn is self.running:
            self._speech.complete()
            self.running = None
            self.force_at = None
        self._void_approvals(turn, tell_agent=False)
        turn.state = "ended"
        turn.outcome = outcome
        turn.content = None
        data: dict[str, Any] = {"outcome": outcome, "partial": turn.produced}
        if outcome == "completed" and not turn.produced:
            data["empty"] = True
        if turn.cancelled_by is not None:
            data["by"] = turn.cancelled_by
        usage = more.pop("usage", None)
        if usage is not None:
            data["usage"] = msgspec.Raw(usage)
        data.update((key, value) for key, value in more.items() if value is not None)
        self._out.write("turn.ended", _encode(data), turn.turn_id)
        self._out.save(turn.row(self._session_id))

    def _note_activity(self, event: AgentEvent) -> None:
        """Keep what came outside of its turn, without letting it touch any turn."""
        self._speech.flush()
        match event:
            case AgentRecord(turn_id=None, kind=kind, data=data) if kind.startswith(("agent.", "vendor.", "debug")):
                self._out.write(kind, data)
            case AgentRecord(turn_id=turn_id, kind=kind, data=data):
                self._write_activity(turn_id, {"kind": kind, "data": msgspec.Raw(data)})
            case TextDelta(turn_id=turn_id, text=text, thought=thought):
                self._write_activity(turn_id, {"kind": "thought.delta" if thought else "message.delta", "text": text})
            case ApprovalRequested(turn_id=turn_id, key=key, title=title):
                self._out.command(AnswerApproval(turn_id, key, None))
                self._write_activity(turn_id, {"kind": "approval.requested", "title": title})
            case TurnSettled(turn_id=turn_id, stop_reason=stop_reason):
                self._write_activity(turn_id, {"kind": "turn.settled", "stop_reason": stop_reason})
            case TurnFailed(turn_id=turn_id, message=message):
                self._write_activity(turn_id, {"kind": "turn.failed", "message": message})

    def _write_activity(self, late_of: str | None, data: dict[str, Any]) -> None:
        self._out.write("activity", _encode({"late_of": late_of, **data}))
