"""A client's frames, read straight from its transport; aiohttp does the handshake and then only hands on bytes.

`FrameSocket` is the one place that touches aiohttp's private parts (`tests/web/test_aiohttp_contract.py`).
What aiohttp does itself costs a queue, a future and a wake-up for each message, takes unmasked frames, hides
fragments from whoever wants to count them, and handles all that one socket has sent before anybody else's.
"""

import asyncio
from typing import Final, Protocol

from aiohttp import web
from aiohttp._websocket.helpers import websocket_mask
from multidict import CIMultiDict

from broker.errors import CloseCode
from broker.protocol.incoming import BINARY, CLOSE, PIECE, PING, TEXT, Decoder, Violation, close_code
from broker.web.deadlines import UNFINISHED, Deadlines

__all__ = ["FrameSocket", "Reader", "Receives"]

BURST_FRAMES: Final = 64
"""Frames of one socket that are handled in one tick of the loop; with most messages that is half a millisecond."""
BURST_BYTES: Final = 64 * 1024
"""Bytes of payload in one tick, unpacked, after which the others have their turn.

Also as many that were read at once: libuv goes on reading a socket that fills its buffer, 32 times 256 KiB.
"""
VERSION: Final = "13"
VERSION_HEADER: Final = "Sec-WebSocket-Version"
AFTER_CLOSE: Final = 1024 * 1024
"""Bytes beyond one message that a peer may send after our close frame until its own; then it is cut off."""
FRAMES_AFTER_CLOSE: Final = 4096
"""Frames that are looked through for the peer's close frame; a thousand empty ones are read in a tenth of a
millisecond."""
AFTER_VIOLATION: Final = 16 * 1024 * 1024
"""Bytes beyond one message that are thrown away unread, so that a peer in the middle of one finds our close frame."""

TOO_LATE: Final = "the rest of a message did not come in time"


class Receives(Protocol):
    """What is done with what a peer sends; none of it waits."""

    def text(self, text: bytes) -> None:
        """Take a message; it is UTF-8."""

    def binary(self, data: bytes) -> None:
        """Take a binary message."""

    def ping(self, payload: bytes) -> None:
        """Answer a ping."""

    def pong(self, payload: bytes) -> None:
        """Take the answer to a ping."""

    def piece(self, size: int) -> None:
        """Take note of a fragment of so many bytes; its message is not whole yet."""

    def violation(self, violation: Violation) -> None:
        """Close the connection, and the writing half of the line after it: nothing more is read."""

    def closing(self) -> bool:
        """Tell whether we said good-bye; then only the peer's close frame is of interest."""


