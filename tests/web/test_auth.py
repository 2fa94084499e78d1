"""Who a client is: refused, let in to say so, known by a token or a ticket, known anew, and no longer."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker import config
from broker.app import App
from broker.errors import CloseCode
from broker.extensions.loader import load as load_plugins
from broker.messages import Principal
from broker.testing import ManualClock, until
from broker.web.actions import ACTIONS

DOOR = '''
import asyncio

from broker.errors import BrokerError, CloseCode
from broker.hooks import Plugin, Principal, Undeclared

REFUSALS = {
    "bad": BrokerError("unauthenticated", "That is no token."),
    "old": BrokerError("token_expired"),
    "banned": BrokerError("forbidden", "You are banned."),
    "abusive": BrokerError("rate_limited", close=CloseCode.PROTOCOL_ABUSE),
    "many": BrokerError("rate_limited", retry_after=7.0),
    "blind": BrokerError("unavailable", "The keys cannot be had."),
    "slow": BrokerError("timeout"),
}


class Door(Plugin):
    """A token is `NAME;SCOPE,SCOPE;SECONDS`, or a word that is refused; with none one may say who one is for 5 s."""

    def __init__(self, settings, broker):
        super().__init__(settings, broker)
        self.open = asyncio.Event()
        self.asked = []

    async def wait(self, what):
        self.asked.append(what)
        await self.open.wait()

    def on_handshake(self, handshake):
        if "busy" in handshake.query:
            raise REFUSALS["many"]
        if handshake.known is not None:
            return self.wait(handshake.known.user) if "slow" in handshake.query else None
        items = [item.strip() for item in handshake.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        shown = [item.removeprefix("bearer.") for item in items if item.startswith("bearer.")]
        token = shown[0] if shown else handshake.query.get("token")
        return Undeclared(5.0) if token is None else self.read(token)

    async def on_auth(self, auth):
        if auth.known is not None:
            if auth.known.user == "eve":
                raise REFUSALS["banned"]
            return await self.wait("eva") if auth.known.user == "eva" else None
        if auth.token == "later":
            await asyncio.get_running_loop().create_future()
        return self.read(auth.token)

    def read(self, token):
        if token in REFUSALS:
            raise REFUSALS[token]
        if token == "broken":
            raise LookupError("xyzzy")
        name, scopes, seconds = (token + ";;").split(";")[:3]
        at = self.broker.now() + round(float(seconds) * 1000) if seconds else None
        return Principal(name, frozenset(scopes.split(",")) - {""}, at)

    def on_permission(self, check):
        if "calm" in check.principal.scopes:
            raise BrokerError("forbidden", "Be calm.")
        if check.operation == "agent.serve" and check.principal.user == "mole":
            raise REFUSALS["bad"]
        if "maker" in check.principal.scopes and check.operation == "session.attach":
            raise BrokerError("forbidden", "Make, but do not look.")
        if "slow" in check.principal.scopes:
            return self.wait((check.operation, check.resource))

    def actions(self):
        return {"door.open": lambda peer, payload: [peer.principal.user, *sorted(peer.principal.scopes)]}

    def connected(self, peer):
        self.broker.stats.dropped[f"connected {peer.principal.user}"] += 1

    def disconnected(self, peer, code):
        self.broker.stats.dropped[f"disconnected {peer.principal.user} {code}"] += 1
'''

Open = Callable[..., Awaitable[Any]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """A broker with the door, whose time stands still."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "door.py").write_text(DOOR)
    file = tmp_path / "config.yaml"
    settings = {
        "listen": {"port": 0},
        "store": {"url": "memory:"},
        "agents": {"echo": {"kind": "echo"}, "shout": {"kind": "worker"}},
        "plugins": {"door": {}},
    }
    file.write_text(json.dumps(settings))
    loaded = config.load(file, {}, {})
    app = App(loaded.settings, load_plugins(loaded.settings, loaded.file), clock)
    await app.start()
    yield app
    await app.stop()


