"""One hostile peer at a time: it is closed with the right code, an honest client is answered meanwhile, memory stays.

How fast honest clients are answered is measured by `python -m bench.attacks`; here it is only seen that they are.
"""

import asyncio
import base64
import itertools
import json
import os
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import attrs
import pytest

PATIENCE = 20.0
MIB = 1 << 20
MOST = 12 * MIB
"""What one attacker may cost: a message, an outbox, what the allocator keeps, and a generous rest."""
HANDSHAKE = 1.0
SOURCES = (f"127.0.0.{number}" for number in itertools.count(2))
"""An address for each attacker, so that none pays for another."""

MASK = bytes(4)


def frame(first: int, payload: bytes) -> bytes:
    """Return a client's frame, masked with zeros."""
    size = len(payload)
    if size < 126:
        return bytes((first, 0x80 | size)) + MASK + payload
    if size < 1 << 16:
        return struct.pack("!BBH", first, 0x80 | 126, size) + MASK + payload
    return struct.pack("!BBQ", first, 0x80 | 127, size) + MASK + payload


def echo(text: str) -> bytes:
    request = {"id": "1", "type": "request", "action": "echo", "payload": text}
    return frame(0x81, json.dumps(request).encode())


@attrs.define
class Attacker:
    """A peer that does what no library would."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def upgrade(self, port: int) -> str:
        """Shake hands, and return the head of the answer."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            *("GET /ws HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: Upgrade", "Upgrade: websocket"),
            *("Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"),
        ]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def flood(self, block: bytes) -> int | None:
        """Send the same again and again, and read what comes, until it is closed; return the code."""
        end = asyncio.ensure_future(self.end())
        with suppress(ConnectionError):
            while not end.done():
                self.writer.write(block)
                await self.writer.drain()
                await asyncio.sleep(0)
        return await end

    async def stuff(self, block: bytes) -> None:
        """Send the same, and read nothing, until the line is cut."""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while not self.writer.transport.is_closing():
                    self.writer.write(block)
                    await self.writer.drain()
                    await asyncio.sleep(0)

    async def end(self) -> int | None:
        """Read to the close frame or to the end, and return the code; None if there was none."""
        async with asyncio.timeout(PATIENCE):
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    first, size = await self.reader.readexactly(2)
                    if size == 126:
                        (size,) = struct.unpack("!H", await self.reader.readexactly(2))
                    elif size == 127:
                        (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
                    payload = await self.reader.readexactly(size)
                    if first == 0x88:
                        return int.from_bytes(payload[:2], "big")
        return None


Attack = Callable[..., Awaitable[Attacker]]


@pytest.fixture
async def attack() -> AsyncIterator[Attack]:
    """Open lines from an address that nobody else has, a new one for each test."""
    source = next(SOURCES)
    attackers: list[Attacker] = []

    async def open_line(port: int, *, upgrade: bool = True, **options: Any) -> Attacker:
        streams = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), **options)
        attackers.append(Attacker(*streams))
        if upgrade:
            head = await attackers[-1].upgrade(port)
            assert " 101 " in head, head
        return attackers[-1]

    yield open_line
    for attacker in attackers:
        attacker.writer.transport.abort()


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A broker with the limits that nobody has changed."""
    return serve(
        plugins={"rate_limit": {"address": {"handshakes": "10/s"}}},
        limits={"handshake": f"{HANDSHAKE:g}s"},
        heartbeat={"interval": "2s", "timeout": "1s"},
    )


@pytest.fixture(scope="module")
def lavish(serve: Callable[..., Any]) -> Any:
    """A broker that takes whatever is sent: only what cannot be delivered ends a connection."""
    off = {"messages": None, "bytes": None}
    return serve(
        plugins={"rate_limit": {**off, "control": None, "user": off, "address": off}, "metrics": {}},
        heartbeat={"interval": "20s", "timeout": "1s"},
    )


def closes(server: Any, code: int) -> int:
    with urlopen(f"{server.url}metrics", timeout=PATIENCE) as answer:
        found = re.search(rf'broker_closes_total{{code="{code}"}} (\d+)', answer.read().decode())
    assert found
    return int(found[1])


def memory(server: Any) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def beside(server: Any, honest: Any) -> AsyncIterator[None]:
    """See that an honest client is answered all the while, and what it costs in memory."""
    before = memory(server)
    over = asyncio.Event()

    async def go_on() -> int:
        for number in itertools.count():
            if over.is_set() and number > 20:
                return number
            assert await honest.do("echo", n=number) == {"n": number}
            await asyncio.sleep(0.03)  # its pace, within the limits; nothing waits for it
        raise AssertionError

    going = asyncio.ensure_future(go_on())
    try:
        yield
    finally:
        over.set()
        await going
    await honest.silent()
    assert memory(server) - before < MOST


FLOODS = {
    "pings": (b"", frame(0x89, b"")),
    "pongs": (b"", frame(0x8A, b"")),
    "empty fragments": (frame(0x01, b""), frame(0x00, b"")),
    "small fragments": (frame(0x01, b"{"), frame(0x00, b" ")),
    "one-byte texts": (b"", frame(0x81, b"x")),
    "one-byte JSON": (b"", frame(0x81, b"1")),
    "small requests": (b"", echo("x")),
    "64 KiB texts": (b"", echo("x" * 65536)),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_is_closed_as_abuse(server: Any, dial: Any, attack: Attack, name: str) -> None:
    first, unit = FLOODS[name]
    async with beside(server, await dial(server.port)):
        attacker = await attack(server.port)
        attacker.writer.write(first)
        assert await attacker.flood(unit * max(1, 65536 // len(unit))) == 4501


@pytest.mark.parametrize("also", [b"", frame(0x8A, b"broker")], ids=["silently", "faking pongs"])
async def test_who_asks_and_never_reads_is_cut_off_as_too_slow(
    lavish: Any, dial: Any, attack: Attack, also: bytes
) -> None:
    before = closes(lavish, 4002)
    async with beside(lavish, await dial(lavish.port)):
        attacker = await attack(lavish.port, limit=1024)
        await attacker.stuff(also + echo("x" * 65536))
    assert closes(lavish, 4002) == before + 1


@pytest.mark.parametrize(
    "begin", [b"", b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "], ids=["silent", "half a handshake"]
)
async def test_lines_that_never_become_connections_are_closed(
    server: Any, dial: Any, attack: Attack, begin: bytes
) -> None:
    async with beside(server, await dial(server.port)), asyncio.timeout(PATIENCE):
        lines = [await attack(server.port, upgrade=False) for _ in range(50)]
        for line in lines:
            line.writer.write(begin)
        await asyncio.gather(*(line.reader.read() for line in lines))


async def test_who_comes_and_goes_without_end_is_told_to_come_later(server: Any, dial: Any, attack: Attack) -> None:
    async with beside(server, await dial(server.port)):
        heads = []
        for _ in range(60):
            line = await attack(server.port, upgrade=False)
            heads.append(await line.upgrade(server.port))
            line.writer.close()
    refused = [head for head in heads if " 429 " in head]
    assert 20 <= len(refused) <= 40
    assert all("Retry-After: 1\r\n" in head for head in refused)


@pytest.mark.parametrize(
    "data",
    [b"\x81\x05hello", frame(0x88, b"\x03\xe8" + b"x" * 60_000), frame(0x83, b""), frame(0xC1, b"{}")],
    ids=["unmasked", "huge close", "reserved opcode", "reserved bit"],
)
async def test_who_breaks_the_protocol_is_closed_at_once(server: Any, dial: Any, attack: Attack, data: bytes) -> None:
    async with beside(server, await dial(server.port)):
        attacker = await attack(server.port)
        attacker.writer.write(data)
        assert await attacker.end() == 1002
