"""The actions about rooms, by a real client (PROTOCOL 2a)."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App
from broker.web.passage import CONCURRENT

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]


def person(client: Any) -> dict[str, Any]:
    return {"connection_id": client.welcome["connection_id"], "user": None}


async def test_a_member_may_want_only_some_events(app: App, dial: Dial) -> None:
    one, other = await dial(app.port), await dial(app.port)
    await one.do("room.join", room="harbour", events=["tide", "gale"])
    await other.do("room.join", room="harbour")
    for number, name in enumerate(("fog", "tide", "fog", "gale")):
        await other.do("room.publish", room="harbour", event=name, data=number)
    told = [(await one.event("room.event"))["seq"] for _ in range(2)]
    assert told == [2, 4]
    assert [(await other.event("room.event"))["seq"] for _ in range(4)] == [1, 2, 3, 4]
    await one.silent()
    joined = await one.do("room.join", room="harbour", after_seq=0, events=["fog"])
    assert joined["recovered"]
    assert [(await one.event("room.event"))["seq"] for _ in range(2)] == [1, 3]


@pytest.mark.parametrize("events", [[], [""], ["x"] * 65, "tide"])
async def test_a_filter_names_events(app: App, dial: Dial, events: Any) -> None:
    error = await (await dial(app.port)).refused("room.join", room="harbour", events=events)
    assert error["code"] == "invalid_message"
    assert error["field"].startswith("$.payload.events")


async def test_join_publish_leave_as_the_table_says(app: App, dial: Dial) -> None:
    one, other = await dial(app.port), await dial(app.port)
    joined = await one.do("room.join", room="harbour")
    assert joined == {
        "room": "harbour",
        "epoch": joined["epoch"],
        "head": 0,
        "members": [person(one)],
        "recovered": True,
    }
    assert (await other.do("room.join", room="harbour"))["members"] == [person(one), person(other)]
    answer = await one.do("room.publish", room="harbour", event="tide", data={"low": 6})
    assert answer == {"seq": 1, "delivered": 2, "durable": False}
    for member in (one, other):
        event = await member.event("room.event")
        assert event == {
            "type": "notification",
            "event": "room.event",
            "room": "harbour",
            "seq": 1,
            "from": person(one),
            "at": event["at"],
            "data": {"event": "tide", "data": {"low": 6}},
        }
    assert await other.do("room.leave", room="harbour") == {}
    assert await other.do("room.leave", room="harbour") == {}
    assert (await one.do("room.publish", room="harbour", data=2))["delivered"] == 1
    assert (await one.event("room.event"))["data"] == {"event": "message", "data": 2}
    await other.silent()


async def test_who_has_gone_is_no_member_any_more(app: App, dial: Dial) -> None:
    one, other = await dial(app.port), await dial(app.port)
    for client in (one, other):
        await client.do("room.join", room="r")
    assert await one.do("room.presence", room="r") == {"members": [person(one), person(other)]}
    await other.leave()
    assert await one.do("room.presence", room="r") == {"members": [person(one)]}


async def test_who_is_no_member_may_publish_and_look(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    assert await client.do("room.publish", room="r", data=1) == {"seq": 1, "delivered": 0, "durable": False}
    events = (await client.do("room.history", room="r"))["events"]
    assert events == [
        {"seq": 1, "from": person(client), "at": events[0]["at"], "data": {"event": "message", "data": 1}}
    ]
    await client.silent()


async def test_so_many_reads_of_one_connection_wait_for_the_store_and_no_more(app: App, dial: Dial) -> None:
    client, other = await dial(app.port), await dial(app.port)
    await client.do("room.publish", room="r", data=1)
    ask = json.dumps({"id": "h", "type": "request", "action": "room.history", "payload": {"room": "r"}})
    with app.services.store._actor._engine._lock:  # the disk takes its time
        for _ in range(CONCURRENT + 3):
            await client.send(ask)
        refused = [await client.take() for _ in range(3)]
        await other.do("room.presence", room="r")
    assert {(message["type"], message["data"]["code"]) for message in refused} == {("error", "overloaded")}
    answers = [await client.take() for _ in range(CONCURRENT)]
    assert {message["type"] for message in answers} == {"response"}
    assert (await client.do("room.history", room="r"))["events"]


async def test_missed_events_come_after_the_answer(app: App, dial: Dial) -> None:
    client, back = await dial(app.port), await dial(app.port)
    for number in range(1, 6):
        await client.do("room.publish", room="r", data=number)
    epoch = (await back.do("room.join", room="r", after_seq=2))["epoch"]
    assert [(await back.event("room.event"))["seq"] for _ in range(3)] == [3, 4, 5]
    await back.do("room.leave", room="r")
    joined = await back.do("room.join", room="r", after_seq=4, epoch=epoch)
    assert (joined["recovered"], joined["head"]) == (True, 5)
    assert (await back.event("room.event"))["seq"] == 5
    await back.silent()


@pytest.mark.parametrize("where", [{"after_seq": 99}, {"after_seq": 1, "epoch": "another"}])
async def test_what_does_not_continue_is_not_recovered(app: App, dial: Dial, where: dict[str, Any]) -> None:
    client = await dial(app.port)
    for number in range(3):
        await client.do("room.publish", room="r", data=number)
    assert (await client.do("room.join", room="r", **where))["recovered"] is False
    assert [(await client.event("room.event"))["seq"] for _ in range(3)] == [1, 2, 3]


async def test_without_history_events_are_told_and_forgotten(start: Start, dial: Dial) -> None:
    app = await start(rooms={"history": 0})
    client = await dial(app.port)
    await client.do("room.join", room="r")
    assert await client.do("room.publish", room="r", data=1) == {"delivered": 1}
    assert "seq" not in await client.event("room.event")
    assert await client.do("room.history", room="r") == {"events": []}


async def test_only_the_newest_events_are_kept(start: Start, dial: Dial) -> None:
    app = await start(rooms={"history": 8})
    client = await dial(app.port)
    for number in range(1, 41):
        await client.do("room.publish", room="r", data=number)
    kept = [event["seq"] for event in (await client.do("room.history", room="r"))["events"]]
    assert kept == list(range(kept[0], 41))
    assert 8 <= len(kept) <= 9
    assert (await client.do("room.join", room="r", after_seq=3))["recovered"] is False
    assert (await client.event("room.event"))["seq"] == kept[0]


@pytest.mark.parametrize(
    ("action", "payload", "field"),
    [
        ("room.join", {}, "$.payload"),
        ("room.join", {"room": ""}, "$.payload.room"),
        ("room.join", {"room": "a\nb"}, "$.payload.room"),
        ("room.join", {"room": "a\n"}, "$.payload.room"),
        ("room.join", {"room": "x" * 256}, "$.payload.room"),
        ("room.publish", {"room": "r", "event": "\x7f"}, "$.payload.event"),
        ("room.publish", {"room": "r", "event": 5}, "$.payload.event"),
        ("room.history", {"room": "r", "limit": 5000}, "$.payload.limit"),
        ("room.presence", {"room": None}, "$.payload.room"),
    ],
)
async def test_a_payload_of_another_shape_names_the_field(
    app: App, dial: Dial, action: str, payload: object, field: str
) -> None:
    answer = await (await dial(app.port)).ask(action, payload)
    assert (answer["data"]["code"], answer["data"]["field"]) == ("invalid_message", field)


async def test_who_leaves_what_is_not_there_makes_nothing(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    assert await client.do("room.leave", room="nowhere") == {}
    assert await client.do("session.detach", session_id="nothing") == {}
    assert (app.stats.rooms, app.stats.sessions) == (0, 0)


async def test_join_and_leave_in_one_breath_end_outside(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    for action in ("room.join", "room.leave"):
        await client.send(json.dumps({"id": action, "type": "request", "action": action, "payload": {"room": "r"}}))
    await client.take(lambda message: message.get("id") == "room.leave")
    assert (await client.do("room.presence", room="r"))["members"] == []
    assert (await client.do("get_connections"))["connections"][0]["rooms"] == []
