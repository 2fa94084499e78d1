"""Rubbish of every kind is answered as PROTOCOL section 2 says, and nobody else notices."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

DEEP = "[" * 65 + "]" * 65


def request(payload: str, action: str = "echo") -> str:
    return f'{{"id":"x","type":"request","action":"{action}","payload":{payload}}}'


@pytest.fixture
async def bystander(app: App, dial: Dial) -> AsyncIterator[Any]:
    """Another connection, with a turn under way; at the end it has all of its turn and nothing else."""
    client = await dial(app.port)
    session_id = (await client.do("session.create", agent="endless"))["session_id"]
    turn = await client.do("turn.start", session_id=session_id, client_msg_id="1", content="a b")
    yield client
    await client.do("turn.cancel", session_id=session_id, turn_id=turn["turn_id"])
    log = await client.records("turn.ended")
    assert [message["seq"] for message in log] == list(range(1, len(log) + 1))
    await client.silent()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "invalid_json"),
        ("hello", "invalid_json"),
        ("{", "invalid_json"),
        ('{"id":"x","type":"request","action":"echo"', "invalid_json"),
        ('{"id":"x","type":"request","action":"echo"} {}', "invalid_json"),
        ("{'id':'x'}", "invalid_json"),
        ("\ufeff" + request("1"), "invalid_json"),
        (request("NaN"), "invalid_json"),
        (request("[Infinity]"), "invalid_json"),
        (request('{"x":-Infinity}'), "invalid_json"),
        (request("01"), "invalid_json"),
        (request("[1,]"), "invalid_json"),
        (request('"\\ud800"'), "invalid_json"),
        (request('"\\ud800 and a good deal more"'), "invalid_json"),
        (request('"\\ud800\\u0041"'), "invalid_json"),
        (request('"\\udc00"'), "invalid_json"),
        (request('{"\\udfff":1}'), "invalid_json"),
        (request('"\\x41"'), "invalid_json"),
        (request('"a\x01b"'), "invalid_json"),
        ("[]", "invalid_message"),
        ("null", "invalid_message"),
        ("5", "invalid_message"),
        ('"text"', "invalid_message"),
        ("{}", "invalid_message"),
        ('{"id":"x","action":"echo"}', "invalid_message"),
        ('{"id":"x","type":"request"}', "invalid_message"),
        ('{"id":"x","type":"response","action":"echo"}', "invalid_message"),
        ('{"id":"x","type":"request","action":5}', "invalid_message"),
        ('{"id":"x","type":["request"],"action":"echo"}', "invalid_message"),
        (request(DEEP), "invalid_message"),
        (request(f'{{"a":{DEEP}}}'), "invalid_message"),
        (request("[" * 100_000), "invalid_message"),
        (request("[" * 100_000 + "]" * 100_000), "invalid_message"),
        (request('{"a":' * 100_000 + "1" + "}" * 100_000), "invalid_message"),
    ],
)
async def test_what_cannot_be_read_is_answered_and_the_connection_stays(
    app: App, dial: Dial, bystander: Any, text: str, code: str
) -> None:
    client = await dial(app.port)
    await client.send(text)
    error = await client.take()
    assert error["type"] == "error"
    assert error["data"]["code"] == code
    assert error["data"]["retryable"] is False
    assert error["data"]["message"]
    assert len(error.text) < 500
    await client.silent()


async def test_depth_64_passes_and_brackets_in_a_string_are_no_depth(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    fits = "[" * 63 + "]" * 63  # the message itself is the first level
    for payload in (fits, json.dumps("[" * 1000 + '\\"' + "{" * 1000), "[" + ",".join(["[]"] * 1000) + "]"):
        await client.send(request(payload))
        assert (await client.take())["type"] == "response"


async def test_an_error_carries_the_id_where_one_can_be_read(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    for text in ('{"id":"mine","type":"request"}', request(DEEP).replace('"x"', '"mine"')):
        await client.send(text)
        assert (await client.take())["id"] == "mine"
    await client.send('{"id":"mine","type":')
    assert "id" not in await client.take()


async def test_a_type_a_client_may_not_send_names_the_field(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    await client.send('{"id":"x","type":"notification","action":"echo"}')
    assert (await client.take())["data"]["field"] == "$.type"


# -- what closes -------------------------------------------------------------------------------------


async def test_binary_where_text_is_due_closes_with_1003(app: App, dial: Dial, bystander: Any) -> None:
    client = await dial(app.port)
    await client.send(b'{"id":"x","type":"request","action":"echo"}')
    assert (await client.closed())[0] == 1003


@pytest.mark.parametrize("rubbish", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
async def test_text_that_is_not_utf_8_closes_with_1007(app: App, knock: Knock, bystander: Any, rubbish: bytes) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.send(0x81, request('"').encode()[:-2] + rubbish + b'"}')
    assert await raw.end() == 1007


async def test_utf_8_that_is_cut_between_two_frames_is_whole(app: App, knock: Knock) -> None:
    raw = await knock(app.port)
    await raw.message()
    text = request('"€"').encode()
    middle = text.index("€".encode()) + 1
    raw.send(0x01, text[:middle])
    raw.send(0x80, text[middle:])
    assert (await raw.message())["data"] == "€"


@pytest.mark.parametrize("size", [1025, 5000, 200_000])
async def test_a_message_that_is_too_large_closes_with_1009(start: Start, dial: Dial, size: int) -> None:
    app = await start(limits={"message_bytes": 1024})
    client, bystander = await dial(app.port), await dial(app.port)
    await client.send("x" * size)
    assert (await client.closed())[0] == 1009
    await bystander.silent()


async def test_the_largest_message_passes(start: Start, dial: Dial) -> None:
    app = await start(limits={"message_bytes": 1024})
    client = await dial(app.port)
    empty = len(request('""'))
    await client.send(request('"' + "x" * (1024 - empty) + '"'))
    assert len((await client.take())["data"]) == 1024 - empty


async def test_fragments_that_are_too_large_together_close_with_1009(start: Start, knock: Knock) -> None:
    app = await start(limits={"message_bytes": 1024})
    raw = await knock(app.port)
    await raw.message()
    raw.send(0x01, b"x" * 600)
    raw.send(0x80, b"x" * 600)
    assert await raw.end() == 1009


async def test_rubbish_without_end_closes_with_4501(start: Start, dial: Dial) -> None:
    app = await start(limits={"errors_per_minute": 5})
    client, bystander = await dial(app.port), await dial(app.port)
    for _ in range(20):
        await client.send("rubbish")
    assert await client.closed() == (4501, "too many errors")
    assert 5 <= len(client.heard) <= 6
    await bystander.silent()


async def test_refusals_of_what_was_well_formed_do_not_close(start: Start, dial: Dial) -> None:
    client = await dial((await start(limits={"errors_per_minute": 5})).port)
    for _ in range(20):
        await client.refused("nonsense")
        await client.refused("session.attach", session_id="none")
    await client.silent()


@pytest.mark.parametrize(
    ("first", "payload"),
    [
        (0x83, b""),  # an opcode that is not defined
        (0x8B, b""),  # nor as control frame
        (0xC1, b"{}"),  # compressed, which was not agreed on
        (0xA1, b"{}"),  # a reserved bit
        (0x80, b"{}"),  # goes on with nothing
        (0x09, b""),  # a ping in fragments
        (0x89, b"x" * 126),  # a ping that is too long
        (0x88, b"\x03"),  # half a close code
    ],
)
async def test_frames_that_break_the_protocol_close_with_1002(
    app: App, knock: Knock, bystander: Any, first: int, payload: bytes
) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.send(first, payload)
    assert await raw.end() == 1002


async def test_half_a_frame_and_then_nothing_holds_up_nobody(app: App, knock: Knock, bystander: Any) -> None:
    raw = await knock(app.port)
    await raw.message()
    raw.writer.write(b"\x81\xfe\x01")
    raw.writer.write_eof()
    assert await raw.end() in {None, 1000, 1002, 1006}


async def test_a_storm_of_rubbish_from_many_leaves_the_others_alone(app: App, dial: Dial, bystander: Any) -> None:
    async def storm() -> None:
        client = await dial(app.port)
        for text in ("{", "[]", request("NaN"), request(DEEP), request("1", "nonsense")) * 10:
            await client.send(text)
        for _ in range(50):
            assert (await client.take())["type"] == "error"

    await asyncio.gather(*(storm() for _ in range(10)))
