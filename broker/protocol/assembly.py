"""A message that comes bit by bit: joined, unpacked and checked as it comes (RFC 6455 section 5.4, RFC 7692)."""

import zlib
from codecs import utf_8_decode
from typing import Final

from broker.errors import CLOSE_REASONS, CloseCode

__all__ = ["Inflater", "Message", "Violation", "broken"]

_TAIL: Final = b"\x00\x00\xff\xff"
_FINAL_BLOCKS: Final = 16
"""Final DEFLATE blocks in one message (RFC 7692 section 7.2.3.5); each begins a stream anew, which costs."""


class Violation(Exception):  # noqa: N818 - what the peer did, not what broke
    """The peer broke the protocol or a limit, and nothing more can be read from it.

    Args:
        code: how to close it.
        reason: the close reason, which tells its developer what is wrong.
    """

    def __init__(self, code: CloseCode, reason: str | None = None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason or CLOSE_REASONS[code]


def broken(reason: str) -> Violation:
    """Return the violation of a peer that does not speak the protocol."""
    return Violation(CloseCode.PROTOCOL_ERROR, reason)


class Message:
    """A text or binary message under way.

    Args:
        text: whether it is to be UTF-8.
        limit: bytes it may have, unpacked.
        inflater: unpacks it; None if it is not packed.
    """

    __slots__ = ("_cut", "_inflater", "_limit", "_parts", "_text")

    def __init__(self, text: bool, limit: int, inflater: "Inflater | None") -> None:
        self._text = text
        self._limit = limit
        self._inflater = inflater
        self._parts = bytearray()
        self._cut = b""  # the beginning of a character whose rest has not come
        if inflater is not None:
            inflater.begin()

    def __len__(self) -> int:
        """Return how many bytes of it there are, unpacked."""
        return len(self._parts)

    def add(self, data: bytes | bytearray) -> None:
        """Take some more of it, as it is on the wire but for the mask.

        Raises:
            Violation: it is too large, is no UTF-8, or cannot be unpacked.
        """
        if self._inflater is not None:
            data = self._inflater.unpack(data, self._limit + 1 - len(self._parts))
            if len(self._parts) + len(data) > self._limit:
                raise Violation(CloseCode.MESSAGE_TOO_BIG)
        self._parts += data
        if self._text and (self._cut or not data.isascii()):
            self._check_text(self._cut + data)

    def end(self) -> bytes:
        """Return the message; raises as `add`."""
        if self._inflater is not None:
            self.add(_TAIL)
        if self._cut:
            raise Violation(CloseCode.INVALID_TEXT)
        return bytes(self._parts)

    def _check_text(self, data: bytes) -> None:
        """See to it that there is nothing in it that no further byte could make UTF-8."""
        try:
            _, used = utf_8_decode(data, "strict", False)
        except UnicodeDecodeError as e:
            raise Violation(CloseCode.INVALID_TEXT) from e
        self._cut = bytes(data[used:])


class Inflater:
    """Unpacks what one client sends; each message may refer to those before it (RFC 7692 section 7.2.3.2)."""

    __slots__ = ("_ends", "_stream")

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        self._ends = 0

    def begin(self) -> None:
        """Begin a message."""
        self._ends = 0

    def unpack(self, data: bytes | bytearray, most: int) -> bytes:
        """Return what `data` unpacks to, and not more than `most` bytes of it."""
        try:
            unpacked = self._stream.decompress(data, most)
            while self._stream.eof:
                rest = self._begin_anew()
                if not rest or len(unpacked) >= most:
                    break
                unpacked += self._stream.decompress(rest, most - len(unpacked))
        except zlib.error as e:
            raise broken("the compressed data is damaged") from e
        return unpacked

    def _begin_anew(self) -> bytes:
        """Go on after a final block, of which there should be none; return what came after it."""
        self._ends += 1
        if self._ends > _FINAL_BLOCKS:
            raise broken("the compressed data ends too often")
        rest = self._stream.unused_data
        self._stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        return rest
