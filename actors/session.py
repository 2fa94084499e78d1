"""The session actor: one conversation, its log, who sees it and who may do what (PROTOCOL sections 1-3)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, get_args

import attrs
import msgspec
from loguru import logger

from broker import operations as ops
from broker.actors.agent_mail import Flooded
from broker.actors.conductor import Conductor, Tick
from broker.actors.following import FollowAnswer, Following, Unfollowing
from broker.actors.futures import ReplyTo
from broker.actors.lifecycle import Abandoned, Bound, Gone, MayStop, StopSession, Sweep, Unbound
from broker.actors.loop import handles
from broker.actors.options import SessionOptions
from broker.actors.pace import HIGH
from broker.actors.recovery import StoredSession, read_session
from broker.actors.watched import WatchedSession
from broker.actors.way import Onward
from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.ids import new_id
from broker.messages import AgentEvent, Principal, Record, SessionRow, SlotAnswer, VariablesSet
from broker.turns import TurnMachine

__all__ = ["Session"]

VARIABLES: Final = 1 << 20
"""Bytes of JSON that a session's variables may take, since each change of them is kept whole."""
SPOKEN: Final = tuple(kind for kind in get_args(AgentEvent) if kind is not VariablesSet)
_encode: Final = msgspec.json.Encoder().encode
_read_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Session(WatchedSession):
    """One session; made by the registry, either new (with a row) or to be loaded from the store."""

    def __init__(
        self, session_id: str, options: SessionOptions, new: SessionRow | None = None, *, chosen: bool = False
    ) -> None:
        super().__init__(session_id, options, new)
        self._options = options
        self._new = new is not None
        self._chosen = chosen  # the client chose the id, so that it may have been used before
        self._missing = False
        self._conductor: Conductor  # once it is set up, unless it is missing

    # -- life ---------------------------------------------------------------------------------------

    async def setup(self) -> None:
        """Begin a new log, or take up the one in the store and what its turns left behind (P5)."""
        new = self._row
        if new is not None and not self._chosen:
            self._begin(new)
            return
        await self._store.flush()  # what an earlier incarnation wrote may be on its way
        stored = await read_session(self._store, self.session_id, self._options.agents)
        if stored is not None:
            if self._new:  # by somebody else, who has the id already
                self._new, self.maker = False, None
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
        self._conductor = Conductor(self, row, self._options)
        self.epoch = self._create = new_id()
        self._session_row = row
        self._variables = msgspec.json.decode(row.variables)
        data = {"title": row.title, "agent": row.agent, "owner": row.owner, "variables": self._variables}
        self.write("session.opened", _encode(data))
        logger.bind(session=self.session_id).debug("session opened with agent {}", row.agent)

    def _take_up(self, stored: StoredSession) -> None:
        self._row = stored.row
        self._conductor = Conductor(self, stored.row, self._options)
        self._variables = msgspec.json.decode(stored.row.variables)
        self.epoch, self.head, self.floor = stored.log.epoch, stored.log.head, stored.log.floor
        self.written_bytes = self.durable_bytes = stored.log.bytes
        self.updated_at = stored.log.updated_at
        self._durable_head = stored.log.head
        self._conductor.take_up(stored)

    def on_receive(self, message: Any) -> Any:
        """Handle one message; a session that is not there only says so."""
        if self._missing and isinstance(message, ops.Operation):
            self._options.registry(Gone(self.log, self.actor_ref))
            if isinstance(message, ops.Open):  # there may be one by that id when this actor has gone
                raise BrokerError("unavailable", "The session is being looked for; try again.", retry_after=0.1)
            raise BrokerError("not_found", "There is no such session.", field="$.payload.session_id")
        if self._missing and isinstance(message, AgentEvent | SlotAnswer | Flooded | Onward | Tick):
            return None  # of turns that went with it
        return super().on_receive(message)

    def on_drained(self) -> None:
        """Send what was written, let the agent speak no faster than that goes, and set the timer."""
        if self._missing:
            super().on_drained()
            return
        conductor = self._conductor
        if self.written_bytes > conductor.quota:
            conductor.overflow()
        super().on_drained()
        waiting = self.written_bytes - self.durable_bytes
        if waiting > HIGH or conductor.pace.paused:
            conductor.pace.check(waiting)
        conductor.set_timer()
        conductor.recount()

    def on_durable(self, records: tuple[Record, ...]) -> None:
        """Let the conductor see what has become durable."""
        self._conductor.observe(records)

    def on_refused(self, records: tuple[Record, ...], error: BrokerError) -> None:
        """Let it see what has not."""
        self._conductor.miss(records, error)

    # -- what people change ---------------------------------------------------------------------------

    @handles(ops.Created)
    def _created(self, message: ops.Created) -> None:
        if not self._new:
            raise BrokerError("session_exists", field="$.payload.session_id")
        row = self._its_row()
        answer = {
            "session_id": self.session_id,
            "agent": row.agent,
            "created_at": rfc3339(row.created_at),
            "epoch": self.epoch,
            "head": self.head,
            "workspace_dir": row.workspace_dir,
        }
        reply_to = self.answer_later()
        self.answer_in_turn(reply_to, partial(self._show_made, self.durably(answer), message, reply_to))
        self.after_commit(partial(self.tell_maker, Bound(self.log, self.actor_ref)))

    def _show_made(self, answer: dict[str, Any], message: ops.Created, reply_to: ReplyTo) -> None:
        """Answer who had the session made, and show it all there is by now: it may have spoken meanwhile."""
        follower = message.follower
        if follower is None:
            reply_to.set(FollowAnswer(answer, Unfollowing(self.log)))
            return
        reply_to.set(FollowAnswer(answer, Following(self.log, self.actor_ref, 0)))
        self._viewers[follower] = message.by.user
        self.serve(follower, 0)

    @handles(ops.Update)
    def _update(self, message: ops.Update) -> None:
        row = self._check_open(message.by)
        if message.variables is not None:
            row = self._set_variables(message.variables, {"by": message.by.user})
        if message.title is not None:
            row = attrs.evolve(row, title=message.title)
            self._note("session.changed", {"title": message.title, "by": message.by.user})
        self._save_row(row)
        self.reply_after_commit(self.durably({"head": self.head}))

    def _set_variables(self, changes: Mapping[str, Any], by: dict[str, Any], turn_id: str | None = None) -> SessionRow:
        """Merge variables, those that are null removed, and keep the change with all of them as they then are.

        Raises:
            BrokerError: `too_large`; nothing has changed then.
        """
        merged = {key: value for key, value in {**self._variables, **changes}.items() if value is not None}
        encoded = _encode(merged)
        if len(encoded) > VARIABLES:
            raise BrokerError("too_large", f"A session's variables may take {VARIABLES} bytes of JSON.")
        self._variables = merged
        self.machine.variables = encoded
        self._note("variables.changed", {"set": changes, "variables": msgspec.Raw(encoded), **by}, turn_id)
        return attrs.evolve(self._its_row(), variables=encoded)

    @handles(ops.Close)
    def _close(self, message: ops.Close) -> None:
        self._check(message.by, "owner")
        self._shut({"by": message.by.user})
        self.reply_after_commit({})

    @handles(Abandoned)
    def _abandon(self, _: Abandoned | None = None) -> None:
        self._shut({"by": None, "reason": "the connection ended that it was made for"})

    def _shut(self, why: dict[str, Any]) -> None:
        if self._missing or self._its_row().closed:
            return
        self._conductor.close(why["by"])
        self._note("session.closed", why)
        self._save_row(attrs.evolve(self._its_row(), closed=True))
        self.after_commit(partial(self.tell_maker, Unbound(self.log)))

    @handles(ops.Delete)
    def _delete_all(self, message: ops.Delete) -> None:
        self._check(message.by, "owner")
        self._conductor.close(message.by.user)
        self.machine.lose("the session was deleted", now=self._clock.monotonic())
        self._conductor.leave()
        self.on_drained()  # what was written until now belongs to the log that goes
        self._delete = True
        self._be_missing()
        self.reply_after_commit({})
        self.after_commit(self.dismiss_all)
        self.after_commit(partial(self.tell_maker, Unbound(self.log)))
        self.after_commit(partial(self._options.registry, Gone(self.log, self.actor_ref)))

    # -- turns ----------------------------------------------------------------------------------------

    @handles(ops.Start)
    def _start(self, message: ops.Start) -> None:
        self._check(message.by, "member")
        self.reply_after_commit(self._conductor.accept(message))

    @handles(ops.Edit)
    def _edit(self, message: ops.Edit) -> None:
        self._check_open(message.by)
        self.machine.edit(message.turn_id, message.content, user=message.by.user, now=self._clock.monotonic())
        self.reply_after_commit(self.durably({"seq": self.head}))

    @handles(ops.Drop)
    def _drop(self, message: ops.Drop) -> None:
        self._check(message.by, "member")
        turn = self.machine.drop(message.turn_id, user=message.by.user, now=self._clock.monotonic())
        self.reply_after_commit({"status": "ended", "outcome": turn.outcome})

    @handles(ops.Cancel)
    def _cancel(self, message: ops.Cancel) -> None:
        self._check(message.by, "member")
        turn = self.machine.cancel(message.turn_id, by=message.by.user, now=self._clock.monotonic())
        ended = {"status": "ended", "outcome": turn.outcome}
        self.reply_after_commit(ended if turn.outcome else {"status": "cancelling"})

    @handles(ops.Answer)
    def _answer(self, message: ops.Answer) -> None:
        self._check(message.by, "member")
        now = self._clock.monotonic()
        self.machine.answer(message.approval_id, message.option_id, by=message.by.user, now=now)
        self.reply_after_commit(self.durably({"resolved_by": message.by.user, "option_id": message.option_id}))

    @handles(ops.Configure)
    def _configure(self, message: ops.Configure) -> None:
        self._check_open(message.by)
        self._conductor.configure(message)

    # -- the agent and the clock ------------------------------------------------------------------------

    @handles(*SPOKEN)
    def _hear(self, event: AgentEvent) -> None:
        self._conductor.hear(event)

    @handles(VariablesSet)
    def _hear_variables(self, event: VariablesSet) -> None:
        self._conductor.hear(event)
        agent, running = self._conductor.agent_of(event.turn_id or ""), self.machine.running
        if not self._conductor.open:
            return
        turn_id = None if running is None or running.turn_id != event.turn_id else running.turn_id
        try:
            changes = _read_object(event.variables)
            self._save_row(self._set_variables(changes, {"by": None, "agent": agent}, turn_id))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BrokerError) as e:
            self._note("debug", {"agent": agent, "message": f"Its variables were not taken: {e}"}, turn_id)

    @handles(SlotAnswer)
    def _assign(self, answer: SlotAnswer) -> None:
        self._conductor.assign(answer)

    @handles(Flooded)
    def _flooded(self, _: Flooded) -> None:
        self._conductor.pace.paused = True

    @handles(Onward)
    def _go_on(self, message: Onward) -> None:
        message.step()

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        self._conductor.tick()

    # -- the end of this actor ----------------------------------------------------------------------------

    @handles(MayStop)
    def _may_stop(self, message: MayStop | None = None) -> bool:
        return self.settled and (self._missing or not (self._followers or self.fleeting or self.machine.busy))

    @handles(Sweep)
    def _sweep(self, message: Sweep) -> None:
        now = self._clock.monotonic()
        self.forget_dead()
        if self.abandoned:
            self._abandon()
        if not self._may_stop():
            self._active_at = now
        elif self._missing or now - self._active_at >= message.idle_after:
            self._options.registry(Gone(self.log, self.actor_ref))

    @handles(StopSession)
    def _stop_turns(self, message: StopSession) -> None:
        if not self._missing and message.at_once:
            self.machine.halt("the broker was stopped while the turn was running", now=self._clock.monotonic())
        elif not self._missing:
            self.machine.rest()
        self.reply_after_commit(None)

    def on_stop(self) -> None:
        """Let go of the timer and of the agent."""
        self._leave()

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """The next incarnation starts from what is durable; an agent that still works for this one is cut."""
        super().on_failure(exception_type, exception_value, traceback)
        self._leave()

    def _leave(self) -> None:
        if self.epoch and not self._missing:  # otherwise it has not come so far, or has nothing any more
            self._conductor.leave()

    @property
    def running(self) -> bool:
        """Whether an agent is at work; for a drain that waits for it, on the same loop."""
        return not self._missing and self.machine.running is not None

    # -- small things -------------------------------------------------------------------------------

    @property
    def machine(self) -> TurnMachine:
        """The turns."""
        return self._conductor.machine

    def _check_open(self, by: Principal) -> SessionRow:
        row = self._check(by, "member")
        self._conductor.check_open()
        return row