@pytest.fixture
def enter(app: App, knock: Any) -> Open:
    """Connect with a token, or with none, and read the welcome."""

    async def connect(token: str | None = None) -> Any:
        raw = await knock(app.port, "/ws" if token is None else f"/ws?token={token}")
        welcome = (await raw.message())["data"]
        assert welcome["user"] == (token and token.split(";")[0])
        return raw

    return connect


async def ask(raw: Any, action: str, payload: Any = None) -> Any:
    """Return the answer to a request, passing over notifications: its data, or the error's code."""
    raw.say(action, {} if payload is None else payload)
    while (message := await raw.message())["type"] == "notification":
        pass
    return message["data"] if message["type"] == "response" else message["data"]["code"]


def connected(app: App) -> dict[Any, Principal]:
    """Return who is known behind which connection."""
    assert app.registry.actor is not None
    return {ref: known.peer.principal for ref, known in app.registry.actor._connections.values()}


def peers(app: App) -> list[str | None]:
    return [principal.user for principal in connected(app).values()]


def door(app: App) -> Any:
    """Return the plugin."""
    return app.services.hooks.auth[0].call.__self__


def ticket(app: App, user: str) -> str:
    return app.services.tickets.issue(Principal(user)).text


# -- refused handshakes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "code", "reason"),
    [
        ("bad", 4500, b"That is no token."),
        ("old", 4500, b"The token has expired; get a new one."),
        ("banned", 4503, b"You are banned."),
        ("abusive", 4501, b"Too many messages; slow down."),
        ("ann;;-1", 4500, b"The token has expired; get a new one."),
        ("ann;;0", 4500, b"The token has expired; get a new one."),
    ],
)
async def test_who_is_refused_is_let_in_only_to_be_told_by_a_close_code(
    app: App, knock: Any, token: str, code: int, reason: bytes
) -> None:
    raw = await knock(app.port, f"/ws?token={token}")
    assert raw.status == 101
    first, payload = await raw.frame()
    assert (first, payload) == (0x88, code.to_bytes(2) + reason)
    raw.send(0x88, payload[:2])
    assert await raw.end() is None
    assert (app.stats.connections, app.stats.connections_total, sum(app.stats.handshakes.values())) == (0, 0, 1)
    assert app.stats.closes[code] == 1
    assert peers(app) == []


@pytest.mark.parametrize("more", [b"", b"\x81\x80mask" * 5000, b"\xff" * 5000], ids=["silent", "busy", "wild"])
async def test_who_is_refused_and_does_not_answer_is_cut_soon(app: App, knock: Any, more: bytes) -> None:
    raw = await knock(app.port, "/ws?token=bad")
    raw.writer.write(more)
    assert (await raw.frame())[0] == 0x88
    began = asyncio.get_running_loop().time()
    assert await raw.reader.read() == b""
    assert asyncio.get_running_loop().time() - began < 3


@pytest.mark.parametrize(
    ("token", "status", "retry_after"),
    [("many", 429, "7"), ("blind", 503, "1"), ("slow", 503, "1"), ("broken", 503, "1")],
)
async def test_what_is_about_now_is_told_before_101_with_the_time_to_come_back(
    app: App, knock: Any, token: str, status: int, retry_after: str
) -> None:
    raw = await knock(app.port, f"/ws?token={token}")
    assert (raw.status, raw.headers()["retry-after"]) == (status, retry_after)
    body = await raw.body()
    assert body["status"] == status
    assert "xyzzy" not in json.dumps(body)


async def test_origins_and_formats_are_refused_before_anybody_is_asked(app: App, knock: Any) -> None:
    raw = await knock(app.port, "/ws?token=bad", Origin="http://evil.example")
    assert raw.status == 403
    raw = await knock(app.port, "/ws?token=bad", Sec_WebSocket_Protocol="soap")
    assert raw.status == 400
    assert "unauthenticated" not in app.stats.handshakes


# -- credentials among the subprotocols ----------------------------------------------------------------


