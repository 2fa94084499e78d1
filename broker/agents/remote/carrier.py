"""The frames of one agent over a WebSocket of aiohttp's, whichever side opened it.

Reading is a loop in the task of whoever serves the agent; writing is a task of its own, since a peer that does not
read would hold up whoever writes. What waits for such a peer is bounded in bytes.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import ClientWebSocketResponse, WebSocketError, WSMsgType, web
from loguru import logger

from broker.agents.remote.frames import Hello, hello_of, read, written
from broker.agents.remote.pool import Pool
from broker.clock import Clock, Timer
from broker.errors import BrokerError, CloseCode
from broker.protocol.edge import is_utf8
from broker.protocol.frames import MAX_REASON
from broker.tasks import spawn

__all__ = ["CLOSE_SECONDS", "HEARTBEAT", "HELLO_SECONDS", "OUTBOX_LIMIT", "ROOM", "Carrier"]

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

_BREATH: Final = 64
"""Frames after which others get their turn of the loop, since aiohttp hands on what it has without a pause."""
_GOOD_BYES: Final = frozenset({0, CloseCode.NORMAL, CloseCode.GOING_AWAY})
"""Codes with which an agent says that it is done; 0 stands for none at all."""
_WIDTH: Final = 200


class Carrier:
    """The way to one agent; a `broker.agents.remote.outlet.Outlet`, and a context outside of which nothing leaves.

    Args:
        socket: the socket, opened without `autoping` and `decode_text`.
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
        socket: web.WebSocketResponse[bool] | ClientWebSocketResponse[bool],
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
        self._out: deque[tuple[WSMsgType, bytes]] = deque()
        self._out_bytes = 0
        self._was_full = False
        self._wake = asyncio.Event()
        self._readable = asyncio.Event()
        self._readable.set()
        self._good_bye: tuple[int, str] | None = None
        self._ended = False
        self._heard = True
        self._taken = 0
        self._timers: list[Timer] = []

    async def __aenter__(self) -> Self:
        self._writer = spawn(self._write(), name="write to an agent")
        self._later(self.heartbeat, self._beat)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended:
            self.close(CloseCode.GOING_AWAY, "the broker has no more use for this link")
            await asyncio.wait({self._writer}, timeout=CLOSE_SECONDS)
        self._ended = True
        self._writer.cancel()
        for timer in self._timers:
            timer.cancel()
        self._transport.close()
        if self._transport.get_write_buffer_size():  # an agent that said good-bye may still never read what waits
            self._clock.call_later(CLOSE_SECONDS, self._transport.abort)

    def _over(self) -> bool:
        """Whether either side has said its last."""
        return self._ended or self._good_bye is not None

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
        self._put(WSMsgType.TEXT, frame)

    def _put(self, kind: WSMsgType, payload: bytes) -> None:
        if self._over():
            return
        if self._waiting() > OUTBOX_LIMIT:
            self.reason = "the agent did not read what it was sent"
            self._good_bye = (CloseCode.TOO_SLOW, self.reason)
            self.resume()
            self._transport.abort()
            return
        self._out.append((kind, payload))
        self._out_bytes += len(payload)
        self._was_full |= self.full
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """Say good-bye behind what was said before, and cut the line if that takes too long. Nothing is heard then."""
        if self._over():
            return
        self.reason = reason
        self._good_bye = (code, reason)
        self._later(CLOSE_SECONDS, self._transport.abort)
        self.resume()
        self._wake.set()

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
                    kind, payload = self._out.popleft()
                    self._out_bytes -= len(payload)
                    await self._socket.send_frame(payload, kind)
                if self._was_full and not self._over():
                    self._was_full = False
                    self.on_room()
                if self._good_bye is not None:
                    code, reason = self._good_bye
                    text = reason.encode()[:MAX_REASON].decode(errors="ignore")
                    await self._socket.close(code=code, message=text.encode())
                    return

    def _beat(self) -> None:
        """Ask for a sign of life, or cut an agent that gave none; one that we do not read cannot give any."""
        if self._over():
            return
        self._timers.clear()
        self._later(self.heartbeat, self._beat)
        if not self._heard and self._readable.is_set():
            self.close(CloseCode.HEARTBEAT_MISSED, "the agent gave no sign of life")
            return
        self._heard = False
        self._put(WSMsgType.PING, b"")
        self.send(written("ping", {}, self._clock.now()))

    # -- reading -----------------------------------------------------------------------------------

    def pause(self) -> None:
        """Read nothing more; what the agent sends waits in its own socket."""
        self._readable.clear()

    def resume(self) -> None:
        """Read again."""
        self._heard = True
        self._readable.set()

    async def hello(self) -> Hello | None:
        """Return how the agent introduces itself; None if it does not, which it is told."""
        late = partial(self.close, CloseCode.POLICY_VIOLATION, f"no hello within {HELLO_SECONDS:g} s")
        timer = self._clock.call_later(HELLO_SECONDS, late)
        try:
            text = await self._receive()
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
        try:
            while (text := await self._receive()) is not None:
                member.feed(text)
        except Exception as e:  # noqa: BLE001 - whatever it said is no other agent's affair
            logger.opt(exception=e).error("a frame of an agent's could not be handled")
            self.close(CloseCode.INTERNAL_ERROR, "the broker could not handle what the agent said")
        finally:
            pool.leave(member, self.reason, clean=self.clean)

    async def _receive(self) -> bytes | None:
        """Return the next text frame; None once there is nothing more to be heard."""
        while not self._over():
            await self._readable.wait()
            self._taken += 1
            if not self._taken % _BREATH:
                await asyncio.sleep(0)
            message = await self._socket.receive()
            self._heard = True
            if message.type is WSMsgType.TEXT:
                if is_utf8(message.data):
                    return None if self._over() else bytes(message.data)
                self.close(CloseCode.INVALID_TEXT, "the agent's text was not UTF-8")
            elif message.type is WSMsgType.BINARY:
                self.close(CloseCode.UNSUPPORTED_DATA, "the agent sent binary data where text is due")
            elif message.type is WSMsgType.PING:
                self._put(WSMsgType.PONG, bytes(message.data))
            elif message.type is not WSMsgType.PONG:
                self._end(message.type, message.data)
        return None

    def _end(self, kind: WSMsgType, what: Any) -> None:
        if self._over():
            return  # it answered our good-bye
        self._ended = True
        if kind is WSMsgType.CLOSE:
            self.clean = what in _GOOD_BYES
            self.reason = f"the agent closed its connection with code {what or 'none'}"
        elif kind is WSMsgType.ERROR and isinstance(what, WebSocketError):
            self.reason = f"the agent's frames could not be read: {what}"[:_WIDTH]
