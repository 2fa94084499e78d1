"""What administrators see of that which goes through the broker, and that nobody else is any the worse for it."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import attrs
import pytest

from broker.app import App
from broker.extensions.bound import Bound
from broker.extensions.dispatch import Hooks
from broker.hooks import Inbound, Peer
from broker.messages import ANONYMOUS
from broker.protocol.payloads import Tap
from broker.testing import ManualClock, until
from broker.web.actions import ACTIONS
from broker.web.api.endpoint import ENDPOINTS
from broker.web.tap import WAITING
from broker.web.taps import LIMIT, SAYABLE, Taps

Dial = Callable[..., Awaitable[Any]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

ROOT = "?name=root&scopes=admin"
HOOKS = ("message", "committed", "connected", "disconnected")


def hooks_of(app: App) -> list[tuple[Bound, ...]]:
    return [getattr(app.hooks, name) for name in HOOKS]


async def seen(client: Any, name: str) -> Any:
    """Return the data of the next notification about something of this name."""
    wanted = await client.take(lambda one: one.get("event") == "tap" and one["data"]["name"] == name)
    return wanted["data"]


# -- what is shown ----------------------------------------------------------------------------------


async def test_messages_records_events_and_connections_are_shown(app: App, dial: Dial, get: Get) -> None:
    watcher = await dial(app.port)
    assert (await watcher.do("tap")).keys() == {"tap"}
    client = await dial(app.port)
    connection_id = client.welcome["connection_id"]
    came = await seen(watcher, "connected")
    assert (came["what"], came["connection_id"]) == ("connection", connection_id)
    assert came["data"] == {"address": "127.0.0.1", "protocol": "broker.v1.json"}
    await client.do("session.create", session_id="s")
    turn = await client.do("turn.start", session_id="s", client_msg_id="1", content="hello there")
    said = await seen(watcher, "turn.start")
    assert (said["what"], said["session_id"], said["connection_id"]) == ("message", "s", connection_id)
    assert (said["data"]["content"], said["protocol"], said["size"] > 50) == ("hello there", "broker.v1.json", True)
    ended = await seen(watcher, "turn.ended")
    assert (ended["what"], ended["session_id"], ended["turn_id"]) == ("record", "s", turn["turn_id"])
    assert (ended["seq"], ended["data"]["outcome"]) == ((await client.event("turn.ended"))["seq"], "completed")
    await client.do("room.publish", room="lobby", event="shipped", data=[1, 2])
    event = await seen(watcher, "shipped")
    assert (event["what"], event["room"], event["seq"], event["data"]) == ("event", "lobby", 1, [1, 2])
    assert event["connection_id"] == connection_id
    await get(app, "/api/v1/broadcast", "POST", json={"hi": 1})
    assert (await seen(watcher, "broadcast"))["protocol"] == "http"
    await client.send("no json")
    assert "data" not in await seen(watcher, "unreadable")
    await client.leave()
    assert (await seen(watcher, "disconnected"))["data"] == {"code": 1000}


async def test_patterns_and_kinds_choose(app: App, dial: Dial) -> None:
    watcher, client = await dial(app.port), await dial(app.port)
    await watcher.do("tap", pattern="or?er-*", what=["event", "record"])
    for room in ("order-1", "border-1", "order"):
        await client.do("room.publish", room=room)
    await client.do("session.create", session_id="order-2")
    shown = [await watcher.event("tap") for _ in range(2)]
    assert [one["data"].get("room") or one["data"]["session_id"] for one in shown] == ["order-1", "order-2"]
    await watcher.do("tap", pattern="turn.*", what=["message"])  # in the place of the first
    await client.do("room.publish", room="order-1")
    await client.do("turn.start", session_id="order-2", client_msg_id="1", content="x")
    assert (await watcher.event("tap"))["data"]["name"] == "turn.start"
    for wrong in ({"pattern": ""}, {"pattern": "a" * 256}, {"what": []}, {"what": ["secrets"]}):
        assert (await watcher.refused("tap", **wrong))["code"] == "invalid_message"


async def test_long_content_is_cut_and_what_is_no_json_is_text(app: App, dial: Dial, get: Get) -> None:
    watcher, client = await dial(app.port), await dial(app.port)
    await watcher.do("tap", what=["message"])
    await client.do("echo", text="ü" * 5000)
    long = await seen(watcher, "echo")
    assert (long["cut"], long["size"] > 10_000) == (True, True)
    assert long["data"].startswith('{"text": "\\u00fc') or long["data"].startswith('{"text": "ü')
    assert 4000 < len(long["data"].encode()) <= 4096
    status, _, _ = await get(
        app, "/api/v1/broadcast", "POST", data=b'{"a', headers={"Content-Type": "application/json"}
    )
    assert status == 400
    assert (await seen(watcher, "broadcast"))["data"] == '{"a'


async def test_what_other_formats_ask_for_is_shown_as_what_it_comes_to(app: App, dial: Dial) -> None:
    watcher = await dial(app.port)
    await watcher.do("tap", what=["message"])
    async with aiohttp.ClientSession() as http:
        url = f"ws://127.0.0.1:{app.port}/ws"
        async with http.ws_connect(url, protocols=["project.v1.json"]) as other:
            await other.send_json({"type": "join_project", "projectGuid": "p1", "data": {}, "id": "1"})
            joined = await seen(watcher, "room.join")
            assert (joined["kind"], joined["protocol"]) == ("join_project", "project.v1.json")
            await other.send_json({"type": "tap", "projectGuid": "p1", "data": {}, "id": "2"})
            while (answer := await other.receive_json())["type"] != "error":
                pass
            assert answer["data"]["code"] in {"unknown_action", "invalid_message"}


# -- secrets ----------------------------------------------------------------------------------------

LOGIN = """
from broker.hooks import Plugin, Principal

class Login(Plugin):
    def on_handshake(self, handshake):
        return Principal(handshake.query.get("name"), frozenset(handshake.query.get("scopes", "").split()))

    def on_auth(self, auth):
        return Principal("root", frozenset(auth.token.split("-")[1:]))

    def actions(self):
        return {"login": lambda peer, payload: None}
"""


@pytest.fixture
async def guarded(start: Start, tmp_path: Any) -> App:
    """A broker where the words behind a token's first hyphen are its scopes, and where one may log in."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/login.py").write_text(LOGIN)
    app: App = await start(plugins={"login": {}}, agents={"lab": {"kind": "worker"}, "echo": {"kind": "echo"}})
    return app


async def test_no_credential_is_shown(guarded: App, dial: Dial, get: Get) -> None:
    watcher = await dial(guarded.port, ROOT)
    await watcher.do("tap")
    client = await dial(guarded.port, "?name=root")
    await client.do("auth", token="S3CRET-api")
    await client.do("login", password="S3CRET")
    await client.refused("Auth", token="S3CRET")
    await client.send('{"type": "request", "action": "auth", "payload": {"token": "S3CRET"')
    await get(guarded, "/api/v1/passes", "POST", json={"ticket": "S3CRET"})
    await get(guarded, "/api/v1/tickets?name=root&scopes=api", "POST", json={"user": "ann"})
    await client.do("echo", text="the end")
    await seen(watcher, "echo")
    told = [one["data"] for one in watcher.heard if one.get("event") == "tap"]
    assert {"auth", "login", "Auth", "unreadable", "pass.issue", "ticket.issue"} <= {one["name"] for one in told}
    assert "S3CRET" not in json.dumps(told)


def test_only_actions_that_take_no_secret_are_shown_with_what_they_take() -> None:
    secretive = set()
    for name, row in ACTIONS.items():
        payload = row.decode.args[0] if isinstance(row.decode, partial) else None
        if payload is not None and not all(field.repr for field in attrs.fields(payload)):
            secretive.add(name)
    assert secretive == {"auth"}
    assert ACTIONS.keys() - secretive == SAYABLE
    assert {row.operation for row in ENDPOINTS} & SAYABLE <= ACTIONS.keys()


async def test_debug_records_are_for_who_has_the_scope(guarded: App, dial: Dial) -> None:
    plain = await dial(guarded.port, ROOT)
    curious = await dial(guarded.port, ROOT + "+debug")
    for watcher in (plain, curious):
        await watcher.do("tap", what=["record"])
    url = f"ws://127.0.0.1:{guarded.port}/agent?name=lab&scopes=agent"
    async with aiohttp.ClientSession() as http, http.ws_connect(url, protocols=["agents.v1.json"]) as agent:
        await agent.send_json({"type": "hello", "data": {"agent": "lab"}})
        client = await dial(guarded.port, "?name=ann")
        await client.do("session.create", session_id="s", agent="lab")
        turn = await client.do("turn.start", session_id="s", client_msg_id="1", content="hi")
        while (await agent.receive_json())["type"] != "turn_start":
            pass
        for seq, kind in enumerate(("debug", "turn_end"), 1):
            data = {"turn_id": turn["turn_id"], "seq": seq, "prompt": "inner"}
            await agent.send_json({"type": kind, "data": data})
        assert (await seen(curious, "debug"))["data"] == {"prompt": "inner"}
        assert (await seen(plain, "withheld"))["data"] == {}


