"""What Autobahn's test suite does not try: sockets that lie, trickle, flood, stop halfway or are no WebSockets."""

import asyncio
import base64
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.app import App
from broker.testing import until

Dial = Callable[..., Awaitable[Any]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

PATIENCE = 20.0
ECHO = b'{"id":"x","type":"request","action":"echo","payload":"whole"}'
EMPTY_PIECE = b"\x00\x80abcd"
PING = b"\x89\x80abcd"
ONE_BYTE_TEXT = b"\x81\x81\0\0\0\0x"


def zero_masked(first: int, payload: bytes) -> bytes:
    """Return a frame whose mask changes nothing."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes((first,)) + length + bytes(4) + payload


async def gone(app: App, left: int = 0) -> None:
    """Wait until that many connections are left."""
    await until(lambda: app.stats.connections == left)


@pytest.fixture
async def victim(app: App, dial: Dial) -> AsyncIterator[Any]:
    """Another client, who notices nothing."""
    client = await dial(app.port)
    yield client
    await client.silent()


# -- frames that no library sends --------------------------------------------------------------------

LIES = {
    "a text that is not masked": (b"\x81\x02hi", 1002),
    "a ping that is not masked": (b"\x89\x00", 1002),
    "a close that is not masked": (b"\x88\x02\x03\xe8", 1002),
    "a reserved bit and no more": (b"\xa1\x80", 1002),
    "a reserved opcode, header alone": (b"\x83\x80", 1002),
    "a length in two bytes that needs one": (b"\x81\xfe\x00\x7d", 1002),
    "a length in eight bytes that needs two": (b"\x81\xff" + struct.pack("!Q", 65_535), 1002),
    "a length of 2^63": (b"\x81\xff" + struct.pack("!Q", 1 << 63), 1002),
    "a length of 2^62": (b"\x81\xff" + struct.pack("!Q", 1 << 62), 1009),
    "a close reason of 126 bytes": (zero_masked(0x88, b"\x03\xe8" + b"x" * 124), 1002),
    "a close reason that is no text": (zero_masked(0x88, b"\x03\xe8\xff"), 1007),
    "a ping in fragments inside a message": (zero_masked(0x01, b"a") + b"\x09\x80", 1002),
    "half a character at the end": (zero_masked(0x01, b"\xe2\x82") + zero_masked(0x80, b""), 1007),
    "rubbish split over three fragments": (b"".join(zero_masked(n, b) for n, b in ((1, b"\xf4"), (0, b"\x90"))), 1007),
}


@pytest.mark.parametrize(("wire", "code"), LIES.values(), ids=LIES.keys())
async def test_a_lie_is_answered_with_its_code_and_the_end_of_the_line(
    app: App, knock: Knock, victim: Any, wire: bytes, code: int
) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.writer.write(wire)
    first, payload = await raw.frame()
    assert (first, struct.unpack("!H", payload[:2])) == (0x88, (code,))
    assert len(payload) > 2, "a developer wants to know what was wrong"
    async with asyncio.timeout(PATIENCE):
        assert await raw.reader.read() == b""
    raw.writer.close()
    await gone(app, left=1)
    assert app.stats.closes == {code: 1}


async def test_what_is_sent_before_a_lie_is_answered_before_the_close(app: App, knock: Knock) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.writer.write(zero_masked(0x81, ECHO) + b"\x81\x02hi")
    assert (await raw.message())["data"] == "whole"
    assert await raw.end() == 1002


async def test_nothing_is_heard_after_a_lie(app: App, knock: Knock, victim: Any) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.writer.write(b"\x81\x02hi")
    raw.say("broadcast", "too late")
    assert await raw.end() == 1002


# -- the same frames, cut otherwise ------------------------------------------------------------------


async def test_frames_that_come_with_the_handshake_are_heard(app: App) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    writer.write(handshake(app.port) + zero_masked(0x81, ECHO) + zero_masked(0x81, ECHO)[:9])
    async with asyncio.timeout(PATIENCE):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(zero_masked(0x81, ECHO)[9:])
        heard = b""
        while heard.count(b'"data":"whole"') < 2:
            heard += await reader.read(1000)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6, 7, 30])
async def test_a_frame_may_be_cut_anywhere(app: App, knock: Knock, victim: Any, at: int) -> None:
    raw = await knock(app.port)
    await raw.message()
    wire = b"\x81" + bytes((0x80 | len(ECHO),)) + b"\x01\x02\x03\x04"
    wire += bytes(byte ^ b"\x01\x02\x03\x04"[n & 3] for n, byte in enumerate(ECHO))
    raw.writer.write(wire[:at])
    await victim.do("ping")
    taken = app.stats.messages_in
    raw.writer.write(wire[at:] + wire)
    assert [(await raw.message())["data"] for _ in range(2)] == ["whole"] * 2
    assert app.stats.messages_in == taken + 2


async def test_the_end_of_one_message_and_the_beginning_of_the_next_may_share_a_segment(app: App, knock: Knock) -> None:
    raw = await knock(app.port)
    await raw.message()
    wire = zero_masked(0x81, ECHO) * 10
    for at in range(0, len(wire), 100):
        raw.writer.write(wire[at : at + 100])
        await raw.writer.drain()
    assert [(await raw.message())["data"] for _ in range(10)] == ["whole"] * 10


# -- floods ------------------------------------------------------------------------------------------


async def test_a_hundred_thousand_empty_fragments_are_one_message_and_hold_up_nobody(
    app: App, knock: Knock, victim: Any
) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.writer.write(zero_masked(0x01, ECHO[:20]) + EMPTY_PIECE * 100_000)
    await victim.do("echo", text="still here")
    raw.writer.write(zero_masked(0x80, ECHO[20:]))
    assert (await raw.message())["data"] == "whole"


@pytest.mark.parametrize(("size", "count"), [(0, 3000), (60_000, 200)])
async def test_a_burst_of_messages_lets_others_have_their_turn(
    app: App, knock: Knock, victim: Any, size: int, count: int
) -> None:
    raw = await knock(app.port)
    await raw.message()
    request = b'{"type":"request","action":"echo","payload":"%s"}' % (b"x" * size)
    raw.writer.write(zero_masked(0x81, request) * count)
    await victim.do("echo", text="meanwhile")
    assert app.stats.messages_in < count * 0.8
    raw.say("ping")
    assert (await raw.message())["id"] == "r"
    assert app.stats.messages_in == count + 2


async def test_a_flood_of_pings_is_answered_in_order(app: App, knock: Knock, victim: Any) -> None:
    raw = await knock(app.port)
    await raw.message()
    for number in range(2000):
        raw.send(0x89, str(number).encode())
    await victim.do("echo", text="meanwhile")
    assert [await raw.frame() for _ in range(2000)] == [(0x8A, str(number).encode()) for number in range(2000)]


async def test_pings_of_one_who_never_reads_fill_no_more_than_the_outbox(start: Start, knock: Knock) -> None:
    app = await start(limits={"message_bytes": "4KiB", "outbox_bytes": "16KiB"})
    raw = await knock(app.port, rcvbuf=4096)
    ((ref, _),) = app.registry.actor._connections.values()
    waiting: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while sum(size > 0 for size in waiting) < 20:  # the system's own buffers come first
            raw.writer.write(zero_masked(0x89, b"p" * 100) * 500)
            await raw.writer.drain()
            waiting.append(ref.actor.outbox_bytes())
    assert max(waiting) < 32 * 1024


async def test_who_floods_on_after_our_close_is_cut_off(start: Start, knock: Knock) -> None:
    app = await start(limits={"errors_per_minute": 5, "message_bytes": "4KiB"}, heartbeat={"timeout": "29s"})
    raw = await knock(app.port)
    await raw.message()
    rubbish = ONE_BYTE_TEXT * 10_000

    async def flood() -> None:
        while True:
            raw.writer.write(rubbish)
            await raw.writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(flood(), PATIENCE)
    await gone(app)
    assert app.stats.closes == {4501: 1}
    assert app.stats.messages_in < 1000


async def test_one_in_the_middle_of_a_message_that_is_too_large_hears_why(start: Start, knock: Knock) -> None:
    app = await start(limits={"message_bytes": "64KiB"})
    raw = await knock(app.port)
    await raw.message()
    size = 8 << 20
    raw.writer.write(b"\x81\xff" + struct.pack("!Q", size) + bytes(4))
    for _ in range(size >> 16):
        raw.writer.write(bytes(1 << 16))
        await raw.writer.drain()
    assert await raw.end() == 1009


# -- ends --------------------------------------------------------------------------------------------


async def test_a_close_and_half_a_megabyte_after_it_are_a_close(app: App, knock: Knock, victim: Any) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.writer.write(zero_masked(0x88, b"\x03\xe8") + ONE_BYTE_TEXT * 70_000)
    assert await raw.end() in {1000, None}  # the system may drop our answer where it drops what nobody reads
    await gone(app, left=1)
    assert app.stats.closes == {1000: 1}
    assert app.stats.errors == {}


async def test_half_a_close_ends_the_connection(app: App, knock: Knock, victim: Any) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        assert await raw.reader.read() == b""
    await gone(app, left=1)
    assert app.stats.closes == {1006: 1}


async def test_a_reset_in_the_middle_of_a_frame_ends_the_connection(app: App, knock: Knock, victim: Any) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.writer.write(zero_masked(0x81, ECHO)[:20])
    linger = struct.pack("ii", 1, 0)
    raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    raw.writer.transport.abort()
    await gone(app, left=1)
    assert app.stats.closes == {1006: 1}


async def test_a_peer_that_answers_our_close_with_rubbish_is_gone_at_once(start: Start, knock: Knock) -> None:
    app = await start(heartbeat={"interval": "1m", "timeout": "30s"})
    raw = await knock(app.port)
    await raw.message()
    raw.send(0x82, b"binary")
    assert (await raw.frame())[1][:2] == struct.pack("!H", 1003)
    raw.writer.write(b"\x81\x02hi")
    async with asyncio.timeout(PATIENCE):
        assert await raw.reader.read() == b""
    raw.writer.close()
    await gone(app)
    assert app.stats.closes == {1003: 1}


# -- gates for frames that are no messages -----------------------------------------------------------

GATE = '''
from broker.errors import BrokerError, CloseCode
from broker.hooks import Control, Plugin


class Gate(Plugin):
    """Refuses pings of one byte, and closes after a ping of two or a piece of three."""

    def on_control(self, frame: Control) -> None:
        if (frame.kind, frame.size) == ("ping", 1):
            raise BrokerError("rate_limited")
        if (frame.kind, frame.size) in {("ping", 2), ("piece", 3), ("pong", 4)}:
            raise BrokerError("rate_limited", close=CloseCode.PROTOCOL_ABUSE)
'''


@pytest.fixture
async def gated(start: Start, tmp_path: Path) -> App:
    """A broker with a gate for control frames and fragments."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "gate.py").write_text(GATE)
    return await start(plugins={"gate": {}})


async def test_a_refused_ping_is_not_answered_and_the_next_is(gated: App, knock: Knock) -> None:
    raw = await knock(gated.port)
    await raw.message()
    for payload in (b"1", b"", b"1", b"333"):
        raw.send(0x89, payload)
    assert [await raw.frame(), await raw.frame()] == [(0x8A, b""), (0x8A, b"333")]


@pytest.mark.parametrize(("first", "payload"), [(0x89, b"22"), (0x01, b"333"), (0x8A, b"4444")])
async def test_a_gate_may_close_the_connection(gated: App, knock: Knock, first: int, payload: bytes) -> None:
    raw = await knock(gated.port)
    await raw.message()
    raw.send(first, payload)
    assert await raw.end() == 4501


# -- handshakes --------------------------------------------------------------------------------------


def handshake(port: int, *more: str, method: str = "GET", **changed: str | None) -> bytes:
    """Return a handshake with headers changed, left out (None) or added."""
    fields: dict[str, str | None] = {
        "Host": f"127.0.0.1:{port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"{method} /ws HTTP/1.1", *lines, *more, "", ""]).encode("latin-1")


JUNK: dict[str, tuple[Callable[[int], bytes], set[int]]] = {
    "a key that is no base64": (lambda port: handshake(port, Sec_WebSocket_Key="***"), {400}),
    "a key of 15 bytes": (lambda port: handshake(port, Sec_WebSocket_Key="A" * 20), {400}),
    "no key": (lambda port: handshake(port, Sec_WebSocket_Key=None), {400}),
    "version 12": (lambda port: handshake(port, Sec_WebSocket_Version="12"), {426}),
    "version 8": (lambda port: handshake(port, Sec_WebSocket_Version="8"), {426}),
    "no version": (lambda port: handshake(port, Sec_WebSocket_Version=None), {400}),
    "no upgrade": (lambda port: handshake(port, Upgrade=None), {400}),
    "an upgrade to h2c": (lambda port: handshake(port, Upgrade="h2c"), {400}),
    "no connection header": (lambda port: handshake(port, Connection=None), {400}),
    "a POST": (lambda port: handshake(port, "Content-Length: 0", method="POST"), {405}),
    "no method": (lambda port: handshake(port, method=""), {400}),
    "two hosts": (lambda port: handshake(port, "Host: evil.example"), {400, 403}),
    "a subprotocol that is no ASCII": (lambda port: handshake(port, Sec_WebSocket_Protocol="b\xe9\xff"), {400}),
    "three hundred headers": (lambda port: handshake(port, *(f"X-{n}: x" for n in range(300))), {400, 431}),
    "a header of 100 KB": (lambda port: handshake(port, "X: " + "x" * 100_000), {400, 431}),
    "a request line of 100 KB": (lambda _: b"GET /ws?" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", {400, 414}),
    "a header without a colon": (lambda port: handshake(port, "rubbish"), {400}),
    "TLS": (lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400}),
    "two lengths": (lambda port: handshake(port, "Content-Length: 1", "Content-Length: 2"), {400}),
}


@pytest.mark.parametrize(("request_of", "statuses"), JUNK.values(), ids=JUNK.keys())
async def test_junk_instead_of_a_handshake_is_refused_and_nobody_dies(
    app: App, victim: Any, request_of: Callable[[int], bytes], statuses: set[int]
) -> None:
    status, headers = await answer_to(app, request_of(app.port))
    assert status in statuses
    if status == 426:
        assert headers["sec-websocket-version"] == "13"
    assert (await victim.do("echo", text="fine")) == {"text": "fine"}
    assert app.stats.connections == 1


@pytest.mark.parametrize("more", [("Content-Length: 2", "", "{}"), tuple(f"X-{n}: x" for n in range(100))])
async def test_what_is_odd_but_allowed_does_no_harm(app: App, victim: Any, more: tuple[str, ...]) -> None:
    status, _ = await answer_to(app, handshake(app.port, *more))
    assert status in {101, 400}


@pytest.mark.parametrize("other", ["A" * 22 + "==", "rubbish"])
async def test_of_two_keys_one_is_answered_or_none(app: App, victim: Any, other: str) -> None:
    status, headers = await answer_to(app, handshake(app.port, f"Sec-WebSocket-Key: {other}"))
    assert status == 400 or headers["sec-websocket-accept"] == "ICX+Yqv66kxgM0FcWaLWlFLwTAI="


async def answer_to(app: App, request: bytes) -> tuple[int, dict[str, str]]:
    """Send a request of bytes; return the status and the headers of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    writer.write(request)
    try:
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    finally:
        writer.transport.abort()
    lines = [line.partition(": ") for line in head.splitlines()[1:] if line]
    return int(head.split()[1]), {name.lower(): value for name, _, value in lines}


async def test_the_answer_to_a_wrong_version_says_what_to_do(app: App, knock: Knock) -> None:
    raw = await knock(app.port, Sec_WebSocket_Version="12")
    assert raw.headers()["content-type"] == "application/problem+json"
    body = await raw.body()
    assert body["message"] == "Speak WebSocket version 13."