async def test_a_token_beside_a_format_is_read_and_never_sent_back(
    app: App, knock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for offer in ("broker.v1.json, bearer.ann", "bearer.ann,broker.v1.json", "bearer.ann"):
        raw = await knock(app.port, Sec_WebSocket_Protocol=offer)
        assert raw.status == 101
        chosen = raw.headers().get("sec-websocket-protocol")
        assert chosen == ("broker.v1.json" if "broker" in offer else None)
        assert (await raw.message())["data"]["user"] == "ann"
    refused = await knock(app.port, Sec_WebSocket_Protocol="bearer.bad")
    assert (await refused.frame())[0] == 0x88
    assert caplog.text == ""  # aiohttp would tell there which subprotocols nobody has chosen


async def test_a_ticket_lets_in_once_by_the_query_or_as_a_subprotocol(app: App, knock: Any) -> None:
    one, other = ticket(app, "ann"), ticket(app, "ann")
    raw = await knock(app.port, f"/ws?ticket={one}")
    assert (await raw.message())["data"]["user"] == "ann"
    raw = await knock(app.port, Sec_WebSocket_Protocol=f"broker.v1.json, ticket.{other}")
    assert (raw.headers()["sec-websocket-protocol"], (await raw.message())["data"]["user"]) == ("broker.v1.json", "ann")
    for used in (one, other, "never"):
        again = await knock(app.port, f"/ws?ticket={used}")
        assert (await again.frame())[1][:2] == (4500).to_bytes(2)


async def test_a_ticket_that_is_refused_for_now_can_be_shown_again(app: App, knock: Any) -> None:
    text = ticket(app, "ann")
    assert (await knock(app.port, f"/ws?busy=1&ticket={text}")).status == 429
    raw = await knock(app.port, f"/ws?ticket={text}")
    assert (await raw.message())["data"]["user"] == "ann"


async def test_of_those_who_show_a_ticket_at_once_one_comes_in(app: App, knock: Any) -> None:
    text = ticket(app, "ann")
    knocking = [asyncio.ensure_future(knock(app.port, f"/ws?slow=1&ticket={text}")) for _ in range(3)]
    await until(lambda: door(app).asked == ["ann"] * 3)
    door(app).open.set()
    first = sorted([(await (await one).frame())[0] for one in knocking])
    assert first == [0x81, 0x88, 0x88]


async def test_a_ticket_that_is_taken_back_while_it_waits_at_a_gate_lets_nobody_in(
    app: App, enter: Open, knock: Any
) -> None:
    raw, waiting = await enter(), asyncio.ensure_future(knock(app.port, f"/ws?slow=1&ticket={ticket(app, 'ann')}"))
    raw.say("auth", {"token": ticket(app, "eva")})
    await until(lambda: sorted(door(app).asked) == ["ann", "eva"])
    assert [app.services.tickets.void(user) for user in ("ann", "eva")] == [1, 1]
    door(app).open.set()
    assert (await (await waiting).frame())[1][:2] == (4500).to_bytes(2)
    assert (await raw.message())["data"]["code"] == "unauthenticated"
    assert await raw.end() == 4500
    assert peers(app) == []


# -- saying so after the welcome --------------------------------------------------------------------------


async def test_one_who_has_to_say_who_it_is_is_nobody_until_it_has(app: App, enter: Open) -> None:
    ann = await enter("ann")
    raw = await enter()
    assert peers(app) == ["ann"]
    assert app.services.admission.unknown == 1
    assert await ask(ann, "broadcast", 1) == {"delivered": 1}
    assert await ask(raw, "auth", {"token": "bob;b,a;60"}) == {
        "user": "bob",
        "scopes": ["a", "b"],
        "expires_at": "2023-11-14T22:14:20.000Z",
    }
    assert peers(app) == ["ann", "bob"]
    assert app.services.admission.unknown == 0
    assert await ask(ann, "send", {"to": {"users": ["bob"]}, "data": 2}) == {"delivered": 1}
    assert (await raw.message())["data"] == 2
    assert await ask(raw, "door.open") == ["bob", "a", "b"]
    assert app.stats.dropped["connected bob"] == 1
    raw.send(0x88, (1000).to_bytes(2))
    assert await raw.end() == 1000
    await until(lambda: app.stats.dropped["disconnected bob 1000"] == 1)
    await until(lambda: peers(app) == ["ann"])


@pytest.mark.parametrize(
    "message",
    [
        b'{"type":"request","action":"ping","id":"r"}',
        b'{"type":"request","action":"echo","id":"r"}',
        b'{"type":"request","action":"session.create","id":"r"}',
        b'{"type":"request","action":"door.open","id":"r"}',
        b'{"type":"request","action":"nothing","id":"r"}',
        b'{"type":"request","action":"auth","id":"r"}',
        b'{"type":"request","action":"auth","id":"r","payload":{"token":7}}',
        b'{"type":"request","action":"auth","id":"r","payload":{"token":"bad"}}',
        b'{"type":"request","action":"auth","id":"r","payload":{"token":"ann;;-5"}}',
        b"rubbish",
    ],
)
async def test_whatever_else_it_says_first_is_refused_and_ends_it(app: App, enter: Open, message: bytes) -> None:
    raw = await enter()
    raw.send(0x81, message)
    assert (await raw.message())["type"] == "error"
    assert await raw.end() == 4500
    assert app.stats.dropped.total() == 0


@pytest.mark.parametrize(("token", "code"), [("blind", 1013), ("broken", 1013), ("banned", 4503), ("abusive", 4501)])
async def test_the_code_says_whether_to_try_again(enter: Open, token: str, code: int) -> None:
    raw = await enter()
    assert isinstance(await ask(raw, "auth", {"token": token}), str)
    assert await raw.end() == code


@pytest.mark.parametrize("action", ["auth", "session.create"])
async def test_what_is_sent_before_the_answer_is_refused(
    app: App, enter: Open, clock: ManualClock, action: str
) -> None:
    raw = await enter()
    raw.say("auth", {"token": "later"}, "1")
    raw.say(action, {"token": "ann"}, "2")
    message = await raw.message()
    assert (message["id"], message["data"]["code"]) == ("2", "unauthenticated")
    assert await raw.end() == 4500
    clock.advance(1)
    await until(lambda: app.stats.connections == 0 and peers(app) == [])


async def test_who_says_nothing_is_sent_away_in_time(app: App, enter: Open, clock: ManualClock) -> None:
    silent, quick = await enter(), await enter()
    await ask(quick, "auth", {"token": "ann"})
    clock.advance(4.9)
    assert await ask(quick, "ping")
    clock.advance(0.2)
    assert await silent.end() == 4500
    assert await ask(quick, "ping")


async def test_a_message_of_one_who_has_not_said_who_it_is_is_short(app: App, enter: Open) -> None:
    raw = await enter()
    raw.writer.write(b"\x81\xfe" + (20 * 1024 + 1).to_bytes(2))
    raw.writer.write(bytes(4))
    assert await raw.end() == 1009
    raw = await enter()
    await ask(raw, "auth", {"token": "ann"})
    assert await ask(raw, "echo", "x" * 100_000) == "x" * 100_000


async def test_what_it_has_said_by_half_is_forgotten_with_the_good_bye_and_the_line_cut_soon(
    app: App, enter: Open, clock: ManualClock
) -> None:
    raw = await enter()
    raw.writer.write(b"\x81\xfe" + (20 * 1024).to_bytes(2) + bytes(4) + b"x" * 10_000)
    assert app.registry.actor is not None
    [aside] = app.registry.actor._aside.values()
    caller: Any = aside.hang
    decoder = caller.__self__.reader._decoder
    await until(lambda: decoder._message is not None and len(decoder._message._parts) == 10_000)
    clock.advance(5)
    assert decoder._message is None
    first, payload = await raw.frame()
    assert (first, payload[:2]) == (0x88, (4500).to_bytes(2))
    raw.writer.write(b"x" * 1000)
    clock.advance(1)
    assert await raw.end() is None
    await until(lambda: app.stats.connections == 0)


# -- a new token ------------------------------------------------------------------------------------------


async def test_a_new_token_prolongs_the_stay_and_changes_what_one_may(
    app: App, enter: Open, clock: ManualClock
) -> None:
    raw = await enter("ann;;10")
    clock.advance(9)
    assert "connections" not in await ask(raw, "get_connections")
    assert (await ask(raw, "auth", {"token": "ann;admin;10"}))["scopes"] == ["admin"]
    clock.advance(5)
    listed = (await ask(raw, "get_connections"))["connections"]
    assert [(one["user"], one["connected_at"]) for one in listed] == [("ann", "2023-11-14T22:13:20.000Z")]
    clock.advance(6)
    assert await raw.end() == 4001


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("bob", "forbidden"),
        (";;", "forbidden"),
        ("bad", "unauthenticated"),
        ("old", "token_expired"),
        ("ann;;-1", "token_expired"),
    ],
)
async def test_a_token_that_is_not_taken_leaves_everything_as_it_was(
    app: App, enter: Open, clock: ManualClock, token: str, code: str
) -> None:
    raw = await enter("ann;admin;10")
    assert await ask(raw, "auth", {"token": token}) == code
    assert (await ask(raw, "get_connections"))["connections"][0]["user"] == "ann"
    clock.advance(11)
    assert await raw.end() == 4001


