"""Ephemeral sessions: closed when the connection ends that made them, however it ends."""

from typing import Any

import pytest
from pykka.messages import _ActorStop

from broker.actors.lifecycle import Bound
from broker.actors.requests import CreateSession
from broker.actors.way import Onward
from broker.errors import BrokerError
from broker.ids import new_id
from broker.messages import SessionRow
from broker.operations import Close, Delete, Detach
from broker.testing import until


def creation(house: Any, maker: Any, *, attach: bool = True) -> CreateSession:
    now = house.clock.now()
    row = SessionRow(new_id(), maker.by.user, "fake", None, None, b"{}", False, now, now, ephemeral=True)
    return CreateSession(row, False, maker.by, maker.ref, attach=attach)


def closing(house: Any, session_id: str) -> list[bytes]:
    return [r.data for r in house.disk.records(f"session:{session_id}") if r.kind == "session.closed"]


async def test_it_closes_when_its_maker_leaves_and_says_why(house: Any) -> None:
    maker, viewer = house.connect("ann"), house.connect("ann")
    session_id = await house.create(maker, ephemeral=True)
    await viewer.attach(session_id)
    await maker.hang_up()
    await house.settle()
    assert closing(house, session_id) == [b'{"by":null,"reason":"the connection ended that it was made for"}']
    assert viewer.events(session_id)[-1] == "session.closed"
    with pytest.raises(BrokerError) as refusal:
        await house.start(session_id, by=viewer.by)
    assert refusal.value.code == "already_ended"


async def test_its_turn_is_cancelled_and_it_ends_once(house: Any) -> None:
    maker, viewer = house.connect("ann"), house.connect("ann")
    session_id = await house.create(maker, ephemeral=True)
    await viewer.attach(session_id)
    await house.start(session_id, by=maker.by)
    await maker.hang_up()
    await house.pass_time(15)
    assert [outcome for _, _, _, outcome, *_ in house.ended] == ["cancelled"]
    assert len(closing(house, session_id)) == 1


async def test_others_may_come_and_go(house: Any) -> None:
    maker, viewer = house.connect("ann"), house.connect("ann")
    session_id = await house.create(maker, ephemeral=True)
    await viewer.attach(session_id)
    await viewer.hang_up()
    await house.pass_time(61)
    assert closing(house, session_id) == []


async def test_a_maker_may_look_away_from_it_and_end_it_all_the_same(house: Any) -> None:
    maker = house.connect("ann")
    session_id = await house.create(maker, ephemeral=True)
    await maker.session(session_id, Detach(maker.by, maker.ref))
    await house.pass_time(3700, step=31)
    assert closing(house, session_id) == []
    await maker.hang_up()
    await house.settle()
    assert len(closing(house, session_id)) == 1


async def test_a_maker_that_may_not_see_it_keeps_it_as_long_as_it_is_there(house: Any) -> None:
    maker = house.connect("ann")
    made = creation(house, maker, attach=False)
    await house.registry.ask(made, timeout=10)
    assert maker.ref.actor.followed() == []
    await house.pass_time(61)
    assert closing(house, made.row.session_id) == []
    await maker.hang_up()
    await house.settle()
    assert len(closing(house, made.row.session_id)) == 1


async def test_a_maker_that_ends_before_it_is_made_has_left_it(house: Any) -> None:
    maker = house.connect("ann")
    house.disk.gate.clear()
    made = creation(house, maker)
    house.registry.tell(made)
    await until(lambda: house.disk.batches)
    await maker.hang_up()
    house.disk.gate.set()
    await house.settle()
    assert len(closing(house, made.row.session_id)) == 1


async def test_a_maker_that_ends_before_it_reads_that_it_is_made_has_left_it(house: Any) -> None:
    maker, log = house.connect("ann"), "session:mine"
    await house.create(None, "mine", ephemeral=True)
    maker.ref.tell(_ActorStop())
    maker.ref.tell(Bound(log, house.place(log)))
    await house.settle()
    assert len(closing(house, "mine")) == 1


async def test_one_that_is_closed_or_deleted_is_nothing_to_its_maker_any_more(house: Any) -> None:
    maker = house.connect("ann")
    closed, deleted = [await house.create(maker, ephemeral=True) for _ in range(2)]
    await maker.session(closed, Detach(maker.by, maker.ref))
    assert maker.ref.actor.holds() == 2
    await house.ask(closed, Close(maker.by))
    await house.ask(deleted, Delete(maker.by))
    await house.settle()
    assert maker.ref.actor.holds() == 0


async def test_one_who_asks_for_an_id_that_is_taken_is_not_its_maker(house: Any, make_house: Any) -> None:
    session_id = await house.create(house.connect("ann"), ephemeral=True)
    await house.kill()
    again = make_house()
    other = again.connect("ann")
    with pytest.raises(BrokerError) as refusal:
        await again.create(other, session_id, ephemeral=True)
    assert refusal.value.code == "session_exists"
    await again.pass_time(31)
    assert len(closing(again, session_id)) == 1
    assert other.ref.actor.holds() == 0


async def test_others_stay_open_whoever_leaves(house: Any) -> None:
    maker = house.connect("ann")
    session_id = await house.create(maker)
    await maker.hang_up()
    await house.pass_time(61)
    assert closing(house, session_id) == []


async def test_one_that_a_crash_left_open_is_closed_after_the_restart(house: Any, make_house: Any) -> None:
    session_id = await house.create(house.connect("ann"), ephemeral=True)
    await house.kill()
    again = make_house()
    await again.wake()
    await again.pass_time(31)
    assert len(closing(again, session_id)) == 1


async def test_a_failure_of_the_session_alone_does_not_close_it(house: Any) -> None:
    maker = house.connect("ann")
    session_id = await house.create(maker, ephemeral=True)
    house.disk.fault = "disk full"
    with pytest.raises(BrokerError):
        await house.update(session_id, "tea", by=maker.by)
    house.disk.fault = None
    await house.pass_time(61)
    assert closing(house, session_id) == []
    await maker.hang_up()
    await house.settle()
    assert len(closing(house, session_id)) == 1


async def test_its_maker_is_known_again_after_a_failure_though_it_looks_away(house: Any) -> None:
    maker = house.connect("ann")
    session_id = await house.create(maker, ephemeral=True)
    await maker.session(session_id, Detach(maker.by, maker.ref))
    with pytest.raises(ZeroDivisionError):
        await house.place(f"session:{session_id}").ask(Onward(lambda: 1 // 0))
    await house.pass_time(61)
    assert closing(house, session_id) == []
    await maker.hang_up()
    await house.settle()
    assert len(closing(house, session_id)) == 1
