"""The socket of an agent, as its carrier needs it; and the one of aiohttp's, for agents that the broker dials."""

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import ClientWebSocketResponse, WebSocketError, WSMsgType

from broker.errors import CloseCode
from broker.protocol.edge import is_utf8
from broker.protocol.frames import MAX_REASON
from broker.protocol.incoming import NO_CODE, Violation

if TYPE_CHECKING:
    from broker.agents.remote.carrier import Carrier

__all__ = ["DialledSocket", "Socket"]

_BREATH: Final = 64
"""Frames after which others get their turn of the loop, since aiohttp hands on what it has without a pause."""
_WIDTH: Final = 200


class Socket(Protocol):
    """The frames of one agent, whichever side opened the connection."""

    async def listen(self, carrier: "Carrier") -> int | None:
        """Hand what the agent sends to its carrier, which never waits, until there is nothing more to read.

        Returns:
            The code of the agent's close frame, 1005 for one without a code; None if there was none.
        """

    def pause(self) -> None:
        """Hand on nothing more from the next frame on, and read nothing more than a piece that is bounded."""

    def resume(self) -> None:
        """Go on, but not before the loop's next tick."""

    async def send(self, opcode: int, payload: bytes) -> None:
        """Send a frame (RFC 6455 section 5.2), and wait while too much waits to be read.

        Raises:
            ConnectionError: the line is lost.
        """

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame with as much of the reason as fits; raises as `send`."""


class DialledSocket:
    """A socket that the broker opened, read by aiohttp: what a server sends is not masked.

    Args:
        socket: the socket, opened without `autoping` and `decode_text`.
    """

    def __init__(self, socket: ClientWebSocketResponse[bool]) -> None:
        self._socket = socket
        self._readable = asyncio.Event()
        self._readable.set()

    async def listen(self, carrier: "Carrier") -> int | None:
        """Read to the end."""
        taken = 0
        while True:
            await self._readable.wait()
            taken += 1
            if not taken % _BREATH:
                await asyncio.sleep(0)
            message = await self._socket.receive()
            try:
                if not _hand_on(message.type, message.data, carrier):
                    return (message.data or NO_CODE) if message.type is WSMsgType.CLOSE else None
            except Violation as e:
                carrier.violation(e)

    def pause(self) -> None:
        """Take nothing more from aiohttp, which soon takes nothing more from its socket."""
        self._readable.clear()

    def resume(self) -> None:
        """Go on."""
        self._readable.set()

    async def send(self, opcode: int, payload: bytes) -> None:
        """Send a frame, masked."""
        await self._socket.send_frame(payload, WSMsgType(opcode))

    async def close(self, code: int, reason: str) -> None:
        """Close, and wait for the answer."""
        text = reason.encode()[:MAX_REASON].decode(errors="ignore")
        await self._socket.close(code=code, message=text.encode())


def _hand_on(kind: WSMsgType, data: Any, carrier: "Carrier") -> bool:
    """Hand on what aiohttp has read; tell whether there may be more.

    Raises:
        Violation: it is nothing that may be sent.
    """
    if kind is WSMsgType.TEXT:
        if not is_utf8(data):
            raise Violation(CloseCode.INVALID_TEXT)
        carrier.text(bytes(data))
    elif kind is WSMsgType.BINARY:
        carrier.binary(data)
    elif kind is WSMsgType.PING:
        carrier.ping(bytes(data))
    elif kind is WSMsgType.PONG:
        carrier.pong(bytes(data))
    else:
        if isinstance(data, WebSocketError):  # aiohttp has closed the socket already
            carrier.violation(Violation(CloseCode.PROTOCOL_ERROR, str(data)[:_WIDTH]))
        return False
    return True
