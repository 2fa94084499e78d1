"""Rooms by way of the HTTP API (PROTOCOL section 5)."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from broker.app import App

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

PICKY = '''
from broker.errors import BrokerError
from broker.hooks import Permission, Plugin


class Picky(Plugin):
    """Keeps what is secret."""

    async def on_permission(self, check: Permission) -> None:
        if check.resource is not None and check.resource.startswith("secret"):
            raise BrokerError("forbidden")
'''


async def test_an_event_of_a_backend_reaches_members_and_the_log(app: App, ask: Ask, dial: Dial) -> None:
    member = await dial(app.port)
    await member.do("room.join", room="lobby")
    published = await ask(app, "POST /rooms/lobby/events", {"event": "deployed", "data": {"version": 7}})
    assert published.status == 201
    assert published.body == {"seq": 1, "delivered": 1, "durable": False}  # as long as memory lasts
    event = await member.event("room.event")
    assert event["data"] == {"event": "deployed", "data": {"version": 7}}
    assert event["from"] == {"connection_id": None, "user": None}
    (kept,) = (await ask(app, "GET /rooms/lobby/events")).body["events"]
    assert kept == {key: event[key] for key in ("seq", "from", "at", "data")}


async def test_data_leaves_as_it_came(app: App, ask: Ask, dial: Dial) -> None:
    member = await dial(app.port)
    await member.do("room.join", room="lobby")
    await ask(app, "POST /rooms/lobby/events", b'{"data": {"b" : 1.50, "a":[ ]}}')
    assert '"data":{"b" : 1.50, "a":[ ]}' in (await member.event("room.event")).text


async def test_events_come_in_pages_from_the_end(app: App, ask: Ask) -> None:
    for number in range(5):
        await ask(app, "POST /rooms/lobby/events", {"data": number})
    newest = (await ask(app, "GET /rooms/lobby/events?limit=2")).body["events"]
    assert [event["seq"] for event in newest] == [4, 5]
    older = (await ask(app, "GET /rooms/lobby/events?limit=2&before_seq=4")).body["events"]
    assert [event["data"]["data"] for event in older] == [1, 2]


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_rooms_are_those_with_members_and_those_with_a_log(
    start: Start, tmp_path: Path, ask: Ask, dial: Dial, store: str
) -> None:
    app = await start(store={"url": store if store == "memory:" else f"sqlite:///{tmp_path}/broker.db"})
    member = await dial(app.port)
    await member.do("room.join", room="silent")
    await member.do("room.join", room="beta")
    for room in ("beta", "alpha/one", "émile", "ä"):
        assert (await ask(app, f"POST /rooms/{quote(room, safe='')}/events", {"data": 1})).status == 201
    await ask(app, "GET /rooms/looked-at/events")
    found = (await ask(app, "GET /rooms")).body["rooms"]
    assert [(room["room"], room["members"], room.get("head")) for room in found] == [
        ("alpha/one", 0, 1),
        ("beta", 1, 1),
        ("silent", 1, None),
        ("ä", 0, 1),
        ("émile", 0, 1),
    ]
    names, cursor = [], ""
    while True:
        page = (await ask(app, f"GET /rooms?limit=2{cursor}")).body
        names += [room["room"] for room in page["rooms"]]
        if "cursor" not in page:
            break
        cursor = f"&cursor={page['cursor']}"
    assert names == [room["room"] for room in found]


async def test_a_room_whose_history_one_may_not_read_is_not_in_the_list(
    start: Start, tmp_path: Path, ask: Ask, dial: Dial
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/picky.py").write_text(PICKY)
    app = await start(plugins={"picky": {}})
    await ask(app, "POST /rooms/lobby/events", {"data": 1})
    assert (await ask(app, "POST /rooms/secret/events", {"data": 1})).status == 403
    member = await dial(app.port)
    assert (await member.refused("room.join", room="secret"))["code"] == "forbidden"
    await app.services.ask_room("secret", _publish())
    assert [room["room"] for room in (await ask(app, "GET /rooms")).body["rooms"]] == ["lobby"]


def _publish() -> Any:
    from broker.messages import ANONYMOUS
    from broker.operations import Publish

    return Publish(ANONYMOUS, b"null", "message", b"1")


async def test_a_room_without_history_tells_its_members_alone(start: Start, ask: Ask) -> None:
    app = await start(rooms={"history": 0})
    published = await ask(app, "POST /rooms/lobby/events", {"data": 1})
    assert (published.status, published.body) == (201, {"delivered": 0})
    assert (await ask(app, "GET /rooms/lobby/events")).body == {"events": []}


@pytest.mark.parametrize(
    ("what", "field"),
    [
        ("GET /rooms/a%00b/events", "room"),
        ("GET /rooms/" + "r" * 256 + "/events", "room"),
        ("GET /rooms/lobby/events?limit=0", "limit"),
        ("GET /rooms/lobby/events?limit=1e3", "limit"),
        ("GET /rooms/lobby/events?before_seq=0", "before_seq"),
        ("GET /rooms/lobby/events?limit=5&limit=6", "limit"),
        ("GET /rooms?cursor=%21%21%21%21", "cursor"),
        ("GET /rooms?cursor=", "cursor"),
        ("GET /rooms?cursor=YQ", "cursor"),
    ],
)
async def test_what_is_wrong_with_a_parameter_is_named(app: App, ask: Ask, what: str, field: str) -> None:
    refused = await ask(app, what)
    assert (refused.status, refused.body["code"], refused.body["field"]) == (400, "invalid_message", field)


async def test_an_event_s_name_can_be_shown(app: App, ask: Ask) -> None:
    refused = await ask(app, "POST /rooms/lobby/events", {"event": "a\nb"})
    assert (refused.status, refused.body["field"]) == (400, "$.event")
