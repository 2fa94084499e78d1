"""The connection actor: the writing half of one socket, with the logs that it follows and its heartbeat.

Its inbox is the outgoing queue; see `writer` and `follower`.
"""

import secrets
from typing import Any, Final

from broker.actors.connection_mail import Hang, Pinged
from broker.actors.follower import Follower
from broker.actors.loop import handles
from broker.errors import CLOSE_REASONS, CloseCode
from broker.protocol.frames import close_frame, ping_frame, pong_frame

__all__ = ["Connection"]

PING_BYTES: Final = 8
"""Of a ping, and nobody guesses them: who sends the pong has read the ping."""

IDLE: Final = "idle for too long"


class Connection(Follower):
    """One socket's writer; takes what `Writer` does."""

    inbox_limit = 100_000

    _pinged: bytes | None = None
    """What the peer owes us as a pong."""

    spoke: bool = False
    """Whether the peer has said anything since we looked last; set by the reading half, where it matters."""

    _silent_since: float | None = None

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

    def check_idle(self, now: float, most: float) -> None:
        """Send the peer away that has said nothing for too long, however well it answers pings.

        Called by the heartbeat, which looks once in an interval: who stays silent is found up to two intervals late.
        """
        if self.spoke or self._silent_since is None:
            self.spoke, self._silent_since = False, now
        elif now - self._silent_since >= most and self.close_code is None:
            self.actor_ref.tell(Hang(CloseCode.LIMIT_REACHED, IDLE), urgent=True)

    @handles(Pinged)
    def _pong(self, message: Pinged) -> None:
        if self.close_code is None and not self._is_full():
            self._put(pong_frame(message.payload), 0)

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """A connection whose actor failed cannot go on; its client can, on another one."""
        self.close_code = CloseCode.INTERNAL_ERROR
        self._transport.write(close_frame(CloseCode.INTERNAL_ERROR, CLOSE_REASONS[CloseCode.INTERNAL_ERROR]))
        self._transport.close()
        self.on_stop()
