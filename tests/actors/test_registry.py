"""The registry: who is connected, what everybody or somebody is told, and where sessions and rooms live."""

import asyncio
import sys
from typing import Any

import attrs
import pytest

from broker.actors import registry
from broker.actors.lifecycle import Gone, MayStop
from broker.actors.loop import LoopActor, handles
from broker.actors.requests import (
    Aside,
    Connections,
    Disconnected,
    Everybody,
    HangSome,
    Live,
    Peers,
    Renewed,
    SendTo,
    ToAll,
)
from broker.errors import BrokerError, CloseCode
from broker.hooks import Peer
from broker.messages import Principal
from broker.operations import Delete, Describe

ANN = Principal("ann", frozenset())


async def test_a_broadcast_reaches_every_connection_the_sender_too_in_order(house: Any) -> None:
    clients = [house.connect("ann"), house.connect("bob"), house.connect()]
    assert await house.registry.ask(ToAll(b'{"user":"ann"}', b"1")) == 3
    assert await house.registry.ask(ToAll(b'{"user":"ann"}', b"2")) == 3
    for client in clients:
        await client.socket.message(data=2)
        assert client.socket.messages == [
            {"type": "notification", "event": "broadcast", "from": {"user": "ann"}, "data": data} for data in (1, 2)
        ]


async def test_what_is_broadcast_in_one_burst_leaves_in_one_write(house: Any) -> None:
    client = house.connect()
    for number in range(8):
        house.registry.tell(ToAll(b"null", b"%d" % number))
    await client.socket.message(data=7)
    assert client.socket.writes == 1
    assert [m["data"] for m in client.socket.messages] == list(range(8))


async def test_a_message_reaches_chosen_connections_and_all_connections_of_chosen_users_once(house: Any) -> None:
    first, second, other, bystander = (house.connect(user) for user in ("ann", "ann", "bob", "eve"))
    ids = (first.peer.connection_id, other.peer.connection_id, "gone")
    assert await house.registry.ask(SendTo(ids, ("ann", "nobody"), b"null", b'"psst"')) == 3
    for client in (first, second, other):
        await client.socket.message(event="message", data="psst")
        assert len(client.socket.messages) == 1
    assert bystander.socket.messages == []


async def test_connections_are_counted_and_for_an_admin_listed_with_what_they_follow(house: Any) -> None:
    ann, other = house.connect("ann"), house.connect()
    session_id = await house.create(ann)
    await ann.join("lobby")
    assert await house.registry.ask(Connections(detailed=False)) == {"count": 2}
    rows = (await house.registry.ask(Connections(detailed=True)))["connections"]
    listed = {row["connection_id"]: row for row in rows}
    assert listed.pop(ann.peer.connection_id) == {
        "connection_id": ann.peer.connection_id,
        "user": "ann",
        "protocol": "broker.v1.json",
        "address": "127.0.0.1",
        "connected_at": "2023-11-14T22:13:20.000Z",
        "outbox_bytes": 0,
        "rooms": ["lobby"],
        "sessions": [session_id],
    }
    row = listed.pop(other.peer.connection_id)
    assert (row["user"], row["rooms"], row["sessions"], listed) == (None, [], [], {})


async def test_connections_are_listed_no_more_of_them_than_asked(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(registry, "_connection_data", lambda ref, known: looked.append(known) or {})
    for _ in range(5):
        house.connect()
    answer = await house.registry.ask(Connections(detailed=True, limit=2))
    assert (answer["count"], len(answer["connections"]), len(looked)) == (5, 2, 2)


async def test_who_is_gone_is_forgotten_also_as_a_user(house: Any) -> None:
    ann, bob = house.connect("ann"), house.connect("bob")
    await ann.hang_up()
    assert await house.registry.ask(Peers()) == [bob.peer]
    assert await house.registry.ask(SendTo((ann.peer.connection_id,), ("ann",), b"null", b"1")) == 0
    assert house.registry.actor._users.keys() == {"bob"}


async def test_everybody_can_be_told_good_bye(house: Any) -> None:
    clients = [house.connect(), house.connect()]
    stranger = Aside(Peer("x1", Principal(), "192.0.2.7", "broker.v1.json"), lambda code, reason: None)
    house.registry.tell(stranger)
    assert await house.registry.ask(Everybody()) == ([client.ref for client in clients], [stranger])


async def test_who_stands_aside_is_told_and_counted_nothing_but_can_be_sent_away(house: Any) -> None:
    ann = house.connect("ann")
    sent: list[Any] = []
    peer = Peer("x1", Principal("bot"), "192.0.2.7", "agents.v1.json")
    house.registry.tell(Aside(peer, lambda code, reason: sent.append((code, reason))))
    assert await house.registry.ask(ToAll(b"null", b"1")) == 1
    assert await house.registry.ask(SendTo(("x1",), ("bot",), b"null", b"1")) == 0
    assert await house.registry.ask(Peers()) == [ann.peer]
    assert await house.registry.ask(HangSome(lambda one: one.address == "192.0.2.7", CloseCode.FORBIDDEN, "out")) == 1
    assert sent == [(CloseCode.FORBIDDEN, "out")]
    house.registry.tell(Disconnected(peer))
    assert await house.registry.ask(HangSome(lambda one: one.connection_id == "x1", CloseCode.FORBIDDEN)) == 0


async def test_a_new_token_changes_the_row_of_a_connection_and_none_of_one_that_is_gone(house: Any) -> None:
    ann = house.connect("ann")
    renewed = attrs.evolve(ann.peer, principal=Principal("ann", frozenset({"api"})))
    house.registry.tell(Renewed(renewed))
    assert await house.registry.ask(Peers()) == [renewed]
    await ann.hang_up()
    house.registry.tell(Renewed(ann.peer))
    assert await house.registry.ask(Peers()) == []


async def test_a_plugin_that_fails_to_say_whom_it_means_sends_nobody_away(house: Any) -> None:
    ann = house.connect("ann")
    with pytest.raises(ZeroDivisionError):
        await house.registry.ask(HangSome(lambda _: bool(1 / 0), CloseCode.FORBIDDEN))
    with pytest.raises(RuntimeError, match="SystemExit"):
        await house.registry.ask(HangSome(lambda _: sys.exit(3), CloseCode.FORBIDDEN))
    assert await house.registry.ask(Peers()) == [ann.peer]


async def test_live_names_the_actors_by_their_logs(house: Any) -> None:
    client = house.connect("ann")
    session_id = await house.create(client)
    await client.join("lobby")
    live = await house.registry.ask(Live())
    assert set(live) == {f"session:{session_id}", "room:lobby"}
    assert live["room:lobby"].is_alive()
    assert (house.stats.sessions, house.stats.rooms) == (1, 1)


async def test_a_session_whose_inbox_is_full_refuses_as_overloaded(house: Any) -> None:
    session_id = await house.create(owner="ann")
    place = house.place(f"session:{session_id}")
    place._limit = 0
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, Describe(ANN))
    assert (refusal.value.code, refusal.value.retry_after) == ("overloaded", 1.0)


