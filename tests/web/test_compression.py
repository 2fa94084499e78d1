"""Compression is off unless it is configured, and right where it is (RFC 7692)."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

OFFER = "permessage-deflate; client_max_window_bits"


@pytest.fixture
async def deflating(start: Start) -> App:
    """A broker that offers compression."""
    return await start(listen={"compression": True})


async def test_it_is_off_by_default(app: App, knock: Knock) -> None:
    raw = await knock(app.port, Sec_WebSocket_Extensions=OFFER)
    assert raw.status == 101
    assert "sec-websocket-extensions" not in raw.headers()
    assert (await raw.message())["event"] == "welcome"


async def test_who_does_not_offer_it_gets_plain_frames(deflating: App, knock: Knock) -> None:
    raw = await knock(deflating.port)
    assert "sec-websocket-extensions" not in raw.headers()
    assert (await raw.message())["event"] == "welcome"


async def test_a_library_gets_it_where_it_is_configured(deflating: App, dial: Dial) -> None:
    client = await dial(deflating.port, compression="deflate")
    assert "permessage-deflate" in client.socket.response.headers["Sec-WebSocket-Extensions"]
    text = "again and again " * 1000
    for _ in range(5):
        assert await client.do("echo", text=text) == {"text": text}
    # what libraries agree on saves bytes
    assert deflating.stats.bytes_out < len(text)


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("takeover", [True, False])
async def test_every_window_is_right(deflating: App, dial: Dial, bits: int, takeover: bool) -> None:
    factory = ClientPerMessageDeflateFactory(
        server_max_window_bits=bits if bits < 15 else None,  # 15 is what goes without saying
        client_max_window_bits=bits,
        server_no_context_takeover=not takeover,
    )
    client = await dial(deflating.port, extensions=[factory])
    agreed = client.socket.response.headers["Sec-WebSocket-Extensions"]
    assert bits == 15 or f"server_max_window_bits={bits}" in agreed
    for number in range(1, 6):
        # farther apart than the smaller windows reach, so that a window that is too large would be noticed
        text = "".join(chr(33 + i * number % 90) for i in range(7000)) * 3
        assert await client.do("echo", text=text) == {"text": text}


async def test_a_window_that_zlib_does_not_have_is_not_agreed_on(deflating: App, knock: Knock) -> None:
    raw = await knock(deflating.port, Sec_WebSocket_Extensions="permessage-deflate; server_max_window_bits=8")
    assert "sec-websocket-extensions" not in raw.headers()
    assert (await raw.message())["event"] == "welcome"


async def test_frames_are_shared_by_those_who_agreed_on_the_same(deflating: App, dial: Dial) -> None:
    def with_window(bits: int) -> dict[str, Any]:
        return {"extensions": [ClientPerMessageDeflateFactory(server_max_window_bits=bits)]}

    clients = [
        await dial(deflating.port),
        *[await dial(deflating.port, compression="deflate") for _ in range(2)],
        *[await dial(deflating.port, **with_window(bits)) for bits in (9, 9, 12)],
    ]
    for client in clients:
        await client.do("room.join", room="r")
    texts = [f"{number} " + "la" * 2000 for number in range(20)]
    for client, text in zip(clients * 4, texts, strict=False):
        await client.do("room.publish", room="r", data=text)
    for client in clients:
        heard = [(await client.event("room.event"))["data"]["data"] for _ in texts]
        assert heard == texts


async def test_fragments_may_be_compressed_too(deflating: App, knock: Knock) -> None:
    raw = await knock(deflating.port, Sec_WebSocket_Extensions="permessage-deflate")
    await raw.frame()
    deflate = zlib.compressobj(wbits=-15)
    text = b'{"id":"x","type":"request","action":"echo","payload":"' + b"la" * 500 + b'"}'
    packed = (deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")
    raw.send(0x41, packed[:5])
    raw.send(0x80, packed[5:])
    first, payload = await raw.frame()
    assert first == 0xC1
    assert b"lalala" in zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")


async def test_a_bomb_is_too_large_for_its_sender_alone(start: Start, knock: Knock, dial: Dial) -> None:
    app = await start(listen={"compression": True}, limits={"message_bytes": "64KiB"})
    bystander = await dial(app.port, compression="deflate")
    raw = await knock(app.port, Sec_WebSocket_Extensions="permessage-deflate")
    await raw.frame()
    deflate = zlib.compressobj(9, wbits=-15)
    bomb = (deflate.compress(bytes(20_000_000)) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")
    assert len(bomb) < 64 * 1024
    raw.send(0xC1, bomb)
    async with asyncio.timeout(5):
        assert await raw.end() == 1009
    await bystander.silent()
