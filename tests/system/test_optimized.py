"""`python -O` leaves assertions out; doors and frame reader lose nothing by it (CVE-2025-69227 was of that kind)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]

HANDSHAKE = (
    *("GET /ws HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"),
    *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
)


async def answer(port: int, *lines: str, then: bytes = b"") -> bytes:
    """Shake hands with these further headers, send something more, and return all that is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*HANDSHAKE, *lines, "", ""]).encode() + then)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_without_assertions_nobody_comes_in_who_may_not(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(limits={"handshake": "500ms"})
    broker.prefix = ("env", "PYTHONOPTIMIZE=1")
    broker.start()
    port = broker.port
    close = ("Connection: close",)
    for status, lines in (
        (b"403", ("Host: localhost", "Origin: https://evil.example", *close)),
        (b"403", ("Host: evil.example", "Origin: http://evil.example", *close)),
        (b"400", ("Host: localhost", "Host: evil.example", *close)),
        (b"400", close),
    ):
        head = await answer(port, *lines)
        assert head.split()[1] == status, (lines, head)
    unmasked = await answer(port, f"Host: localhost:{port}", then=b"\x81\x05hello")
    assert b" 101 " in unmasked
    assert b"\x03\xea" in unmasked  # 1002
    client = await dial(port)
    await client.send(json.dumps({"id": "1", "type": "request", "action": "echo", "payload": "[" * 10}))
    assert (await client.take())["data"] == "[" * 10