async def test_a_ticket_is_taken_in_band_once(app: App, enter: Open) -> None:
    raw = await enter()
    text = ticket(app, "ann")
    assert (await ask(raw, "auth", {"token": text}))["user"] == "ann"
    assert await ask(raw, "auth", {"token": text}) == "forbidden"  # to the door, it is a token with another name


async def test_who_shows_a_ticket_in_band_may_be_refused_by_a_gate(app: App, enter: Open) -> None:
    raw = await enter()
    text = ticket(app, "eve")
    assert await ask(raw, "auth", {"token": text}) == "forbidden"
    assert await raw.end() == 4503
    assert app.services.tickets.look(text) is not None


async def test_what_one_may_not_follow_with_the_new_token_is_taken_off(app: App, enter: Open) -> None:
    raw = await enter("ann")
    session_id = (await ask(raw, "session.create"))["session_id"]
    await ask(raw, "room.join", {"room": "lobby"})
    other = await enter("bob")
    await ask(other, "room.join", {"room": "lobby"})
    raw.say("auth", {"token": "ann;calm"})
    seen = [await raw.message()]
    while seen[-1]["type"] != "response":
        seen.append(await raw.message())
    told = [
        (m["event"], m.get("session_id") or m["room"], m["data"]["code"])
        for m in seen
        if m.get("event", "").endswith(("left", "detached"))
    ]
    assert told == [("session.detached", session_id, "forbidden"), ("room.left", "lobby", "forbidden")]
    assert [one["user"] for one in (await ask(other, "room.presence", {"room": "lobby"}))["members"]] == ["bob"]
    assert await ask(other, "room.publish", {"room": "lobby", "data": 1})
    assert await ask(raw, "room.join", {"room": "lobby"}) == "forbidden"


