"""The actions about connections, from a real socket to a real socket (PROTOCOL 2a)."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker import __version__
from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]


def person(client: Any) -> dict[str, Any]:
    return {"connection_id": client.welcome["connection_id"], "user": None}


# -- welcome and ids ---------------------------------------------------------------------------------


async def test_welcome_comes_first_and_says_what_a_client_has_to_know(start: Start, dial: Dial) -> None:
    app = await start(heartbeat={"interval": "7s", "timeout": "2s"}, limits={"message_bytes": "64KiB"})
    client = await dial(app.port)
    assert client.heard == []
    assert re.fullmatch(r"[A-Za-z0-9_-]+", client.welcome.pop("connection_id"))
    assert re.fullmatch(r"[A-Za-z0-9_-]+", client.welcome.pop("node"))
    assert client.welcome == {
        "user": None,
        "protocol": "broker.v1.json",
        "server": f"actor-broker/{__version__}",
        "heartbeat": 7.0,
        "max_message_bytes": 65536,
    }


async def test_two_connections_have_ids_of_their_own_and_one_node(app: App, dial: Dial) -> None:
    one, other = await dial(app.port), await dial(app.port)
    assert one.welcome["connection_id"] != other.welcome["connection_id"]
    assert one.welcome["node"] == other.welcome["node"]


@pytest.mark.parametrize("request_id", ["c1", "", "x" * 128, "\N{HEAVY BLACK HEART}" * 128, 'quote"\\\n'])
async def test_an_answer_carries_the_id_of_its_request(app: App, dial: Dial, request_id: str) -> None:
    client = await dial(app.port)
    await client.send(json.dumps({"id": request_id, "type": "request", "action": "echo", "payload": 1}))
    assert await client.take() == {"id": request_id, "type": "response", "data": 1}


async def test_without_an_id_there_are_errors_but_no_responses(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    await client.send('{"type": "request", "action": "echo", "payload": "unheard"}')
    await client.send('{"type": "request", "action": "nonsense"}')
    error = await client.take()
    assert error["type"] == "error"
    assert error["data"]["code"] == "unknown_action"
    assert "id" not in error


@pytest.mark.parametrize("request_id", ["x" * 129, 5, 1.5, True, [], {}])
async def test_an_id_that_cannot_be_is_refused_without_one(app: App, dial: Dial, request_id: object) -> None:
    client = await dial(app.port)
    await client.send(json.dumps({"id": request_id, "type": "request", "action": "echo"}))
    error = await client.take()
    assert "id" not in error
    assert (error["data"]["code"], error["data"]["field"]) == ("invalid_message", "$.id")
    await client.silent()


# -- ping, echo, auth --------------------------------------------------------------------------------


async def test_ping_tells_the_time(app: App, dial: Dial) -> None:
    data = await (await dial(app.port)).do("ping")
    assert data.keys() == {"at"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data["at"])


async def test_echo_answers_the_same_and_nothing_is_an_empty_object(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    assert await client.do("echo", text="hi") == {"text": "hi"}
    assert (await client.ask("echo"))["data"] == {}


async def test_requests_are_answered_in_their_order(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    for number in range(300):
        await client.send(json.dumps({"id": str(number), "type": "request", "action": "echo", "payload": number}))
    assert [(await client.take())["data"] for _ in range(300)] == list(range(300))


async def test_auth_says_that_there_is_nobody_to_show_a_token_to(app: App, dial: Dial) -> None:
    error = await (await dial(app.port)).refused("auth", token="x")
    assert error["code"] == "unavailable"
    assert "auth plugin" in error["message"]


async def test_an_unknown_action_is_named(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    assert await client.refused("foo") == {
        "code": "unknown_action",
        "message": "unknown action: foo",
        "retryable": False,
    }
    assert len((await client.refused("f" * 10_000))["message"]) < 200


# -- broadcast, send, get_connections ----------------------------------------------------------------


async def test_a_broadcast_reaches_everybody_the_sender_too(app: App, dial: Dial) -> None:
    sender, *others = [await dial(app.port) for _ in range(4)]
    assert await sender.do("broadcast", news=1) == {"delivered": 4}
    for client in (sender, *others):
        assert await client.event("broadcast") == {
            "type": "notification",
            "event": "broadcast",
            "from": person(sender),
            "data": {"news": 1},
        }
        await client.silent()


async def test_who_has_gone_is_not_counted(app: App, dial: Dial) -> None:
    stays, goes = await dial(app.port), await dial(app.port)
    assert (await stays.do("get_connections"))["count"] == 2
    await goes.leave()
    assert (await stays.do("get_connections"))["count"] == 1
    assert (await stays.do("broadcast"))["delivered"] == 1


async def test_connections_come_in_pages_oldest_first(app: App, dial: Dial) -> None:
    clients = [await dial(app.port) for _ in range(5)]
    first = await clients[0].do("get_connections", limit=3)
    second = await clients[0].do("get_connections", limit=3, cursor=first["cursor"])
    assert (first["count"], len(first["connections"]), "cursor" in second) == (5, 3, False)
    ids = [row["connection_id"] for row in first["connections"] + second["connections"]]
    assert ids == sorted(client.welcome["connection_id"] for client in clients)
    error = await clients[0].refused("get_connections", cursor="nonsense")
    assert (error["code"], error["field"]) == ("invalid_message", "$.payload.cursor")


async def test_without_a_limit_the_list_of_connections_has_one_all_the_same(app: App, dial: Dial) -> None:
    clients = [await dial(app.port) for _ in range(51)]
    answer = await clients[0].do("get_connections")
    assert (answer["count"], len(answer["connections"]), "cursor" in answer) == (51, 50, True)


async def test_connections_are_listed_with_what_they_follow(app: App, dial: Dial) -> None:
    busy, idle = await dial(app.port), await dial(app.port)
    session_id = (await busy.do("session.create"))["session_id"]
    await busy.do("room.join", room="harbour")
    answer = await idle.do("get_connections")
    assert answer["count"] == 2
    rows = {row["connection_id"]: row for row in answer["connections"]}
    row = rows[busy.welcome["connection_id"]]
    assert re.fullmatch(r".*Z", row.pop("connected_at"))
    assert row == {
        **person(busy),
        "protocol": "broker.v1.json",
        "address": "127.0.0.1",
        "outbox_bytes": 0,
        "rooms": ["harbour"],
        "sessions": [session_id],
    }
    assert rows[idle.welcome["connection_id"]]["rooms"] == []


async def test_send_reaches_those_it_names_and_nobody_else(app: App, dial: Dial) -> None:
    sender, target, bystander = [await dial(app.port) for _ in range(3)]
    to = {"connections": [target.welcome["connection_id"], "nobody", target.welcome["connection_id"]]}
    assert await sender.do("send", to=to, data=[1, None]) == {"delivered": 1}
    assert await target.event("message") == {
        "type": "notification",
        "event": "message",
        "from": person(sender),
        "data": [1, None],
    }
    for client in (sender, target, bystander):
        await client.silent()


async def test_send_to_users_that_nobody_is_reaches_nobody(app: App, dial: Dial) -> None:
    assert await (await dial(app.port)).do("send", to={"users": ["ada"]}, data=1) == {"delivered": 0}


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"to": {}, "data": 1}, "$.payload.to"),
        ({"data": 1}, "$.payload"),
        ({"to": {"connections": "one"}}, "$.payload.to.connections"),
        ({"to": {"connections": [7]}}, "$.payload.to.connections[0]"),
        ({"to": {"users": ["u"] * 1001}}, "$.payload.to.users"),
        ([], "$.payload"),
    ],
)
async def test_send_without_a_target_names_the_field(app: App, dial: Dial, payload: object, field: str) -> None:
    answer = await (await dial(app.port)).ask("send", payload)
    assert (answer["data"]["code"], answer["data"]["field"]) == ("invalid_message", field)
