"""The connection actor: the writing half of one socket.

Its inbox is the outgoing queue. What one burst of messages has to say leaves in one write, already
framed, straight to the transport. Nothing ever waits for the peer: one that falls behind gets its
logs page by page, at its own speed, and one that does not come back is cut (PROTOCOL P7).
"""

import asyncio
import secrets
from typing import Any, Final

import attrs
import pykka

from broker.actors.following import (
    Follow,
    Following,
    LogFailed,
    LogUnreadable,
    Page,
    Pause,
    Pull,
    Unfollow,
    Unfollowing,
)
from broker.actors.loop import LoopActor, handles
from broker.actors.ref import LoopRef
from broker.clock import Clock, Timer
from broker.errors import CLOSE_REASONS, CloseCode
from broker.hooks import Peer
from broker.protocol.frames import close_frame, ping_frame, pong_frame, text_frame
from broker.protocol.outgoing import Failure, Format, Outgoing, Parcel, Response, Welcome
from broker.stats import Stats
from broker.traces import Traces

__all__ = ["Connection", "ConnectionOptions", "Followed", "Hang", "Pinged"]

LOOK_SECONDS: Final = 0.05
"""How often a connection that fell behind looks whether there is room again."""
PING_BYTES: Final = 8
"""Of a ping, and nobody guesses them: who sends the pong has read the ping."""


@attrs.frozen
class Hang:
    """Close the connection with this code.

    Attributes:
        code: with which.
        reason: in words; the code's own if left out.
        last: whether nothing is read from the peer any more, not even its close frame; then it finds the end of
            the line after ours.
        within: seconds after which the line is cut; the connection's patience if left out.
    """

    code: CloseCode
    reason: str | None = None
    last: bool = False
    within: float | None = None


@attrs.frozen
class Pinged:
    """The peer sent a ping with this payload."""

    payload: bytes


@attrs.frozen
class Followed:
    """Return the actors of the logs that the connection follows, by the logs' names.

    It is answered after all that was in the inbox before, so that nothing is missing which is on its way there.
    """


class _Look:
    """Look whether there is room again."""


_LOOK: Final = _Look()


@attrs.define(eq=False)
class _Follow:
    ref: LoopRef[Any]
    last: int
    live: bool = False
    waiting: bool = True
    """Whether a page was asked for and has not come."""


@attrs.frozen
class ConnectionOptions:
    """What all connections of a broker share.

    Attributes:
        clock: time.
        outbox_bytes: what may wait for a slow peer.
        patience: seconds a peer may stay behind, or take to answer a ping or a close.
        stats: the broker's counters.
        traces: where it is noted what a peer was not told at once.
    """

    clock: Clock
    outbox_bytes: int
    patience: float
    stats: Stats
    traces: Traces


