"""Crowds at the door: the descriptors run out for nobody inside, and who says nothing is gone (PROTOCOL P7, P8)."""

import asyncio
import base64
import resource
import shutil
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]

PATIENCE = 20.0
REQUEST = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
HANDSHAKE = REQUEST + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"


@pytest.fixture(autouse=True)
def _many_descriptors() -> None:
    """Have enough descriptors for the other end of a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))


@asynccontextmanager
async def crowd(port: int, count: int, send: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connect so often, from many addresses, and say this."""
    writers: list[asyncio.StreamWriter] = []

    async def come(number: int) -> asyncio.StreamReader:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((f"127.0.1.{1 + number % 100}", 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(send)
        writers.append(writer)
        return reader

    try:
        yield await asyncio.gather(*(come(number) for number in range(count)))
    finally:
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def outcome(reader: asyncio.StreamReader) -> str:
    """Return what a handshake was answered with: its status, and whether it was told when to come back."""
    try:
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    except (asyncio.IncompleteReadError, ConnectionError):
        return "nothing"
    return head.split()[1] + (", later" if "retry-after: " in head else "")


async def gone(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, and return it."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_thousand_connects_with_256_descriptors_hurt_nobody_inside(
    loop: str, make_broker: Make, dial: Dial
) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("no limit for one process: prlimit is missing (Debian's util-linux)")
    broker = make_broker(runtime={"loop": loop})
    broker.prefix = ("prlimit", "--nofile=256:256")
    broker.start()
    old = [await dial(broker.port) for _ in range(10)]
    await old[0].do("session.create", session_id="s")

    async with crowd(broker.port, 1000, HANDSHAKE) as readers:
        answers = Counter(await asyncio.gather(*map(outcome, readers)))
        assert answers["101"] + 10 <= 256 - 32
        assert answers["101"] > 100
        assert answers["503, later"] == 1000 - answers["101"], answers
        for client in old:
            await client.do("ping")
        await old[0].do("turn.start", session_id="s", client_msg_id="m", content="hi")
        await old[0].event("turn.ended")
        assert await asyncio.to_thread(broker.get, "/livez") == {"status": "ok"}

    began = time.monotonic()
    newcomer = await comes_in(dial, broker.port)
    assert time.monotonic() - began < 2
    await newcomer.do("ping")
    assert 1 <= len(broker.log.splitlines()) < 100
    assert broker.end() == 0


async def comes_in(dial: Dial, port: int) -> Any:
    """Connect as soon as there is a place again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await dial(port)
            except Exception:  # noqa: BLE001 - refused in one way or another
                await asyncio.sleep(0.05)


async def test_half_sent_handshakes_and_silent_sockets_are_gone_soon_and_keep_nobody_out(
    make_broker: Make, dial: Dial
) -> None:
    broker = make_broker(limits={"handshake": "2s"})
    broker.start()
    began = time.monotonic()
    async with crowd(broker.port, 100, REQUEST) as half, crowd(broker.port, 500, b"") as silent:
        honest = await dial(broker.port)
        await honest.do("ping")
        ends = await asyncio.gather(*map(gone, half), *map(gone, silent))
        assert time.monotonic() - began < 2 + 2
        assert {end.partition(b"\r\n")[0] for end in ends[:100]} == {b"HTTP/1.1 408 Request Timeout"}
        assert set(ends[100:]) == {b""}
        await honest.do("ping")
    assert (await asyncio.to_thread(broker.get, "/health"))["connections"] == 1
    assert len(broker.log.splitlines()) < 10


async def test_one_address_may_keep_us_waiting_only_so_often(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(limits={"unknown_per_address": 5})
    broker.start()
    async with crowd(broker.port, 1000, b"") as silent:  # ten of each of a hundred addresses
        waiting = [asyncio.ensure_future(outcome(reader)) for reader in silent]
        honest = await dial(broker.port)
        await honest.do("ping")
        async with asyncio.timeout(PATIENCE):
            while sum(one.done() for one in waiting) < 500:
                await honest.do("ping")
        assert Counter(one.result() for one in waiting if one.done()) == {"429, later": 500}
        for one in waiting:
            one.cancel()
    assert len(broker.log.splitlines()) < 10
