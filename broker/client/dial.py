"""The handshake with the broker: where to, who with, and what a refusal means (PROTOCOL section 2c)."""

import asyncio
from typing import Final, Literal

from aiohttp import ClientSession, ClientWebSocketResponse, ClientWSTimeout, WSServerHandshakeError
from yarl import URL

from broker.client.errors import Refused
from broker.client.tokens import Tokens

__all__ = ["CONNECT_SECONDS", "Dial", "Socket", "socket_of"]

Socket = ClientWebSocketResponse[Literal[False]]
"""One whose text frames come as bytes."""

CONNECT_SECONDS: Final = 10.0
"""For the handshake, with the token for it."""
HEARTBEAT_SECONDS: Final = 40.0
"""Silence after which the broker is pinged; half as long again, and the link counts as broken."""
CLOSE_SECONDS: Final = 2.0
"""For the broker to answer a good-bye."""

_PASSING: Final = frozenset({408, 425, 429})
"""Refusals of a handshake in the range of the asker's own faults that time may heal."""


class Dial:
    """Opens sockets to the broker.

    Args:
        url: one of the broker's doors, such as ws://127.0.0.1:3000/agent.
        tokens: what is shown at each handshake, in its Authorization header.
        protocol: the subprotocol to speak.
        limit: bytes of the largest frame that is taken.
        heartbeat: seconds of silence after which the broker is pinged.

    Attributes:
        name: the address, without anything secret.
        proved: whether it has ever worked; then what refuses is taken for passing.

    Raises:
        ValueError: `url` is none.
    """

    def __init__(
        self, url: str, tokens: Tokens, protocol: str, limit: int, heartbeat: float = HEARTBEAT_SECONDS
    ) -> None:
        self._url = URL(url)
        if self._url.scheme not in {"ws", "wss", "http", "https"} or not self._url.host:
            raise ValueError("the broker's address looks like ws://127.0.0.1:3000/agent")
        self.name = str(self._url.with_user(None).with_query(None).with_fragment(None))
        self._tokens = tokens
        self._protocol = protocol
        self._limit = limit
        self._heartbeat = heartbeat

    @property
    def proved(self) -> bool:
        """Whether the broker has ever let this program in."""
        return self._tokens.proved

    def prove(self) -> None:
        """Note that the broker has let this program in."""
        self._tokens.proved = True

    async def open(self, session: ClientSession) -> Socket:
        """Return a socket that speaks the subprotocol.

        Raises:
            Refused: no more tries are needed.
            aiohttp.ClientError, OSError: this try failed.
            Exception: what was asked for a token raised it, and none was ever taken.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                token = await self._tokens.get()
                headers = {} if token is None else {"Authorization": f"Bearer {token}"}
                socket = await session.ws_connect(
                    self._url,
                    protocols=(self._protocol,),
                    headers=headers,
                    timeout=ClientWSTimeout(ws_close=CLOSE_SECONDS),
                    heartbeat=self._heartbeat,
                    autoping=False,
                    max_msg_size=self._limit + 1,  # aiohttp refuses what is as large as its limit
                    decode_text=False,
                )
        except WSServerHandshakeError as e:
            # The error holds the request with the token in it: it ends here, and is no context of another.
            status = e.status
        else:
            if socket.protocol == self._protocol:
                return socket
            await socket.close()
            status = 0
        raise self._refusal(status)

    def _refusal(self, status: int) -> ConnectionError:
        """Say what a refusal with an HTTP status, or 0 for another protocol, means."""
        answer = f"answers with HTTP {status}" if status else f"does not speak {self._protocol}"
        message = f"what is at {self.name} {answer}"
        ours = not status or (400 <= status < 500 and status not in _PASSING)  # noqa: PLR2004 - HTTP's range
        return Refused(message, status) if ours and not self.proved else ConnectionError(message)


def socket_of(url: str) -> str:
    """Return the address of the socket for clients, of that itself or of the place where the broker's HTTP begins.

    Raises:
        ValueError: `url` is neither.
    """
    parts = URL(url)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.host:
        raise ValueError("the broker's address looks like ws://127.0.0.1:3000/ws or https://example.org")
    if parts.scheme in {"http", "https"} or parts.path in {"", "/"}:
        parts = parts.with_path(parts.path.removesuffix("/").removesuffix("/ws") + "/ws")
    return str(parts.with_scheme(schemes[parts.scheme]))
