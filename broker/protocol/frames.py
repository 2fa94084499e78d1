"""Server-side WebSocket frames as bytes (RFC 6455 section 5, RFC 7692 for compression).

aiohttp reads frames; what goes out is built here once and written to every socket that wants it.
"""

import struct
import zlib
from typing import Final

__all__ = ["close_frame", "ping_frame", "pong_frame", "text_frame"]

_TEXT: Final = 0x81
_COMPRESSED_TEXT: Final = 0xC1
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A
_SHORT: Final = 126
_MEDIUM: Final = 1 << 16
_TAIL: Final = b"\x00\x00\xff\xff"
MAX_REASON: Final = 123
"""Bytes a close reason may have (RFC 6455 section 5.5)."""


def text_frame(payload: bytes, window_bits: int = 0) -> bytes:
    """Return one whole text frame.

    Args:
        payload: UTF-8.
        window_bits: compress it for peers that negotiated permessage-deflate with this window, each
            message on its own so that all of them can share the bytes; 0 for no compression.
    """
    if not window_bits:
        return _frame(_TEXT, payload)
    deflate = zlib.compressobj(wbits=-window_bits)
    compressed = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return _frame(_COMPRESSED_TEXT, compressed.removesuffix(_TAIL))


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; the reason is cut to what fits, at a character's boundary."""
    text = reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
    return _frame(_CLOSE, struct.pack("!H", code) + text)


def ping_frame(payload: bytes = b"") -> bytes:
    """Return a ping; `payload` comes back in the pong."""
    return _frame(_PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping."""
    return _frame(_PONG, payload)


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < _SHORT:
        return bytes((first, size)) + payload
    if size < _MEDIUM:
        return struct.pack("!BBH", first, _SHORT, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload
