"""Who conducts a session's turns: drives the turn machine, keeps its time, and has its commands carried out.

The machine decides (`broker.turns`); the session's log makes durable what it writes; and only then is the
agent told, by way of its line. Here is also where turns are counted, and their way is noted.
"""

from functools import partial
from math import inf
from typing import Any, Protocol

import attrs
from loguru import logger

from broker import operations as ops
from broker.actors.agent_line import AgentLine
from broker.actors.dispatching import Dispatching
from broker.actors.log import LogActor
from broker.actors.options import SessionOptions
from broker.actors.pace import Pace
from broker.actors.recovery import StoredSession
from broker.actors.standing import Standing
from broker.actors.trail import NEWS, Trail
from broker.actors.transcript import Transcript
from broker.agents.port import Configuration, Opening
from broker.clock import Timer
from broker.errors import BrokerError
from broker.messages import (
    AgentEvent,
    AgentReady,
    Prompt,
    Record,
    SessionRow,
    SlotAnswer,
    TextDelta,
    TurnRow,
    TurnState,
)
from broker.stats import Profile
from broker.turns import AnswerApproval, AskSlot, CancelTurn, Command, CutLink, StartTurn, TurnMachine, TurnRules

__all__ = ["Conductor", "Tick"]


class Append(Protocol):
    """Appends a record of a turn; see `broker.turns.commands.Out.write`."""

    def __call__(self, kind: str, data: bytes, turn_id: str | None = None) -> int:
        """Return its number."""


@attrs.frozen
class Tick:
    """Something of the turn machine is due."""


