"""Before and between requests: deadlines, places, and answers nobody reads (PROTOCOL P7)."""

import asyncio
import errno
import gzip
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from broker.app import App
from broker.errors import BrokerError
from broker.testing import ManualClock, until
from broker.web.admission import SPARE, Admission
from broker.web.deadlines import Deadlines
from broker.web.listener import LINGERING, Listener
from broker.web.proxies import Proxies
from broker.web.server import is_slow

Dial = Callable[..., Awaitable[Any]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

PATIENCE = 20.0
SHORT = {"limits": {"handshake": "300ms"}}
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@attrs.define
class Line:
    """A connection, by hand."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> str:
        """Return the head of the next answer, without its body."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            size = next(line for line in head.lower().splitlines() if line.startswith("content-length"))
            await self.reader.readexactly(int(size.split()[1]))
            return head

    async def end(self) -> bytes:
        """Read to the end."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


Connect = Callable[[int], Awaitable[Line]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Open connections."""
    lines: list[Line] = []

    async def open_line(port: int) -> Line:
        lines.append(Line(*await asyncio.open_connection("127.0.0.1", port)))
        return lines[-1]

    yield open_line
    for line in lines:
        line.writer.transport.abort()
    await asyncio.gather(*(line.writer.wait_closed() for line in lines), return_exceptions=True)


# -- deadlines ---------------------------------------------------------------------------------------


class Patient:
    """Notes when its time is up."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.told: list[float] = []

    def late(self) -> None:
        self.told.append(self._clock.monotonic())


def test_each_is_told_when_its_time_is_up_and_never_before() -> None:
    clock = ManualClock()
    began = clock.monotonic()
    deadlines = Deadlines(10, clock)
    first, second, third = Patient(clock), Patient(clock), Patient(clock)
    deadlines.add(first)
    clock.advance(4)
    deadlines.add(second)
    deadlines.add(third)
    deadlines.discard(third)
    clock.advance(5)
    deadlines.add(first)  # it began anew
    clock.advance(100)
    assert [len(one.told) for one in (first, second, third)] == [1, 1, 0]
    assert second.told[0] - began == pytest.approx(14, abs=0.2)
    assert first.told[0] - began == pytest.approx(19, abs=0.2)
    assert len(deadlines) == 0


async def test_a_silent_socket_and_half_a_request_are_ended(start: Start, connect: Connect) -> None:
    app = await start(**SHORT)
    silent, half = await connect(app.port), await connect(app.port)
    half.writer.write(GET[:20])
    assert await silent.end() == b""
    assert (await half.end()).startswith(b"HTTP/1.1 408 ")
    await until(lambda: app.services.admission.inside == 0)


async def test_a_trickled_request_has_no_more_time_than_any(start: Start, connect: Connect) -> None:
    app = await start(**SHORT)
    line = await connect(app.port)
    ended = asyncio.ensure_future(line.end())
    async with asyncio.timeout(PATIENCE):
        for byte in GET * 100:
            line.writer.write(bytes((byte,)))
            await asyncio.sleep(0.01)
            if ended.done():
                break
    assert b" 408 " in await ended


async def test_half_of_a_second_request_is_ended_and_an_idle_line_is_not(start: Start, connect: Connect) -> None:
    app = await start(**SHORT)
    half, idle = await connect(app.port), await connect(app.port)
    for line in (half, idle):
        line.writer.write(GET)
        assert " 200 " in await line.head()
    half.writer.write(GET[:20])
    assert (await half.end()).startswith(b"HTTP/1.1 408 ")
    idle.writer.write(GET)
    assert " 200 " in await idle.head()


async def test_a_body_that_does_not_come_is_answered_408(start: Start, connect: Connect) -> None:
    app = await start(**SHORT)
    line = await connect(app.port)
    head = b"POST /api/v1/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    line.writer.write(head + b'Content-Length: 100\r\n\r\n{"half')
    answer = await line.end()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "timeout"


async def test_a_body_in_pieces_is_taken(start: Start, connect: Connect) -> None:
    app = await start()
    line = await connect(app.port)
    head = b"POST /api/v1/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = b'{"data":1}'
    line.writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body))
    for i in range(len(body)):
        line.writer.write(body[i : i + 1])
        await line.writer.drain()
        await asyncio.sleep(0)
    assert " 200 " in await line.head()


async def test_a_socket_outlives_all_of_this(start: Start, dial: Dial, connect: Connect) -> None:
    app = await start(**SHORT)
    client = await dial(app.port)
    silent = await connect(app.port)
    await silent.end()  # the deadline of both has passed
    await client.do("ping")
    assert len(app.front._deadlines) == 0


async def test_requests_in_one_breath_are_all_answered(start: Start, connect: Connect) -> None:
    app = await start(**SHORT)
    line = await connect(app.port)
    line.writer.write(GET * 100)
    for _ in range(100):
        assert " 200 " in await line.head()


@pytest.mark.parametrize("path", ["/livez", "/nowhere", "/api/v1/broadcast"])
async def test_a_packed_body_is_refused_and_never_unpacked(
    app: App, connect: Connect, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    fed: list[int] = []
    feed = aiohttp.StreamReader.feed_data

    def count(self: aiohttp.StreamReader, data: bytes, *more: Any) -> Any:
        fed.append(len(data))
        return feed(self, data, *more)

    monkeypatch.setattr(aiohttp.StreamReader, "feed_data", count)
    bomb = gzip.compress(bytes(50_000_000))
    line = await connect(app.port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    line.writer.write(f"{head}Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb)
    assert (await line.head()).startswith("HTTP/1.1 415 ")
    line.writer.write(GET)  # which is read after all of the body
    assert " 200 " in await line.head()
    assert 0 < sum(fed) <= len(bomb)


async def test_a_body_that_is_said_not_to_be_packed_is_taken(app: App, connect: Connect) -> None:
    line = await connect(app.port)
    head = b"POST /api/v1/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    line.writer.write(head + b'Content-Encoding: Identity\r\nContent-Length: 10\r\n\r\n{"data":1}')
    assert " 200 " in await line.head()


@pytest.mark.parametrize("path", ["/ws", "/agent"])
async def test_only_a_get_becomes_a_socket(app: App, connect: Connect, path: str) -> None:
    line = await connect(app.port)
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n"
    head = upgrade.format("AAAAAAAAAAAAAAAAAAAAAA==")
    line.writer.write(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        assert (await line.reader.readline()).startswith(b"HTTP/1.1 405 ")


# -- places ------------------------------------------------------------------------------------------


async def test_when_all_places_are_taken_health_is_told_and_sockets_are_refused(
    start: Start, dial: Dial, knock: Knock, connect: Connect
) -> None:
    app = await start(listen={"max_connections": 2})
    await dial(app.port)
    await dial(app.port)
    health = await connect(app.port)
    health.writer.write(GET)
    head = await health.head()
    assert " 200 " in head
    assert "connection: close" in head.lower()
    assert await health.end() == b""
    refused = await knock(app.port)
    assert (refused.status, refused.headers()["retry-after"]) == (503, "5")
    assert (await refused.body())["code"] == "unavailable"


async def test_beyond_the_spare_places_the_answer_comes_unasked(start: Start, dial: Dial, connect: Connect) -> None:
    app = await start(listen={"max_connections": 1})
    client = await dial(app.port)
    waiting = [await connect(app.port) for _ in range(SPARE + LINGERING + 10)]
    await until(lambda: app.services.admission.inside == 1 + SPARE)
    for line in waiting[SPARE:]:
        answer = await line.end()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 5\r\n" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "unavailable"
    await client.do("ping")
    assert len(app.front._listener._lingering) <= LINGERING


async def test_an_address_with_too_many_that_say_nothing_is_refused_more_of_them(
    start: Start, dial: Dial, connect: Connect
) -> None:
    app = await start(limits={"unknown_per_address": 2})
    client = await dial(app.port)
    silent, _ = await connect(app.port), await connect(app.port)
    await until(lambda: app.services.admission.unknown == 2)
    answer = await (await connect(app.port)).end()
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "rate_limited"
    await client.do("ping")
    silent.writer.write(GET)  # it is known now
    assert " 200 " in await silent.head()
    await dial(app.port)


LATER = """
from broker.hooks import Plugin, Undeclared


class Later(Plugin):
    def on_handshake(self, handshake):
        return Undeclared(60.0)
"""


async def test_who_asks_for_a_socket_is_unknown_again_whatever_it_has_asked_before(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "later.py").write_text(LATER)
    app = await start(limits={"unknown_per_address": 2}, plugins={"later": {}})
    statuses = []
    lines = [await connect(app.port) for _ in range(2)]
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n"
    for line in lines:
        line.writer.write(GET)
        assert " 200 " in await line.head()
    lines.append(await connect(app.port))
    lines[-1].writer.write(GET)
    assert " 200 " in await lines[-1].head()
    for line in lines:
        line.writer.write(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n" + upgrade.format("A" * 22 + "==").encode())
        async with asyncio.timeout(PATIENCE):
            statuses.append((await line.reader.readline()).split()[1])
    assert statuses == [b"101", b"101", b"429"]
    assert app.services.admission.unknown == 2


async def test_lines_that_wait_for_a_next_request_keep_nobody_out(start: Start, dial: Dial, connect: Connect) -> None:
    app = await start(listen={"max_connections": 3})
    lines = [await connect(app.port) for _ in range(3)]
    for line in (lines[0], lines[1], lines[2], lines[0]):  # the first has been silent for the shortest time
        line.writer.write(GET)
        assert " 200 " in await line.head()
    lines[1].writer.write(GET[:20])  # half a request is none
    clients = [await dial(app.port), await dial(app.port)]
    assert [await line.end() for line in lines[1:]] == [b"", b""]
    lines[0].writer.write(GET)
    assert " 200 " in await lines[0].head()
    clients.append(await dial(app.port))
    assert await lines[0].end() == b""
    for client in clients:
        await client.do("ping")
    assert app.services.admission.inside == 3
    assert not app.services.admission._idle


def test_counts_go_back_to_nothing_and_no_address_is_remembered() -> None:
    admission = Admission(10, 2, Proxies(["10.0.0.1"]))
    guests = [admission.admit("192.0.2.7"), admission.admit("192.0.2.7")]
    with pytest.raises(BrokerError) as refusal:
        admission.admit("192.0.2.7")
    assert refusal.value.code == "rate_limited"
    guests += [admission.admit("192.0.2.8")] + [admission.admit("10.0.0.1") for _ in range(5)]
    assert (admission.inside, admission.unknown) == (8, 3)
    guests[0].known()
    guests[0].known()
    assert admission.unknown == 2
    for guest in guests:
        admission.leave(guest)
    assert (admission.inside, admission.unknown, admission._unknown) == (0, 0, Counter())


def test_the_clients_of_a_proxy_are_counted_each_under_its_own_address() -> None:
    admission = Admission(10, 1, Proxies(["10.0.0.1"]))
    first = admission.knock("192.0.2.7")
    admission.knock("192.0.2.8")
    with pytest.raises(BrokerError):
        admission.knock("192.0.2.7")
    first.known()
    admission.knock("192.0.2.7")


# -- accepting ---------------------------------------------------------------------------------------


class Dry(socket.socket):
    """A listening socket that the system has no descriptors for."""

    attempts = 0
    dry = True

    def accept(self) -> Any:
        if self.dry:
            self.attempts += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_without_descriptors_it_rests_and_goes_on_when_there_are_some() -> None:
    clock = ManualClock()
    dry = Dry(proto=socket.IPPROTO_TCP)
    dry.bind(("127.0.0.1", 0))
    served: list[asyncio.Transport] = []

    class Serve(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            served.append(transport)

    listener = Listener(dry, Admission(10, 10, Proxies([])), lambda _: Serve(), clock)
    listener.start()
    _, writer = await asyncio.open_connection(*dry.getsockname())
    await until(lambda: dry.attempts == 1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert dry.attempts == 1  # not once per tick
    clock.advance(0.3)
    await until(lambda: dry.attempts == 2)
    dry.dry = False
    clock.advance(0.3)
    await until(lambda: served)
    assert served[0].get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    served[0].abort()
    listener.stop()
    writer.transport.abort()


def test_aiohttps_c_parser_is_here() -> None:
    assert not is_slow()
