"""The agent kind `websocket`: an agents-server that the broker dials, and dials again (PROTOCOL section 4)."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from loguru import logger

from broker.agents.remote.carrier import CLOSE_SECONDS, HEARTBEAT, Carrier
from broker.agents.remote.frames import FRAME_LIMIT, SUBPROTOCOL
from broker.agents.remote.pool import Pool
from broker.agents.remote.socket import DialledSocket
from broker.clock import Clock, SystemClock
from broker.errors import CloseCode
from broker.tasks import spawn

__all__ = ["WebSocketAgent", "rest_seconds"]

CONNECT_SECONDS: Final = 10.0
"""How long the server may take over the handshake."""
LEAST_REST: Final = 0.5
MOST_REST: Final = 20.0
"""Seconds between which the pauses before dialling again lie."""
_ELSEWHERE: Final = range(300, 400)
_WIDTH: Final = 200


def rest_seconds(failures: int) -> float:
    """Return how long to wait before dialling again, when it has failed this often already; full jitter.

    The first time it is less than a second; a thousand brokers that lost the same server come back spread out.
    """
    most = min(MOST_REST, LEAST_REST * 2 ** (min(failures, 10) + 1))
    return random.uniform(LEAST_REST, most)  # noqa: S311 - no secret


class _Socket(aiohttp.ClientWebSocketResponse[Any]):
    """A client's socket that knows what is below it."""

    @property
    def transport(self) -> asyncio.Transport | None:
        connection = self._response.connection
        return None if connection is None else connection.transport


async def _stay(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Follow no redirect: the headers are meant for the server that was named, and for no other."""
    response = await handler(request)
    if response.status in _ELSEWHERE:
        response.close()
        raise aiohttp.WSServerHandshakeError(response.request_info, response.history, status=response.status)
    return response


class WebSocketAgent(Pool):
    """An agent profile of kind `websocket`: a pool of at most one agent.

    Args:
        url: where the server listens, `ws://` or `wss://`.
        headers: sent with the handshake; never shown.
        reattach: seconds for which turns wait for a broken link to come back.
        clock: time.
        heartbeat: seconds between two looks whether the server is still there.
        errors: where those that the server is sent are counted, by code.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        reattach: float = 30.0,
        clock: Clock | None = None,
        heartbeat: float = HEARTBEAT,
        errors: Counter[str] | None = None,
    ) -> None:
        super().__init__(reattach=reattach, clock=clock or SystemClock())
        self._url = url
        self._headers = dict(headers or {})
        self._heartbeat = heartbeat
        self._errors = errors
        self._dialling: asyncio.Task[None] | None = None
        self._said: str | None = None
        parts = urlsplit(url)
        self._name = f"{parts.scheme}://{parts.netloc}{parts.path}"  # without the query, where some put keys
        self._log = logger.bind(agent=self._name)

    async def start(self) -> None:
        """Begin to dial."""
        if self._dialling is None:
            self._dialling = spawn(self._dial(), name=f"dial {self._name}")

    async def close(self) -> None:
        """Say good-bye with 1001 and dial no more."""
        patience = CLOSE_SECONDS if self.members else 0.0
        self.hang_up(CloseCode.GOING_AWAY)
        if self._dialling is not None:
            await asyncio.wait({self._dialling}, timeout=patience)
            self._dialling.cancel()
            await asyncio.wait({self._dialling})

    async def _dial(self) -> None:
        failures = 0
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), middlewares=(_stay,), timeout=timeout, ws_response_class=_Socket
        ) as session:
            while True:
                worked = False
                try:
                    trouble, worked = await self._serve(session)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as e:
                    trouble = _in_words(e)
                if self.closed:
                    return
                self._tell(trouble)
                failures = 0 if worked else failures
                await self._rest(rest_seconds(failures))
                failures += 1

    async def _serve(self, session: aiohttp.ClientSession) -> tuple[str, bool]:
        """Dial once and serve what answers; return why it ended, and whether it was of use until then."""
        async with asyncio.timeout(CONNECT_SECONDS):
            socket = await session.ws_connect(
                self._url,
                headers=self._headers,
                protocols=(SUBPROTOCOL,),
                autoping=False,
                decode_text=False,
                max_msg_size=FRAME_LIMIT + 1,  # aiohttp refuses what is as large as its limit
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
            )
        transport = socket.transport if isinstance(socket, _Socket) else None
        if transport is None:
            return "the connection broke at once", False
        way = Carrier(DialledSocket(socket), transport, self.clock, heartbeat=self._heartbeat, errors=self._errors)
        async with way as carrier:
            if socket.protocol != SUBPROTOCOL:
                carrier.close(CloseCode.PROTOCOL_ERROR, f"the server does not speak {SUBPROTOCOL}")
                return carrier.reason, False
            hello = await carrier.hello()
            if hello is None:
                return carrier.reason, False
            self._said = None
            self._log.info("the agents-server is up: {!r} {!r}, {} turns", hello.agent, hello.version, hello.capacity)
            # Whatever answers here is the same agent to us, unless it tells its processes apart by itself.
            known = msgspec.structs.replace(hello, instance=hello.instance or self._name[:128])
            await carrier.carry(self, known, self._name)
        return carrier.reason, True

    def _tell(self, trouble: str) -> None:
        """Log what is wrong, once until it changes."""
        if trouble != self._said:
            self._said = trouble
            self._log.warning("the agents-server is away, it is dialled again and again: {}", trouble[:_WIDTH])

    async def _rest(self, seconds: float) -> None:
        rested = asyncio.Event()
        timer = self.clock.call_later(seconds, rested.set)
        try:
            await rested.wait()
        finally:
            timer.cancel()


def _in_words(error: Exception) -> str:
    """Say why a server could not be reached; aiohttp's own texts could show the headers that were sent."""
    match error:
        case aiohttp.WSServerHandshakeError():
            return f"it answered the handshake with HTTP status {error.status}"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "its certificate is not trusted, or it does not speak TLS"
        case aiohttp.ClientConnectorDNSError():
            return "its name is not known"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno
            return f"it cannot be reached: {os.strerror(number) if number else type(error.os_error).__name__}"
        case TimeoutError():
            return f"it did not answer within {CONNECT_SECONDS:g} s"
        case _:
            return f"it cannot be dialled: {type(error).__name__}"
