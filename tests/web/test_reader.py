"""How much of one socket is handled before the others have their turn, and how long it may take (PROTOCOL P7)."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker import config
from broker.app import App
from broker.extensions.loader import load as load_plugins
from broker.protocol.incoming import Decoder, Violation
from broker.testing import ManualClock, until
from broker.web.reader import BURST_BYTES, Reader

Knock = Callable[..., Awaitable[Any]]


class Flow:
    """What aiohttp would pause."""

    transport = None

    def pause_reading(self) -> None:
        """Do nothing: all has been read."""

    def resume_reading(self) -> None:
        """Do nothing: all has been read."""


class Ears:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def text(self, text: bytes) -> None:
        self.heard.append(len(text))

    binary = ping = pong = text

    def piece(self, size: int) -> None:
        self.heard.append(size)

    def violation(self, violation: Violation) -> None:
        raise violation

    def closing(self) -> bool:
        return False


def packed(text: bytes) -> bytes:
    deflate = zlib.compressobj(9, wbits=-15)
    return (deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def framed(first: int, payload: bytes) -> bytes:
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((first,)) + length + bytes(4) + payload


async def rounds(wire: bytes) -> list[int]:
    """Return how many frames are handled in each tick of the loop."""
    ears = Ears()
    reader = Reader(ears, Decoder(1 << 20, deflate=True), Flow(), 1 << 20)  # type: ignore[arg-type]
    reader.feed_data(wire)
    counts = [len(ears.heard)]
    for _ in range(1000):
        await asyncio.sleep(0)
        counts.append(len(ears.heard) - sum(counts))
    return [count for count in counts if count]


async def test_what_a_message_unpacks_to_counts_and_not_what_it_was_on_the_wire() -> None:
    assert await rounds(framed(0xC1, packed(b"a" * (BURST_BYTES + 1))) * 10) == [1] * 10
    assert await rounds(framed(0xC1, packed(b"a" * 1000)) * 10) == [10]


async def test_fragments_count_by_what_they_unpack_to_as_well() -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    pieces = [deflate.compress(b"a" * 100_000) + deflate.flush(zlib.Z_SYNC_FLUSH) for _ in range(8)]
    wire = b"".join(framed(0x40 if not i else 0x00, piece) for i, piece in enumerate(pieces))
    wire = bytes((0x41,)) + wire[1:]
    assert len(wire) < 4000
    assert await rounds(wire + framed(0x80, packed(b""))) == [1] * 8 + [1]


# -- messages that do not end ------------------------------------------------------------------------


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def still(tmp_path: Path, clock: ManualClock) -> Any:
    """A broker whose time stands still, with a heartbeat of 30 s and 10 s to answer it."""
    file = tmp_path / "config.yaml"
    file.write_text('{"listen": {"port": 0}, "store": {"url": "memory:"}}')
    loaded = config.load(file, {}, {})
    app = App(loaded.settings, load_plugins(loaded.settings, loaded.file), clock)
    await app.start()
    yield app
    await app.stop()


async def heard(raw: Any, payload: bytes) -> None:
    """Have the broker read everything up to here, pongs for its own pings included."""
    raw.send(0x89, payload)
    while True:
        first, said = await raw.frame()
        if first == 0x89:
            raw.send(0x8A, said)
        elif (first, said) == (0x8A, payload):
            return


async def beat(raw: Any, clock: ManualClock, seconds: int) -> None:
    """Let time pass with a peer that answers every ping."""
    for second in range(seconds):
        clock.advance(1)
        await heard(raw, str(second).encode())


async def test_a_message_that_never_ends_ends_the_connection(still: App, clock: ManualClock, knock: Knock) -> None:
    raw = await knock(still.port)
    raw.send(0x01, b"{")
    await until(lambda: len(still.front._unfinished) == 1)
    await beat(raw, clock, 39)
    assert still.stats.connections == 1
    clock.advance(1.2)
    assert await raw.end() == 4002
    assert len(still.front._unfinished) == 0


async def test_half_a_frame_is_a_message_that_has_not_ended_too(still: App, clock: ManualClock, knock: Knock) -> None:
    raw = await knock(still.port)
    raw.writer.write(b"\x81\xfe\x03\xe8" + bytes(4) + b"{")
    await until(lambda: len(still.front._unfinished) == 1)
    raw.writer.write(b" " * 999)
    await until(lambda: len(still.front._unfinished) == 0)


async def test_the_time_is_each_messages_own_and_none_is_kept_of_those_that_ended(
    still: App, clock: ManualClock, knock: Knock
) -> None:
    raw = await knock(still.port)
    for _ in range(3):
        raw.send(0x01, b'{"type":"request",')
        await beat(raw, clock, 25)
        raw.send(0x80, b'"action":"ping"}')
        await heard(raw, b"whole")
    assert len(still.front._unfinished) == 0
    raw.send(0x01, b"{")
    await heard(raw, b"begun")
    raw.writer.transport.abort()
    await until(lambda: len(still.front._unfinished) == 0)
