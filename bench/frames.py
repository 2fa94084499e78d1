"""A client's half of the WebSocket frames (RFC 6455), as little of it as a load generator needs."""

import struct
from collections.abc import Callable

__all__ = ["CLOSE", "PING", "PONG", "TEXT", "frame", "handshake", "split"]

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

_FINAL = 0x80
_MASKED = 0x80
# A client must mask (RFC 6455 section 5.3); masking with zeros leaves the payload as it is, for both sides.
_ZERO_MASK = bytes(4)


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return one masked frame that carries `payload`."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _FINAL | opcode, _MASKED | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", _FINAL | opcode, _MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", _FINAL | opcode, _MASKED | 127, size)
    return head + _ZERO_MASK + payload


def handshake(port: int, path: str = "/ws", token: str | None = None) -> bytes:
    """Return the request that opens a socket; no extension is offered, so nothing is compressed."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: YnJva2VyLWJlbmNobWFyaw==",
        "Sec-WebSocket-Version: 13",
    ]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join((*lines, "", "")).encode()


def split(data: bytes, on_frame: Callable[[int, bytes, int, int], None]) -> bytes:
    """Tell `on_frame` of every whole frame in `data` as (opcode, data, start, end); return what is left over.

    The payload is not cut out: most callers only look for a few bytes in it.
    """
    at, size = 0, len(data)
    while size - at >= 2:
        length = data[at + 1]
        start = at + 2
        if length == 126:
            start += 2
            length = int.from_bytes(data[at + 2 : start], "big")
        elif length == 127:
            start += 8
            length = int.from_bytes(data[at + 2 : start], "big")
        end = start + length
        if end > size:
            break
        on_frame(data[at] & 15, data, start, end)
        at = end
    return data[at:] if at else data