# -- who may, and until when ------------------------------------------------------------------------


async def test_it_takes_the_scope_and_ends_with_it(guarded: App, dial: Dial) -> None:
    nobody = hooks_of(guarded)
    client = await dial(guarded.port, "?name=root")
    assert (await client.refused("tap"))["code"] == "forbidden"
    await client.do("auth", token="t-admin")
    await client.do("tap")
    assert [len(hook) for hook in hooks_of(guarded)] == [len(hook) + 1 for hook in nobody]
    await client.do("auth", token="t-api")
    assert (await seen(client, "forbidden"))["what"] == "ended"
    assert hooks_of(guarded) == nobody
    client.heard.clear()
    await client.do("echo")
    await client.silent()


async def test_hooks_are_as_they_were_once_nobody_watches(app: App, dial: Dial) -> None:
    assert hooks_of(app) == [()] * len(HOOKS)
    first, second, third = [await dial(app.port) for _ in range(3)]
    for watcher in (first, second, third, first):
        await watcher.do("tap")
    assert [len(hook) for hook in hooks_of(app)] == [1] * len(HOOKS)
    await first.do("untap")
    await first.do("untap")
    second.drop()
    await until(lambda: app.stats.connections == 2)
    assert [len(hook) for hook in hooks_of(app)] == [1] * len(HOOKS)
    await third.leave()
    await until(lambda: app.stats.connections == 1)
    assert hooks_of(app) == [()] * len(HOOKS)
    first.heard.clear()
    await first.do("echo")
    await first.silent()


async def test_there_are_only_so_many(app: App, dial: Dial) -> None:
    watchers = [await dial(app.port) for _ in range(LIMIT + 1)]
    for watcher in watchers[:-1]:
        await watcher.do("tap")
    assert (await watchers[-1].refused("tap"))["code"] == "overloaded"
    await watchers[0].do("untap")
    await watchers[-1].do("tap")


# -- bounds -----------------------------------------------------------------------------------------


async def test_who_does_not_read_misses_what_there_is_no_room_for_and_costs_nobody_anything(
    app: App, dial: Dial, knock: Knock
) -> None:
    slow = await knock(app.port, rcvbuf=4096)
    await slow.message()
    slow.say("tap", {"what": ["message"]})
    while (await slow.message()).get("id") != "r":
        pass
    client = await dial(app.port)
    text = "x" * 3000
    for _ in range(3000):  # nine megabytes, of which four may wait anywhere
        await client.do("echo", text=text)
    assert app.stats.closes == {}
    missed = 0
    while not missed:
        missed = (await slow.message())["data"].get("missed", 0)
    assert app.stats.closes == {}


class Slow:
    """A connection that takes so much and no more."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.waiting = 0
        self.actor = self
        self.actor_stopped = self

    def is_set(self) -> bool:
        return False

    def outbox_bytes(self) -> int:
        return self.waiting

    def tell(self, parcel: Any, *, urgent: bool) -> None:
        self.told += [json.loads(item.data) for item in parcel.items]


def test_what_is_missed_is_counted_and_order_is_kept() -> None:
    hooks, clock, slow = Hooks(), ManualClock(), Slow()
    taps = Taps(hooks, clock, 1 << 20)
    peer = Peer("c1", ANONYMOUS, "", "broker.v1.json")
    taps.open(peer, slow, Tap())  # type: ignore[arg-type]
    (bound,) = hooks.message

    def say(number: int) -> None:
        bound.call(Inbound(peer, "echo", 1, payload=str(number).encode()))

    say(0)
    clock.advance(1)
    slow.waiting = 1 << 20
    for number in range(1, WAITING + 11):
        say(number)
    clock.advance(10)
    assert [one["data"] for one in slow.told] == [0]
    slow.waiting = 0
    clock.advance(1)
    assert [one["data"] for one in slow.told] == [0, *range(11, WAITING + 11)]
    assert [one.get("missed") for one in slow.told] == [None, 10, *[None] * (WAITING - 1)]
    taps.end("c1")
    assert (hooks.message, clock.waiting) == ((), 0)


def test_a_tap_that_breaks_refuses_nobody() -> None:
    hooks = Hooks()
    taps = Taps(hooks, ManualClock(), 1 << 20)
    taps.open(Peer("c1", ANONYMOUS, "", "broker.v1.json"), None, Tap())  # type: ignore[arg-type]
    hooks.run_gates(hooks.message, Inbound(None, "echo", 1))  # type: ignore[arg-type]
    assert hooks.message
