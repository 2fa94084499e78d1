"""A folder of drop-in plugins, from its files to a client's socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from loguru import logger
from websockets.exceptions import ConnectionClosedError

from broker.app import App, CannotStart

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]

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
    with pytest.raises(ConnectionClosedError, match="Not you") as refused:
        await dial(app.port, "?name=mallory")
    assert refused.value.rcvd is not None
    assert refused.value.rcvd.code == 4503
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


# -- routes ------------------------------------------------------------------------------------------

ROUTES = '''
from aiohttp import web
from broker.errors import BrokerError
from broker.hooks import Plugin, Route


class Routes(Plugin):
    """Open to everybody, and to some."""

    def routes(self):
        return [
            Route("GET", "/open", self.show),
            Route("*", "/closed", self.show, scope="api"),
            Route("GET", "/refuse", self.refuse),
            Route("GET", "/teapot", self.teapot),
        ]

    async def show(self, request):
        by = request.get("principal")
        return web.json_response({"user": by.user if by else "nobody asked"})

    async def refuse(self, request):
        raise BrokerError("conflict", "Not now.")

    async def teapot(self, request):
        raise web.HTTPGone
'''
CLASH = """
from broker.hooks import Plugin, Route


class Clash(Plugin):
    def routes(self):
        return [Route("get", {path!r}, None)]
"""


@pytest.fixture
def guarded(people: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The settings of a broker that asks people who they are, with routes of a plugin."""
    (tmp_path / "plugins" / "routes.py").write_text(ROUTES)
    return {"plugins": {**people["plugins"], "routes": {}}}


async def test_a_route_with_a_scope_is_for_those_who_have_it_and_knows_who_asks(
    guarded: dict[str, Any], start: Start, get: Get
) -> None:
    app = await start(**guarded)
    assert (await get(app, "/open"))[2] == {"user": "nobody asked"}
    for path, status, code in [
        ("/closed", 401, "unauthenticated"),
        ("/closed?name=ann", 403, "forbidden"),
        ("/closed?name=ann&scopes=admin", 403, "forbidden"),
    ]:
        answer = await get(app, path)
        assert (answer[0], answer[2]["code"]) == (status, code), path
    for method in ("GET", "POST"):
        assert (await get(app, "/closed?name=ann&scopes=api", method))[2] == {"user": "ann"}


async def test_where_nobody_says_who_they_are_everybody_has_the_scope_but_not_other_pages(
    guarded: dict[str, Any], start: Start, get: Get
) -> None:
    del guarded["plugins"]["people"]
    app = await start(**guarded)
    assert (await get(app, "/closed"))[2] == {"user": None}
    status, _, body = await get(app, "/closed", headers={"Origin": "https://evil.example"})
    assert (status, body["code"]) == (403, "forbidden")


async def test_a_route_refuses_and_answers_in_its_own_way(guarded: dict[str, Any], start: Start, get: Get) -> None:
    app = await start(**guarded)
    status, headers, body = await get(app, "/refuse")
    assert (status, body["code"], headers["Content-Type"]) == (409, "conflict", "application/problem+json")
    assert (await get(app, "/teapot"))[0] == 410
    assert not app.stats.plugin_errors


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/health", "plugin 'clash', route get /health: the broker itself has it"),
        ("/api/v1/sessions/{session_id}", "the broker itself has it"),
        ("relative", "plugin 'clash', route get relative: "),
        ("/{open", "plugin 'clash', route get /{open: "),
    ],
)
async def test_a_route_that_could_not_be_served_keeps_the_broker_from_starting(
    path: str, reason: str, tmp_path: Path, start: Start
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "clash.py").write_text(CLASH.format(path=path))
    with pytest.raises(CannotStart) as refused:
        await start(plugins={"clash": {}})
    assert refused.value.code == 78
    assert reason in str(refused.value)


# -- what an operator is told ------------------------------------------------------------------------


async def test_what_takes_a_built_in_s_place_is_told_at_the_start(folder: Path, start: Start) -> None:
    (folder / "metrics.py").write_text(WATCH)
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    try:
        app = await start(plugins={"metrics": {}, "gate": {}})
    finally:
        logger.remove(sink)
    assert "plugins: metrics (drop-in), gate (drop-in)" in lines
    assert f"plugin metrics is the drop-in {folder}/metrics.py, in the place of the built-in of that name" in lines
    rows = {row["name"]: row for row in app.services.plugin_rows()}
    assert (rows["metrics"]["hides"], rows["metrics"]["started"]) == ("built-in", True)
    assert rows["rate_limit"]["started"] is False
