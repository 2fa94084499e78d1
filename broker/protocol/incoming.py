"""What clients send: bytes to messages (RFC 6455 section 5; RFC 7692 for compression).

No event loop, no callbacks: `feed` takes what came, `next` gives what is whole. Whatever a peer does,
no more is kept of it than one message as large as allowed and what one `feed` brought: a frame that
is not whole yet is unmasked, unpacked and checked as it comes, and fragments are joined as they come.
"""

from collections.abc import Callable
from typing import Final

from broker.errors import CloseCode
from broker.protocol.assembly import Inflater, Message, Violation, broken
from broker.protocol.edge import is_utf8

__all__ = [
    "BINARY",
    "CLOSE",
    "NO_CODE",
    "PIECE",
    "PING",
    "PONG",
    "TEXT",
    "Decoder",
    "Unmask",
    "Violation",
    "close_code",
    "unmask",
]

PIECE: Final = 0
"""A data frame that is not the last of its message; on the wire this is the opcode of a continuation."""
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

_OPCODES: Final = frozenset({PIECE, TEXT, BINARY, CLOSE, PING, PONG})
_FINAL: Final = 0x80
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_RESERVED: Final = 0x70
_PACKED: Final = 0x40
_CONTROL: Final = 0x08
_WHOLE_TEXT: Final = _FINAL | TEXT
_WHOLE_CLOSE: Final = _FINAL | CLOSE
_WHOLE: Final = frozenset({_WHOLE_TEXT, _FINAL | BINARY})

_SHORT: Final = 125
"""Bytes that a control frame may have, and the largest length that fits into the second byte."""
_LEAST: Final = {2: 126, 8: 1 << 16}
"""The least length that may be written with that many further bytes (RFC 6455 section 5.2)."""
_MASK_BYTES: Final = 4
NO_CODE: Final = 1005
"""What a close frame without a code is said to have (RFC 6455 section 7.1.5)."""
_NOT_SENT: Final = frozenset({1004, 1005, 1006})
"""Close codes that never stand on the wire (RFC 6455 section 7.4.1)."""
_NO_FRAME: Final = -1

Frame = tuple[int, bytes]
"""An opcode, and what it brings."""

Unmask = Callable[[bytes, bytearray], None]
"""Unmasks in place with a mask of four bytes (RFC 6455 section 5.3)."""


