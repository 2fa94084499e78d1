"""The logs that one connection follows: live as long as it keeps up, page by page at its own speed when it does not.

One that falls behind is told the rest from the log when there is room again; one that does not come back is cut
(PROTOCOL P7).
"""

from typing import Any, Final

import attrs
import pykka

from broker.actors.connection_mail import Followed, Hang
from broker.actors.following import (
    Follow,
    Following,
    LogFailed,
    LogUnreadable,
    Page,
    Passing,
    Pause,
    Pull,
    Unfollow,
    Unfollowing,
)
from broker.actors.lifecycle import Abandoned, Bound, Unbound
from broker.actors.loop import handles
from broker.actors.ref import LoopRef
from broker.actors.writer import Writer
from broker.errors import CloseCode
from broker.hooks import Peer
from broker.protocol.dialect import Dialect
from broker.protocol.frames import text_frame
from broker.protocol.parcel import Parcel, View

__all__ = ["Follower"]

LOOK_SECONDS: Final = 0.05
"""How often a connection that fell behind looks whether there is room again."""


class _Look:
    """Look whether there is room again."""


_LOOK: Final = _Look()


@attrs.define(eq=False)
class _Follow:
    ref: LoopRef[Any]
    last: int
    events: frozenset[str] | None = None
    """The names of the events that the client wants of a room; None for all."""
    view: View | None = None
    """What of the log it may or wants to see; None for all of it."""
    live: bool = False
    waiting: bool = True
    """Whether a page was asked for and has not come."""


