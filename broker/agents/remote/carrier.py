"""What is said with one agent over its socket, whichever side opened it.

What comes is handed on as it comes, by the socket; writing is a task of its own, since a peer that does not read
would hold up whoever writes. What waits for such a peer is bounded in bytes.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Self

from loguru import logger

from broker.agents.remote.frames import Hello, hello_of, read, written
from broker.agents.remote.pool import Pool
from broker.agents.remote.socket import Socket
from broker.agents.remote.tally import Tally
from broker.clock import Clock, Timer
from broker.errors import BrokerError, CloseCode
from broker.protocol.incoming import NO_CODE, PING, PONG, TEXT, Violation
from broker.tasks import spawn

__all__ = ["CLOSE_SECONDS", "CONTROLS_PER_MINUTE", "HEARTBEAT", "HELLO_SECONDS", "OUTBOX_LIMIT", "ROOM", "Carrier"]

HEARTBEAT: Final = 15.0
"""Seconds between two looks whether an agent is still there; one that gave no sign of life since the last is cut."""
HELLO_SECONDS: Final = 10.0
"""Seconds in which an agent has to introduce itself."""
CLOSE_SECONDS: Final = 2.0
"""Seconds that a good-bye may take before the line is cut."""
OUTBOX_LIMIT: Final = 8 << 20
"""Bytes that may wait for an agent that does not read; one frame may lie across this line."""
ROOM: Final = 1 << 20
"""Bytes that may wait for an agent to which more is given that could wait elsewhere."""

CONTROLS_PER_MINUTE: Final = 1200
"""Pings, pongs and small pieces of messages in a minute, after which an agent is not listened to any more."""
_PIECE: Final = 1024
"""Bytes from which on a piece is none of these: it is paid for with the bytes that its message may have."""
_GOOD_BYES: Final = frozenset({NO_CODE, CloseCode.NORMAL, CloseCode.GOING_AWAY})
"""Codes with which an agent says that it is done."""


class Carrier:
    """The way to one agent; a `broker.agents.remote.outlet.Outlet`, and a context outside of which nothing leaves.

    Args:
        socket: the socket.
        transport: what is below it.
        clock: time.
        heartbeat: seconds between two pings.
        errors: where those that the agent is sent are counted, by code.

    Attributes:
        on_room: called when the agent has read so much that it is not `full` any more.
        reason: why the way ended, in words.
        clean: whether the agent left by itself, and for good.
    """

    def __init__(
        self,
        socket: Socket,
        transport: asyncio.WriteTransport,
        clock: Clock,
        *,
        heartbeat: float = HEARTBEAT,
        errors: Counter[str] | None = None,
    ) -> None:
        self.heartbeat = heartbeat
        self.errors = Counter() if errors is None else errors
        self.on_room: Callable[[], None] = lambda: None
        self.reason = "the connection to the agent broke"
        self.clean = False
        self._socket = socket
        self._transport = transport
        self._clock = clock
        self._out: deque[tuple[int, bytes]] = deque()
        self._out_bytes = 0
        self._was_full = False
        self._wake = asyncio.Event()
        self._good_bye: tuple[int, str] | None = None
        self._over = asyncio.Event()  # either side has said its last
        self._paused = False
        self._heard = True
        self._first: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._take: Callable[[bytes], object] = self._greeted
        self._controls = Tally(clock)
        self._timers: list[Timer] = []

    async def __aenter__(self) -> Self:
        self._reader = spawn(self._read(), name="read an agent")
        self._writer = spawn(self._write(), name="write to an agent")
        self._later(self.heartbeat, self._beat)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(CloseCode.GOING_AWAY, "the broker has no more use for this link")
        if self._good_bye is not None:
            await asyncio.wait({self._writer}, timeout=CLOSE_SECONDS)
        self._hush()
        self._reader.cancel()
        self._writer.cancel()
        for timer in self._timers:
            timer.cancel()
        self._transport.close()
        if self._transport.get_write_buffer_size():  # an agent that said good-bye may still never read what waits
            self._clock.call_later(CLOSE_SECONDS, self._transport.abort)

    def _later(self, seconds: float, callback: Callable[[], object]) -> None:
        self._timers.append(self._clock.call_later(seconds, callback))

    # -- writing -----------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Return whether the agent has much to read before it comes to what would be sent now."""
        return self._waiting() > ROOM

    def _waiting(self) -> int:
        return self._out_bytes + self._transport.get_write_buffer_size()

    def send(self, frame: bytes) -> None:
        """Send a frame; an agent for which too much waits does not read, and is cut (PROTOCOL P7)."""
        self._put(TEXT, frame)

    def _put(self, opcode: int, payload: bytes) -> None:
        if self.closing():
            return
        if self._waiting() > OUTBOX_LIMIT:
            self._part(CloseCode.TOO_SLOW, "the agent did not read what it was sent")
            self._transport.abort()
            return
        self._out.append((opcode, payload))
        self._out_bytes += len(payload)
        self._was_full |= self.full
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """Say good-bye behind what was said before, and cut the line if that takes too long. Nothing is heard then."""
        if self.closing():
            return
        self._part(code, reason)
        self._later(CLOSE_SECONDS, self._transport.abort)
        self._wake.set()

    def _part(self, code: int, reason: str) -> None:
        self.reason = reason
        self._good_bye = (code, reason)
        self._hush()
        self.resume()

    def refuse(self, error: BrokerError, code: int) -> None:
        """Tell the agent why it is not taken, and say good-bye."""
        self.errors[error.code] += 1
        self.send(written("error", {"code": error.code, "message": error.message}, self._clock.now()))
        self.close(code, error.message)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):  # the reading half hears of it too
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._out:
                    opcode, payload = self._out.popleft()
                    self._out_bytes -= len(payload)
                    await self._socket.send(opcode, payload)
                if self._was_full and not self.closing():
                    self._was_full = False
                    self.on_room()
                if self._good_bye is not None:
                    await self._socket.close(*self._good_bye)
                    await asyncio.wait({self._reader})
                    return

    def _beat(self) -> None:
        """Ask for a sign of life, or cut an agent that gave none; one that we do not read cannot give any."""
        if self.closing():
            return
        self._timers.clear()
        self._later(self.heartbeat, self._beat)
        if not self._heard and not self._paused:
            self.close(CloseCode.HEARTBEAT_MISSED, "the agent gave no sign of life")
            return
        self._heard = False
        self._put(PING, b"")
        self.send(written("ping", {}, self._clock.now()))

    # -- reading -----------------------------------------------------------------------------------

    def pause(self) -> None:
        """Read nothing more; what the agent sends waits in its own socket."""
        if not self.closing():
            self._paused = True
            self._socket.pause()

    def resume(self) -> None:
        """Read again."""
        self._heard = True
        self._paused = False
        self._socket.resume()

    async def hello(self) -> Hello | None:
        """Return how the agent introduces itself; None if it does not, which it is told."""
        late = partial(self.close, CloseCode.POLICY_VIOLATION, f"no hello within {HELLO_SECONDS:g} s")
        timer = self._clock.call_later(HELLO_SECONDS, late)
        try:
            text = await self._first
            return None if text is None else hello_of(read(text))
        except BrokerError as e:
            self.refuse(e, CloseCode.POLICY_VIOLATION)
            return None
        finally:
            timer.cancel()

    async def carry(self, pool: Pool, hello: Hello, origin: str) -> None:
        """Have an agent be one of a pool's, until its link ends."""
        try:
            member = pool.join(hello, self, origin=origin)
        except BrokerError as e:
            self.refuse(e, CloseCode.TRY_AGAIN_LATER)
            return
        self._take = member.feed
        if not self._paused:
            self.resume()
        try:
            await self._over.wait()
        finally:
            pool.leave(member, self.reason, clean=self.clean)

    async def _read(self) -> None:
        try:
            code = await self._socket.listen(self)
            if code is not None and not self.closing():  # else it answered our good-bye
                self.clean = code in _GOOD_BYES
                self.reason = f"the agent closed its connection with code {'none' if code == NO_CODE else code}"
        finally:
            self._hush()

    def _hush(self) -> None:
        """Let those go who wait for what the agent says."""
        self._over.set()
        if not self._first.done():
            self._first.set_result(None)

    def _greeted(self, text: bytes) -> None:
        """Take the first message, and no other until there is somebody to take it."""
        self._socket.pause()
        self._first.set_result(text)

    # -- what the socket hears -----------------------------------------------------------------------

    def text(self, text: bytes) -> None:
        """Hand a message on."""
        self._heard = True
        if self.closing():
            return
        try:
            self._take(text)
        except Exception as e:  # noqa: BLE001 - whatever it said is no other agent's affair
            logger.opt(exception=e).error("a frame of an agent's could not be handled")
            self.close(CloseCode.INTERNAL_ERROR, "the broker could not handle what the agent said")

    def binary(self, _: bytes) -> None:
        """Close the link."""
        self.close(CloseCode.UNSUPPORTED_DATA, "the agent sent binary data where text is due")

    def ping(self, payload: bytes) -> None:
        """Answer."""
        self._count()
        self._put(PONG, payload)

    def pong(self, _: bytes) -> None:
        """Take it for a sign of life."""
        self._count()

    def piece(self, size: int) -> None:
        """Take it for a sign of life; a small one costs us more than the agent."""
        self._heard = True
        if size < _PIECE:
            self._count()

    def violation(self, violation: Violation) -> None:
        """Close the link."""
        self.close(violation.code, f"the agent's frames could not be read: {violation.reason}")

    def closing(self) -> bool:
        """Tell whether either side has said its last."""
        return self._over.is_set()

    def _count(self) -> None:
        """Count one frame that is no message; too many are an attack, whoever sends them."""
        self._heard = True
        if self._controls.add() > CONTROLS_PER_MINUTE:
            self.close(CloseCode.PROTOCOL_ABUSE, "too many pings, pongs or pieces of messages")
