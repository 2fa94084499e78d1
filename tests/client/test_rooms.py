"""Rooms as members have them: each event once, also across links, and who is there."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App
from broker.client import BrokerError, Connection, Event, Invalid, LogReset, Room
from broker.client.inbox import ITEMS
from broker.testing import until

Opened = Callable[..., Awaitable[Connection]]
Start = Callable[..., Awaitable[App]]
Wire = Callable[[int], Awaitable[Any]]


async def take(events: Any, count: int) -> list[Any]:
    """Return the data of the next events."""
    async with asyncio.timeout(20):
        return [(await anext(events)).data for _ in range(count)]


async def publish(room: Room, *data: Any) -> None:
    for one in data:
        await room.publish("message", one)


async def test_members_hear_each_other_and_know_who_is_there(app: App, opened: Opened) -> None:
    ann, bob = await opened(app.port), await opened(app.port)
    ours, theirs = await ann.join("team"), await bob.join("team")
    assert await ours.publish("greeting", {"text": "hi"}) == {"seq": 1, "delivered": 2, "durable": False}
    async for event in theirs:
        assert isinstance(event, Event)
        assert (event.room, event.event, event.data, event.seq) == ("team", "greeting", {"text": "hi"}, 1)
        assert event.sender["connection_id"] == ann.identity.connection_id
        break
    await publish(theirs, 2)
    assert await take(aiter(ours), 2) == [{"text": "hi"}, 2]
    ids = {member["connection_id"] for member in await ours.members()}
    assert ids == {ann.identity.connection_id, bob.identity.connection_id}
    await theirs.leave()
    assert [event async for event in theirs] != []
    assert len(await ours.members()) == 1
    assert [event async for event in theirs.events()] == []


async def test_what_was_said_before_is_given_to_who_asks_for_it(app: App, opened: Opened) -> None:
    broker = await opened(app.port)
    room = await broker.join("team")
    await publish(room, 1, 2, 3)
    epoch, later = room.epoch, await opened(app.port)
    assert await take(aiter(await later.join("team", after_seq=1, epoch=epoch)), 2) == [2, 3]
    assert [event.data for event in await room.history(limit=2)] == [2, 3]
    everything = room.events(after_seq=0)
    assert await take(everything, 3) == [1, 2, 3]
    anew = await broker.join("team")
    assert [event.data async for event in room] == [1, 2, 3]
    await publish(anew, 4)
    assert await take(aiter(anew), 1) == [4]


async def test_only_what_is_wanted_is_given(app: App, opened: Opened) -> None:
    broker = await opened(app.port)
    room = await broker.join("team", events=["good"])
    for number in range(4):
        await room.publish(("bad", "good")[number % 2], number)
    assert await take(aiter(room), 2) == [1, 3]
    assert await take(room.events(after_seq=0), 2) == [1, 3]


async def test_what_is_said_while_the_link_is_broken_is_given_once(app: App, opened: Opened, wire: Wire) -> None:
    network = await wire(app.port)
    theirs = await (await opened(app.port)).join("team")
    ours = aiter(await (await opened(network.port)).join("team"))
    await publish(theirs, 1)
    assert await take(ours, 1) == [1]
    network.open = False
    network.cut()
    await publish(theirs, 2, 3)
    network.open = True
    await publish(theirs, 4)
    assert await take(ours, 3) == [2, 3, 4]
    assert network.links > 1


async def test_what_a_room_no_longer_has_is_told_to_be_missed(start: Start, opened: Opened, wire: Wire) -> None:
    app = await start(rooms={"history": 8})
    network = await wire(app.port)
    theirs = await (await opened(app.port)).join("team")
    away = await opened(network.port)
    ours = aiter(await away.join("team"))
    await publish(theirs, 0)
    assert await take(ours, 1) == [0]
    network.open = False
    network.cut()
    await publish(theirs, *range(1, 40))
    left = [event.data for event in await theirs.history()]
    network.open = True
    with pytest.raises(LogReset):
        await take(ours, 1)
    assert await take(ours, len(left)) == left
    assert left[-1] == 39


async def test_a_member_that_does_not_read_is_caught_up(app: App, opened: Opened) -> None:
    room = await (await opened(app.port)).join("team")
    many = ITEMS + 300
    await publish(room, *range(many))
    assert len(room._events._kept) <= ITEMS
    assert await take(aiter(room), many) == list(range(many))


async def test_a_member_that_does_not_read_is_told_what_the_room_has_forgotten(start: Start, opened: Opened) -> None:
    app = await start(rooms={"history": 8})
    room = await (await opened(app.port)).join("team")
    await publish(room, *range(ITEMS + 300))
    left = [event.data for event in await room.history()]
    assert await take(aiter(room), ITEMS) == list(range(ITEMS))
    with pytest.raises(LogReset):
        await take(aiter(room), 1)
    assert await take(aiter(room), len(left)) == left


async def test_where_nothing_is_kept_what_was_missed_is_told(start: Start, opened: Opened) -> None:
    app = await start(rooms={"history": 0})
    room = await (await opened(app.port)).join("team")
    many = ITEMS + 5
    await publish(room, *range(many))
    assert await take(aiter(room), ITEMS) == list(range(ITEMS))
    with pytest.raises(LogReset):
        await take(aiter(room), 1)
    await publish(room, "after")
    assert await take(aiter(room), 1) == ["after"]


async def test_a_room_that_cannot_be_joined_is_no_room(app: App, opened: Opened) -> None:
    broker = await opened(app.port)
    with pytest.raises(Invalid):
        await broker.join("x" * 300)
    assert not broker._hub.rooms
    with pytest.raises(Invalid):
        await (await broker.join("team")).publish("x" * 200)


async def test_it_goes_on_from_the_last_event_that_came(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    joining = asyncio.ensure_future(broker.join("team"))
    request = await visit.asked("room.join")
    assert request["payload"] == {"room": "team"}
    await visit.answer(request, {"epoch": "e1", "head": 7, "members": [], "recovered": True})
    await visit.note("room.event", {"event": "x", "data": 1}, room="team", seq=8, at="")
    assert await take(aiter(await joining), 1) == [1]
    visit.drop()
    visit = await stage.greet()
    assert (await visit.asked("room.join"))["payload"] == {"room": "team", "after_seq": 8, "epoch": "e1"}


async def test_who_may_be_a_member_no_more_is_told(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    joining = asyncio.ensure_future(broker.join("team"))
    await visit.answer(await visit.asked("room.join"), {"epoch": "e1", "head": 0, "members": [], "recovered": True})
    events = aiter(await joining)
    await visit.note("room.left", {"code": "forbidden", "message": "You may not see this any more."}, room="team")
    with pytest.raises(BrokerError, match="any more"):
        await anext(events)
    await until(lambda: not broker._link._calls)