def unmask(mask: bytes, data: bytearray) -> None:
    """Unmask by Python's own means; libraries have faster ones."""
    size = len(data)
    key = (mask * (size // _MASK_BYTES + 1))[:size]
    data[:] = (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def close_code(payload: bytes) -> int:
    """Return the code of a close frame that `Decoder` gave; 1005 if there is none in it."""
    return int.from_bytes(payload[:2], "big") if payload else NO_CODE


class Decoder:
    """Reads the frames of one client.

    Args:
        limit: bytes a message may have, unpacked.
        deflate: whether permessage-deflate was agreed on.
        unmask: how to unmask.

    Attributes:
        size: bytes of payload that the last frame of `next` had on the wire.
        cost: what the last `next` came to in bytes: those on the wire or, where they are more, those they unpacked to.
    """

    __slots__ = (
        "_at", "_buffer", "_deflate", "_final", "_inflater", "_left", "_limit", "_mask", "_message", "_opcode", "_room",
        "_unmask", "cost", "size",
    )  # fmt: skip

    def __init__(self, limit: int, *, deflate: bool = False, unmask: Unmask = unmask) -> None:
        self.size = self.cost = 0
        self._limit = limit
        self._deflate = deflate
        self._unmask = unmask
        self._buffer = b""
        self._at = 0
        self._message: Message | None = None
        self._inflater: Inflater | None = None
        self._room = limit  # bytes that the message may still have on the wire
        self._left = _NO_FRAME  # bytes of its last frame that have not come
        self._mask = b""
        self._final = False
        self._opcode = TEXT

    def feed(self, data: bytes) -> None:
        """Take what came from the peer."""
        rest = self._buffer[self._at :]
        self._buffer = rest + data if rest else data
        self._at = 0

    @property
    def under_way(self) -> object:
        """The message that has begun and is not whole; None if there is none."""
        return self._message

    def waiting(self) -> int:
        """Return how many bytes were fed and not looked at."""
        return len(self._buffer) - self._at

    def allow(self, limit: int) -> None:
        """Let messages have so many bytes, from the next one on."""
        self._limit = limit
        if self._message is None:
            self._room = limit

    def clear(self) -> None:
        """Forget what was fed; nothing may be fed afterwards."""
        self._buffer, self._at = b"", 0
        self._message = self._inflater = None
        self._left = _NO_FRAME

    def next(self) -> Frame | None:
        """Return what comes next, None if more bytes are needed.

        Returns:
            `TEXT` (UTF-8) or `BINARY` with a whole message; `CLOSE`, `PING` or `PONG` with its payload, a close code
            being one that may be sent; `PIECE` with nothing, for a frame that is kept until its message is whole.

        Raises:
            Violation: the peer is to be closed; whatever else it has sent is not to be read.
        """
        if self._left != _NO_FRAME:
            return self._go_on()
        buffer, at = self._buffer, self._at
        have = len(buffer)
        if have - at < 2:  # noqa: PLR2004 - the least a header has
            return self._wait(at)
        first, size = buffer[at], buffer[at + 1] - _MASKED
        if first != _WHOLE_TEXT or size < 0 or self._message is not None:
            self._check(first, size)
        start = at + 2
        if size > _SHORT:
            start += 2 if size == _SHORT + 1 else 8
            if have < start:
                return self._wait(at)
            size = _long(buffer[at + 2 : start])
        if size > self._room and not first & _CONTROL:
            self._check_size(first, size)
        start += _MASK_BYTES
        end = start + size
        if end > have or (first not in _WHOLE and not first & _CONTROL):
            return self._begin(first, start, size)
        self._at = end
        self.size = self.cost = size
        return self._open(first, start, end)

    def _open(self, first: int, start: int, end: int) -> Frame:
        """Return what is in a frame that is there and needs no other."""
        buffer = self._buffer
        unmasked = bytearray(buffer[start:end])
        self._unmask(buffer[start - _MASK_BYTES : start], unmasked)
        payload = bytes(unmasked)
        if first == _WHOLE_TEXT:
            if not is_utf8(payload):
                raise Violation(CloseCode.INVALID_TEXT)
        elif first == _WHOLE_CLOSE:
            _check_close(payload)
        return first & _OPCODE, payload

    def _wait(self, at: int) -> Frame | None:
        """Keep what is not taken yet, which is a header or a control frame at most, and not the rest with it."""
        self._buffer, self._at = self._buffer[at:], 0
        return None

    def _check(self, first: int, size: int) -> None:
        """Look at the two bytes that every frame begins with."""
        opcode, reserved = first & _OPCODE, first & _RESERVED
        if size < 0:
            raise broken("frames of a client must be masked")
        if opcode not in _OPCODES:
            raise broken("there is no such opcode")
        if reserved and not (self._deflate and reserved == _PACKED and opcode in {TEXT, BINARY}):
            raise broken("a reserved bit is set")
        if first & _CONTROL:
            if size > _SHORT or not first & _FINAL:
                raise broken("control frames have at most 125 bytes and no fragments")
        elif opcode == PIECE and self._message is None:
            raise broken("a continuation of nothing")
        elif opcode != PIECE and self._message is not None:
            raise broken("a message begins before the last one has ended")

    def _check_size(self, first: int, size: int) -> None:
        if not (first & _PACKED and size <= _packed(self._limit)):
            raise Violation(CloseCode.MESSAGE_TOO_BIG)

    # -- frames that are not whole, not alone, or packed -------------------------------------------------

    def _begin(self, first: int, start: int, size: int) -> Frame | None:
        """Begin with a frame of which the length is known."""
        if first & _CONTROL or start > len(self._buffer):
            return self._wait(self._at)  # short enough to be waited for
        if self._message is None:
            packed, self._opcode = bool(first & _PACKED), first & _OPCODE
            if packed and self._inflater is None:
                self._inflater = Inflater()
            self._message = Message(self._opcode == TEXT, self._limit, self._inflater if packed else None)
            self._room = _packed(self._limit) if packed else self._limit
        self._mask = self._buffer[start - _MASK_BYTES : start]
        self._at = start
        self._room -= size
        self._left = self.size = size
        self._final = bool(first & _FINAL)
        return self._go_on()

    def _go_on(self) -> Frame | None:
        """Take what is there of the frame under way."""
        message = self._message
        assert message is not None  # noqa: S101 - there is no frame under way without its message
        chunk = bytearray(self._buffer[self._at : self._at + self._left])
        size, before = len(chunk), len(message)
        self._unmask(self._mask, chunk)
        self._at += size
        self._left -= size
        message.add(chunk)
        if self._left:
            turn = size % _MASK_BYTES
            self._mask = self._mask[turn:] + self._mask[:turn]
            return self._wait(self._at)
        self._left = _NO_FRAME
        whole = message.end() if self._final else b""
        self.cost = max(self.size, len(message) - before)
        if not self._final:
            return PIECE, whole
        self._message = None
        self._room = self._limit
        return self._opcode, whole


def _packed(limit: int) -> int:
    """Return how large a message of `limit` bytes may be when it is compressed, which some data does not bear."""
    return limit + (limit >> 8) + 64


def _long(length: bytes) -> int:
    """Return the length that a header's further bytes tell."""
    size = int.from_bytes(length, "big")
    if size < _LEAST[len(length)]:
        raise broken("a length is written with more bytes than it needs")
    if size >> 63:
        raise broken("a length has its highest bit set")
    return size


def _check_close(payload: bytes) -> None:
    """Look at the payload of a close frame (RFC 6455 sections 5.5.1 and 7.4)."""
    if not payload:
        return
    code = close_code(payload)
    if len(payload) == 1 or not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in _NOT_SENT:  # noqa: PLR2004
        raise broken("that close code may not be sent")
    if not is_utf8(payload[2:]):
        raise Violation(CloseCode.INVALID_TEXT)
