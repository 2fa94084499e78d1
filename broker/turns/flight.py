"""The turn that an agent has, from its dispatch to its one end (PROTOCOL section 3).

    dispatching → running ⇄ awaiting_approval → cancelling → ended

Whatever stops a turn, a person or a deadline, goes down the same ladder: it is written, its questions are
answered as cancelled, the agent is asked to stop, and if it does not the link is cut. What the cause was
decides how the turn ends, whatever the agent says then.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from broker.ids import new_id
from broker.messages import (
    AgentEvent,
    AgentRecord,
    ApprovalRequested,
    LinkStalled,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnSettled,
    TurnState,
)
from broker.turns.approvals import Approvals
from broker.turns.clocks import CANCEL_SECONDS, TALK_SECONDS, Clocks, Strike
from broker.turns.commands import CancelTurn, CutLink
from broker.turns.ending import AGENT_GONE, FULL, WORDLESS, Cause, Ending, Outcome, error_of, span, timed_out, words_of
from broker.turns.outside import about_agent, note, refuse, reportable
from broker.turns.rules import TurnRules
from broker.turns.speech import Speech
from broker.turns.turn import Turn

__all__ = ["Flight"]

_encode: Final = msgspec.json.Encoder().encode

End = Callable[[Turn, Ending], None]
"""Ends a turn: writes its last record."""


class Flight:
    """One dispatched turn.

    Attributes:
        turn: the turn.
        over: whether it has ended.
        due: when to call `tick`, or earlier, for a frame that ends a silence does not move it on; infinity for never.
    """

    def __init__(
        self, turn: Turn, speech: Speech, approvals: Approvals, rules: TurnRules, end: End, now: float
    ) -> None:
        self.turn = turn
        self.over = False
        self._out = speech
        self._approvals = approvals
        self._deadlines = rules.deadlines
        self._end = end
        self._clocks = Clocks(rules.deadlines, now)
        self._cause: Cause | None = None
        self._settled: str | None = None  # the agent's stop reason, once it has said that it is done
        self._produced = False
        self._usage: bytes | None = None
        self._link_down = False
        self._enter("dispatching")

    def view(self) -> dict[str, Any]:
        """Return what people who attach are told of it."""
        view = self.turn.view()
        if self._clocks.told or self._link_down:
            view["stalled"] = True
        if self._cause is not None:
            view["cancelling"] = self._cause.view()
        return view

    # -- what people do -----------------------------------------------------------------------------

    def cancel(self, cause: Cause, now: float) -> None:
        """Stop the turn, for the first cause that there is; later ones change nothing."""
        if self._cause is not None:
            return
        self._cause = cause
        self._out.write("turn.cancelling", cause.data(), self.turn.turn_id)
        if self._settled is not None:
            self._land()
            return
        self._approvals.close("cancelled", cause.reason, by=cause.by, tell_agent=True)
        self._clocks.cancel(now)
        self._enter("cancelling")
        self._out.save(self.turn.row())
        self._out.command(CancelTurn(self.turn.turn_id))

    def answered(self, now: float) -> None:
        """Take note that a question was answered: with the last of them the agent is at work again."""
        if not self._approvals.waiting and self.turn.state == "awaiting_approval":
            self._clocks.heard_at = now
            self._enter("running")

    def degrade(self, text: str, reason: str) -> None:
        """End the turn with an answer of the broker's own, for no agent takes it."""
        answer = {"message_id": new_id(), "role": "assistant", "content": text, "degraded": True}
        self._out.write("message.completed", _encode(answer), self.turn.turn_id)
        self._produced = True
        self._finish("completed", reason, stop_reason="degraded", degraded=True)

    # -- what the agent says ------------------------------------------------------------------------

    def alive(self, now: float) -> None:
        """Take a sign of life: the silence is over."""
        self._clocks.heard_at = now
        if self._clocks.told or self._link_down:
            self._clocks.told = self._link_down = False
            self._enter(self.turn.state)

    def hear(self, event: AgentEvent, now: float) -> None:
        """Take what the agent says of this turn."""
        if isinstance(event, LinkStalled):
            self._miss_link(event.reason)
            return
        self.alive(now)
        if self.turn.state == "dispatching" and not about_agent(event):
            self._enter("running")
        if isinstance(event, TextDelta):
            if event.text:  # some agents begin with a piece of nothing, which is no output
                self._out.add(event, now)
                self._note_output(now)
        elif about_agent(event):
            note(event, self._out)
        else:
            self._hear_more(event, now)

    def _hear_more(self, event: AgentEvent, now: float) -> None:
        match event:
            case TextReplaced():
                self._out.replace(event, self.turn.turn_id, now)
                self._note_output(now)
            case AgentRecord(kind=kind, data=data) if reportable(kind):
                self._out.write(kind, data, self.turn.turn_id)
                if kind == "usage.updated":
                    self._usage = data
                elif kind != "debug":
                    self._note_output(now)
            case _ if self._settled is not None or isinstance(event, AgentRecord):
                note(event, self._out)
            case TurnSettled():
                self._settle(event, now)
            case ApprovalRequested():
                self._ask(event, now)
            case TurnFailed(code=code, message=message, retryable=retryable):
                self._finish("failed", message, error=error_of(code, message, retryable=retryable))
            case _:
                pass  # that the turn was taken, or variables set, is a sign of life and no more

    def lose(self, reason: str) -> None:
        """End the turn because its agent, or the way to it, is gone; what has been settled stays so."""
        if self._settled is not None:
            self._land()
        else:
            self._finish("lost", reason, gone=True)

    def overflow(self) -> None:
        """End the turn because there is no room for its output; its agent is cut even if it has settled."""
        if self._settled is not None:
            self._out.command(CutLink(self.turn.turn_id))
            self._land()
        else:
            self._cut("failed", FULL, error=error_of("too_large", FULL, retryable=False))

    # -- what time does -----------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        while not self.over:
            due, strike = self._clocks.next(self.turn.state, self._approvals.due)
            if now < due:
                self.due = due
                return
            self._strike(strike, now)

    def _strike(self, strike: Strike, now: float) -> None:
        match strike:
            case "settle":
                self._land()
            case "force":
                self._cut("cancelled", f"the agent did not stop within {span(CANCEL_SECONDS)} and was cut off")
            case "stalled":
                self._tell_silence(round(now - self._clocks.heard_at, 3))
            case "start":
                reason = timed_out("start", self._deadlines).reason
                self._cut("failed", reason, deadline="start", error=error_of(AGENT_GONE, reason, retryable=True))
            case "approval":
                self._approvals.expire(now)
                self.cancel(timed_out("approval", self._deadlines), now)
            case "idle" | "turn":
                self.cancel(timed_out(strike, self._deadlines), now)

    # -- inside -------------------------------------------------------------------------------------

    def _enter(self, state: TurnState) -> None:
        self.turn.state = state
        self.due = self._clocks.next(state, self._approvals.due)[0]

    def _note_output(self, now: float) -> None:
        self._produced = True
        if self._cause is not None and self._settled is None and self._clocks.talks_on(now):
            self._cut("cancelled", f"the agent went on for {span(TALK_SECONDS)} and was cut off")

    def _ask(self, event: ApprovalRequested, now: float) -> None:
        if self._cause is not None:
            refuse(event, "the turn is being stopped", self._out)
        elif self._approvals.request(event, now):
            self._enter("awaiting_approval")
            self._out.save(self.turn.row())

    def _settle(self, event: TurnSettled, now: float) -> None:
        """Take the agent's word that it is done; where its protocol lets output come after that, wait for it."""
        self._settled = event.stop_reason
        self._usage = event.usage or self._usage
        if event.last or not self._deadlines.settle:
            self._land()
            return
        self._approvals.close("void", "the agent ended the turn without an answer", tell_agent=True)
        self._clocks.settle(now)
        self._enter("running" if self._cause is None else "cancelling")

    def _miss_link(self, reason: str) -> None:
        """Tell people that the link is down, once until the agent is heard again; its silence goes on."""
        if self._settled is None and not self._link_down:
            self._link_down = True
            self._out.write("turn.stalled", _encode({"link": "down", "reason": reason}), self.turn.turn_id)

    def _tell_silence(self, silent: float) -> None:
        self._clocks.told = True
        data = {"silent": silent, "reason": f"the agent has said nothing for {span(silent)}"}
        self._out.write("turn.stalled", _encode(data), self.turn.turn_id)

    def _land(self) -> None:
        """End the turn as its agent settled it."""
        self._finish("completed", words_of(self._settled), stop_reason=self._settled)

    def _cut(self, outcome: Outcome, reason: str, **more: Any) -> None:
        """End the turn without its agent: the link is cut, and whatever runs behind it killed."""
        self._out.command(CutLink(self.turn.turn_id))
        self._finish(outcome, reason, gone=True, **more)

    def _finish(self, outcome: Outcome, reason: str | None, *, gone: bool = False, **more: Any) -> None:
        """End the turn: as its cause demands if it was being stopped, else as said; `gone` if its agent is."""
        self.over = True
        reason = reason or (None if outcome == "completed" else WORDLESS)
        ending = Ending(outcome=outcome, partial=self._produced, reason=reason, usage=self._usage, **more)
        if self._cause is not None:
            ending.obey(self._cause, forced=gone)
        self._out.end()
        self._approvals.close("void", reason or "the turn is over", tell_agent=not gone)
        self._end(self.turn, ending)
