"""The lane that a session's turns go through: one runs, the others wait behind it (PROTOCOL section 3).

Here the agent, its bridge and time have their say; what people do is in `broker.turns.machine`.
"""

from math import inf
from typing import Any, Final

import msgspec

from broker.messages import AgentEvent, AgentLost, Prompt, SlotAnswer
from broker.turns.approvals import Approvals
from broker.turns.commands import CutLink, Out, StartTurn
from broker.turns.ending import FULL, Cause, Ending, error_of, stopped
from broker.turns.flight import Flight
from broker.turns.outside import note
from broker.turns.rules import TurnRules
from broker.turns.speech import Speech
from broker.turns.turn import Turn
from broker.turns.waiting import Waiting

__all__ = ["Lane"]

_encode: Final = msgspec.json.Encoder().encode


class Lane:
    """The turns of one session that have not ended.

    Attributes:
        variables: the session's, a JSON object, for the next turn.
    """

    def __init__(self, session_id: str, out: Out, rules: TurnRules, *, workspace_dir: str | None) -> None:
        self.variables = b"{}"
        self._session_id = session_id
        self._out = self._speech = Speech(out)
        self._rules = rules
        self._workspace_dir = workspace_dir
        self._waiting = Waiting(rules)
        self._approvals = Approvals(self._out, rules)
        self._flight: Flight | None = None
        self._halted = False
        self._full = False

    @property
    def running(self) -> Turn | None:
        """The turn that an agent has."""
        return None if self._flight is None else self._flight.turn

    @property
    def busy(self) -> bool:
        """Whether any turn has not ended."""
        return self._flight is not None or len(self._waiting) > 0

    # -- what the agent and its bridge say ----------------------------------------------------------

    def agent(self, event: AgentEvent, *, now: float) -> None:
        """Take what the agent said. What belongs to no running turn becomes `activity`.

        Of `VariablesSet` only that the agent is alive; to set them is the session's affair. Once the log is full
        nothing is taken: the turn has ended, its agent is being cut, and there is no room for what it says.
        """
        if self._full:
            return
        if isinstance(event, AgentLost) and self._loses(event):
            self.lose(event.reason, now=now)
            return
        flight = self._flight
        if flight is not None and event.turn_id == flight.turn.turn_id:
            flight.hear(event, now)
            if flight.over:
                self._next(now)
            return
        if flight is not None and event.turn_id is None:
            flight.alive(now)
        note(event, self._out)

    def _loses(self, event: AgentLost) -> bool:
        """Tell whether a loss is of what runs now; one that names another turn came too late to end that."""
        return event.turn_id is None or (self._flight is not None and event.turn_id == self._flight.turn.turn_id)

    def slot(self, answer: SlotAnswer, *, now: float) -> bool:
        """Take what became of a place that was asked for; False if nobody wants it any more: it is to be given back.

        A turn that asked, stood back and asked again is answered twice; what it runs on already stays its own.
        """
        self._next(now)
        if self._flight is not None and answer.turn_id == self._flight.turn.turn_id:
            return True
        if self._halted or not self._waiting.hear(answer, now):
            return False
        if answer.state == "granted":
            self._dispatch(self._waiting.take(), now)
        return True

    def overflow(self, *, now: float) -> None:
        """End everything, since the session's log is full: what runs is cut off, what waits fails, now and later.

        The agent is cut once, whether or not it has a turn, for it may speak without one.
        """
        if self._full:
            return
        self._full = True
        if self._flight is None:
            self._out.command(CutLink(None))
        else:
            self._flight.overflow()
        self._next(now)

    def lose(self, reason: str, *, now: float) -> None:
        """End the running turn because its agent, or the way to it, is gone: the outcome is unknown."""
        if self._flight is not None:
            self._flight.lose(reason)
            self._next(now)

    def hand_on(self, rules: TurnRules) -> None:
        """From now on, have questions answered as this agent's profile says; the deadlines of turns stay their own."""
        self._approvals.govern(rules.approvals)

    def degrade(self, text: str, reason: str, *, now: float) -> None:
        """End the running turn with an answer of the broker's own, for no agent takes it."""
        if self._flight is not None:
            self._flight.degrade(text, reason)
            self._next(now)

    def halt(self, reason: str, *, now: float) -> None:
        """End what runs and start nothing more: the broker stops, and queued turns go on after it (P5)."""
        self.rest()
        self.lose(reason, now=now)

    def rest(self) -> None:
        """Start nothing more, since the broker stops soon; what runs may end."""
        self._halted = True

    def flush(self) -> None:
        """Write the text that waits; to be called before somebody else writes a record to the log (PROTOCOL 3a)."""
        self._speech.flush()

    # -- what time does -----------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `tick` should be called next, on the clock of `now`; None for not at all.

        It may move on without anything being done, for each frame of the agent ends a silence: a timer that
        was set for an earlier moment may strike, finds nothing due, and is set anew.
        """
        due = self._speech.flush_at
        if self._flight is not None and self._flight.due < due:
            due = self._flight.due
        if self._waiting.due < due and not self._halted:
            due = self._waiting.due
        return None if due == inf else due

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now >= self._speech.flush_at:
            self._speech.flush()
        if self._flight is not None:
            self._flight.tick(now)
        self._next(now)

    # -- the way of a turn ---------------------------------------------------------------------------

    def _start(self, turn: Turn, *, interrupts: bool, now: float) -> None:
        """Give a new turn to the agent in the same write, or let it wait; what it interrupts is stopped."""
        if not (self.busy or self._halted or self._full or self._rules.limited):
            self._dispatch(turn, now)
            return
        data: dict[str, Any] = {"ahead": (self._flight is not None) + (0 if interrupts else len(self._waiting))}
        if interrupts:
            data["interrupts"] = True
        if turn.retry_of is not None:
            data["retry_of"] = turn.retry_of
        self._waiting.add(turn, first=interrupts)
        self._out.write("turn.queued", _encode(data), turn.turn_id)
        if interrupts and self._flight is not None:
            self._flight.cancel(stopped("interrupted", turn.user), now)
        self._next(now)
        if turn.state == "queued":
            self._out.save(turn.row())

    def _stop(self, turn: Turn, cause: Cause, now: float) -> None:
        if self._flight is not None and turn is self._flight.turn:
            self._flight.cancel(cause, now)
        elif turn.state == "queued":
            self._waiting.remove(turn)
            self._end(turn, Ending(outcome=cause.outcome, by=cause.by, reason=cause.reason))

    def _next(self, now: float) -> None:
        """Go on with the queue: end what waited for too long, and if none runs, see to it that the first one does."""
        self._expire(now)
        if self._halted or self._flight is not None or not self._waiting:
            return
        if self._full:
            self._turn_away()
        elif not self._rules.limited:
            self._dispatch(self._waiting.take(), now)
        elif (ask := self._waiting.asks()) is not None:
            self._out.command(ask)

    def _turn_away(self) -> None:
        """End what waits without its agent: there is no room for what that would say."""
        error = error_of("too_large", FULL, retryable=False)
        while self._waiting:
            self._end(self._waiting.take(), Ending(outcome="failed", reason=FULL, error=error))

    def _expire(self, now: float) -> None:
        if not self._halted:
            for turn, ending in self._waiting.overdue(now):
                self._end(turn, ending)

    def _dispatch(self, turn: Turn, now: float) -> None:
        """Give the agent a turn: written as dispatched before it is told."""
        self._flight = Flight(turn, self._speech, self._approvals, self._rules, self._end, now)
        data = {"agent": self._rules.agent}
        if turn.retry_of is not None:
            data["retry_of"] = turn.retry_of
        self._out.write("turn.started", _encode(data), turn.turn_id)
        self._out.save(turn.row())
        prompt = Prompt(self._session_id, turn.turn_id, turn.content or b'""', self.variables, self._workspace_dir)
        self._out.command(StartTurn(prompt))

    def _end(self, turn: Turn, ending: Ending) -> None:
        """Write the one `turn.ended` of a turn: its last record."""
        if self._flight is not None and self._flight.over:
            self._flight = None
        turn.state, turn.outcome, turn.content = "ended", ending.outcome, None
        self._out.write("turn.ended", ending.data(), turn.turn_id)
        self._out.save(turn.row())