async def test_what_one_asked_to_follow_before_the_new_token_is_checked_again(app: App, enter: Open) -> None:
    raw, other = await enter("ann"), await enter("ann")
    await ask(other, "room.join", {"room": "lobby"})
    registry: Any = app.registry
    registry.hold()
    raw.say("room.join", {"room": "lobby"}, "1")
    raw.say("auth", {"token": "ann;calm"}, "2")
    assert (await raw.message())["id"] == "2"
    registry.release()
    assert (await raw.message())["id"] == "1"
    assert (await raw.message())["event"] == "room.left"
    assert len((await ask(other, "room.presence", {"room": "lobby"}))["members"]) == 1


async def test_what_was_granted_just_before_the_new_token_is_checked_again(app: App, enter: Open) -> None:
    raw = await enter("ann")
    [connection] = connected(app)
    connection.hold()
    raw.say("room.join", {"room": "lobby"}, "1")
    await until(lambda: len(connection.actor_inbox) == 3)  # what it follows now, the answer, and the first page
    raw.say("auth", {"token": "ann;calm"}, "2")
    await until(lambda: connected(app)[connection].scopes == {"calm"})
    connection.release()
    assert (await raw.message())["id"] == "1"
    assert (await raw.message())["event"] == "room.left"
    assert (await raw.message())["id"] == "2"
    assert connection.actor.followed() == []


