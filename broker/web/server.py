"""One connection of HTTP, with a deadline for each request that aiohttp waits for (aiohttp itself has none).

Whoever has begun a request has `limits.handshake` to send all of its head, and as long again for its body; between
requests a connection may be silent for `IDLE_SECONDS`. Once a connection has become a WebSocket nothing of this costs
it anything: then its bytes do not pass the HTTP parser.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from broker.errors import BrokerError
from broker.logs import limited
from broker.web.admission import Admission, Guest
from broker.web.deadlines import Deadlines
from broker.web.listener import written
from broker.web.problems import problem, with_status

__all__ = ["Line", "is_slow"]

IDLE_SECONDS: Final = 75.0
"""Longer than proxies keep a connection they may use again (60 s with the common ones), so that they end it."""
ANSWER_SECONDS: Final = 60.0
"""How long the other end may take to read an answer."""
GOOD_BYE_SECONDS: Final = 5.0
"""How long it may take to read the last of it once we have closed."""
PORTION: Final = 16 * 1024
"""Bytes of HTTP that are parsed in one tick of the loop.

A byte costs next to nothing, but a chunk of a body costs two microseconds, and may have a single byte: what is read at
once, 256 KiB, has 43,000 of those.
"""
TOO_LATE: Final = "The request did not come in time."


def is_slow() -> bool:
    """Tell whether aiohttp came without its C extensions: its other parser is slower, and had more advisories."""
    return HttpRequestParser is HttpRequestParserPy


class _Parser:
    """aiohttp's parser, with an eye on what it waits for."""

    __slots__ = ("_body", "_line", "_parser")

    def __init__(self, parser: Any, line: "Line") -> None:
        self._parser = parser
        self._line = line
        self._body: StreamReader | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    @property
    def body(self) -> StreamReader | None:
        """The body of the last request, if more of it is to come."""
        body = self._body
        return None if body is None or body.is_eof() else body

    def feed_data(self, data: bytes) -> Any:
        """Parse, and have the line wait for the rest of what has begun."""
        data = self._line.portion(data)
        inside = self.body is not None
        messages, upgraded, _ = found = self._parser.feed_data(data)
        if messages:
            self._body = messages[-1][1]
            self._line.waits(upgraded=upgraded, anew=True)
        elif data:
            self._line.waits(upgraded=upgraded, anew=False, ended=inside and self.body is None)
        return found


class Line(web.RequestHandler):
    """One connection.

    Args:
        server: aiohttp's.
        guest: how it is counted.
        admission: told when it ends.
        deadlines: tells it when a request has not come in time.
        options: those of aiohttp's `RequestHandler`.

    Attributes:
        guest: as given.
    """

    __slots__ = ("_admission", "_begun", "_deadlines", "_due", "_rest", "_wire", "guest")

    def __init__(
        self, server: web.Server, guest: Guest, admission: Admission, deadlines: Deadlines, **options: Any
    ) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), keepalive_timeout=IDLE_SECONDS, **options)
        self.guest = guest
        self._admission = admission
        self._deadlines = deadlines
        self._begun = False
        self._due = False  # whether the rest stands in the loop's queue
        self._rest = b""  # what was read, and is not parsed yet
        self._wire: asyncio.Transport | None = None
        self._parser = _Parser(self._parser, self)  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._wire = self.transport
        self._deadlines.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let the guest go."""
        self._deadlines.discard(self)
        self._admission.wake(self)
        self._admission.leave(self.guest)
        super().connection_lost(exc)

    async def start(self) -> None:
        """Serve requests until the end; what the other end will not read is dropped a while later."""
        try:
            await super().start()
        finally:
            if self._wire is not None and self._wire.get_write_buffer_size():
                self._loop.call_later(GOOD_BYE_SECONDS, self._wire.abort)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write an answer, as long as somebody reads it."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answered = await super().finish_response(request, resp, start_time)
        except TimeoutError:
            if self._wire is not None:
                self._wire.abort()
            return resp, True
        if not self._messages and self.transport is not None:
            self._admission.rest(self)
        return answered

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Refuse what is no HTTP without quoting it, as aiohttp would: tokens stand in headers and in addresses."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        limited("no HTTP").info("a request could not be read as HTTP: {}", type(exc).__name__)
        refused = problem(BrokerError("invalid_message", "The request could not be read as HTTP."), status)
        refused.force_close()
        return refused

    def portion(self, data: bytes) -> bytes:
        """Return what may be parsed now of what came; called by the parser, which is given the rest a tick later.

        Meanwhile nothing is read. Nothing of the rest is parsed while aiohttp has no room for it: it says so when it
        has, by asking for the parser to go on.
        """
        if len(data) <= PORTION and not self._rest:
            return data
        if self._rest:  # it was there before
            self._rest += data
            data = b""
        else:
            data, self._rest = data[:PORTION], data[PORTION:]
        self._pause_transport_reading()
        if not self._due:
            self._due = True
            self._loop.call_soon(self._go_on)
        return data

    def _go_on(self) -> None:
        self._due = False
        if self.transport is None or (self._reading_paused and not self._upgraded):
            return
        rest, self._rest = self._rest, b""
        self.data_received(rest)
        if not (self._rest or self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def waits(self, *, upgraded: bool, anew: bool, ended: bool = False) -> None:
        """Take note of what came; called by the parser.

        Args:
            upgraded: whether what follows is no HTTP.
            anew: whether a whole head came.
            ended: whether a body did.
        """
        self._begun = not (anew or ended)
        if anew:
            self._admission.wake(self)
        if upgraded or ended or (anew and self._awaited_body() is None):
            self._deadlines.discard(self)
        elif anew or self not in self._deadlines:
            self._deadlines.add(self)

    def give_way(self) -> None:
        """Close, between two requests, for somebody who has no place."""
        self.force_close()

    def late(self) -> None:
        """Give up what has not come."""
        body = self._awaited_body()
        if body is not None:  # whoever reads it is told, and answers
            self._lingering_time = 0.0
            body.set_exception(with_status(BrokerError("timeout", TOO_LATE), HTTPStatus.REQUEST_TIMEOUT))
        elif self._current_request is not None:  # its answer goes first
            self._deadlines.add(self)
        else:
            if self._begun and self.transport is not None:
                late = with_status(BrokerError("timeout", TOO_LATE), HTTPStatus.REQUEST_TIMEOUT)
                self.transport.write(written(late))
            self.force_close()

    def _awaited_body(self) -> StreamReader | None:
        parser: Any = self._parser  # None once the connection is lost
        return None if parser is None else parser.body
