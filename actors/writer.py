"""The writing half of one socket: what is said, in the peer's own format, and how it ends.

What one burst of messages has to say leaves in one write, already framed, straight to the transport. Nothing ever
waits for the peer.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from loguru import logger

from broker.actors.connection_mail import ConnectionOptions, Hang
from broker.actors.loop import LoopActor, handles
from broker.clock import Timer
from broker.errors import CLOSE_REASONS, BrokerError, CloseCode
from broker.hooks import Peer
from broker.ids import new_id
from broker.protocol.dialect import Dialect, Format, Later, Part, Reaction
from broker.protocol.frames import close_frame, text_frame
from broker.protocol.outgoing import Due, Entered, Failure, Outgoing, Request, Response, Welcome
from broker.protocol.parcel import Parcel

__all__ = ["Writer"]


class Writer(LoopActor):
    """Says what it is told, in the peer's format.

    Args:
        peer: who is at the other end.
        wire: the format it speaks.
        transport: its socket; frames are written to it whole.
        window_bits: how to compress for it; 0 for not at all.
        options: see `ConnectionOptions`.
        dialect: its end of the format, where that has to remember something.

    Attributes:
        peer: as given, or as it is known by now.
        close_code: what we said good-bye with; None while we have not.
        ask: asks for something in the client's name; set by the reading half, whose business that is.
        told: sees what answers a request, before the peer does; set by the reading half where somebody wants to know.
        took: how long answers took, of all connections.
    """

    def __init__(
        self,
        peer: Peer,
        wire: Format,
        transport: asyncio.Transport,
        window_bits: int,
        options: ConnectionOptions,
        dialect: Dialect | None = None,
    ) -> None:
        super().__init__()
        self.peer = peer
        self.close_code: int | None = None
        self.ask: Callable[[Request], None] | None = None
        self.told: Callable[[Peer, Outgoing], None] | None = None
        self.took = options.stats.request_seconds
        self._wire = wire
        self._dialect = dialect
        self._reminders: set[Timer] | None = None
        self._transport = transport
        self._window_bits = window_bits
        self._options = options
        self._outbox_bytes = options.outbox_bytes
        self._stats = options.stats
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._puzzled = False  # whether there was something that the dialect could not word
        self._timer: Timer | None = None

    def outbox_bytes(self) -> int:
        """Return the bytes that wait for the peer."""
        return self._transport.get_write_buffer_size() + self._out_bytes

    # -- what is said -------------------------------------------------------------------------------

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
        if self.told is not None:
            self.told(self.peer, value)
        if self._dialect is not None:
            self._react(self._worded(value, self._dialect))
        elif text := self._wire.encode(value):
            self._speak(text_frame(text, self._window_bits), 1)

    @handles(Entered, Due)
    def _go_on(self, value: Entered | Due) -> None:
        """Tell a dialect what no client is told."""
        if self._dialect is not None and self.close_code is None:
            self._react(self._worded(value, self._dialect))

    @handles(Failure)
    def _refuse(self, failure: Failure) -> None:
        """Tell why something was refused, and leave if the refusal says so."""
        self._say(failure)
        if failure.error.close is not None:
            self._hang(Hang(failure.error.close))

    @handles(Parcel)
    def _deliver(self, parcel: Parcel) -> None:
        if self._dialect is None:
            self._speak(parcel.frames(self._wire, self._window_bits), len(parcel.items))
            return
        for item in parcel.items:
            self._react(self._worded(item, self._dialect))

    def _worded(self, value: Outgoing | Entered | Due, dialect: Dialect) -> Iterator[Reaction]:
        """Yield what comes of a value in the client's own way; what cannot be worded spoils nothing but itself."""
        try:
            yield from dialect.tell(value)
        except Exception as e:  # noqa: BLE001 - a record that a format cannot read must not shut its session for good
            yield from self._unworded(value, e, dialect)

    def _unworded(self, value: Outgoing | Entered | Due, error: Exception, dialect: Dialect) -> Iterator[Reaction]:
        """Leave out what cannot be worded: counted, logged and told once; what answers a request is told each time."""
        self._stats.dropped["unworded"] += 1
        answers = isinstance(value, Response | Failure)
        if self._puzzled and not answers:
            return
        trace_id = new_id()
        if not self._puzzled:
            self._puzzled = True
            bound = logger.bind(trace_id=trace_id, conn=self.peer.connection_id)
            bound.opt(exception=error).error("{} cannot be worded in {}", type(value).__name__, self._wire.name)
        failure = BrokerError("internal", hint=f"trace {trace_id}")
        with suppress(Exception):
            yield from dialect.tell(Failure(value.id if isinstance(value, Response | Failure) else None, failure))

    def _react(self, reactions: Iterable[Reaction]) -> None:
        """Do what a dialect wants done."""
        for reaction in reactions:
            match reaction:
                case bytes():
                    self._speak(text_frame(reaction, self._window_bits), 1)
                case Request():
                    if self.ask is not None and self.close_code is None:
                        self.ask(reaction)
                case Later(seconds, token):
                    self._remind(seconds, token)
                case Part(code, reason):
                    self._hang(Hang(code, reason))

    def _remind(self, seconds: float, token: Any) -> None:
        def due() -> None:
            if self._reminders is not None:
                self._reminders.discard(timer)
            if not self.actor_stopped.is_set():
                self.actor_ref.tell(Due(token), urgent=True)

        timer = self._options.clock.call_later(seconds, due)
        if self._reminders is None:
            self._reminders = set()
        self._reminders.add(timer)

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

    # -- the end ------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Cut the line; for the end of a drain, when the peer does not answer the close."""
        self._transport.abort()

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

    def on_stop(self) -> None:
        """Let go of the timers."""
        if self._timer is not None:
            self._timer.cancel()
        for reminder in self._reminders or ():
            reminder.cancel()
