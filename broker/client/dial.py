"""The handshake with the broker: where to, who with, and what a refusal means (PROTOCOL section 2c)."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, ClientWSTimeout, WSServerHandshakeError
from yarl import URL

from broker.client.faults import Refused
from broker.client.wire import FRAME_LIMIT, SUBPROTOCOL

__all__ = ["CONNECT_SECONDS", "Dial", "GetToken", "Socket"]

GetToken = Callable[[], Awaitable[str | None]]
Socket = ClientWebSocketResponse[Literal[False]]
"""One whose text frames come as bytes."""

CONNECT_SECONDS: Final = 10.0
"""For the handshake, with the token for it."""
HEARTBEAT_SECONDS: Final = 40.0
"""Silence after which the broker is pinged; half as long again, and the link counts as broken."""
CLOSE_SECONDS: Final = 2.0
"""For the broker to answer a good-bye."""

_TOKEN: Final = re.compile(r"[!-~]+")
_PASSING: Final = frozenset({408, 425, 429})
"""Refusals of a handshake in the range of the asker's own faults that time may heal."""


class Dial:
    """Opens sockets to the broker.

    Args:
        url: the broker's door for agents, such as ws://127.0.0.1:3000/agent.
        get_token: gives the token for a handshake; None for none.

    Attributes:
        name: the address, without anything secret.
        proved: whether it has ever worked; then what refuses is taken for passing.

    Raises:
        ValueError: `url` is none.
    """

    def __init__(self, url: str, get_token: GetToken) -> None:
        self._url = URL(url)
        if self._url.scheme not in {"ws", "wss", "http", "https"} or not self._url.host:
            raise ValueError("the broker's address looks like ws://127.0.0.1:3000/agent")
        self.name = str(self._url.with_user(None).with_query(None).with_fragment(None))
        self.proved = False
        self._get_token = get_token

    async def open(self, session: ClientSession) -> Socket:
        """Return a socket that speaks `agents.v1.json`.

        Raises:
            Refused: no more tries are needed.
            aiohttp.ClientError, OSError: this try failed.
            Exception: `get_token` raised it, the first time that it was asked.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                token = await self._token()
                headers = {} if token is None else {"Authorization": f"Bearer {token}"}
                socket = await session.ws_connect(
                    self._url,
                    protocols=(SUBPROTOCOL,),
                    headers=headers,
                    timeout=ClientWSTimeout(ws_close=CLOSE_SECONDS),
                    heartbeat=HEARTBEAT_SECONDS,
                    autoping=False,
                    max_msg_size=FRAME_LIMIT + 1,  # aiohttp refuses what is as large as its limit
                    decode_text=False,
                )
        except WSServerHandshakeError as e:
            # The error holds the request with the token in it: it ends here, and is no context of another.
            status = e.status
        else:
            if socket.protocol == SUBPROTOCOL:
                return socket
            await socket.close()
            status = 0
        raise self._refusal(status)

    async def _token(self) -> str | None:
        try:
            return _fit(await self._get_token())
        except Exception as e:
            if self.proved or isinstance(e, (ClientError, OSError)):
                raise ConnectionError(f"there is no token: {type(e).__name__}") from e
            raise

    def _refusal(self, status: int) -> ConnectionError:
        """Say what a refusal with an HTTP status, or 0 for another protocol, means."""
        answer = f"answers with HTTP {status}" if status else f"does not speak {SUBPROTOCOL}"
        message = f"what is at {self.name} {answer}"
        ours = not status or (400 <= status < 500 and status not in _PASSING)  # noqa: PLR2004 - HTTP's range
        return Refused(message, status) if ours and not self.proved else ConnectionError(message)


def _fit(token: str | None) -> str | None:
    if token is not None and not _TOKEN.fullmatch(token):
        raise ValueError("the token has characters that no header may carry")
    return token
