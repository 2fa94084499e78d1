"""Ephemeral sessions: closed when the connection ends that made them, however it ends."""

from typing import Any

import pytest

from broker.errors import BrokerError
from broker.operations import Detach


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
    assert [outcome for *_, outcome, _ in house.ended] == ["cancelled"]
    assert len(closing(house, session_id)) == 1


async def test_others_may_come_and_go(house: Any) -> None:
    maker, viewer = house.connect("ann"), house.connect("ann")
    session_id = await house.create(maker, ephemeral=True)
    await viewer.attach(session_id)
    await viewer.hang_up()
    await house.pass_time(61)
    assert closing(house, session_id) == []


async def test_a_maker_that_follows_it_no_more_has_left_it(house: Any) -> None:
    maker = house.connect("ann")
    session_id = await house.create(maker, ephemeral=True)
    await maker.session(session_id, Detach(maker.by, maker.ref))
    await house.settle()
    assert len(closing(house, session_id)) == 1


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
    await house.pass_time(31)
    assert len(closing(house, session_id)) == 1
