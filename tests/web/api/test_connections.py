"""Who is connected, by way of the HTTP API: told, counted, and sent away (PROTOCOL section 5)."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App
from broker.errors import CloseCode

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

ROOT = "name=root&scopes=api+admin"
BACKEND_ALONE = "name=svc&scopes=api"
BACKEND = {"connection_id": None, "user": "root"}


@pytest.fixture
async def app(start: Start, people: dict[str, Any]) -> App:
    """A broker that believes what names people give."""
    return await start(**people)


async def test_a_broadcast_reaches_everybody_byte_for_byte(app: App, ask: Ask, dial: Dial) -> None:
    clients = [await dial(app.port, f"?name={name}") for name in ("ann", "bob")]
    assert (await ask(app, "POST /broadcast", b'{"b" : 1.50}', who=ROOT)).body == {"delivered": 2}
    for client in clients:
        told = await client.event("broadcast")
        assert told["from"] == BACKEND
        assert '"data":{"b" : 1.50}' in told.text


async def test_a_message_reaches_chosen_connections_and_users_once(app: App, ask: Ask, dial: Dial) -> None:
    ann, ann_too, bob, eve = [await dial(app.port, f"?name={name}") for name in ("ann", "ann", "bob", "eve")]
    to = {"users": ["ann"], "connections": [ann.welcome["connection_id"], bob.welcome["connection_id"]]}
    assert (await ask(app, "POST /send", {"to": to, "data": "hi"}, who=ROOT)).body == {"delivered": 3}
    for client in (ann, ann_too, bob):
        assert (await client.event("message"))["data"] == "hi"
    await eve.silent()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"to": {}, "data": 1}, "$.to"),
        ({"to": {"user": ["ann"]}}, "$.to.user"),
        ({"to": {"users": [""]}}, "$.to.users[0]"),
        ({"data": 1}, "$"),
        ({"to": []}, "$.to"),
    ],
)
async def test_a_message_needs_somebody_to_go_to(app: App, ask: Ask, body: Any, field: str) -> None:
    refused = await ask(app, "POST /send", body, who=ROOT)
    assert (refused.status, refused.body["field"]) == (400, field)


async def test_connections_come_in_pages_oldest_first(app: App, ask: Ask, dial: Dial) -> None:
    clients = [await dial(app.port, f"?name=u{number}") for number in range(5)]
    await clients[0].do("room.join", room="lobby")
    first = (await ask(app, "GET /connections?limit=3", who=ROOT)).body
    assert (first["count"], len(first["connections"])) == (5, 3)
    await clients[0].leave()
    await dial(app.port, "?name=late")
    second = (await ask(app, f"GET /connections?limit=3&cursor={first['cursor']}", who=ROOT)).body
    found = {row["user"]: row for row in [*first["connections"], *second["connections"]]}
    assert set(found) == {"u0", "u1", "u2", "u3", "u4", "late"}
    assert (found["u0"]["rooms"], found["u0"]["protocol"]) == (["lobby"], "broker.v1.json")
    assert "cursor" not in second


async def test_only_administrators_see_who_is_where(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port, "?name=ann")
    await client.do("room.join", room="secret")
    assert (await ask(app, "GET /connections", who=BACKEND_ALONE)).body == {"count": 1}
    assert len((await ask(app, "GET /connections", who=ROOT)).body["connections"]) == 1


async def test_a_connection_is_closed_for_good(app: App, ask: Ask, dial: Dial) -> None:
    ann, bob = await dial(app.port, "?name=ann"), await dial(app.port, "?name=bob")
    connection = ann.welcome["connection_id"]
    assert (await ask(app, f"DELETE /connections/{connection}", who=ROOT)).body == {"disconnected": 1}
    assert (await ann.closed())[0] == CloseCode.DISCONNECTED_BY_OPERATOR
    assert (await ask(app, "DELETE /connections/nobody", who=ROOT)).status == 404
    await bob.silent()


async def test_a_user_is_disconnected_everywhere_and_told_why(app: App, ask: Ask, dial: Dial) -> None:
    clients = [await dial(app.port, "?name=ann") for _ in range(3)]
    bob = await dial(app.port, "?name=bob")
    tickets = [(await ask(app, "POST /tickets", {"user": name}, who=ROOT)).body["ticket"] for name in ("ann", "bob")]
    answer = await ask(app, "POST /users/ann/disconnect", {"reason": "see you"}, who=ROOT)
    assert answer.body == {"disconnected": 3}
    for client in clients:
        assert await client.closed() == (CloseCode.DISCONNECTED_BY_OPERATOR, "see you")
    await bob.silent()
    assert [app.services.tickets.redeem(ticket) is None for ticket in tickets] == [True, False]
    assert (await ask(app, "POST /users/nobody/disconnect", who=ROOT)).body == {"disconnected": 0}


async def test_stats_count_what_was_done(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port, "?name=ann")
    await client.do("session.create", session_id="s")
    await client.do("turn.start", session_id="s", client_msg_id="1", content="hi")
    await client.event("turn.ended")
    await ask(app, "GET /trace/none", who=ROOT)
    stats = (await ask(app, "GET /stats", who=ROOT)).body
    assert (stats["connections"], stats["sessions"], stats["trouble"]) == (1, 1, None)
    assert stats["turns"] == {"accepted": 1, "completed": 1}
    assert stats["errors"]["not_found"] == 1
    (plugin,) = stats["plugins"]
    assert (plugin["name"], plugin["trouble"], plugin["errors"], plugin["blocked"]) == ("people", None, 0, 0)


async def test_a_user_s_connections_are_counted_and_for_administrators_listed(app: App, ask: Ask, dial: Dial) -> None:
    clients = [await dial(app.port, f"?name={name}") for name in ("ann", "bob", "ann", "ann")]
    assert (await ask(app, "GET /users/ann/connections", who=BACKEND_ALONE)).body == {"count": 3}
    assert (await ask(app, "GET /users/nobody/connections", who=ROOT)).body == {"count": 0, "connections": []}
    first = (await ask(app, "GET /users/ann/connections?limit=2", who=ROOT)).body
    rest = (await ask(app, f"GET /users/ann/connections?limit=2&cursor={first['cursor']}", who=ROOT)).body
    found = [row["connection_id"] for row in [*first["connections"], *rest["connections"]]]
    assert found == [clients[index].welcome["connection_id"] for index in (0, 2, 3)]
    await clients[2].leave()
    while (await ask(app, "GET /users/ann/connections", who=BACKEND_ALONE)).body != {"count": 2}:
        pass  # the broker hears of the end a moment later
