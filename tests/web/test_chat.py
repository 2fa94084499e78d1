"""`chat.v1.json` at the edge: what gates and handlers see of messages, also of those that wait for their session."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.app import App

PATIENCE = 20.0
GATES = '''
from broker.errors import BrokerError
from broker.hooks import Plugin

seen = []


class Gates(Plugin):
    """Notes what it sees, and refuses what it is told to."""

    def on_message(self, inbound):
        if not inbound.derived:
            seen.append((inbound.action, inbound.kind))
        elif inbound.action != "session.open":
            raise BrokerError("conflict", "That was looked at before.")
        if b"forbidden word" in inbound.text:
            raise BrokerError("forbidden", "That is not said here.")

    def on_permission(self, check):
        if check.operation == "session.create" and check.resource == "closed":
            raise BrokerError("forbidden", "No new sessions here.")

    async def start(self):
        async def told(peer, message):
            return seen

        self.broker.register_handler("seen", told)
'''

Start = Callable[..., Awaitable[App]]


class Client:
    """A page that speaks this format."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def say(self, message_id: str, content: Any, session_id: str | None, **metadata: Any) -> None:
        role = "system" if "kind" in metadata else "user"
        said = {"messageId": message_id, "sessionId": session_id, "role": role, "content": content}
        await self._socket.send_str(json.dumps({**said, "metadata": metadata}))

    async def next(self, kind: str, role: str = "") -> Any:
        """Return the next message of a kind."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message = json.loads(await self._socket.receive_str())
                if message["metadata"]["kind"] == kind and role in message["role"]:
                    return message


@pytest.fixture
async def client(start: Start, tmp_path: Path) -> Any:
    """A client of a broker with such gates."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/gates.py").write_text(GATES)
    app = await start(plugins={"gates": {}})
    async with aiohttp.ClientSession() as http:
        yield Client(await http.ws_connect(f"http://127.0.0.1:{app.port}/ws/chat.v1.json"))


async def test_gates_see_each_message_once_by_what_it_asks_for(client: Client) -> None:
    await client.say("1", "hello", "s")
    await client.next("message", "assistant")
    await client.say("2", "again", "s")
    await client.next("message", "assistant")
    await client.say("3", {"set": {}}, "s", kind="variables")
    await client.next("done")
    await client.say("4", None, None, kind="seen")
    seen = (await client.next("done"))["content"]
    assert seen == [["turn.start", "user"], ["turn.start", "user"], ["session.update", "variables"], ["", "seen"]]


async def test_what_a_gate_refuses_before_its_session_is_open_opens_nothing(client: Client) -> None:
    await client.say("1", "a forbidden word", "s")
    error = (await client.next("error"))["content"]
    assert (error["message"], error["place"]["messageId"]) == ("That is not said here.", "1")
    await client.say("2", "a good one", "s")
    assert (await client.next("message"))["content"] == "a good one"


async def test_who_may_not_make_a_session_finds_none(client: Client) -> None:
    await client.say("1", "hello", "closed")
    error = (await client.next("error"))["content"]
    assert (error["code"], error["place"]["sessionId"], error["place"]["messageId"]) == ("not_found", "closed", "1")
    await client.say("2", "hello", "open")
    assert (await client.next("message"))["sessionId"] == "open"
