"""The session actor: one conversation, its log, its viewers and its turns (PROTOCOL sections 1-3)."""

from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import attrs
import msgspec
from loguru import logger

from broker import operations as ops
from broker.actors.agent_line import AgentLine
from broker.actors.following import FollowAnswer, Following, Unfollowing
from broker.actors.lifecycle import Gone, MayStop, StopSession, Sweep
from broker.actors.log import LogActor
from broker.actors.loop import handles
from broker.actors.options import SessionOptions
from broker.actors.recovery import StoredSession, read_session
from broker.clock import Timer, rfc3339
from broker.errors import BrokerError
from broker.ids import new_id
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentRecord,
    ApprovalRequested,
    Principal,
    Record,
    SessionRow,
    TextDelta,
    TurnFailed,
    TurnRow,
    TurnSettled,
)
from broker.protocol.outgoing import CaughtUp, Outgoing, SessionRecord, SessionReset
from broker.sessions import session_data
from broker.turns import Command, StartTurn, TurnMachine

__all__ = ["Session"]

CLOSED: Final = "The session is closed; create a new one."
MESSAGES: Final = ("user.message", "message.completed")
_encode: Final = msgspec.json.Encoder().encode


@attrs.frozen
class _Tick:
    """Something of the turn machine is due."""


class Session(LogActor):
    """One session; made by the registry, either new (with a row) or to be loaded from the store."""

    def __init__(
        self, session_id: str, options: SessionOptions, new: SessionRow | None = None, *, chosen: bool = False
    ) -> None:
        super().__init__(f"session:{session_id}", options)
        self.session_id = session_id
        self._options = options
        self._row = new
        self._new = new is not None
        self._chosen = chosen  # the client chose the id, so that it may have been used before
        self._missing = False
        self._machine: TurnMachine
        self._variables: dict[str, Any] = {}
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._accepted_at: dict[str, float] = {}
        self._dispatched_at: float | None = None
        self._active_at = options.clock.monotonic()

    # -- life ---------------------------------------------------------------------------------------

    async def setup(self) -> None:
        """Begin a new log, or take up the one in the store and what its turns left behind (P5)."""
        new = self._row
        if new is not None and not self._chosen:
            self._begin(new)
            return
        stored = await read_session(self._store, self.session_id)
        if stored is not None:
            self._new = False
            self._take_up(stored)
        elif new is None:
            self._be_missing()
        else:
            self._begin(new)

    def _be_missing(self) -> None:
        """Answer from now on that there is no such session, until the registry lets go of this actor."""
        self._missing = True
        self.screen_mail()

    def _begin(self, row: SessionRow) -> None:
        self.epoch = self._create = new_id()
        self._session_row = row
        self._variables = msgspec.json.decode(row.variables)
        self._machine = self._make_machine(row)
        data = {"title": row.title, "agent": row.agent, "owner": row.owner, "variables": self._variables}
        self.write("session.opened", _encode(data))
        logger.bind(session=self.session_id).debug("session opened with agent {}", row.agent)

    def _take_up(self, stored: StoredSession) -> None:
        self._row = stored.row
        self._variables = msgspec.json.decode(stored.row.variables)
        self.epoch, self.head, self.floor = stored.log.epoch, stored.log.head, stored.log.floor
        self._durable_head = stored.log.head
        self._machine = self._make_machine(stored.row)
        if stored.unfinished:
            logger.bind(session=self.session_id).info("taking up the turns that an earlier run left open")
        self._machine.recover(stored.turns, produced=stored.produced, approvals=stored.approvals)

    def _make_machine(self, row: SessionRow) -> TurnMachine:
        machine = TurnMachine(
            self.session_id,
            self,
            queue_limit=self._options.queued_turns,
            agent=row.agent,
            workspace_dir=row.workspace_dir,
        )
        machine.variables = row.variables
        return machine

    # -- messages -----------------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        """Handle one message; a session that is not there only says so."""
        if self._missing and isinstance(message, ops.Operation):
            self._options.registry(Gone(self.log, self.actor_ref))
            raise BrokerError("not_found", "There is no such session.", field="$.payload.session_id")
        if self._missing and isinstance(message, AgentEvent | _Tick):
            return None  # of turns that went with it
        return super().on_receive(message)

    def on_drained(self) -> None:
        """Send what was written, and see to it that the machine is called when something is due."""
        super().on_drained()
        if not self._missing:
            self._set_timer()

    @handles(ops.Created)
    def _created(self, message: ops.Created) -> None:
        if not self._new:
            raise BrokerError("session_exists", field="$.payload.session_id")
        if message.follower is not None:
            self._followers[message.follower] = True
        row = self._its_row()
        answer = {
            "session_id": self.session_id,
            "agent": row.agent,
            "created_at": rfc3339(row.created_at),
            "epoch": self.epoch,
            "head": self.head,
            "workspace_dir": row.workspace_dir,
        }
        self.reply_after_commit(FollowAnswer(self.durably(answer), Following(self.log, self.actor_ref, 0)))

    @handles(ops.Attach)
    def _attach(self, message: ops.Attach) -> Coroutine[Any, Any, None] | None:
        row = self._check(message.by)
        position = self.locate(message.after_seq, message.epoch)
        head = self._durable_head
        answer = {
            "session_id": self.session_id,
            "epoch": self.epoch,
            "head": head,
            "floor": self.floor,
            "state": "closed" if row.closed else "open",
            **self._machine.view(),
            "variables": self._variables,
            "recovered": position.recovered,
        }
        self.answer_later().set(FollowAnswer(answer, Following(self.log, self.actor_ref, position.after)))
        self._newcomers.add(message.follower)
        reset = () if position.recovered else (SessionReset(self.session_id, self.epoch, head, self.floor),)
        return self.serve(message.follower, position.after, reset)

    @handles(ops.Detach)
    def _detach(self, message: ops.Detach) -> FollowAnswer:
        self.forget_follower(message.follower)
        return FollowAnswer({}, Unfollowing(self.log))

    @handles(ops.Describe)
    def _describe(self, message: ops.Describe) -> dict[str, Any]:
        row = self._check(message.by)
        view = {**session_data(row), "epoch": self.epoch, "head": self._durable_head, "floor": self.floor}
        return {**view, **self._machine.view(), "variables": self._variables}

    @handles(ops.History)
    async def _history(self, message: ops.History) -> list[Record]:
        self._check(message.by)
        before = min(message.before_seq or self._durable_head + 1, self._durable_head + 1)
        kinds = MESSAGES if message.kind == "messages" else None
        page: list[Record] = await self._store.read(
            "records_before", self.log, before, limit=message.limit, kinds=kinds
        )
        return page

    @handles(ops.Update)
    def _update(self, message: ops.Update) -> None:
        row = self._check_open(message.by)
        if message.title is not None:
            row = attrs.evolve(row, title=message.title)
            self.write("session.changed", _encode({"title": message.title, "by": message.by.user}))
        if message.variables is not None:
            merged = {**self._variables, **message.variables}
            self._variables = {key: value for key, value in merged.items() if value is not None}
            row = attrs.evolve(row, variables=_encode(self._variables))
            self._machine.variables = row.variables
            data = {"set": message.variables, "variables": self._variables, "by": message.by.user}
            self.write("variables.changed", _encode(data))
        self._save_row(row)
        self.reply_after_commit(self.durably({"head": self.head}))

    @handles(ops.Start)
    def _start(self, message: ops.Start) -> None:
        row = self._check(message.by)
        if row.closed and not self._machine.knows(message.by.user, message.client_msg_id):
            raise BrokerError("already_ended", CLOSED)
        now = self._clock.monotonic()
        accepted = self._machine.accept(
            user=message.by.user,
            client_msg_id=message.client_msg_id,
            content=message.content,
            if_busy=message.if_busy,
            now=now,
        )
        if not accepted.duplicate:
            self._accepted_at[accepted.turn_id] = now
            self._stats.turns_accepted += 1
        answer = {
            "turn_id": accepted.turn_id,
            "seq": accepted.seq,
            "status": accepted.status,
            "duplicate": accepted.duplicate,
            "durable": self._store.durable,
        }
        self.reply_after_commit(answer)

    @handles(ops.Cancel)
    def _cancel(self, message: ops.Cancel) -> None:
        self._check(message.by)
        turn = self._machine.cancel(message.turn_id, by=message.by.user, now=self._clock.monotonic())
        ended = {"status": "ended", "outcome": turn.outcome}
        self.reply_after_commit(ended if turn.outcome else {"status": "cancelling"})

    @handles(ops.Answer)
    def _answer(self, message: ops.Answer) -> None:
        self._check(message.by)
        self._machine.answer(message.approval_id, message.option_id, by=message.by.user)
        self.reply_after_commit(self.durably({"resolved_by": message.by.user, "option_id": message.option_id}))

    @handles(ops.Close)
    def _close(self, message: ops.Close) -> None:
        row = self._check(message.by)
        if not row.closed:
            self._machine.close(message.by.user, self._clock.monotonic())
            self.write("session.closed", _encode({"by": message.by.user}))
            self._save_row(attrs.evolve(row, closed=True))
            if self._machine.running is None:  # otherwise when it has ended, so that the agent may still settle
                self.after_commit(self._agent().cut)
        self.reply_after_commit({})

    @handles(ops.Delete)
    def _delete_all(self, message: ops.Delete) -> None:
        self._check(message.by)
        self._machine.close(message.by.user, self._clock.monotonic())
        self._machine.lose("the session was deleted")
        self._agent().cut()
        self.on_drained()  # what was written until now belongs to the log that goes
        self._delete = True
        self._be_missing()
        self.reply_after_commit({})
        self.after_commit(partial(self._options.registry, Gone(self.log, self.actor_ref)))

    # -- the agent ----------------------------------------------------------------------------------

    @handles(TextDelta, AgentRecord, ApprovalRequested, TurnSettled, TurnFailed, AgentLost)
    def _hear(self, event: AgentEvent) -> None:
        now = self._clock.monotonic()
        if self._dispatched_at is not None and isinstance(event, TextDelta):
            self._stats.first_token_seconds.observe(now - self._dispatched_at)
            self._dispatched_at = None
        self._machine.agent(event, now=now)

    def save(self, row: TurnRow) -> None:
        """Keep a turn's latest state with the next write; the turn machine's port."""
        self._turn_rows[row.turn_id] = row
        if row.outcome is not None:
            seconds = self._clock.monotonic() - self._accepted_at.pop(row.turn_id, self._active_at)
            agent = self._its_row().agent
            told = partial(self._options.on_turn_ended, self.session_id, row.turn_id, agent, row.outcome, seconds)
            self.after_commit(told)
            if self._its_row().closed:
                self.after_commit(self._agent().cut)

    def wall(self) -> int:
        """Return the wall clock; the turn machine's port."""
        return self._clock.now()

    def command(self, command: Command) -> None:
        """Carry out a command of the turn machine once what it belongs to is durable."""
        self.after_commit(partial(self._carry_out, command))

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, StartTurn):
            running = self._machine.running
            if running is None or running.turn_id != command.prompt.turn_id:
                return  # it ended before it was durable that it began
            self._dispatched_at = self._clock.monotonic()
        self._agent().carry_out(command)

    def _agent(self) -> AgentLine:
        return AgentLine(self.actor_ref, self.session_id, self._options.bridges.get(self._its_row().agent))

    # -- time ---------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        due = self._machine.next_deadline()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._clock.call_later(due - self._clock.monotonic(), self._wake)

    def _wake(self) -> None:
        self._timer = None
        if not self.actor_stopped.is_set():
            self.actor_ref.tell(_Tick(), urgent=True)

    @handles(_Tick)
    def _tick(self, message: _Tick) -> None:
        self._machine.tick(self._clock.monotonic())

    @handles(MayStop)
    def _may_stop(self, message: MayStop | None = None) -> bool:
        return self.settled and (self._missing or not (self._followers or self._machine.busy))

    @handles(Sweep)
    def _sweep(self, message: Sweep) -> None:
        now = self._clock.monotonic()
        if not self._may_stop():
            self._active_at = now
        elif self._missing or now - self._active_at >= message.idle_after:
            self._options.registry(Gone(self.log, self.actor_ref))

    @handles(StopSession)
    def _stop_turns(self, message: StopSession) -> None:
        if not self._missing:
            self._machine.halt("the broker was stopped while the turn was running")
        self.reply_after_commit(None)

    def on_stop(self) -> None:
        """Let go of the timer and of the agent."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._missing:
            self._agent().cut()

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """The next incarnation starts from what is durable; an agent that still works for this one is cut."""
        super().on_failure(exception_type, exception_value, traceback)
        if self._timer is not None:
            self._timer.cancel()
        if self._row is not None:
            self._agent().cut()

    @property
    def running(self) -> bool:
        """Whether an agent is at work; for a drain that waits for it, on the same loop."""
        return not self._missing and self._machine.running is not None

    # -- small things -------------------------------------------------------------------------------

    def present(self, record: Record) -> Outgoing:
        """Return the record as viewers are told it."""
        return SessionRecord(self.session_id, record)

    def caught_up(self) -> tuple[Outgoing, ...]:
        """Return the notification that ends a replay."""
        return (CaughtUp(self.session_id, self._durable_head),)

    def _its_row(self) -> SessionRow:
        if self._row is None:
            raise RuntimeError("only a missing session has no row, and it answers nothing")
        return self._row

    def _save_row(self, row: SessionRow) -> None:
        self._row = self._session_row = attrs.evolve(row, updated_at=self._clock.now())

    def _check(self, by: Principal) -> SessionRow:
        self._active_at = self._clock.monotonic()
        row = self._its_row()
        if row.owner != by.user and "admin" not in by.scopes:
            raise BrokerError("forbidden", "This session belongs to somebody else.")
        return row

    def _check_open(self, by: Principal) -> SessionRow:
        row = self._check(by)
        if row.closed:
            raise BrokerError("already_ended", CLOSED)
        return row
