"""The store actor: group commit, each owner told in its order, and a failure found out and gone by itself."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from broker import logs
from broker.actors.log import LogActor
from broker.actors.loop import LoopActor, handles
from broker.actors.store import MAX_BATCH, PROBE_SECONDS, Append, Committed, Expire, WriteFailed
from broker.errors import BrokerError
from broker.messages import Record, Write
from broker.store.sqlite import SqliteEngine
from broker.testing import settled, until


class Owner(LoopActor):
    """Keeps what the store tells it."""

    inbox_limit = 0  # what the store tells is urgent

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        self.seen = asyncio.Event()

    @handles(Committed, WriteFailed)
    def hear(self, message: Any) -> None:
        self.told.append(message)
        self.seen.set()


def write(log: str, seq: int) -> Write:
    return Write(log, at=1, records=(Record(seq, 1, "k", b"{}"),), create="e" if seq == 1 else None)


async def told(owner: Any, count: int) -> list[Any]:
    async with asyncio.timeout(10):
        while len(owner.actor.told) < count:
            owner.actor.seen.clear()
            await owner.actor.seen.wait()
    heard: list[Any] = owner.actor.told
    return heard


async def test_owners_are_told_in_the_order_of_their_writes_after_these_are_in_the_engine(house: Any) -> None:
    owner = Owner.start()
    for seq in range(1, 6):
        house.handle.append(write("room:a", seq), owner, seq)
    assert [message.ticket for message in await told(owner, 5)] == [1, 2, 3, 4, 5]
    assert len(house.disk.records("room:a")) == 5
    assert house.stats.records == 5


async def test_what_comes_while_a_transaction_is_on_its_way_shares_the_next(house: Any) -> None:
    owner = Owner.start()
    house.disk.gate.clear()
    house.handle.append(write("room:first", 1), owner, "first")
    await until(lambda: house.disk.batches)
    for number in range(100):
        house.handle.append(write(f"room:{number}", 1), owner, number)
    await settled(house.store.actor_ref)
    assert house.stats.store_backlog() == 100
    house.disk.gate.set()
    await told(owner, 101)
    assert [len(batch) for batch in house.disk.batches] == [1, 100]
    assert (house.stats.commits, house.stats.commit_seconds.cumulative()[-1]) == (2, 2)


async def test_a_store_that_cannot_be_read_does_not_fill_the_log(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logs, "_limiter", logs.Limiter(clock=lambda: 0.0))
    sink = logger.add(lines.append, format="{message}")
    house.disk.unreadable = "the disk reports an error"
    try:
        for _ in range(20):
            with pytest.raises(BrokerError, match="cannot be read"):
                await house.handle.read("log", "room:a")
    finally:
        logger.remove(sink)
    assert lines == ["the store cannot be read: the disk reports an error\n"]


async def test_a_transaction_is_bounded(house: Any) -> None:
    owner = Owner.start()
    house.disk.gate.clear()
    for number in range(MAX_BATCH + 10):
        house.handle.append(write(f"room:{number}", 1), owner, number)
    await settled(house.store.actor_ref)
    house.disk.gate.set()
    await told(owner, MAX_BATCH + 10)
    assert max(len(batch) for batch in house.disk.batches) <= MAX_BATCH


async def test_a_refused_write_is_told_to_its_owner_alone(house: Any) -> None:
    good, bad = Owner.start(), Owner.start()
    house.disk.gate.clear()
    house.handle.append(write("room:first", 1), good, 0)
    await until(lambda: house.disk.batches)
    house.handle.append(write("room:bad", 7), bad, "bad")
    house.handle.append(write("room:good", 1), good, 1)
    await settled(house.store.actor_ref)
    house.disk.gate.set()
    assert await told(good, 2) == [Committed(0), Committed(1)]
    (failed,) = await told(bad, 1)
    assert (type(failed), failed.error.code, failed.error.retry_after) == (WriteFailed, "unavailable", 1.0)


async def test_a_store_that_fails_is_unhealthy_until_its_own_probe_succeeds(house: Any) -> None:
    owner = Owner.start()
    house.disk.fault = "the disk is full"
    house.handle.append(write("room:a", 1), owner, 1)
    await told(owner, 1)
    assert not house.handle.healthy
    for _ in range(2):
        house.clock.advance(PROBE_SECONDS)
        await house.settle()
        assert not house.handle.healthy
    house.disk.fault = None
    house.clock.advance(PROBE_SECONDS)
    await house.settle()
    await house.settle()
    assert house.handle.healthy
    assert house.disk.reader().log("probe:") is None
    assert house.clock.waiting == 1  # the registry's; the probe has gone with its cause


async def test_what_can_never_be_stored_is_refused_and_the_store_is_well(make_house: Any, tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "broker.db")
    engine.open()
    house = make_house(engine)
    owner = Owner.start()
    for bad in (write("room:\ud800", 1), write("room:gap", 7)):
        house.handle.append(bad, owner, 1)
        await settled(house.store.actor_ref)
    assert [type(one) for one in await told(owner, 2)] == [WriteFailed, WriteFailed]
    assert house.handle.healthy


async def test_who_stopped_meanwhile_is_not_told(house: Any) -> None:
    gone, owner = Owner.start(), Owner.start()
    house.disk.gate.clear()
    house.handle.append(write("room:a", 1), gone, 1)
    house.handle.append(write("room:b", 1), owner, 2)
    await gone.stop()
    house.disk.gate.set()
    assert await told(owner, 1) == [Committed(2)]


async def test_reads_are_answered_while_a_write_is_held_up(house: Any) -> None:
    owner = Owner.start()
    house.handle.append(write("room:a", 1), owner, 1)
    await told(owner, 1)
    house.disk.gate.clear()
    house.handle.append(write("room:a", 2), owner, 2)
    await house.tick(3)
    assert (await house.handle.read("log", "room:a")).head == 1
    house.disk.gate.set()


async def test_a_read_that_fails_is_typed_and_does_not_tell_why(house: Any) -> None:
    house.disk.unreadable = "/srv/broker.db is damaged"
    with pytest.raises(BrokerError) as refusal:
        await house.handle.read("log", "room:a")
    assert (refusal.value.code, refusal.value.retry_after) == ("unavailable", 1.0)
    assert "/srv" not in refusal.value.message


async def test_what_is_past_keeping_is_dropped_in_the_writing_thread_and_live_logs_are_left_alone(house: Any) -> None:
    owner = Owner.start()
    for name in ("room:old", "room:live"):
        house.handle.append(write(name, 1), owner, name)
    await told(owner, 2)
    gone = await house.handle.expire(Expire(10, 10, 1000, frozenset({"room:live"})))
    assert gone == ["room:old"]


async def test_stopping_writes_everything_that_was_given_before(house: Any, make_house: Callable[..., Any]) -> None:
    owner = Owner.start()
    house.disk.gate.clear()
    for seq in range(1, 50):
        house.handle.append(write("room:a", seq), owner, seq)
        await house.tick()
    stopping = asyncio.ensure_future(house.store.close())
    await house.tick(5)
    house.disk.gate.set()
    await stopping
    assert len(house.disk.records("room:a")) == 49
    assert not house.handle.healthy
    house.store._reading.stop(block=False)
    for ref in list(house.supervisor._children):
        await ref.stop()


async def test_a_disk_that_does_not_answer_keeps_nobody_from_stopping(house: Any) -> None:
    owner = Owner.start()
    house.disk.gate.clear()
    house.handle.append(write("room:a", 1), owner, 1)
    await house.tick(3)
    assert not await house.store.close(0.05)
    house.disk.gate.set()
    await house.tick(3)
    assert owner.actor.told == []
    for ref in list(house.supervisor._children):
        await ref.stop()


async def test_append_is_a_message_and_a_log_actor_says_what_it_is_shown_as(house: Any) -> None:
    assert Append(write("room:a", 1), Owner.start(), "t").ticket == "t"
    assert LogActor.__abstractmethods__ == {"present"}


async def test_a_flush_waits_for_every_write_given_before_it_and_for_none_after(house: Any) -> None:
    await house.handle.flush()  # with nothing given there is nothing to wait for
    owner = Owner.start()
    house.disk.gate.clear()
    house.handle.append(write("room:a", 1), owner, 1)
    await until(lambda: house.disk.batches)
    house.handle.append(write("room:a", 2), owner, 2)
    flushed = asyncio.ensure_future(house.handle.flush())
    await settled(house.store.actor_ref)
    assert not flushed.done()
    house.disk.gate.set()
    await flushed
    assert len(house.disk.records("room:a")) == 2


async def test_a_flush_ends_also_if_the_write_is_refused_or_the_store_stops(house: Any) -> None:
    owner = Owner.start()
    house.disk.fault = "the disk is full"
    house.handle.append(write("room:a", 1), owner, 1)
    await house.handle.flush()
    house.disk.fault = None
    house.disk.gate.clear()
    house.handle.append(write("room:a", 1), owner, 1)
    flushed = asyncio.ensure_future(house.handle.flush())
    await settled(house.store.actor_ref)
    await house.store.actor_ref.stop()
    with pytest.raises(BrokerError) as refusal:
        await flushed
    assert refusal.value.code == "unavailable"
    with pytest.raises(BrokerError):
        await house.handle.flush()
    await house.stop()
