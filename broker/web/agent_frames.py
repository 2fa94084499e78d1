"""The frames of an agent that dialled in, read and written as a client's are."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

from broker.agents.remote.carrier import Carrier
from broker.agents.remote.frames import FRAME_LIMIT
from broker.errors import CloseCode
from broker.protocol.frames import close_frame, ping_frame, pong_frame, text_frame
from broker.protocol.incoming import NO_CODE, PING, PONG, TEXT
from broker.web.reader import FrameSocket, Reader

__all__ = ["AgentFrames"]

_FRAMES: Final[dict[int, Callable[[bytes], bytes]]] = {TEXT: text_frame, PING: ping_frame, PONG: pong_frame}


class AgentFrames:
    """A `broker.agents.remote.socket.Socket`.

    Args:
        socket: the socket, after its handshake.
        request: the handshake.
        transport: what is below it.
    """

    def __init__(self, socket: FrameSocket, request: web.Request, transport: asyncio.Transport) -> None:
        self._socket = socket
        self._request = request
        self._transport = transport
        self._reader: Reader | None = None

    async def listen(self, carrier: Carrier) -> int | None:
        """Read to the end, and answer the agent's good-bye."""
        reader = self._reader = self._socket.reader(self._request, carrier, FRAME_LIMIT)
        reader.start()
        code = await reader.ended
        if code is not None and not carrier.closing() and not self._transport.is_closing():
            self._transport.write(close_frame(CloseCode.NORMAL if code == NO_CODE else code))
        return code

    def pause(self) -> None:
        """Read nothing more."""
        if self._reader is not None:
            self._reader.pause()

    def resume(self) -> None:
        """Go on."""
        if self._reader is not None:
            self._reader.resume()

    async def send(self, opcode: int, payload: bytes) -> None:
        """Send a frame."""
        self._write(_FRAMES[opcode](payload))
        await self._request.writer.drain()

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame; one whose own is not heard any more finds the end of the line after it."""
        self._write(close_frame(code, reason))
        if self._reader is not None and self._reader.deaf:
            self._transport.write_eof()

    def _write(self, frame: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(frame)
