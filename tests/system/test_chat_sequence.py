"""The sequence that seed 004 draws, from the upgrade to the pushed message, with a real agents-server."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import aiohttp
import pytest

PATIENCE = 20.0
SERVER = Path(__file__).parent / "scripts" / "counsel_server.py"
PEOPLE = '''
from broker.errors import BrokerError
from broker.hooks import Handshake, Plugin, Principal


class People(Plugin):
    """Knows a page by its token: whose it is, and which scopes it has."""

    def on_handshake(self, handshake: Handshake):
        name, _, scopes = handshake.query.get("token", "").partition(" ")
        if not name:
            raise BrokerError("unauthenticated")
        return Principal(user=name, scopes=frozenset(scopes.split()))
'''

Message = dict[str, Any]
Pick = Callable[[Message], bool]


class Page:
    """A page in a browser: it keeps what it was told."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.told: list[Message] = []

    async def say(self, message_id: str, content: Any, **more: Any) -> None:
        message = {"messageId": message_id, "sessionId": "counsel-1", "role": "user", "content": content, **more}
        await self.socket.send_json(message)

    async def until(self, picked: Pick) -> Message:
        """Listen until something is told, now or before."""
        seen = 0
        async with asyncio.timeout(PATIENCE):
            while True:
                for message in self.told[seen:]:
                    if picked(message):
                        return message
                seen = len(self.told)
                self.told.append(json.loads(await self.socket.receive_str()))

    def of(self, name: str) -> list[Any]:
        """Return the contents of all messages of a kind."""
        return [message["content"] for message in self.told if message["metadata"]["kind"] == name]

    @property
    def talk(self) -> list[tuple[str, str, Any]]:
        return [
            (message["role"], message["content"], message["actionId"])
            for message in self.told
            if message["metadata"]["kind"] == "message"
        ]


def happened(event: str, message_id: str | None = None) -> Pick:
    def picked(message: Message) -> bool:
        content = message["content"]
        return (
            message["metadata"]["kind"] == "state"
            and content["event"] == event
            and message_id in {None, content["messageId"]}
        )

    return picked


@pytest.fixture
def agents_server() -> Iterator[str]:
    """An agents-server in a process of its own; its address."""
    process = subprocess.Popen([sys.executable, SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield process.stdout.readline().strip()
    process.kill()
    with process:
        process.wait(10)


@pytest.fixture
def broker(make_broker: Callable[..., Any], agents_server: str) -> Any:
    """A broker in front of it that asks for tokens."""
    made = make_broker(
        listen={"default_protocol": "chat.v1.json"},
        agents={"counsel": {"kind": "websocket", "url": agents_server}},
        default_agent="counsel",
        plugins={"people": {}},
    )
    (made.folder / "plugins").mkdir()
    (made.folder / "plugins" / "people.py").write_text(PEOPLE)
    made.start()
    return made


@pytest.fixture
async def visit(broker: Any) -> AsyncIterator[Callable[..., Any]]:
    """Open pages on the session."""
    async with aiohttp.ClientSession() as http:

        async def open_page(token: str) -> Page:
            url = f"http://127.0.0.1:{broker.port}/ws"
            page = Page(await http.ws_connect(url, params={"token": token, "sessionId": "counsel-1"}))
            await page.until(happened("session.caught_up"))
            return page

        yield open_page


async def test_from_the_upgrade_to_the_pushed_message_and_on_after_a_crash(broker: Any, visit: Any) -> None:
    page, debugger = await visit("ann"), await visit("ann debug")
    assert page.of("variables") == [{"set": {}, "variables": {}}]
    await page.say("m1", "I cannot sleep", actionId="ask", metadata={"lang": "en"})
    await page.until(happened("turn.ended", "m1"))
    await debugger.until(happened("turn.ended", "m1"))

    talk = [("user", "I cannot sleep", "ask"), ("assistant", "Question 1: why I cannot sleep?", "ask")]
    assert page.talk == debugger.talk == talk
    assert page.of("variables")[-1]["variables"] == {"step": 1}
    assert debugger.of("debug") == [{"model": "stand-in", "prompt": "step 1: I cannot sleep"}]
    assert page.of("debug") == []
    events = [content["event"] for content in page.of("state")]
    assert events[-2:] == ["turn.started", "turn.ended"]

    await page.say("m2", "nothing")
    error = (await page.until(lambda message: message["metadata"]["kind"] == "error"))["content"]
    assert (error["category"], error["place"]["messageId"]) == ("agent", "m2")
    assert error["recovery"] == "Send it again under a new messageId."

    broker.end(SIGKILL)
    broker.start()
    again = await visit("ann")
    assert again.talk == [*talk, ("user", "nothing", None)]
    assert again.of("variables") == [{"set": {"step": 2}, "variables": {"step": 2}}]
    assert [one["place"]["messageId"] for one in again.of("error")] == ["m2"]
    assert again.of("debug") == []
    await again.say("m3", "that")
    await again.until(happened("turn.ended", "m3"))
    assert again.talk[-1] == ("assistant", "Question 3: why that?", None)


async def test_whoever_shows_nothing_sees_nothing(broker: Any) -> None:
    url = f"http://127.0.0.1:{broker.port}/ws?sessionId=counsel-1"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as socket:
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 4500
