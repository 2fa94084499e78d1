"""Handshakes that are refused: over HTTP where that helps, else by a socket that is opened only to be closed."""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from aiohttp import web

from broker.errors import BrokerError
from broker.protocol.frames import close_frame
from broker.protocol.incoming import Violation
from broker.web.identity import close_code, without_credentials
from broker.web.problems import problem
from broker.web.reader import FrameSocket
from broker.web.services import SERVICES

__all__ = ["GOOD_BYE_SECONDS", "turn_away"]

GOOD_BYE_SECONDS: Final = 1.0
"""How long one that is not let in may take to answer the close; nothing else it says is heard."""
HEARD: Final = 1 << 10
"""Bytes that a message of such a one may have; what is more is rubbish."""
RETRY_SECONDS: Final = 1
_TRY_AGAIN: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


async def turn_away(request: web.Request, protocol: str, error: BrokerError, said: bytes = b"") -> web.StreamResponse:
    """Answer a handshake that a plugin refuses.

    Who it is, is told by a close code, since browsers show a page nothing of an HTTP refusal. Whatever else went wrong
    is told before `101`, as 429 or as 503: nobody comes in because a plugin broke, and everybody may try again.

    Args:
        request: the handshake.
        protocol: the wire format that was agreed on.
        error: why.
        said: frames that go before the close frame, if there is one.
    """
    code = close_code(error)
    if code is not None:
        request.app[SERVICES].stats.closes[code] += 1
        return await _open_and_close(request, protocol, said + close_frame(code, error.message))
    status = error.status if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else HTTPStatus.SERVICE_UNAVAILABLE
    response = problem(error, status.value)
    if status in _TRY_AGAIN:
        response.headers.setdefault("Retry-After", str(RETRY_SECONDS))
    return response


async def _open_and_close(request: web.Request, protocol: str, frames: bytes) -> web.StreamResponse:
    socket = FrameSocket(protocol)
    await socket.prepare(without_credentials(request))
    transport = request.transport
    if transport is None:
        return socket  # gone meanwhile
    transport.write(frames)
    reader = socket.listen(request, _Deaf(), HEARD)
    with suppress(TimeoutError):
        async with asyncio.timeout(GOOD_BYE_SECONDS):
            await reader.ended
    transport.close()
    return socket


class _Deaf:
    """Hears nothing of what is sent, but the end."""

    def text(self, text: bytes) -> None:
        """Pass over a message."""

    def binary(self, data: bytes) -> None:
        """Pass over a message."""

    def ping(self, payload: bytes) -> None:
        """Pass over a ping."""

    def pong(self, payload: bytes) -> None:
        """Pass over a pong."""

    def piece(self, size: int) -> None:
        """Pass over a fragment."""

    def violation(self, violation: Violation) -> None:
        """Pass over rubbish."""

    def closing(self) -> bool:
        """Tell that we have said good-bye."""
        return True