class Conductor:
    """The turns of one session; the turn machine's `Out`.

    Args:
        log: the session, which makes durable what is written.
        row: the session as it is.
        options: what all sessions share.

    Attributes:
        machine: the turn machine.
        line: the way to the agent.
        memory: what the agent calls the session, if it keeps one of its own.
        pace: how fast the agent may speak.
        closed: whether the session is, so that its agent goes when the last turn has ended.
        quota: bytes that its log may take.
    """

    def __init__(self, log: LogActor, row: SessionRow, options: SessionOptions) -> None:
        agent = options.agents.get(row.agent)
        self._log = log
        self._row = row
        self._options = options
        self._clock = options.clock
        self._began = self._clock.monotonic()
        self._stats = options.stats
        self._trail = Trail(options.traces, row.session_id)
        self._rules = TurnRules(agent=row.agent) if agent is None else agent.rules
        self.write: Append = log.write
        self._transcript = Transcript() if agent is not None and agent.transcript else None
        self._accepted_at: dict[str, float] = {}
        self._standing = Standing(options.stats)
        self._nobody = Profile()  # counts for an agent that is not configured any more
        self._dispatched_at: float | None = None
        self._given: set[str] = set()  # turns that an agent was given, and that have not ended
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self.memory: str | None = None
        self.closed = row.closed
        self.quota = options.quota or inf
        self.line = AgentLine(log.actor_ref, row.session_id, None if agent is None else agent.bridge)
        self.pace = Pace(self.line)
        self.machine = TurnMachine(row.session_id, self, self._rules, workspace_dir=row.workspace_dir)
        self.machine.variables = row.variables
        self._dispatching = (
            None
            if options.on_dispatch is None
            else Dispatching(log, row, options, options.on_dispatch, self.line, self.machine, self._give)
        )
        self._way = self._dispatching or self.line

    def take_up(self, stored: StoredSession) -> None:
        """Go on from what an earlier incarnation left in the store (P5)."""
        self.memory = stored.memory
        if self._transcript is not None:
            self._transcript.extend(stored.said)
        for row in stored.turns:
            if row.outcome is None:
                self._trail.take_up(row)
                self._count(row.turn_id, row.state)
        if stored.unfinished:
            logger.bind(session=row.session_id).info("taking up the turns that an earlier run left open")
        if self._log.written_bytes > self.quota:
            self.overflow()  # before a turn that waited is dispatched
        self.machine.recover(stored.turns, stored.leftovers, now=self._clock.monotonic())

    # -- what people do -----------------------------------------------------------------------------

    def accept(self, start: ops.Start) -> dict[str, Any]:
        """Accept a turn, and return what its sender is told once it is durable.

        Raises:
            BrokerError: `already_ended`, `too_large`, or what the machine refuses with; nothing has changed then.
        """
        if not self.open and not self.machine.knows(start.by.user, start.client_msg_id):
            self.check_open()
        now = self._clock.monotonic()
        accepted = self.machine.accept(
            user=start.by.user,
            client_msg_id=start.client_msg_id,
            content=start.content,
            if_busy=start.if_busy,
            now=now,
            retry_of=start.retry_of,
            metadata=start.metadata,
        )
        if not accepted.duplicate:
            self._accepted_at[accepted.turn_id] = now
            self._stats.turns_accepted += 1
            self._trail.begin(accepted.turn_id, start.client_msg_id, start.by.user)
        return {
            "turn_id": accepted.turn_id,
            "seq": accepted.seq,
            "status": accepted.status,
            "duplicate": accepted.duplicate,
            "durable": self._options.store.durable,
        }

    @property
    def open(self) -> bool:
        """Whether the session takes anything that makes its log longer."""
        return not self.closed and self._log.written_bytes < self.quota

    def check_open(self) -> None:
        """Refuse what would make the log of a closed session longer, or that of one which has reached its quota.

        Raises:
            BrokerError: `already_ended` or `too_large`.
        """
        if self.closed:
            raise BrokerError("already_ended", "The session is closed; create a new one.")
        if not self.open:
            said = f"The session's log has reached its {self.quota} bytes."
            raise BrokerError("too_large", said, hint="create a new session; this one can still be read")

    def close(self, by: str | None) -> None:
        """Cancel everything; the agent goes once it has settled."""
        self.closed = True
        self.machine.close(by, now=self._clock.monotonic())
        if self.machine.running is None:
            self._log.after_commit(self.line.cut)

    def configure(self, operation: ops.Configure) -> None:
        """Ask the agent to work in another way; what it says is the answer to the message in hand.

        Raises:
            BrokerError: `busy`: the turn that runs was handed to another agent.
        """
        if self._dispatching is not None and self._dispatching.away:
            raise BrokerError("busy", "Another agent has the turn; the session's own can be configured after it.")
        opening = Opening(self._row.session_id, self._row.workspace_dir, self.memory)
        self.line.configure(opening, Configuration(operation.mode, operation.options), self._log.answer_later())

    # -- what the agent does ------------------------------------------------------------------------

    def hear(self, event: AgentEvent) -> None:
        """Take what the agent says."""
        if self._dispatching is not None:
            heard = self._dispatching.hear(event)
            if heard is None:
                return
            event = heard
        now = self._clock.monotonic()
        if isinstance(event, TextDelta):
            if self._dispatched_at is not None:
                self._stats.first_token_seconds.observe(now - self._dispatched_at)
                self._profile(event.turn_id).first_token_seconds.observe(now - self._dispatched_at)
                self._dispatched_at = None
                self._trail.hear_first(event.turn_id)
        elif type(event) in NEWS:
            running = self.machine.running
            self._trail.hear(event, None if running is None else running.turn_id)
            if isinstance(event, AgentReady):
                self.memory = event.memory or self.memory
        self.machine.agent(event, now=now)

    def assign(self, answer: SlotAnswer) -> None:
        """Take what became of a turn that wants one of its agent's places.

        One that is not wanted any more was given back already: at the turn's end, or for another turn of this session.
        """
        heard = answer if self._dispatching is None else self._dispatching.assign(answer)
        if heard is not None:
            self.machine.slot(heard, now=self._clock.monotonic())

    # -- what the machine does: its port ---------------------------------------------------------------

    def save(self, row: TurnRow) -> None:
        """Keep a turn's latest state; see `broker.turns.commands.Out`."""
        self._log.turn_rows[row.turn_id] = row
        self._count(row.turn_id, row.state)
        if row.outcome is not None:
            seconds = self._clock.monotonic() - self._accepted_at.pop(row.turn_id, self._began)
            self._log.after_commit(partial(self._announce_end, row.turn_id, row.outcome, seconds))

    def recount(self) -> None:
        """Count the running turn where it stands; of going from one state to another not every row is kept."""
        running = self.machine.running
        if running is not None and self._standing.state_of(running.turn_id) != running.state:
            self._count(running.turn_id, running.state)

    def _count(self, turn_id: str, state: TurnState) -> None:
        self._standing.count(turn_id, state, self._profile(turn_id))

    def _profile(self, turn_id: str) -> Profile:
        """Return the counters of the agent profile that has a turn, or is to have it."""
        return self._stats.profiles.get(self.agent_of(turn_id), self._nobody)

    def wall(self) -> int:
        """Return the wall clock; see `broker.turns.commands.Out`."""
        return self._clock.now()

    def command(self, command: Command) -> None:
        """Carry out a command once what it belongs to is durable; see `broker.turns.commands.Out`."""
        self._log.after_commit(partial(self._carry_out, command))

    def _carry_out(self, command: Command) -> None:
        match command:
            case StartTurn(prompt):
                self._dispatch(prompt)
            case AskSlot(turn_id, number):
                self._way.want(turn_id, number)
            case CancelTurn(turn_id):
                self._way.cancel(turn_id)
            case AnswerApproval(turn_id, key, option_id):
                self.line.answer(turn_id, key, option_id)
            case CutLink(turn_id):
                if turn_id is not None:
                    self._trail.cut(turn_id)
                self._way.cut()

    def _dispatch(self, prompt: Prompt) -> None:
        running = self.machine.running
        if running is None or running.turn_id != prompt.turn_id:
            return  # it ended before it was durable that it began
        self._dispatched_at = self._clock.monotonic()
        if self._dispatching is None:
            self._give(prompt, self._row.agent)
        else:
            self._dispatching.begin(prompt)

    def _give(self, prompt: Prompt, agent: str) -> None:
        """Hand a turn to the agent that the line leads to, with what that one is told beside it."""
        options = self._options.agents.get(agent)
        if self._transcript is not None and options is not None and options.history:
            prompt = attrs.evolve(prompt, messages=self._transcript.before(prompt.turn_id))
        if self.memory is not None and agent == self._row.agent:
            prompt = attrs.evolve(prompt, memory=self.memory)
        self._given.add(prompt.turn_id)
        if (state := self._standing.state_of(prompt.turn_id)) is not None:
            self._count(prompt.turn_id, state)  # it may be another profile's than before
        self.line.start(prompt)
        self.pace.begin()

    def _announce_end(self, turn_id: str, outcome: str, seconds: float) -> None:
        """Tell who has to know of an end that is durable."""
        agent, given = self.agent_of(turn_id), turn_id in self._given
        self._profile(turn_id).outcomes[outcome] += 1
        self._given.discard(turn_id)
        self._options.on_turn_ended(self._row.session_id, turn_id, agent, outcome, seconds, given)
        self._trail.show(turn_id, self._log.watched)
        if self._dispatching is not None:
            self._dispatching.end(turn_id, limited=self._rules.limited)
        elif self._rules.limited:
            self.line.release(turn_id)
        if self.closed and self.machine.running is None:
            self.line.cut()

    def agent_of(self, turn_id: str) -> str:
        """Return the agent that has a turn, or is to have it: the session's own, unless it was handed on."""
        return self._row.agent if self._dispatching is None else self._dispatching.agent_of(turn_id)

    def observe(self, records: tuple[Record, ...]) -> None:
        """Take the session's records as they become durable: for the traces, and for what was said."""
        for turn_id, at, reason in self._trail.follow(records):
            self._profile(turn_id).trouble = (at, reason)
        if self._transcript is not None:
            self._transcript.extend(records)

    def miss(self, records: tuple[Record, ...], error: BrokerError) -> None:
        """Note whose records the store refused."""
        self._trail.miss(records, error)

    # -- bounds and time ----------------------------------------------------------------------------

    def overflow(self) -> None:
        """End every turn and cut the agent: the session's log has outgrown its quota."""
        self.machine.overflow(now=self._clock.monotonic())

    def set_timer(self) -> None:
        """See to it that the machine is called when something is due; a timer that is too early does no harm."""
        due = self.machine.next_deadline()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        self._stop_timer()
        self._timer_at = due
        self._timer = self._clock.call_later(due - self._clock.monotonic(), self._wake)

    def leave(self) -> None:
        """Let go of the timer and of the agent: the session leaves memory, or fails."""
        self._stop_timer()
        self._way.leave()
        self._standing.forget()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        if not self._log.actor_stopped.is_set():
            self._log.actor_ref.tell(Tick(), urgent=True)

    def tick(self) -> None:
        """Do what is due."""
        self.machine.tick(self._clock.monotonic())