class Stubborn(LoopActor):
    """Answers whether it may stop when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @handles(MayStop)
    async def may_stop(self, message: MayStop) -> bool:
        self.asked.set()
        return await self.answer

    @handles(Describe)
    def describe(self, message: Describe) -> str:
        return "still here"


@pytest.mark.parametrize("may_stop", [True, False])
async def test_what_comes_while_an_actor_is_asked_to_stop_is_held_and_then_served(house: Any, may_stop: bool) -> None:
    session_id = await house.create(owner="ann")
    log = f"session:{session_id}"
    stubborn = Stubborn.start()
    house.registry.actor._places._places[log].ref = stubborn
    house.registry.tell(Gone(log, stubborn))
    await stubborn.actor.asked.wait()
    asked = asyncio.ensure_future(house.ask(session_id, Describe(ANN)))
    await house.tick(5)
    assert not asked.done()
    stubborn.actor.answer.set_result(may_stop)
    answer = await asked
    assert (answer == "still here") is not may_stop
    assert stubborn.is_alive() is not may_stop
    await stubborn.stop()


@pytest.mark.parametrize("may_stop", [True, False])
async def test_a_session_is_made_once_the_one_of_its_id_has_left(house: Any, may_stop: bool) -> None:
    session_id = await house.create(owner="ann")
    await house.ask(session_id, Delete(ANN))
    await house.settle()
    log = f"session:{session_id}"
    house.registry.actor._places.open(log)
    stubborn = Stubborn.start()
    house.registry.actor._places._places[log].ref = stubborn
    house.registry.tell(Gone(log, stubborn))
    await stubborn.actor.asked.wait()
    made = asyncio.ensure_future(house.create(session_id=session_id, owner="ann"))
    await house.tick(5)
    assert not made.done()
    stubborn.actor.answer.set_result(may_stop)
    if may_stop:
        assert await made == session_id
    else:
        with pytest.raises(BrokerError) as refusal:
            await made
        assert refusal.value.code == "session_exists"
    await stubborn.stop()


async def test_what_was_held_for_an_actor_that_died_is_answered(house: Any) -> None:
    session_id = await house.create(owner="ann")
    log = f"session:{session_id}"
    stubborn = Stubborn.start()
    house.registry.actor._places._places[log].ref = stubborn
    house.registry.tell(Gone(log, stubborn))
    await stubborn.actor.asked.wait()
    asked = asyncio.ensure_future(house.ask(session_id, Describe(ANN)))
    await house.tick(5)
    house.registry.actor._places._died(log)
    with pytest.raises(BrokerError) as refusal:
        await asked
    assert refusal.value.code == "unavailable"
    stubborn.actor.answer.set_result(True)


async def test_an_actor_too_busy_to_say_whether_it_may_stop_stays(house: Any) -> None:
    session_id = await house.create(owner="ann")
    log = f"session:{session_id}"
    place = house.place(log)
    place._limit = 0
    house.registry.tell(Gone(log, place))
    await house.settle()
    place._limit = 1000
    assert (await house.ask(session_id, Describe(ANN)))["session_id"] == session_id
    assert house.place(log) is place


async def test_a_word_of_an_actor_that_was_replaced_meanwhile_changes_nothing(house: Any) -> None:
    session_id = await house.create(owner="ann")
    stranger = Stubborn.start()
    house.registry.tell(Gone(f"session:{session_id}", stranger))
    house.registry.tell(Gone("session:unknown", stranger))
    await house.settle()
    assert house.place(f"session:{session_id}").is_alive()
    assert not stranger.actor.asked.is_set()