async def test_who_saw_a_session_by_a_scope_sees_it_no_longer_without(app: App, enter: Open) -> None:
    ann, boss = await enter("ann"), await enter("boss;admin")
    session_id = (await ask(ann, "session.create"))["session_id"]
    await ask(boss, "session.attach", {"session_id": session_id, "after_seq": -1})
    await ask(boss, "auth", {"token": "boss"})
    while (message := await boss.message())["event"] != "session.detached":
        pass
    assert message["session_id"] == session_id
    assert await ask(boss, "session.attach", {"session_id": session_id}) == "forbidden"


async def test_only_so_many_frames_are_looked_through_for_the_answer_to_our_close(
    app: App, enter: Open, clock: ManualClock
) -> None:
    raw = await enter("ann;;100")
    [caller] = app.services.expiry._stays
    reader: Any = getattr(caller, "reader", None)
    raw.send(0x82, b"binary")
    assert (await raw.frame())[1][:2] == (1003).to_bytes(2)
    raw.writer.write(b"\x81\x80mask" * 5000)
    raw.send(0x88, (1003).to_bytes(2))
    await until(lambda: reader.deaf)
    assert not reader.ended.done()
    clock.advance(app.services.connection.patience)
    assert await raw.end() is None
    await until(reader.ended.done)


# -- what one may -------------------------------------------------------------------------------------------


def test_plugins_are_asked_about_all_but_what_everybody_may() -> None:
    assert [name for name, row in ACTIONS.items() if row.free] == ["ping", "auth"]


