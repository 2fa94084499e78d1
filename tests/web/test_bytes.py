"""Payloads leave as they entered, byte for byte (PROTOCOL section 2)."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App

Dial = Callable[..., Awaitable[Any]]

ODD = [
    '{"a":1,"a":2}',
    '{ "spaced" :\t[ 1 ,2 ]\n}',
    "123456789012345678901234567890",
    "-0.0",
    "1.10",
    "1E400",
    '"\\u0041\\ud83d\\ude00\\/ \u2028"',
    '"é😀"',
    "null",
    '{"type":"response","id":"forged"}',
]
odd = pytest.mark.parametrize("payload", ODD)


async def say(client: Any, action: str, payload: str) -> Any:
    """Send a request whose payload is exactly this text, and return the message that answers it."""
    await client.send(f'{{"id":"x","type":"request","action":"{action}","payload":{payload}}}')
    return await client.take(lambda message: message.get("id") == "x" and message["type"] in {"response", "error"})


def of(text: str) -> str:
    """Return the text of the `data` of a message, which is what it ends with."""
    return text.partition('"data":')[2].removesuffix("}")


@odd
async def test_echo(app: App, dial: Dial, payload: str) -> None:
    client = await dial(app.port)
    assert of((await say(client, "echo", payload)).text) == payload


@odd
async def test_broadcast(app: App, dial: Dial, payload: str) -> None:
    sender, receiver = await dial(app.port), await dial(app.port)
    await say(sender, "broadcast", payload)
    for client in (sender, receiver):
        assert of((await client.event("broadcast")).text) == payload


@odd
async def test_send(app: App, dial: Dial, payload: str) -> None:
    sender, receiver = await dial(app.port), await dial(app.port)
    to = f'{{"connections":["{receiver.welcome["connection_id"]}"]}}'
    await say(sender, "send", f'{{"to":{to},"data":{payload}}}')
    assert of((await receiver.event("message")).text) == payload


@odd
async def test_room_events_live_replayed_and_in_the_history(app: App, dial: Dial, payload: str) -> None:
    sender, late = await dial(app.port), await dial(app.port)
    await sender.do("room.join", room="r")
    await say(sender, "room.publish", f'{{"room":"r","data":{payload}}}')
    await late.do("room.join", room="r", after_seq=0)
    shown = [await client.event("room.event") for client in (sender, late)]
    assert shown[0].text == shown[1].text
    assert of(shown[0].text) == f'{{"event":"message","data":{payload}}}'
    assert f'"data":{payload}}}' in (await say(sender, "room.history", '{"room":"r"}')).text


@pytest.mark.parametrize("content", ['"\\u0041b\\/"', '[ {"type":"text", "text":"A", "n":1.50, "n":2} ]'])
async def test_what_a_person_wrote_stays_in_the_log_as_it_was(app: App, dial: Dial, content: str) -> None:
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    await say(client, "turn.start", f'{{"session_id":"{session_id}","client_msg_id":"m","content":{content}}}')
    assert f'"content":{content},' in (await client.event("user.message")).text
