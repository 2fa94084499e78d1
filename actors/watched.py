"""A session as those who may see it see it: who they are, what they are shown, and with whom it is shared."""

from abc import abstractmethod
from functools import partial
from typing import Any, Final

import attrs
import msgspec
import pykka

from broker import operations as ops
from broker.actors.following import Follow, FollowAnswer, Following, Unfollowing
from broker.actors.futures import ReplyTo
from broker.actors.lifecycle import Abandoned, Bound, Unbound
from broker.actors.log import HISTORY_BYTES, LogActor
from broker.actors.loop import handles
from broker.actors.options import SessionOptions
from broker.actors.ref import LoopRef
from broker.messages import Principal, Record, SessionRow
from broker.protocol.outgoing import CaughtUp, Outgoing, SessionDetached, SessionRecord, SessionReset
from broker.protocol.parcel import Parcel
from broker.sessions import CONVERSATION, Role, require, role_of, session_data, shared_with
from broker.turns import TurnMachine

__all__ = ["WatchedSession"]

_encode: Final = msgspec.json.Encoder().encode


class WatchedSession(LogActor):
    """The half of a session that reads, describes and is shared.

    Attributes:
        session_id: its id.
        maker: the connection with which it ends, if it is ephemeral; None if that was one of an earlier run.
    """

    def __init__(self, session_id: str, options: SessionOptions, row: SessionRow | None) -> None:
        super().__init__(f"session:{session_id}", options)
        self.session_id = session_id
        self._row = row
        self._variables: dict[str, Any] = {}
        self._viewers: dict[LoopRef[Any], str | None] = {}  # the connection -> its user
        self.maker: LoopRef[Any] | None = None
        self._active_at = options.clock.monotonic()

    @property
    @abstractmethod
    def machine(self) -> TurnMachine:
        """The turns."""

    @handles(ops.Open)
    def _open(self, message: ops.Open) -> None:
        self._check(message.by, "viewer")
        reply_to = self.answer_later()
        self.answer_after_commit(reply_to, lambda: self._show_to(message, reply_to))

    @handles(ops.Attach)
    def _attach(self, message: ops.Attach) -> None:
        self._check(message.by, "viewer")
        self._show_to(message, self.answer_later())

    def _show_to(self, message: ops.Attach, reply_to: ReplyTo) -> None:
        row = self._its_row()
        position = self.locate(message.after_seq, message.epoch)
        head = self._durable_head
        answer = {
            "session_id": self.session_id,
            "epoch": self.epoch,
            "head": head,
            "floor": self.floor,
            "state": "closed" if row.closed else "open",
            **self.machine.view(),
            "variables": self._variables,
            "recovered": position.recovered,
        }
        reply_to.set(FollowAnswer(answer, Following(self.log, self.actor_ref, position.after)))
        self._newcomers.add(message.follower)
        self._viewers[message.follower] = message.by.user
        reset = () if position.recovered else (SessionReset(self.session_id, self.epoch, head, self.floor),)
        self.serve(message.follower, position.after, reset)

    @handles(Follow)
    def _attach_again(self, message: Follow) -> None:
        """Take back a follower of an earlier incarnation, unless it may not see the session any more."""
        if self._row is None or role_of(self._row, message.by) is None:
            self._send_away(message.follower)
            return
        self._viewers[message.follower] = message.by.user
        self.take_follower(message)

    @handles(ops.Detach)
    def _detach(self, message: ops.Detach) -> FollowAnswer:
        self._check(message.by, "viewer")
        self.forget_follower(message.follower)
        return FollowAnswer({}, Unfollowing(self.log))

    def forget_follower(self, follower: LoopRef[Any]) -> None:
        """Let go of a follower."""
        super().forget_follower(follower)
        self._viewers.pop(follower, None)

    @handles(ops.Describe)
    def _describe(self, message: ops.Describe) -> dict[str, Any]:
        row = self._check(message.by, "viewer")
        row = attrs.evolve(row, updated_at=max(row.updated_at, self.updated_at))
        view = {**session_data(row), "epoch": self.epoch, "head": self._durable_head, "floor": self.floor}
        return {**view, **self.machine.view(), "variables": self._variables}

    @handles(ops.History)
    def _history(self, message: ops.History) -> None:
        self._check(message.by, "viewer")
        before = min(message.before_seq or self._durable_head + 1, self._durable_head + 1)
        kinds = CONVERSATION if message.kind == "messages" else message.kinds
        page = self._store.read(
            "records_before", self.log, before, limit=message.limit, max_bytes=HISTORY_BYTES, kinds=kinds
        )
        self.answer_from(page)

    @handles(ops.Share)
    def _share(self, message: ops.Share) -> None:
        row = shared_with(self._check(message.by, "owner"), message.user, message.role)
        self._note("session.changed", {"members": msgspec.Raw(row.members), "by": message.by.user})
        self._save_row(row)
        if message.role is None:
            self.after_commit(partial(self._dismiss, message.user))
        self.reply_after_commit(self.durably({"head": self.head}))

    def _dismiss(self, user: str) -> None:
        """Show the session no longer to a user who has just seen that it is not shared with him any more."""
        for follower in [follower for follower, viewer in self._viewers.items() if viewer == user]:
            self._take_off(follower)

    def dismiss_all(self) -> None:
        """Let everybody go: there is nothing left to see, and what they ask for next is not asked of this actor."""
        for follower in list(self._followers):
            self._take_off(follower)

    @handles(ops.Recheck)
    def _recheck(self, message: ops.Recheck) -> None:
        if message.follower in self._viewers and role_of(self._its_row(), message.by) is None:
            self._take_off(message.follower)

    def _take_off(self, follower: LoopRef[Any]) -> None:
        self.forget_follower(follower)
        self._send_away(follower)

    def _send_away(self, follower: LoopRef[Any]) -> None:
        self._tell(follower, Unfollowing(self.log))
        self._tell(follower, Parcel((SessionDetached(self.session_id),)))

    # -- whose end is its own -------------------------------------------------------------------------

    @property
    def fleeting(self) -> bool:
        """Whether it will be closed when the connection ends that made it."""
        return self._row is not None and self._row.ephemeral and not self._row.closed

    @property
    def abandoned(self) -> bool:
        """Whether it should have been closed: its connection has ended, or was one of an earlier run."""
        return self.fleeting and (self.maker is None or not self.maker.is_alive())

    def tell_maker(self, message: Bound | Unbound) -> None:
        """Tell the connection that made it, whether that follows it or not; one that has ended has left it."""
        if self.maker is None:
            return
        try:
            self.maker.tell(message, urgent=True)  # two of them in a session's life
        except pykka.ActorDeadError:
            self.actor_ref.tell(Abandoned(), urgent=True)

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

    def _check(self, by: Principal, role: Role) -> SessionRow:
        self._active_at = self._clock.monotonic()
        row = self._its_row()
        if row.owner != by.user:  # whose it is may do everything
            require(row, by, role)
        return row

    def _note(self, kind: str, data: dict[str, Any], turn_id: str | None = None) -> None:
        """Write a record of the session's own, after what its agent has said until now (PROTOCOL 3a)."""
        self.machine.flush()
        self.write(kind, _encode(data), turn_id)