async def test_each_request_is_checked_as_who_one_is_by_then(enter: Open) -> None:
    raw = await enter("ann")
    requests: list[tuple[str, Any]] = [
        ("echo", {}),
        ("broadcast", {}),
        ("send", {"to": {"users": ["bob"]}}),
        ("get_connections", {}),
        ("session.create", {}),
        ("session.list", {}),
        ("room.publish", {"room": "lobby"}),
        ("room.presence", {"room": "lobby"}),
        ("door.open", {}),
    ]
    for action, payload in requests:
        assert await ask(raw, action, payload) != "forbidden", action
    await ask(raw, "auth", {"token": "ann;calm"})
    for action, payload in [*requests, ("trace", {"id": "x"})]:
        assert await ask(raw, action, payload) == "forbidden", action
    assert await ask(raw, "ping")
    await ask(raw, "auth", {"token": "ann"})
    assert await ask(raw, "echo", {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("action", "payload"),
    [("room.join", {"room": "lobby"}), ("turn.start", {"session_id": "s"}), ("door.open", {}), ("trace", {"id": "s"})],
)
async def test_what_was_granted_to_who_one_was_is_judged_again_as_who_one_is(
    app: App, enter: Open, action: str, payload: dict[str, Any]
) -> None:
    raw = await enter("ann;slow")
    if action == "turn.start":
        payload = {**payload, "client_msg_id": "m", "content": "hi"}
    raw.say(action, payload, "1")
    await until(lambda: len(door(app).asked) == 1)
    raw.say("auth", {"token": "ann;calm"}, "2")
    assert (await raw.message())["id"] == "2"
    door(app).open.set()
    message = await raw.message()
    assert (message["id"], message["data"]["code"]) == ("1", "forbidden")


async def test_who_may_create_a_session_and_not_see_it_is_not_attached(app: App, enter: Open) -> None:
    for scopes in ("maker", "maker,slow"):
        door(app).open.set()
        raw = await enter(f"ann;{scopes}")
        session_id = (await ask(raw, "session.create"))["session_id"]
        await ask(raw, "session.update", {"session_id": session_id, "title": "t"})
        raw.say("ping")
        assert (await raw.message())["type"] == "response"
        assert [ref.actor.followed() for ref in connected(app)][-1] == []
    await ask(raw, "auth", {"token": "ann"})
    assert (await ask(raw, "session.attach", {"session_id": session_id}))["recovered"]


async def test_one_asks_over_the_socket_where_ones_own_message_went(enter: Open) -> None:
    ann, bob = await enter("ann"), await enter("bob")
    session_id = (await ask(ann, "session.create"))["session_id"]
    start = {"session_id": session_id, "client_msg_id": "m1", "content": "hi"}
    turn_id = (await ask(ann, "turn.start", start))["turn_id"]
    for some_id in ("m1", turn_id):
        trace = await ask(ann, "trace", {"id": some_id})
        assert (trace["turn_id"], trace["steps"][0]["what"]) == (turn_id, "received")
        assert await ask(bob, "trace", {"id": some_id}) == "not_found"
    assert await ask(ann, "trace", {}) == "invalid_message"


# -- the end of a stay --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [0, -3600, 86400])
async def test_a_token_ends_in_time_whatever_becomes_of_the_clock(
    app: App, enter: Open, clock: ManualClock, jump: int
) -> None:
    raw, lasting = await enter("ann;;10"), await enter("bob")
    clock.jump(jump)
    if jump <= 0:
        clock.advance(9.4)
        assert await ask(raw, "ping")
    clock.advance(1.0)
    assert await raw.end() == 4001
    assert await ask(lasting, "ping")
    assert len(app.services.expiry) == 0


async def test_agents_are_sent_away_too_when_their_token_ends(app: App, knock: Any, clock: ManualClock) -> None:
    raw = await knock(app.port, "/agent?token=bot;agent;10", Sec_WebSocket_Protocol="agents.v1.json")
    hello = {"type": "hello", "id": "1", "data": {"agent": "shout"}}
    raw.send(0x81, json.dumps(hello).encode())
    assert (await raw.message())["type"] == "welcome"
    clock.advance(11)
    assert await raw.end() == 4001
    await until(lambda: len(app.services.expiry) == 0)


async def greet(knock: Any, app: App, token: str) -> Any:
    raw = await knock(app.port, f"/agent?token={token}", Sec_WebSocket_Protocol="agents.v1.json")
    raw.send(0x81, json.dumps({"type": "hello", "id": "1", "data": {"agent": "shout"}}).encode())
    return raw


async def test_who_may_not_be_an_agent_any_more_by_the_time_it_says_hello_is_refused(app: App, knock: Any) -> None:
    raw = await greet(knock, app, "mole;agent")
    assert (await raw.message())["data"] == {"code": "unauthenticated", "message": "That is no token."}
    assert await raw.end() == 4500


async def test_an_agent_can_be_sent_away_before_plugins_are_asked_about_it(app: App, knock: Any) -> None:
    raw = await greet(knock, app, "bot;agent,slow")
    await until(lambda: door(app).asked == [("agent.serve", "shout")])
    assert await app.facade.disconnect(lambda peer: peer.principal.user == "bot") == 1
    door(app).open.set()
    assert await raw.end() == 4510
    assert not app.services.workers["shout"].members


# -- sent away by a plugin ----------------------------------------------------------------------------------


async def test_plugins_send_away_clients_agents_and_those_who_have_not_said_who_they_are(
    app: App, enter: Open, knock: Any
) -> None:
    ann, bob, stranger = await enter("ann"), await enter("bob"), await enter()
    agent = await knock(app.port, "/agent", Sec_WebSocket_Protocol="agents.v1.json, bearer.bot;agent")
    assert agent.headers()["sec-websocket-protocol"] == "agents.v1.json"
    await until(lambda: app.registry.actor is not None and len(app.registry.actor._aside) == 2)
    with pytest.raises(ZeroDivisionError):
        await app.facade.disconnect(lambda peer: bool(1 / 0))
    assert await app.facade.disconnect(lambda peer: peer.principal.user == "ann") == 1
    assert await ann.end() == 4510
    assert await app.facade.disconnect(lambda peer: peer.protocol == "agents.v1.json", CloseCode.BAD_TOKEN) == 1
    assert await agent.end() == 4500
    assert await app.facade.disconnect(lambda peer: peer.address == "127.0.0.1", reason="out") == 2
    assert await stranger.end() == await bob.end() == 4510
