"""What is seen of a broker at work: response times, requests, idle clients, memory, and the two plugins that watch."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from websockets.asyncio.client import connect

from broker.app import App, CannotStart
from broker.protocol.formats import make_formats
from broker.testing import until

Start = Callable[..., Awaitable[App]]
Dial = Callable[..., Awaitable[Any]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]

SHOUT = '''
from broker.hooks import Plugin


class Shout(Plugin):
    """Has an action."""

    def actions(self):
        return {"shout": lambda peer, payload: payload["text"].upper()}
'''


def add_plugin(tmp_path: Path, name: str, source: str) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(source)


# -- how long answers take, and how many there are ------------------------------------------------------


async def test_answers_of_actors_plugins_and_the_api_are_timed_and_others_cost_nothing(
    start: Start, dial: Dial, get: Get, tmp_path: Path
) -> None:
    add_plugin(tmp_path, "shout", SHOUT)
    app = await start(plugins={"shout": {}})
    seen = app.stats.request_seconds
    client = await dial(app.port)
    await client.ask("echo", 1)
    await client.ask("ping")
    assert sum(seen.counts) == 0
    await client.do("session.create", session_id="s1")
    await client.refused("session.attach", session_id="s2")
    assert sum(seen.counts) == 2
    await client.do("shout", text="hi")
    assert sum(seen.counts) == 3
    for path in ("/api/v1/sessions/s1", "/api/v1/sessions/s2", "/livez"):
        await get(app, path)
    assert sum(seen.counts) == 5
    assert 0 < seen.total < 10


async def test_the_api_tells_how_long_answers_took_and_what_memory_there_is(app: App, dial: Dial, get: Get) -> None:
    _, _, before = await get(app, "/api/v1/stats")
    assert before["response_seconds"] == {"count": 0, "p50": None, "p95": None, "p99": None}
    client = await dial(app.port)
    await client.do("session.create")
    await get(app, "/nowhere")
    _, _, after = await get(app, "/api/v1/stats")
    times = after["response_seconds"]
    assert times["count"] == 2  # the session, and the first of these questions
    assert 0 < times["p50"] <= times["p95"] <= times["p99"]
    assert after["requests"] == {"2xx": 1, "4xx": 1}
    assert after["memory"]["process"] > 1 << 20
    assert after["memory"]["per_connection"] >= 0
    assert after["total"]["messages_in"] == 1
    assert after["errors"] == {"not_found": 1}


async def test_what_a_connection_has_of_the_memory_is_told_and_what_waits_for_it(app: App, dial: Dial) -> None:
    assert app.stats.connection_memory() == 0
    client = await dial(app.port)
    ballast = bytearray(b"x") * (64 << 20)
    assert app.stats.connection_memory() > len(ballast) / 2
    (row,) = (await client.do("get_connections"))["connections"]
    assert row["outbox_bytes"] == 0


# -- requests in the log ---------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Any:
    """The messages that are logged."""
    heard: list[str] = []
    sink = logger.add(lambda message: heard.append(message.record["message"]), level="INFO")
    yield heard
    logger.remove(sink)


async def test_each_request_has_its_line_where_that_is_asked_for(
    start: Start, get: Get, dial: Dial, lines: list[str], people: dict[str, Any]
) -> None:
    app = await start(log={"access": True}, listen={"trusted_proxies": ["127.0.0.1"]}, **people)
    client = await dial(app.port)
    lines.clear()
    client.drop()
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    await get(app, "/api/v1/stats?name=ann&scopes=api&ticket=s3cret", headers=forwarded)
    await get(app, "/api/v1/sessions/nobody?name=ann&scopes=api")
    await get(app, "/api/v1/stats")
    await get(app, "/" + "x" * 1000, method="PUT")
    await get(app, "/ws?ticket=s3cret", headers={"Upgrade": "websocket", "Origin": "https://elsewhere.example"})
    found = [re.sub(r" in \d+\.\d ms", "", line) for line in lines if " ms from " in line]
    assert found == [
        "GET /api/v1/stats 200 from 192.0.2.7 as ann",
        "GET /api/v1/sessions/nobody 404 from 127.0.0.1 as ann",
        "GET /api/v1/stats 401 from 127.0.0.1",
        f"PUT /{'x' * 255} 404 from 127.0.0.1",
        "GET /ws 403 from 127.0.0.1",
    ]
    assert "s3cret" not in "".join(lines)
    assert app.stats.requests == {"2xx": 1, "4xx": 4}


async def test_requests_have_no_line_otherwise_and_sockets_never_have_one(
    start: Start, get: Get, dial: Dial, lines: list[str]
) -> None:
    app = await start()
    await get(app, "/livez")
    assert not [line for line in lines if " ms from " in line]
    app = await start(log={"access": True})
    client = await dial(app.port)
    await client.leave()
    await until(lambda: [line for line in lines if line.startswith("disconnected")])
    assert not [line for line in lines if " ms from " in line]
    assert app.stats.requests == {}


# -- idle clients ---------------------------------------------------------------------------------------

BEAT = {"interval": "60ms", "timeout": "50ms"}


async def test_who_says_nothing_is_closed_however_well_it_pongs_and_who_talks_stays(start: Start, dial: Dial) -> None:
    app = await start(heartbeat={**BEAT, "idle": "200ms"})
    busy = await dial(app.port)  # first, so that it would be the first to go
    clients = [busy, *[await dial(app.port) for _ in range(3)]]
    while app.stats.closes[4504] < 3:
        await busy.do("ping")
    assert [await client.closed() for client in clients[1:]] == [(4504, "idle for too long")] * 3
    assert (await busy.do("ping"))["at"]
    assert app.stats.connections == 1


@pytest.mark.parametrize("name", list(make_formats(1.0, lambda: 0)))
async def test_clients_of_every_format_are_closed(start: Start, name: str) -> None:
    app = await start(heartbeat={**BEAT, "idle": "1ms"})
    async with connect(f"ws://127.0.0.1:{app.port}/ws", subprotocols=[name]) as socket:  # type: ignore[list-item]
        await socket.wait_closed()
        assert socket.close_code == 4504


# -- the message log --------------------------------------------------------------------------------------

SPEAKERS = '''
from broker.errors import BrokerError
from broker.hooks import Plugin, Principal


class Speakers(Plugin):
    """Knows one token."""

    def on_handshake(self, handshake):
        return Principal(user="guest", scopes=frozenset({"api"}))

    def on_auth(self, auth):
        if auth.token != "right-s3cret":
            raise BrokerError("unauthenticated")
        return Principal(user="guest", scopes=frozenset({"api"}))
'''


async def test_the_message_log_has_all_that_happened_and_no_token(
    start: Start, dial: Dial, get: Get, tmp_path: Path
) -> None:
    add_plugin(tmp_path, "speakers", SPEAKERS)
    file = tmp_path / "messages.log"
    app = await start(plugins={"message_log": {"path": str(file), "content": 100, "content_of": ["*"]}, "speakers": {}})
    client = await dial(app.port, "?ticketless=s3cret")
    await client.refused("auth", token="wrong-s3cret")
    await client.do("auth", token="right-s3cret")
    await client.send('{"id": "x", "type": "request", "action": "auth", "payload": {"token": "torn-s3cret"')
    await client.take(lambda message: message["type"] == "error")
    await client.do("session.create", session_id="s1")
    await client.do("turn.start", session_id="s1", client_msg_id="m1", content="hello")
    ended = await client.event("turn.ended")
    await client.refused("nonsense")
    assert (await get(app, "/api/v1/sessions/nobody"))[0] == 404
    await client.leave()
    await until(lambda: app.stats.connections == 0)
    await app.stop()
    text = file.read_text()
    assert "s3cret" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    events = [(line["event"], line.get("action") or line.get("outcome") or line.get("code")) for line in lines]
    connection = client.welcome["connection_id"]
    mine = [line for line in lines if line.get("protocol") == "broker.v1.json"]
    assert {(line["connection"], line["user"]) for line in mine} == {(connection, "guest")}
    for expected in [
        ("connected", None),
        ("message", "auth"),
        ("error", "auth"),
        ("answer", "auth"),
        ("error", "invalid_json"),
        ("message", "turn.start"),
        ("answer", "turn.start"),
        ("turn", "completed"),
        ("error", "nonsense"),
        ("error", "session.attach"),
        ("disconnected", None),
    ]:
        assert expected in events, (expected, events)
    asked, answered = (
        next(line for line in lines if (line["event"], line.get("action")) == (event, "turn.start"))
        for event in ("message", "answer")
    )
    assert (asked["session"], asked["client_msg_id"], asked["id"]) == ("s1", "m1", answered["id"])
    assert answered["ms"] > 0
    assert next(line for line in lines if line["event"] == "turn")["turn"] == ended["turn_id"]
    over_http = [line for line in lines if line.get("protocol") == "http"]
    assert {line["event"] for line in over_http} == {"message", "answer", "error"}


async def test_requests_over_http_that_are_not_let_in_are_in_the_message_log(
    start: Start, get: Get, tmp_path: Path, people: dict[str, Any]
) -> None:
    file = tmp_path / "messages.log"
    app = await start(plugins={"message_log": {"path": str(file), "events": ["errors"]}, **people["plugins"]})
    assert (await get(app, "/api/v1/stats"))[0] == 401
    await app.stop()
    (line,) = [json.loads(text) for text in file.read_text().splitlines()]
    assert (line["action"], line["code"], line["address"]) == ("stats", "unauthenticated", "127.0.0.1")


async def test_a_message_log_that_cannot_be_written_keeps_the_broker_from_starting(start: Start) -> None:
    with pytest.raises(CannotStart, match=r"path: /proc/nowhere/log cannot be written: No such file or directory"):
        await start(plugins={"message_log": {"path": "/proc/nowhere/log"}})


# -- alerts -----------------------------------------------------------------------------------------------


async def test_how_alerts_stand_is_told_to_those_with_the_scope_for_it(
    start: Start, get: Get, people: dict[str, Any]
) -> None:
    app = await start(plugins={"alerts": {}, **people["plugins"]})
    assert (await get(app, "/api/v1/alerts"))[0] == 401
    assert (await get(app, "/api/v1/alerts?name=ann"))[0] == 403
    status, headers, body = await get(app, "/api/v1/alerts?name=ann&scopes=api")
    assert (status, headers["Cache-Control"], body["webhook"]) == (200, "no-store", None)
    assert {alert["state"] for alert in body["alerts"]} == {"ok"}


async def test_a_store_that_takes_no_writes_is_an_alert(start: Start, get: Get) -> None:
    rules = {"store": {"figure": "store_down", "above": 0, "hold": 0}}
    app = await start(plugins={"alerts": {"every": "10ms", "window": "1s", "rules": rules}})

    async def state() -> str:
        _, _, body = await get(app, "/api/v1/alerts")
        return next(str(alert["state"]) for alert in body["alerts"] if alert["alert"] == "store")

    assert await state() == "ok"
    app.store._actor.healthy = False
    while await state() != "firing":
        pass
    app.store._actor.healthy = True
    while await state() != "ok":
        pass
