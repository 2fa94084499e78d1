"""A folder of drop-in plugins, from its files to a client's socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from broker.app import App, CannotStart

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

SHOUT = '''
from broker.hooks import Peer, Plugin


class Shout(Plugin):
    """Answers louder."""

    def actions(self):
        return {"shout": self.shout, "whisper": self.whisper, "break": self.fall}

    def shout(self, peer: Peer, payload: dict[str, str]) -> dict[str, str]:
        return {"text": payload.get("text", "").upper(), "to": peer.connection_id}

    async def whisper(self, peer: Peer, payload) -> bytes:
        await self.broker.send([peer.connection_id], {"psst": payload})
        return b'{ "raw" : 1.0 }'

    def fall(self, peer: Peer, payload) -> None:
        raise RuntimeError("the secret plan")
'''
GATE = '''
from broker.errors import BrokerError
from broker.hooks import Handshake, Inbound, Permission, Plugin, Principal, TurnRequest


class Gate(Plugin):
    """Knows Ada, and what nobody may do."""

    def on_handshake(self, handshake: Handshake):
        name = handshake.query.get("name")
        if name == "mallory":
            raise BrokerError("forbidden", "Not you.")
        return Principal(user=name, scopes=frozenset()) if name else None

    async def on_message(self, message: Inbound) -> None:
        if message.size > 500:
            raise BrokerError("too_large", retry_after=3)

    def on_permission(self, check: Permission):
        if check.resource == "vault":
            raise BrokerError("forbidden", f"{check.principal.user} may not {check.operation}.")

    async def on_turn(self, turn: TurnRequest) -> None:
        if b"swear" in turn.content:
            raise BrokerError("forbidden", "Mind your words.")
'''
WATCH = '''
from broker.hooks import Plugin, Route
from aiohttp import web


class Watch(Plugin):
    """Writes down what it sees, and fails at it now and then."""

    seen = None

    def __init__(self, settings, broker):
        super().__init__(settings, broker)
        self.seen = []

    def connected(self, peer):
        self.seen.append(f"connected {peer.protocol}")

    async def disconnected(self, peer, code):
        self.seen.append(f"disconnected {code}")
        raise RuntimeError("an observer is never felt")

    def turn_ended(self, turn):
        self.seen.append(f"{turn.agent} {turn.outcome}")
        raise RuntimeError("an observer is never felt")

    def committed(self, log, records):
        self.seen += [f"{log.partition(':')[0]} {record.seq} {record.kind}" for record in records]

    def routes(self):
        return [Route("GET", "/seen", self.show)]

    async def show(self, request):
        return web.json_response(self.seen)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that stands beside the configuration."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name, text in [("shout", SHOUT), ("gate", GATE), ("watch", WATCH)]:
        (folder / f"{name}.py").write_text(text)
    return folder


async def test_an_action_is_answered_like_the_brokers_own(folder: Path, start: Start, dial: Dial) -> None:
    client = await dial((await start(plugins={"shout": {}})).port)
    assert await client.do("shout", text="hi") == {"text": "HI", "to": client.welcome["connection_id"]}
    answer = await client.ask("whisper", {"a": 1})
    assert answer.text.endswith('"data":{ "raw" : 1.0 }}')
    assert (await client.event("message"))["data"] == {"psst": {"a": 1}}
    error = (await client.ask("shout", ["no"]))["data"]
    assert (error["code"], error["field"]) == ("invalid_message", "$.payload")


async def test_a_plugin_that_breaks_is_internal_with_a_trace_and_no_secret(
    folder: Path, start: Start, dial: Dial
) -> None:
    app = await start(plugins={"shout": {}})
    client = await dial(app.port)
    answer = await client.ask("break")
    assert answer["data"]["code"] == "internal"
    assert answer["data"]["hint"].startswith("trace ")
    assert "secret" not in answer.text
    assert app.stats.plugin_errors["shout"] == 1
    await client.silent()


async def test_a_plugin_that_is_not_named_is_not_loaded(folder: Path, start: Start, dial: Dial) -> None:
    client = await dial((await start()).port)
    assert (await client.refused("shout"))["code"] == "unknown_action"


async def test_gates_know_people_and_refuse(folder: Path, start: Start, dial: Dial) -> None:
    app = await start(plugins={"gate": {}})
    with pytest.raises(InvalidStatus) as refused:
        await dial(app.port, "?name=mallory")
    assert refused.value.response.status_code == 403
    ada, bob = await dial(app.port, "?name=ada"), await dial(app.port, "?name=bob")
    assert (ada.welcome["user"], bob.welcome["user"]) == ("ada", "bob")
    assert await ada.do("get_connections") == {"count": 2}
    error = await ada.refused("echo", text="x" * 600)
    assert (error["code"], error["retry_after"]) == ("too_large", 3)
    assert (await ada.refused("room.join", room="vault"))["message"] == "ada may not room.join."
    assert (await ada.do("room.join", room="garden"))["members"][0]["user"] == "ada"
    assert await bob.do("send", to={"users": ["ada"]}, data="hello") == {"delivered": 1}
    assert (await ada.event("message"))["from"]["user"] == "bob"


async def test_sessions_are_their_owners(folder: Path, start: Start, dial: Dial) -> None:
    app = await start(plugins={"gate": {}})
    ada, bob, again = [await dial(app.port, f"?name={name}") for name in ("ada", "bob", "ada")]
    session_id = (await ada.do("session.create"))["session_id"]
    for action in ("session.attach", "session.history", "session.close", "session.delete"):
        assert (await bob.refused(action, session_id=session_id))["code"] == "forbidden", action
    send = {"session_id": session_id, "client_msg_id": "1"}
    assert (await bob.refused("turn.start", content="hi", **send))["code"] == "forbidden"
    assert (await ada.refused("turn.start", content="I swear", **send))["message"] == "Mind your words."
    assert (await again.do("turn.start", content="hello", **send))["duplicate"] is False
    assert (await ada.event("user.message"))["data"]["author"] == "ada"
    assert (await bob.do("session.list"))["sessions"] == []
    assert len((await again.do("session.list"))["sessions"]) == 1


async def test_requests_that_wait_for_a_gate_stay_in_order(folder: Path, start: Start, dial: Dial) -> None:
    client = await dial((await start(plugins={"gate": {}})).port)
    for number in range(40):
        await client.send(f'{{"id":"{number}","type":"request","action":"echo"}}')
    assert [(await client.take())["id"] for _ in range(40)] == [str(number) for number in range(40)]


async def test_an_observer_sees_everything_and_a_route_shows_it(folder: Path, start: Start, dial: Dial) -> None:
    app = await start(plugins={"watch": {}})
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    await client.do("turn.start", session_id=session_id, client_msg_id="1", content="hi")
    head = (await client.event("turn.ended"))["seq"]
    await client.leave()
    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        while True:
            async with session.get(f"http://127.0.0.1:{app.port}/seen") as answer:
                seen = await answer.json()
            if "disconnected 1000" in seen:
                break
    assert seen[0] == "connected broker.v1.json"
    assert "echo completed" in seen
    committed = [line.split()[1] for line in seen if line.startswith("session")]
    assert committed == [str(seq) for seq in range(1, head + 1)]
    assert app.stats.plugin_errors["watch"] == 2


async def test_a_plugin_that_cannot_be_loaded_keeps_the_broker_from_starting(folder: Path, start: Start) -> None:
    (folder / "shout.py").write_text("import nothing_of_that_name")
    with pytest.raises(CannotStart) as refused:
        await start(plugins={"shout": {}})
    assert refused.value.code == 78
    assert "nothing_of_that_name" in str(refused.value)
    assert "config.yaml:1:" in str(refused.value)
