"""The way of a turn to an agent that takes it, where plugins have a say (`on_dispatch`).

A turn that its agent has not taken up may be tried again, handed to another profile's agent, or answered by the broker
itself. Once an agent has taken it nothing of this happens: what it did is unknown, and it is never run again (PROTOCOL
section 3). Its clocks are those of the turn machine, for which it is one dispatched turn, whoever is asked.

A session has one line. When another agent is asked the one before is left: its line is cut, and until its bridge has
said so nothing that agents say is heard, since it may be of the one that was left.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
import pykka

from broker.actors.agent_line import AgentLine
from broker.actors.options import OnDispatch, SessionOptions
from broker.actors.way import Decided, Decision, Log, Onward, Way, without_memory
from broker.clock import Timer
from broker.hooks import Attempt, Degraded, HandTo
from broker.messages import AgentEvent, AgentLost, AgentReady, Prompt, SessionRow, SlotAnswer, TurnFailed, TurnSettled
from broker.turns import TurnMachine

__all__ = ["ATTEMPTS", "Dispatching"]

ATTEMPTS: Final = 16
"""Refusals of one turn after which no agent is asked any more, whatever plugins want."""
UNSERVED: Final = ("agent_unavailable", "There is no agent to take the turn.")
"""What a profile without any agent is said to answer."""


class Dispatching:
    """The ways of one session's turns, one after the other; in front of its line.

    Args:
        log: the session.
        row: the session as it is.
        options: what all sessions share.
        decide: says who is to have a turn.
        line: its line to its agents.
        machine: its turns.
        give: hands a prompt to this agent, to which the line leads.

    Attributes:
        agent: whom the line leads to.
    """

    def __init__(
        self,
        log: Log,
        row: SessionRow,
        options: SessionOptions,
        decide: OnDispatch,
        line: AgentLine,
        machine: TurnMachine,
        give: Callable[[Prompt, str], None],
    ) -> None:
        self.agent = self._home = row.agent
        self._log = log
        self._session_id = row.session_id
        self._agents = options.agents
        self._clock = options.clock
        self._traces = options.traces
        self._decide = decide
        self._line = line
        self._machine = machine
        self._give = give
        self._way: Way | None = None
        self._decided: Decided | None = None
        self._timer: Timer | None = None
        self._asks = 0  # for places on the way: counted down, since those of turns that wait are counted up
        self._partings = 0  # agents that were left, and may still be heard
        self._held: Callable[[], None] | None = None  # what goes on when there are none

    @property
    def away(self) -> bool:
        """Whether another agent than the session's has the turn."""
        return self.agent != self._home

    def agent_of(self, turn_id: str) -> str:
        """Return the agent that has a turn, or is to have it."""
        return self.agent if self._way is not None and self._way.turn_id == turn_id else self._home

    # -- what the turn machine commands -------------------------------------------------------------

    def want(self, turn_id: str, number: int) -> None:
        """Ask for a place at the session's agent; a turn that is to go elsewhere needs none there."""
        if self._asked_before(turn_id):
            self._log.actor_ref.tell(SlotAnswer(turn_id, "granted", number), urgent=True)
        else:
            self._line.want(turn_id, number)

    def begin(self, prompt: Prompt) -> None:
        """Hand a turn on that was dispatched."""
        way = self._way = Way(prompt, self._home, self._clock.monotonic())
        if self._decided is None or self._decided.turn_id != prompt.turn_id:
            self._asked_before(prompt.turn_id)
        decided, self._decided = self._decided, None
        if decided is None:
            self._hand_over()
            return
        if decided.unserved:
            way.note(self._home, *UNSERVED)
        way.open = True
        self._later(partial(self._obey, decided.decision))

    def cancel(self, turn_id: str) -> None:
        """Have a turn stopped by whoever has it; one that nobody has is settled here."""
        way = self._way
        if way is None or way.turn_id != turn_id:
            return
        if way.open:
            self._later(_nothing)  # which finds that the turn is being stopped
        else:
            self._line.cancel(turn_id)

    def cut(self) -> None:
        """Cut the line, and go no further."""
        self._stop_timer()
        self._line.cut()

    def end(self, turn_id: str, *, limited: bool) -> None:
        """Give back what a turn had that is over; `limited` if it may have had a place at the session's agent."""
        if self._decided is not None and self._decided.turn_id == turn_id:
            self._decided = None
        if self._way is not None and self._way.turn_id == turn_id:
            self._way = None
            self._stop_timer()
            if self.away:
                self._go_to(self._home)
                return
        if limited:
            self._line.release(turn_id)

    def leave(self) -> None:
        """Let go of everything: the session leaves memory, or fails."""
        self.cut()
        self._way = self._held = None

    # -- what comes back ----------------------------------------------------------------------------

    def hear(self, event: AgentEvent) -> AgentEvent | None:
        """Return what an agent says as the session is to hear it; None if it is not."""
        way = self._way
        if self._partings:
            return None
        if way is None:
            return event
        turn_id = way.turn_id
        if way.open:
            return None if event.turn_id == turn_id or isinstance(event, AgentLost) else event
        if isinstance(event, TurnFailed) and event.turn_id == turn_id and self._state_of(way) == "dispatching":
            return None if self._refused(way, event.code, event.message) else event
        return self._hear_stranger(event, way) if self.away else event

    def _hear_stranger(self, event: AgentEvent, way: Way) -> AgentEvent | None:
        """Return what another agent than the session's says: nothing that would be about the session's own."""
        if isinstance(event, AgentLost) and self._state_of(way) is None:
            return None  # its turn is over, and the one that runs now is not its own
        return without_memory(event) if isinstance(event, AgentReady) else event

    def assign(self, answer: SlotAnswer) -> SlotAnswer | None:
        """Return what became of a place as the turn machine is to hear it; None if it is not its affair."""
        way = self._way
        if answer.number >= 0:
            return self._serve_elsewhere(answer) if answer.state == "unserved" and way is None else answer
        if way is None or not way.open or (answer.turn_id, answer.number) != (way.turn_id, self._asks):
            return None
        if answer.state == "granted":
            self._on(way, self._hand_over)
        elif answer.state == "unserved" and self._state_of(way) == "dispatching":
            self._refused(way, *UNSERVED)
        return None

    def _serve_elsewhere(self, answer: SlotAnswer) -> SlotAnswer:
        """Have a turn dispatched without a place if it is to go elsewhere, since there is no agent."""
        code, message = UNSERVED
        attempt = Attempt(self._session_id, answer.turn_id, self._home, (self._home,), code, message)
        decision = self._decide(attempt)
        if decision is None:
            return answer
        self._decided = Decided(answer.turn_id, decision, unserved=True)
        return attrs.evolve(answer, state="granted")

    def _refused(self, way: Way, code: str, message: str) -> bool:
        """Ask what to do with a turn that the agent could not take; False if it is to take its usual way."""
        way.note(self.agent, code, message)
        last = len(way.tried) > ATTEMPTS
        seconds = self._clock.monotonic() - way.since
        turn_id = way.turn_id
        attempt = Attempt(self._session_id, turn_id, self._home, way.tried, code, message, seconds, last)
        decision = self._decide(attempt)
        if decision is None or (last and not isinstance(decision, Degraded)):
            return False
        self._obey(decision)
        return True

    def _asked_before(self, turn_id: str) -> bool:
        """Ask about a turn that no agent was asked to take; tell whether it is to go elsewhere."""
        decision = self._decide(Attempt(self._session_id, turn_id, self._home))
        self._decided = None if decision is None else Decided(turn_id, decision)
        return decision is not None

    # -- the steps; each is handled as mail of the session's ----------------------------------------------

    def _obey(self, decision: Decision) -> None:
        way = self._way
        if way is None:
            return
        reason = way.reason(decision)
        self._traces.note(way.turn_id, "session", "handed on", reason)
        if isinstance(decision, Degraded):
            self._machine.degrade(decision.text, reason, now=self._clock.monotonic())
            return
        way.open = True
        self._machine.flush()
        self._log.write("activity", way.record(decision, self.agent), way.turn_id)
        self._log.after_commit(partial(self._later, partial(self._set_out, decision)))

    def _set_out(self, decision: HandTo) -> None:
        """Leave the agent, or its place for others, and go where the turn is to go, at its time."""
        way = self._way
        if way is None:
            return
        if decision.agent != self.agent:
            self._go_to(decision.agent)
        elif self._agents[self.agent].rules.limited:
            self._line.release(way.turn_id)
        if decision.after:
            self._timer = self._clock.call_later(decision.after, partial(self._arrive_later, way))
        else:
            self._arrive()

    def _arrive_later(self, way: Way) -> None:
        self._timer = None
        if way is self._way:
            self._later(self._arrive)

    def _arrive(self) -> None:
        """Give the turn to the agent that the line leads to now, once it has a place for it."""
        way = self._way
        if way is None:
            return
        if self._agents[self.agent].rules.limited:
            self._asks -= 1
            self._line.want(way.turn_id, self._asks)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        way = self._way
        if way is None:
            return
        way.open = bool(self._partings)
        if way.open:
            self._held = partial(self._on, way, self._hand_over)
        else:
            self._give(way.prompt, self.agent)

    def _go_to(self, agent: str) -> None:
        """Lead the line to another agent; what is said is heard again when the one before is silent for good."""
        self.agent = agent
        self._partings += 1
        options = self._agents.get(agent)
        if options is not None:
            self._machine.hand_on(options.rules)
        self._line.lead_to(None if options is None else options.bridge, partial(self._tell_self, self._part))

    def _part(self) -> None:
        self._partings -= 1
        if not self._partings and self._held is not None:
            held, self._held = self._held, None
            held()

    # -- small things ---------------------------------------------------------------------------------

    def _later(self, step: Callable[[], None]) -> None:
        """Go on with the turn that is on its way, after the mail that has come before."""
        way = self._way
        if way is not None:
            self._tell_self(partial(self._on, way, step))

    def _tell_self(self, step: Callable[[], None]) -> None:
        try:
            self._log.actor_ref.tell(Onward(step), urgent=True)
        except pykka.ActorDeadError:
            self._stop_timer()

    def _on(self, way: Way, step: Callable[[], None]) -> None:
        """Take a step if the turn is still on this way; one that is being stopped, and nobody has, settles."""
        state = self._state_of(way)
        if state == "dispatching":
            step()
        elif state is not None:
            settled = TurnSettled(way.turn_id, "cancelled")
            self._machine.agent(settled, now=self._clock.monotonic())

    def _state_of(self, way: Way) -> str | None:
        """Return where the turn stands; None if it has ended, or another has come."""
        running = self._machine.running
        here = way is self._way and running is not None and running.turn_id == way.turn_id
        return running.state if here and running is not None else None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nothing() -> None:
    """Take no step."""