class Reader:
    """Reads one socket: what aiohttp calls a parser.

    A tick of the loop handles so many frames of one socket and no more; while some are left, or whoever takes them
    has no room for more (`pause`), nothing is read from its transport. So no more is kept of it than one message
    and one read, and that not for long: a peer that does not finish what it has begun is sent away.

    Args:
        receiver: what is done with what comes.
        decoder: the frames.
        flow: the connection in aiohttp, which pauses the transport.
        limit: bytes a message may have.
        unfinished: tells it when a message has not become whole in time; None for no such time.

    Attributes:
        ended: when there is nothing more to read: the code of the peer's close frame; None if the line was lost.
        deaf: whether nothing more is read, not even a close frame.
    """

    __slots__ = (
        *("_allowance", "_decoder", "_due", "_flow", "_held", "_loop", "_paused", "_receiver", "_under_way"),
        *("_unfinished", "_unheard"),
        *("deaf", "ended"),
    )

    def __init__(
        self,
        receiver: Receives,
        decoder: Decoder,
        flow: web.RequestHandler,
        limit: int,
        unfinished: Deadlines | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int | None] = self._loop.create_future()
        self._receiver = receiver
        self._decoder = decoder
        self._flow = flow
        self._allowance = AFTER_CLOSE + limit
        self._paused = False  # whether the transport is not read
        self._due = False  # whether a burst stands in the loop's queue
        self._held = False
        self._under_way: object = None  # the message that `_unfinished` waits for
        self._unfinished = unfinished
        self._unheard = 0  # frames after our close frame
        self.deaf = False

    def start(self) -> None:
        """Begin to read, with what came together with the handshake: some may be handed on before this returns."""
        self._flow.set_parser(self)  # type: ignore[arg-type]

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what came; the answer is aiohttp's `(eof, tail)`."""
        if self.deaf or self._receiver.closing():
            self._allowance -= len(data)
            if self._allowance < 0 and self._flow.transport is not None:
                self._flow.transport.abort()
        if not self.deaf:
            self._decoder.feed(data)
            if not self._paused:
                self._work(len(data) >= BURST_BYTES)
        return False, b""

    def feed_eof(self) -> None:
        """Take note that the line was lost."""
        self._end(None)

    def pause(self) -> None:
        """Hand on nothing more until `resume`, from the next frame on; neither is the line's end noticed."""
        self._held = True
        self._hold_transport(True)

    def resume(self) -> None:
        """Go on, though not at once: nothing is handed on before the loop's next tick."""
        if self._held:
            self._held = False
            self._soon()

    def allow(self, limit: int) -> None:
        """Let messages have so many bytes, from the next one on."""
        self._decoder.allow(limit)
        self._allowance = AFTER_CLOSE + limit

    def stop(self) -> None:
        """Read nothing more, and keep nothing of what was read; what still comes is thrown away, but for the end."""
        self.deaf = True
        self._decoder.clear()
        self._watch()
        self._hold_transport(False)

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._due = False
        if not self._held:
            self._work()

    def _hold_transport(self, hold: bool) -> None:
        if hold != self._paused:
            self._paused = hold
            (self._flow.pause_reading if hold else self._flow.resume_reading)()

    def late(self) -> None:
        """Send the peer away: what it has begun to say is not whole by now, though it could have been."""
        if self._held and self._unfinished is not None:
            self._unfinished.add(self)
        else:
            self._break(Violation(CloseCode.TOO_SLOW, TOO_LATE))

    def _watch(self) -> None:
        """Have it told when the message is late that is under way now, if that is another one than before."""
        message = None if self.deaf else self._decoder.under_way
        if message is self._under_way or self._unfinished is None:
            return
        self._under_way = message
        if message is None:
            self._unfinished.discard(self)
        else:
            self._unfinished.add(self)

    def _end(self, code: int | None) -> None:
        self.deaf = True
        self._watch()
        if not self.ended.done():
            self.ended.set_result(code)

    def _work(self, much: bool = False) -> None:
        """Handle a burst; what is left, or may still be read after so much, waits until the others had their turn."""
        if self.deaf:
            return
        try:
            more = self._burst() or much
        except Violation as e:
            self._break(e)
            more = False
        except Exception as e:  # noqa: BLE001 - who waits for the end is told, and the connection with it
            self.deaf = True
            self._watch()
            self.ended.set_exception(e)
            return
        self._watch()
        if self._held:
            return
        if more:
            self._soon()
        self._hold_transport(more)

    def _burst(self) -> bool:
        """Handle as much as one tick may; tell whether there is more."""
        decoder, receiver = self._decoder, self._receiver
        heard = not receiver.closing()
        room = BURST_BYTES
        for _ in range(BURST_FRAMES):
            frame = decoder.next()
            if frame is None:
                return False
            opcode, payload = frame
            if opcode == CLOSE:
                self._end(close_code(payload))
                return False
            if not heard:
                self._unheard += 1
                if self._unheard > FRAMES_AFTER_CLOSE:
                    self.stop()
                    return False
                continue
            if opcode == TEXT:
                receiver.text(payload)
            else:
                self._take(opcode, payload)
            room -= decoder.cost
            if room < 0 or self._held:
                break
        return decoder.waiting() > 0

    def _take(self, opcode: int, payload: bytes) -> None:
        receiver = self._receiver
        if opcode == PIECE:
            receiver.piece(self._decoder.size)
        elif opcode == PING:
            receiver.ping(payload)
        elif opcode == BINARY:
            receiver.binary(payload)
        else:
            receiver.pong(payload)

    def _break(self, violation: Violation) -> None:
        self.stop()
        self._allowance += AFTER_VIOLATION
        transport = self._flow.transport
        if not self._receiver.closing():
            self._receiver.violation(violation)
        elif transport is not None and not transport.is_closing():
            transport.write_eof()  # our close frame is out, and the peer's will not be found in rubbish


class FrameSocket(web.WebSocketResponse):
    """A WebSocket of which aiohttp does the handshake alone.

    Args:
        protocol: the subprotocol that was agreed on.
        compress: whether to agree on permessage-deflate.
    """

    def __init__(self, protocol: str, *, compress: bool = False) -> None:
        super().__init__(protocols=(protocol,), compress=compress)

    def _handshake(self, request: web.BaseRequest) -> tuple[CIMultiDict[str], str | None, int, bool]:
        version = request.headers.get(VERSION_HEADER, VERSION)
        if version != VERSION:  # aiohttp takes drafts too, and names nothing that it would take (RFC 6455 section 4.4)
            raise web.HTTPUpgradeRequired(reason="Speak WebSocket version 13", headers={VERSION_HEADER: VERSION})
        return super()._handshake(request)

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: object) -> None:
        self._ws_protocol = protocol
        request.protocol.keep_alive(False)

    def listen(self, request: web.Request, receiver: Receives, limit: int) -> Reader:
        """Begin to read; the arguments are those of `reader`."""
        reader = self.reader(request, receiver, limit)
        reader.start()
        return reader

    def reader(self, request: web.Request, receiver: Receives, limit: int) -> Reader:
        """Return what reads once it is started, for a receiver that has to know it from the first frame on.

        Args:
            request: the handshake.
            receiver: what is done with what comes.
            limit: bytes a message may have.
        """
        decoder = Decoder(limit, deflate=bool(self.compress), unmask=websocket_mask)
        return Reader(receiver, decoder, request.protocol, limit, request.app.get(UNFINISHED))

    async def write_eof(self) -> None:  # type: ignore[override]
        """Do nothing: who reads the frames also ends the connection."""
