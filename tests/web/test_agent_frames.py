"""The frames of agents at `/agent`, byte by byte: those that lie, flood, stop halfway, and the very large."""

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker.agents.remote.carrier import CLOSE_SECONDS, CONTROLS_PER_MINUTE
from broker.agents.remote.frames import FRAME_LIMIT
from broker.app import App
from broker.testing import until

PATIENCE = 20.0
SUBPROTOCOL = "agents.v1.json"
WORKERS = {"agents": {"coder": {"kind": "worker", "reattach": "1h"}}}
HELLO = b'{"type":"hello","id":"1","data":{"agent":"coder","instance":"i"}}'
ASK = b'{"type":"ping","id":"2","data":{}}'
EMPTY_PIECE = b"\x00\x80abcd"
MEGABYTE = 1 << 20

Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]
Come = Callable[..., Awaitable[Any]]


def masked(first: int, payload: bytes) -> bytes:
    """Return a frame whose mask changes nothing."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    else:
        length = b"\xfe" + struct.pack("!H", size) if size < 1 << 16 else b"\xff" + struct.pack("!Q", size)
    return bytes((first,)) + length + bytes(4) + payload


async def next_of(raw: Any, kind: str) -> Any:
    """Return the data of the next text frame of this kind."""
    while (message := await raw.message())["type"] != kind:
        pass
    return message["data"]


async def close_of(raw: Any) -> tuple[int, str]:
    """Read up to the close frame; return its code and its reason."""
    while (frame := await raw.frame())[0] != 0x88:
        pass
    return struct.unpack("!H", frame[1][:2])[0], frame[1][2:].decode()


async def hears_the_end_of_the_line(raw: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        assert await raw.reader.read() == b""
    raw.writer.close()


def readers() -> int:
    """Return how many agents are being read."""
    return sum(task.get_name() == "read an agent" for task in asyncio.all_tasks())


@pytest.fixture
async def app(start: Start) -> App:
    """A broker with a profile that workers serve."""
    return await start(**WORKERS)


@pytest.fixture
def come(knock: Knock) -> Come:
    """Dial in by hand; say hello and wait for the welcome if that is wanted."""

    async def dial_in(app: App, *, hello: bool = True, **headers: str) -> Any:
        raw = await knock(app.port, "/agent", Sec_WebSocket_Protocol=SUBPROTOCOL, **headers)
        assert raw.status == 101
        if hello:
            raw.writer.write(masked(0x81, HELLO.replace(b'"i"', json.dumps(os.urandom(4).hex()).encode())))
            await next_of(raw, "welcome")
        return raw

    return dial_in


@pytest.fixture
async def victim(app: App, come: Come) -> AsyncIterator[Any]:
    """Another agent, who notices nothing."""
    raw = await come(app)
    yield raw
    raw.writer.write(masked(0x81, ASK))
    assert (await raw.message())["type"] == "pong"


async def asks(raw: Any) -> None:
    """Ask whether the broker is there, and wait until it says so."""
    raw.writer.write(masked(0x81, ASK))
    await next_of(raw, "pong")


# -- frames that no library sends --------------------------------------------------------------------

LIES = {
    "a text that is not masked": (b"\x81" + bytes((len(ASK),)) + ASK, 1002),
    "a ping that is not masked": (b"\x89\x00", 1002),
    "a close that is not masked": (b"\x88\x02\x03\xe8", 1002),
    "the first reserved bit, as if it was compressed": (masked(0xC1, ASK), 1002),
    "the second reserved bit": (masked(0xA1, ASK), 1002),
    "a reserved opcode": (b"\x83\x80", 1002),
    "a continuation of nothing": (EMPTY_PIECE, 1002),
    "a length in eight bytes that needs two": (b"\x81\xff" + struct.pack("!Q", 65_535), 1002),
    "a length of 2^62": (b"\x81\xff" + struct.pack("!Q", 1 << 62), 1009),
    "one byte too much": (b"\x81\xff" + struct.pack("!Q", FRAME_LIMIT + 1), 1009),
    "a close code that is never sent": (masked(0x88, b"\x03\xee"), 1002),
    "rubbish split over two fragments": (masked(0x01, b"\xf4") + masked(0x80, b"\x90"), 1007),
    "a binary message": (masked(0x82, b"x"), 1003),
}


@pytest.mark.parametrize("hello", [False, True], ids=["before the hello", "after it"])
@pytest.mark.parametrize(("wire", "code"), LIES.values(), ids=LIES.keys())
async def test_a_lie_is_answered_with_its_code_and_the_end_of_the_line(
    app: App, come: Come, victim: Any, wire: bytes, code: int, hello: bool
) -> None:
    raw = await come(app, hello=hello)
    raw.writer.write(wire + masked(0x81, HELLO))
    closed, reason = await close_of(raw)
    assert (closed, len(reason) > 2) == (code, True)
    told_at = asyncio.get_running_loop().time()
    if code == 1003:
        raw.writer.write(masked(0x88, b"\x03\xeb"))  # its frames are in order, so it is heard to the end
    await hears_the_end_of_the_line(raw)
    assert asyncio.get_running_loop().time() - told_at < CLOSE_SECONDS, "the line is closed, not cut"
    await until(lambda: readers() == 1)
    assert app.kinds["coder"].capacity == 1


async def test_what_comes_before_a_lie_is_heard(app: App, come: Come) -> None:
    raw = await come(app)
    raw.writer.write(masked(0x81, ASK) + b"\x81\x02hi" + masked(0x81, ASK))
    assert (await raw.message())["type"] == "pong"
    assert (await raw.frame())[0] == 0x88


async def test_what_comes_with_the_handshake_is_heard_in_its_order(app: App) -> None:
    """A hello, which somebody has to see first, and all that the agent said after it without waiting."""
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    head = (
        f"GET /agent HTTP/1.1\r\nHost: 127.0.0.1:{app.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    )
    nonsense = b'{"type":"delta","id":"3","data":{}}'
    wire = masked(0x81, HELLO) + masked(0x89, b"?") + masked(0x81, ASK) + masked(0x81, nonsense) + masked(0x88, b"")
    writer.write(head.encode() + wire)
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    order = [answer.index(what) for what in (b'"welcome"', b"\x8a\x01?", b'"pong"', b'"error"', b"\x88\x02\x03\xe8")]
    assert order == sorted(order)
    assert answer.endswith(b"\x88\x02\x03\xe8")


# -- floods ------------------------------------------------------------------------------------------

FLOODS = {
    "pings": masked(0x89, b"p"),
    "pongs": masked(0x8A, b"p"),
    "empty fragments": EMPTY_PIECE,
    "small fragments": masked(0x00, b"x" * 1000),
}


@pytest.mark.parametrize("hello", [False, True], ids=["before the hello", "after it"])
@pytest.mark.parametrize("frame", FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_of_frames_that_are_no_messages_is_closed_and_holds_up_nobody(
    app: App, come: Come, victim: Any, frame: bytes, hello: bool
) -> None:
    raw = await come(app, hello=hello)
    before = psutil.Process().memory_info().rss
    raw.writer.write(masked(0x01, b"") + frame * (4 * MEGABYTE // len(frame)))
    await asks(victim)
    assert (await close_of(raw))[0] == 4501
    raw.writer.transport.abort()
    await until(lambda: readers() == 1)
    assert psutil.Process().memory_info().rss - before < 16 * MEGABYTE


async def test_an_agent_may_ping_as_much_as_anybody_needs_to(app: App, come: Come) -> None:
    raw = await come(app)
    raw.writer.write(b"".join(masked(0x89, str(number).encode()) for number in range(CONTROLS_PER_MINUTE)))
    for number in range(CONTROLS_PER_MINUTE):
        assert await raw.frame() == (0x8A, str(number).encode())
    await asks(raw)


async def test_a_flood_after_our_close_is_cut_off(app: App, come: Come) -> None:
    raw = await come(app, hello=False)
    raw.writer.write(masked(0x81, b"{}"))

    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            raw.writer.write(masked(0x81, b"x" * 60_000))
            sent += 60_000
            await raw.writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(flood(), PATIENCE)
    assert sent < 2 * FRAME_LIMIT
    await until(lambda: readers() == 0)


# -- the very large ----------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [None, MEGABYTE, 1024], ids=["in one frame", "in 16 fragments", "in 16384"])
async def test_a_message_as_large_as_may_be_is_taken(app: App, come: Come, victim: Any, piece: int | None) -> None:
    raw = await come(app)
    head = b'{"type":"agent_message","id":"3","data":{"text":"'
    message = head + b"x" * (FRAME_LIMIT - len(head) - 3) + b'"}}'
    step = piece or FRAME_LIMIT
    starts = range(0, FRAME_LIMIT, step)
    firsts = ((0x81 if piece is None else 0x01), *([0x00] * (len(starts) - 2)), *([0x80] if piece else []))
    wire = b"".join(masked(first, message[at : at + step]) for first, at in zip(firsts, starts, strict=True))
    for at in range(0, len(wire), MEGABYTE):
        raw.writer.write(wire[at : at + MEGABYTE])
        await raw.writer.drain()
    await asks(victim)
    await asks(raw)


async def test_fragments_that_are_too_large_together_are_refused_at_the_header(app: App, come: Come) -> None:
    raw = await come(app)
    raw.writer.write(masked(0x01, b"x" * (FRAME_LIMIT // 2)) + b"\x80\xff" + struct.pack("!Q", FRAME_LIMIT // 2 + 1))
    assert (await close_of(raw))[0] == 1009


# -- ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("payload", "answer"), [(b"", 1000), (b"\x03\xe8", 1000), (b"\x0f\xa0bye", 4000)])
async def test_a_good_bye_is_answered_in_kind(app: App, come: Come, payload: bytes, answer: int) -> None:
    raw = await come(app)
    raw.writer.write(masked(0x88, payload) + masked(0x81, ASK))
    assert await close_of(raw) == (answer, "")
    await hears_the_end_of_the_line(raw)
    await until(lambda: app.kinds["coder"].capacity == 0)


@pytest.mark.parametrize("hello", [False, True], ids=["before the hello", "after it"])
async def test_half_a_close_ends_the_link(app: App, come: Come, hello: bool) -> None:
    raw = await come(app, hello=hello)
    raw.writer.write(masked(0x81, HELLO)[:20])
    raw.writer.write_eof()
    await hears_the_end_of_the_line(raw)
    await until(lambda: (readers(), app.kinds["coder"].capacity) == (0, 0))


# -- those that may not come in ----------------------------------------------------------------------

GATE = '''
from broker.errors import BrokerError
from broker.hooks import Handshake, Plugin


class Gate(Plugin):
    """Knows nobody."""

    def on_handshake(self, handshake: Handshake):
        raise BrokerError(handshake.headers["Authorization"])
'''


@pytest.mark.parametrize(("error", "code"), [("unauthenticated", 4500), ("forbidden", 4503)])
async def test_one_that_may_not_come_in_is_told_so_and_costs_nothing(
    start: Start, come: Come, tmp_path: Path, error: str, code: int
) -> None:
    """However much it sends: none of it is kept, and nothing is begun for it."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "gate.py").write_text(GATE)
    app = await start(plugins={"gate": {}}, **WORKERS)
    raw = await come(app, hello=False, Authorization=error)
    assert (await next_of(raw, "error"))["code"] == error
    assert readers() == 0
    assert (await close_of(raw))[0] == code
    assert (app.stats.errors, app.stats.closes) == ({error: 1}, {code: 1})

    async def flood() -> None:
        while True:
            raw.writer.write(b"\x01\xff" + struct.pack("!Q", FRAME_LIMIT) + bytes(MEGABYTE))
            await raw.writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(flood(), PATIENCE)