class Connection(LoopActor):
    """One socket's writer.

    Args:
        peer: who is at the other end.
        wire: the format it speaks.
        transport: its socket; frames are written to it whole.
        window_bits: how to compress for it; 0 for not at all.
        options: see `ConnectionOptions`.
    """

    inbox_limit = 100_000

    def __init__(
        self, peer: Peer, wire: Format, transport: asyncio.Transport, window_bits: int, options: ConnectionOptions
    ) -> None:
        super().__init__()
        self.peer = peer
        self.close_code: int | None = None
        self._wire = wire
        self._transport = transport
        self._window_bits = window_bits
        self._options = options
        self._outbox_bytes = options.outbox_bytes
        self._stats = options.stats
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._follows: dict[str, _Follow] | None = None
        self._pinged: bytes | None = None  # what the peer owes us as a pong
        self._timer: Timer | None = None
        self._behind_since: float | None = None

    def place_of(self, log: str) -> LoopRef[Any] | None:
        """Return the actor of a log that this connection follows; the reading half asks, on the same loop."""
        follow = self._follows.get(log) if self._follows else None
        return None if follow is None else follow.ref

    def followed(self) -> list[str]:
        """Return the names of the logs that this connection follows."""
        return list(self._follows or ())

    def know(self, peer: Peer) -> None:
        """Take note of who the peer is from now on; called by the reading half."""
        self.peer = peer

    def outbox_bytes(self) -> int:
        """Return the bytes that wait for the peer."""
        return self._transport.get_write_buffer_size() + self._out_bytes

    # -- messages -----------------------------------------------------------------------------------

    def on_drained(self) -> None:
        """Write what this burst of messages had to say."""
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_bytes = 0
        if not self._transport.is_closing():
            self._transport.write(data)

    @handles(Response, Welcome)
    def _say(self, value: Outgoing) -> None:
        self._speak(text_frame(self._wire.encode(value), self._window_bits), 1)

    @handles(Failure)
    def _refuse(self, failure: Failure) -> None:
        """Tell why something was refused, and leave if the refusal says so."""
        self._say(failure)
        if failure.error.close is not None:
            self._hang(Hang(failure.error.close))

    @handles(Parcel)
    def _deliver(self, parcel: Parcel) -> None:
        self._speak(parcel.frames(self._wire, self._window_bits), len(parcel.items))

    def _speak(self, frames: bytes, messages: int) -> None:
        """Say what cannot be pulled later: a peer with no room for it is cut, and may come back and resume."""
        if self.close_code is not None:
            return
        if self._is_full():
            self._give_up_slow()
            return
        self._put(frames, messages)

    def _give_up_slow(self) -> None:
        self._stats.dropped["too_slow"] += 1
        self._hang(Hang(CloseCode.TOO_SLOW))

    def _put(self, frames: bytes, messages: int) -> None:
        size = len(frames)
        self._out.append(frames)
        self._out_bytes += size
        stats = self._stats
        stats.messages_out += messages
        stats.bytes_out += size

    def _is_full(self) -> bool:
        """Tell whether more waits for the peer than may."""
        return self._transport.get_write_buffer_size() + self._out_bytes > self._outbox_bytes

    # -- logs ---------------------------------------------------------------------------------------

    @handles(Following)
    def _follow(self, message: Following) -> None:
        if self._follows is None:
            self._follows = {}
        self._follows[message.log] = _Follow(message.ref, message.after)

    @handles(Unfollowing)
    def _unfollow(self, message: Unfollowing) -> None:
        if self._follows is not None:
            self._follows.pop(message.log, None)

    @handles(Followed)
    def _list(self, _: Followed) -> dict[str, LoopRef[Any]]:
        return {log: follow.ref for log, follow in (self._follows or {}).items()}

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
        self._put(page.parcel.frames(self._wire, self._window_bits), len(page.parcel.items))
        if page.first:
            follow.last = page.last
        follow.live = page.live
        if not page.live:
            self._pull(follow)

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
        if self._follows and message.log in self._follows:
            self._hang(Hang(CloseCode.TRY_AGAIN_LATER, "the log cannot be read now; reconnect and resume"))

    def _tell(self, ref: LoopRef[Any], message: Any) -> None:
        try:
            ref.tell(message, urgent=True)  # at most one such message per log is on its way
        except pykka.ActorDeadError:
            self._hang(Hang(CloseCode.TRY_AGAIN_LATER, "the session is not available; reconnect and resume"))

    # -- heartbeat and end --------------------------------------------------------------------------

    def ping(self) -> None:
        """Ask the peer whether it is there; called by the heartbeat."""
        if self.close_code is None and self._pinged is None and not self._transport.is_closing():
            self._pinged = secrets.token_bytes(PING_BYTES)
            self._transport.write(ping_frame(self._pinged))

    def ponged(self, payload: bytes) -> None:
        """Take a pong. Only the answer to our ping counts, since a peer that reads nothing may still send.

        Others may come at any time, and mean nothing (RFC 6455 section 5.5.3).
        """
        if payload == self._pinged:
            self._pinged = None

    def check_pong(self) -> None:
        """Cut the peer if it owes an answer; called by the heartbeat `patience` after `ping`."""
        if self._pinged is not None and self.close_code is None:
            self._stats.dropped["heartbeat"] += 1
            self.actor_ref.tell(Hang(CloseCode.HEARTBEAT_MISSED), urgent=True)  # as a message, or nobody writes it

    def cut(self) -> None:
        """Cut the line; for the end of a drain, when the peer does not answer the close."""
        self._transport.abort()

    @handles(Pinged)
    def _pong(self, message: Pinged) -> None:
        if self.close_code is None and not self._is_full():
            self._put(pong_frame(message.payload), 0)

    @handles(Hang)
    def _hang(self, message: Hang) -> None:
        """Send a close frame after all that was said before, and cut the line if no answer comes."""
        if self.close_code is None:
            self.close_code = message.code
            self._out.append(close_frame(message.code, message.reason or CLOSE_REASONS[message.code]))
        elif not message.last:
            return
        if self._timer is not None:
            self._timer.cancel()
        within = self._options.patience if message.within is None else message.within
        self._timer = self._options.clock.call_later(within, self._transport.abort)
        if message.last and not self._transport.is_closing():
            self.on_drained()
            self._transport.write_eof()

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """A connection whose actor failed cannot go on; its client can, on another one."""
        self.close_code = CloseCode.INTERNAL_ERROR
        self._transport.write(close_frame(CloseCode.INTERNAL_ERROR, CLOSE_REASONS[CloseCode.INTERNAL_ERROR]))
        self._transport.close()
        self.on_stop()

    def on_stop(self) -> None:
        """Leave the logs."""
        if self._timer is not None:
            self._timer.cancel()
        for follow in (self._follows or {}).values():
            if follow.ref.is_alive():
                follow.ref.tell(Unfollow(self.actor_ref), urgent=True)
        self._follows = None
