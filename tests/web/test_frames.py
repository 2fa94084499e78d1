"""Frames, by hand: what libraries never send, and what they never look at (RFC 6455)."""

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

ECHO = b'{"id":"x","type":"request","action":"echo","payload":"whole"}'


@pytest.mark.parametrize("cuts", [[1], [10, 20], list(range(1, len(ECHO)))])
async def test_a_message_in_fragments_is_one_message(app: App, knock: Knock, cuts: list[int]) -> None:
    raw = await knock(app.port)
    await raw.message()
    parts = [ECHO[start:end] for start, end in zip([0, *cuts], [*cuts, len(ECHO)], strict=True)]
    for number, part in enumerate(parts):
        raw.send((0x80 if number == len(parts) - 1 else 0) | (0x01 if number == 0 else 0), part)
    assert (await raw.message())["data"] == "whole"


async def test_control_frames_between_fragments_are_answered_at_once(app: App, knock: Knock) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.send(0x01, ECHO[:20])
    raw.send(0x89, b"are you there")
    assert await raw.frame() == (0x8A, b"are you there")
    raw.send(0x8A, b"nobody asked")
    raw.send(0x80, ECHO[20:])
    assert (await raw.message())["data"] == "whole"


async def test_bytes_that_come_one_by_one_are_frames_all_the_same(app: App, knock: Knock) -> None:
    raw = await knock(app.port)
    await raw.message()
    frames = bytes((0x81, 0x80 | len(ECHO))) + b"\0\0\0\0" + ECHO  # a mask of zeros changes nothing
    for byte in frames:
        raw.writer.write(bytes([byte]))
        await raw.writer.drain()
        await asyncio.sleep(0)
    assert (await raw.message())["data"] == "whole"


async def test_many_messages_in_one_segment_are_answered_in_order(app: App, knock: Knock) -> None:
    raw = await knock(app.port)
    await raw.message()
    for number in range(50):
        raw.say("echo", number, str(number))
    assert [(await raw.message())["id"] for _ in range(50)] == [str(number) for number in range(50)]


@pytest.mark.parametrize("payload", [b"", b"x", bytes(125)])
async def test_a_ping_is_answered_with_its_payload(app: App, knock: Knock, payload: bytes) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.send(0x89, payload)
    assert await raw.frame() == (0x8A, payload)


@pytest.mark.parametrize("size", [0, 1, 90, 125, 126, 127, 65_000, 65_535, 65_536, 200_000])
async def test_answers_of_every_length_are_framed_right(app: App, knock: Knock, size: int) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.say("echo", "x" * size)
    assert (await raw.message())["data"] == "x" * size


# -- close -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (1000, 1000),
        (1001, 1001),
        (1011, 1011),
        (3000, 3000),
        (4000, 4000),
        (4999, 4999),
        (1005, 1002),
        (1006, 1002),
        (1015, 1002),
        (999, 1002),
        (1004, 1002),
        (2999, 1002),
        (5000, 1002),
        (65535, 1002),
    ],
)
async def test_a_close_is_answered_with_its_own_code_unless_that_is_forbidden(
    app: App, knock: Knock, code: int, answer: int
) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.send(0x88, struct.pack("!H", code) + b"bye")
    first, payload = await raw.frame()
    assert (first, struct.unpack("!H", payload[:2])) == (0x88, (answer,))
    assert await raw.reader.read() == b""


async def test_a_close_without_a_code_is_answered(app: App, knock: Knock) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.send(0x88, b"")
    first, payload = await raw.frame()
    assert (first, payload) in {(0x88, b""), (0x88, struct.pack("!H", 1000))}
    assert await raw.reader.read() == b""


async def test_what_was_asked_before_a_close_is_answered_before_it(app: App, knock: Knock) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.say("echo", "last words")
    raw.send(0x88, struct.pack("!H", 1000))
    assert (await raw.message())["data"] == "last words"
    assert await raw.end() == 1000


async def test_what_comes_after_a_close_is_not_heard(app: App, knock: Knock, dial: Dial) -> None:
    other = await dial(app.port)
    raw = await knock(app.port)
    await raw.message()
    raw.send(0x88, struct.pack("!H", 1000))
    raw.say("broadcast", "too late")
    assert await raw.end() == 1000
    await other.silent()


async def test_a_close_during_a_stalled_write_ends_the_connection(start: Start, knock: Knock, dial: Dial) -> None:
    """The peer reads nothing, so no answer gets through; the connection ends all the same, and others go on."""
    app = await start(heartbeat={"interval": "300ms", "timeout": "200ms"})
    other = await dial(app.port)
    raw = await knock(app.port, rcvbuf=4096)
    for _ in range(40):
        raw.say("echo", "x" * 50_000)
    raw.send(0x88, struct.pack("!H", 1000))
    await raw.writer.drain()
    async with asyncio.timeout(10):
        while (await other.do("get_connections"))["count"] > 1:
            pass
    assert app.stats.connections == 1
    await other.silent()


async def test_a_peer_that_vanishes_is_noticed_and_leaves_its_rooms(app: App, dial: Dial) -> None:
    stays, goes = await dial(app.port), await dial(app.port)
    for client in (stays, goes):
        await client.do("room.join", room="r")
    goes.drop()
    async with asyncio.timeout(10):
        while len((await stays.do("room.presence", room="r"))["members"]) > 1:
            pass
    assert (await stays.do("get_connections"))["count"] == 1
    assert app.stats.closes == {1006: 1}


async def test_a_hundred_that_come_and_vanish_leave_nothing(app: App, dial: Dial, knock: Knock) -> None:
    stays = await dial(app.port)
    for _ in range(100):
        raw = await knock(app.port)
        raw.say("session.create")
        raw.say("room.join", {"room": "r"})
        raw.writer.transport.abort()
    async with asyncio.timeout(10):
        while (await stays.do("get_connections"))["count"] > 1:
            pass
        while (await stays.do("room.presence", room="r"))["members"]:
            pass
    assert app.stats.connections == 1
    assert json.loads((await stays.ask("echo", 1)).text)["data"] == 1
