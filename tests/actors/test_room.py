"""A room: its members, what they are told, and its log where one is kept."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.actors.room import TRIM_EVERY
from broker.errors import BrokerError
from broker.messages import Principal
from broker.operations import Leave, Presence, Publish, RoomHistory
from broker.testing import until

ANN = Principal("ann", frozenset())


def heard(client: Any) -> list[Any]:
    return [m["data"]["data"] for m in client.socket.messages if m.get("event") == "room.event"]


async def test_members_the_publisher_too_are_told_an_event_with_its_number_and_who_it_is_from(house: Any) -> None:
    ann, bob = house.connect("ann"), house.connect("bob")
    joined = await ann.join("lobby")
    assert joined | {"epoch": ""} == {
        "room": "lobby",
        "epoch": "",
        "head": 0,
        "members": [{"connection_id": ann.peer.connection_id, "user": "ann"}],
        "recovered": True,
    }
    assert [member["user"] for member in (await bob.join("lobby"))["members"]] == ["ann", "bob"]
    answer = await ann.publish("lobby", {"x": [1, 2.50]}, event="greeting")
    assert answer == {"seq": 1, "delivered": 2, "durable": False}
    for client in (ann, bob):
        event = await client.socket.message(event="room.event")
        assert (event["room"], event["seq"], event["from"]) == ("lobby", 1, ann.peer.connection_id)
        assert event["data"] == {"event": "greeting", "data": {"x": [1, 2.5]}}


async def test_an_event_is_neither_answered_nor_told_before_it_is_durable(house: Any) -> None:
    ann = house.connect("ann")
    await ann.join("lobby")
    house.disk.gate.clear()
    ann.send_to_room("lobby", Publish(ANN, b'"ann"', "message", b'"hi"'))
    await until(lambda: house.disk.batches)
    await house.tick(5)
    assert len(ann.socket.messages) == 1
    house.disk.gate.set()
    await ann.socket.message(event="room.event")


async def test_who_joins_hears_what_comes_and_who_leaves_no_longer(house: Any) -> None:
    ann, bob = house.connect("ann"), house.connect("bob")
    await ann.join("lobby")
    await ann.publish("lobby", 1)
    await bob.join("lobby")
    await ann.publish("lobby", 2)
    await bob.socket.message(event="room.event")
    assert await bob.room("lobby", Leave(bob.by, bob.ref)) == {}
    await ann.publish("lobby", 3)
    await house.settle()
    assert heard(ann) == [1, 2, 3]
    assert heard(bob) == [2]
    assert await ann.room("lobby", Presence(ann.by)) == {
        "members": [{"connection_id": ann.peer.connection_id, "user": "ann"}]
    }


async def test_a_connection_that_ends_leaves_its_rooms(house: Any) -> None:
    ann, bob = house.connect("ann"), house.connect("bob")
    await ann.join("lobby")
    await bob.join("lobby")
    await bob.hang_up()
    await house.settle()
    assert len((await ann.room("lobby", Presence(ann.by)))["members"]) == 1
    assert (await ann.publish("lobby", 1))["delivered"] == 1


async def test_who_comes_back_with_a_number_is_told_what_it_missed(house: Any) -> None:
    ann, bob = house.connect("ann"), house.connect("bob")
    epoch = (await ann.join("lobby"))["epoch"]
    for number in range(1, 6):
        await ann.publish("lobby", number)
    joined = await bob.join("lobby", after_seq=2, epoch=epoch)
    assert (joined["recovered"], joined["head"]) == (True, 5)
    await bob.socket.message(seq=5)
    assert bob.seqs() == [3, 4, 5]
    stranger = house.connect("eve")
    joined = await stranger.join("lobby", after_seq=2, epoch="of another life")
    assert joined["recovered"] is False
    await stranger.socket.message(seq=5)
    assert stranger.seqs() == [1, 2, 3, 4, 5]


async def test_history_comes_in_pages_and_the_number_of_a_room_goes_on_after_a_restart(
    house: Any, make_house: Callable[..., Any]
) -> None:
    ann = house.connect("ann")
    epoch = (await ann.join("lobby"))["epoch"]
    for number in range(1, 6):
        await ann.publish("lobby", number)
    await house.kill()
    house = make_house()
    ann = house.connect("ann")
    joined = await ann.join("lobby", after_seq=4, epoch=epoch)
    assert (joined["recovered"], joined["head"], joined["epoch"]) == (True, 5, epoch)
    assert (await ann.publish("lobby", 6))["seq"] == 6
    place = house.place("room:lobby")
    assert [r.seq for r in await place.ask(RoomHistory(ANN, None, 2))] == [5, 6]
    assert [r.seq for r in await place.ask(RoomHistory(ANN, 4, 2))] == [2, 3]
    assert [r.seq for r in await place.ask(RoomHistory(ANN, 99, 100))] == [1, 2, 3, 4, 5, 6]


async def test_a_page_of_history_has_so_many_bytes_and_no_room_keeps_more_in_memory(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.actors.room.HISTORY_BYTES", 1000)
    monkeypatch.setattr("broker.actors.tail.BYTES", 1000)
    ann = house.connect("ann")
    await ann.join("lobby")
    for number in range(9):
        await ann.publish("lobby", f"{number}" * 298)  # 300 bytes of JSON
    place = house.place("room:lobby")
    assert [r.seq for r in await place.ask(RoomHistory(ANN, None, 100))] == [7, 8, 9]
    assert [r.seq for r in await place.ask(RoomHistory(ANN, 7, 100))] == [4, 5, 6]
    assert place.actor._tail.bytes == 900
    bob = house.connect("bob")
    await bob.join("lobby", after_seq=1)
    await until(lambda: len(heard(bob)) == 8)
    assert [data[0] for data in heard(bob)] == list("12345678")


async def test_a_room_keeps_only_its_newest_events_and_says_so_to_who_comes_back_too_late(
    make_house: Callable[..., Any],
) -> None:
    house = make_house(room_history=8)
    ann, late = house.connect("ann"), house.connect("late")
    epoch = (await ann.join("lobby"))["epoch"]
    for number in range(1, 31):
        await ann.publish("lobby", number)
    await house.settle()
    kept = [record.seq for record in house.disk.records("room:lobby")]
    assert kept[-1] == 30
    assert 8 <= len(kept) <= 8 + 8 // TRIM_EVERY + 1
    assert heard(ann) == list(range(1, 31))
    joined = await late.join("lobby", after_seq=2, epoch=epoch)
    assert joined["recovered"] is False
    await late.socket.message(seq=30)
    assert late.seqs() == kept


async def test_a_room_without_history_tells_and_forgets(make_house: Callable[..., Any]) -> None:
    house = make_house(room_history=0)
    ann, bob = house.connect("ann"), house.connect("bob")
    await ann.join("lobby")
    await bob.join("lobby")
    assert await ann.publish("lobby", 1) == {"delivered": 2}
    event = await bob.socket.message(event="room.event")
    assert "seq" not in event
    assert house.disk.batches == []
    assert await house.place("room:lobby").ask(RoomHistory(ANN, None, 10)) == []
    late = house.connect("late")
    assert (await late.join("lobby", after_seq=1, epoch="x"))["recovered"] is False


async def test_a_room_nobody_spoke_in_leaves_no_trace_and_an_empty_one_leaves_memory(house: Any) -> None:
    ann = house.connect("ann")
    await ann.join("silent")
    await ann.room("silent", Leave(ann.by, ann.ref))
    await house.settle()
    for _ in range(3):
        house.clock.advance(60)
        await house.settle()
        await house.settle()
    assert house.place("room:silent") is None
    assert house.stats.rooms == 0
    assert house.disk.batches == []


async def test_a_room_with_members_stays_and_a_room_taken_up_again_goes_on(house: Any) -> None:
    ann = house.connect("ann")
    await ann.join("lobby")
    await ann.publish("lobby", 1)
    for _ in range(3):
        house.clock.advance(60)
        await house.settle()
    assert house.place("room:lobby") is not None
    await ann.hang_up()
    for _ in range(3):
        house.clock.advance(60)
        await house.settle()
        await house.settle()
    assert house.place("room:lobby") is None
    bob = house.connect("bob")
    assert (await bob.join("lobby"))["head"] == 1
    assert (await bob.publish("lobby", 2))["seq"] == 2


async def test_publishing_needs_no_membership(house: Any) -> None:
    ann, bob = house.connect("ann"), house.connect("bob")
    await ann.join("lobby")
    assert (await bob.publish("lobby", 1))["delivered"] == 1
    await ann.socket.message(event="room.event")
    assert heard(bob) == []


async def test_members_stay_members_while_the_store_refuses_and_hear_what_comes_afterwards(house: Any) -> None:
    ann = house.connect("ann")
    await ann.join("lobby")
    await ann.publish("lobby", 1)
    house.disk.fault = "the disk is full"
    with pytest.raises(BrokerError) as refusal:
        await ann.publish("lobby", "refused")
    assert refusal.value.code == "unavailable"
    house.disk.fault = None
    await house.settle()
    assert (await ann.publish("lobby", 2))["seq"] == 2
    await ann.socket.message(seq=2)
    assert heard(ann) == [1, 2]
    members = (await ann.room("lobby", Presence(ann.by)))["members"]
    assert members == [{"connection_id": ann.peer.connection_id, "user": "ann"}]


async def test_what_is_published_reaches_the_members_byte_for_byte(house: Any) -> None:
    ann = house.connect("ann")
    await ann.join("lobby")
    data = b'{ "a" : 1.0e2,\t"b":"\\u00e9" }'
    ann.send_to_room("lobby", Publish(ANN, b'{"user":"ann"}', "message", data))
    await ann.socket.message(event="room.event")
    assert any(data in frame.payload for frame in ann.socket.frames)
    assert msgspec.json.decode(data) == heard(ann)[0]