class Follower(Writer):
    """The part of a connection that follows logs; takes what `Writer` does."""

    _follows: dict[str, _Follow] | None = None
    _bound: dict[str, LoopRef[Any]] | None = None  # ephemeral sessions that it made
    _behind_since: float | None = None

    def place_of(self, log: str) -> LoopRef[Any] | None:
        """Return the actor of a log that this connection follows; the reading half asks, on the same loop."""
        follow = self._follows.get(log) if self._follows else None
        return None if follow is None else follow.ref

    def followed(self) -> list[str]:
        """Return the names of the logs that this connection follows."""
        return list(self._follows or ())

    def holds(self) -> int:
        """Return how many logs this connection follows, or has made to last as long as itself."""
        return len((self._follows or {}).keys() | (self._bound or {}).keys())

    def know(self, peer: Peer) -> None:
        """Take note of who the peer is from now on; called by the reading half."""
        self.peer = peer
        for log, follow in (self._follows or {}).items():
            follow.view = self._view_of(log, follow.events)

    @handles(Following)
    def _follow(self, message: Following) -> None:
        if self._follows is None:
            self._follows = {}
        view = self._view_of(message.log, message.events)
        self._follows[message.log] = _Follow(message.ref, message.after, message.events, view)

    def _view_of(self, log: str, events: frozenset[str] | None) -> View | None:
        if log.startswith("room:"):
            return None if events is None else View(events=events)
        return None if "debug" in self.peer.principal.scopes else View()

    @handles(Unfollowing)
    def _unfollow(self, message: Unfollowing) -> None:
        if self._follows is not None:
            self._follows.pop(message.log, None)

    @handles(Bound)
    def _bind(self, message: Bound) -> None:
        if self._bound is None:
            self._bound = {}
        self._bound[message.log] = message.ref

    @handles(Unbound)
    def _unbind(self, message: Unbound) -> None:
        if self._bound is not None:
            self._bound.pop(message.log, None)

    @handles(Followed)
    def _list(self, _: Followed) -> dict[str, LoopRef[Any]]:
        return {log: follow.ref for log, follow in (self._follows or {}).items()}

    @handles(Passing)
    def _see_passing(self, message: Passing) -> None:
        follow = self._follows.get(message.log) if self._follows else None
        if follow is not None:
            self._deliver(message.parcel if follow.view is None else message.parcel.seen(follow.view))

    @handles(Page)
    def _read(self, page: Page) -> None:
        """Take a page. Live ones that do not fit are left in the log, to be pulled when there is room."""
        follow = self._follows.get(page.log) if self._follows else None
        if follow is None or self.close_code is not None:
            return
        if page.first > follow.last + 1:
            if not page.pushed:  # the log does not reach back any more: this has to be said, not passed over (P3)
                self._give_up_slow()
            return  # otherwise told before the log learnt that we fell behind; a page that we pull has it
        if follow.waiting:
            follow.waiting = False
        elif not follow.live:
            return
        elif self._is_full():
            self._fall_behind(follow, page)
            return
        parcel = page.parcel if follow.view is None else page.parcel.seen(follow.view)
        if self._dialect is None:
            self._put(parcel.frames(self._wire, self._window_bits), len(parcel.items))
        else:
            self._translate(parcel, self._dialect)
        if page.first:
            follow.last = page.last
        follow.live = page.live
        if not page.live:
            self._pull(follow)

    def _translate(self, parcel: Parcel, dialect: Dialect) -> None:
        """Say a page in the client's own way: all of it, since the log has to go on where the page ends."""
        for item in parcel.items:
            for reaction in self._worded(item, dialect):
                if isinstance(reaction, bytes):
                    self._put(text_frame(reaction, self._window_bits), 1)
                else:
                    self._react((reaction,))

    def _pull(self, follow: _Follow) -> None:
        if self._is_full():
            self._look_later()
            return
        follow.waiting = True
        self._tell(follow.ref, Pull(self.actor_ref, follow.last))

    def _fall_behind(self, follow: _Follow, page: Page) -> None:
        follow.live = False
        for turn_id in page.parcel.turns:
            reason = f"{self.peer.connection_id} has no room, and is told the rest from the log when it has"
            self._options.traces.note(turn_id, "connection", "behind", reason)
        self._tell(follow.ref, Pause(self.actor_ref))
        self._look_later()

    def _look_later(self) -> None:
        if self._behind_since is None:
            self._behind_since = self._options.clock.monotonic()
        if self._timer is None:
            self._timer = self._options.clock.call_later(LOOK_SECONDS, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if not self.actor_stopped.is_set():
            self.actor_ref.tell(_LOOK, urgent=True)

    @handles(_Look)
    def _look(self, _: _Look) -> None:
        """Go on with the logs that wait for room, or give the peer up after too long without any."""
        if self.close_code is not None or self._behind_since is None:
            return
        if self._is_full():
            if self._options.clock.monotonic() - self._behind_since > self._options.patience:
                self._give_up_slow()
            else:
                self._look_later()
            return
        self._behind_since = None
        for follow in (self._follows or {}).values():
            if not follow.live and not follow.waiting:
                self._pull(follow)

    @handles(LogFailed)
    def _start_over(self, message: LogFailed) -> None:
        """The log's actor starts anew; ask its next incarnation for what comes after what we have."""
        follow = self._follows.get(message.log) if self._follows else None
        if follow is not None:
            follow.live, follow.waiting = False, True
            peer = self.peer
            again = Follow(self.actor_ref, follow.last, message.newcomer, peer.principal, peer.connection_id)
            self._tell(follow.ref, again)

    @handles(LogUnreadable)
    def _give_up(self, message: LogUnreadable) -> None:
        if message.log in (self._follows or ()) or message.log in (self._bound or ()):
            self._hang(Hang(CloseCode.TRY_AGAIN_LATER, "the log cannot be read now; reconnect and resume"))

    def _tell(self, ref: LoopRef[Any], message: Any) -> None:
        try:
            ref.tell(message, urgent=True)  # at most one such message per log is on its way
        except pykka.ActorDeadError:
            self._hang(Hang(CloseCode.TRY_AGAIN_LATER, "the session is not available; reconnect and resume"))

    def on_stop(self) -> None:
        """Leave the logs, and end the sessions that were made for this connection alone."""
        super().on_stop()
        self._take_up_unread()
        for follow in (self._follows or {}).values():
            _tell_living(follow.ref, Unfollow(self.actor_ref))
        for ref in (self._bound or {}).values():
            _tell_living(ref, Abandoned())
        self._follows = self._bound = None

    def _take_up_unread(self) -> None:
        """Note what this connection has just been given, or it would be held for it for ever."""
        for message in self.actor_inbox:
            if isinstance(message, Following):
                self._follow(message)
            elif isinstance(message, Bound):
                self._bind(message)


def _tell_living(ref: LoopRef[Any], message: Any) -> None:
    if ref.is_alive():
        ref.tell(message, urgent=True)
