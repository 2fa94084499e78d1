"""An agent speaks as fast as the store writes: memory stays bounded, order exact, and no browser matters (P7)."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.actors.line import FLOOD
from broker.actors.pace import HIGH, LOW
from broker.errors import BrokerError
from broker.messages import Principal, VariablesSet
from broker.operations import Attach, Describe, Edit, History, Update
from broker.store.sqlite import SqliteEngine
from broker.testing import until

ANN = Principal("ann", frozenset())
PIECE = 100_000
"""Bytes of one report of an agent's."""


@pytest.fixture
async def session_id(house: Any) -> str:
    created: str = await house.create(owner="ann")
    return created


async def running(house: Any, session_id: str) -> Any:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.take()
    await house.settle()
    return turn


async def report(turn: Any, size: int, until: Callable[[], Any] = lambda: False) -> None:
    """Let the agent report so many bytes, or until something is so."""
    for _ in range(size // PIECE):
        turn.report("tool.updated", b'{"output":"%s"}' % (b"x" * PIECE))
        for _ in range(3):
            await asyncio.sleep(0)
        if until():
            return


async def test_an_agent_is_not_read_while_too_much_waits_for_the_store(house: Any, session_id: str) -> None:
    turn = await running(house, session_id)
    session = house.place(f"session:{session_id}").actor
    house.disk.gate.clear()
    await report(turn, HIGH - 2 * PIECE)
    assert not turn.line.paused
    await report(turn, 10 * PIECE, until=lambda: turn.line.paused)
    assert turn.line.paused
    assert session.written_bytes - session.durable_bytes < HIGH + 3 * PIECE
    house.disk.gate.set()
    await until(lambda: not turn.line.paused)
    assert session.written_bytes - session.durable_bytes < LOW
    turn.settle()
    await house.settle()
    assert len(house.disk.records(f"session:{session_id}")) > HIGH // PIECE


async def test_one_agent_that_waits_for_the_store_makes_no_other_wait(house: Any, session_id: str) -> None:
    other = await house.create(owner="ann")
    flooding, calm = await running(house, session_id), await running(house, other)
    house.disk.gate.clear()
    await report(flooding, 2 * HIGH, until=lambda: flooding.line.paused)
    assert flooding.line.paused
    assert not calm.line.paused
    house.disk.gate.set()


class Turnstile:
    """Lets the store's writes through one by one."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)

    def wait(self, seconds: float) -> bool:
        return self._permits.acquire(timeout=seconds)

    def pass_one(self) -> None:
        self._permits.release()

    def set(self) -> None:
        self._permits.release(1000)


async def test_a_link_that_is_opened_while_the_store_is_behind_is_paused_from_its_beginning(
    house: Any, session_id: str
) -> None:
    house.disk.gate = Turnstile()
    start = house.start_later(session_id, ANN, "m")
    await until(lambda: house.store._writing)
    changes = [house.ask_later(session_id, Update(ANN, None, {"a": "x" * 1_000_000})) for _ in range(4)]
    session = house.place(f"session:{session_id}").actor
    await until(lambda: session.written_bytes - session.durable_bytes > HIGH)
    house.disk.gate.pass_one()
    await start
    turn = await house.agent.turn()
    await until(lambda: turn.line.paused)
    house.disk.gate.set()
    await asyncio.gather(*changes)
    await until(lambda: not turn.line.paused)


async def test_a_browser_that_reads_nothing_does_not_slow_the_agent(house: Any, session_id: str) -> None:
    client = house.connect("ann")
    await client.attach(session_id)
    client.socket.stall()
    turn = await running(house, session_id)
    await report(turn, 2 * HIGH, until=lambda: turn.line.paused)
    await house.settle()
    assert not turn.line.paused
    assert client.socket.get_write_buffer_size() < 20 * PIECE


async def test_a_flood_of_100000_words_is_kept_in_order_in_bounded_memory(
    make_house: Callable[..., Any], tmp_path: Path
) -> None:
    engine = SqliteEngine(tmp_path / "broker.db", "off")
    engine.open()
    house = make_house(engine)
    client = house.connect("ann")
    session_id = await house.create(client)
    client.socket.stall()
    turn = await running(house, session_id)
    session = house.place(f"session:{session_id}")
    most_mail = most_bytes = 0
    words = [f"{number} " for number in range(100_000)]
    for word in words:
        turn.say(word)
        most_mail = max(most_mail, len(session.actor_inbox))
        most_bytes = max(most_bytes, session.actor.written_bytes - session.actor.durable_bytes)
        if turn.line.paused:
            await until(lambda: not turn.line.paused)
    turn.settle()
    await house.settle()
    assert most_mail <= FLOOD + 10
    assert most_bytes < HIGH + FLOOD * 200
    held = engine.reader().records_after(f"session:{session_id}", 0, limit=1_000_000, max_bytes=1 << 40)
    assert [record.seq for record in held] == list(range(1, len(held) + 1))
    deltas = [msgspec.json.decode(record.data)["text"] for record in held if record.kind == "message.delta"]
    whole = [msgspec.json.decode(record.data)["content"] for record in held if record.kind == "message.completed"]
    assert "".join(deltas) == "".join(whole) == "".join(words)
    assert len(deltas) < len(words) / 100
    client.socket.resume()


async def test_a_burst_that_nothing_could_stop_is_kept_in_order_too(house: Any, session_id: str) -> None:
    turn = await running(house, session_id)
    words = [f"{number} " for number in range(10_000)]
    for word in words:
        turn.say(word)
    turn.settle()
    await house.settle()
    held = house.disk.records(f"session:{session_id}")
    deltas = [msgspec.json.decode(record.data)["text"] for record in held if record.kind == "message.delta"]
    assert "".join(deltas) == "".join(words)
    assert held[-1].kind == "turn.ended"
    assert not turn.line.paused


# -- the quota ----------------------------------------------------------------------------------------------


@pytest.fixture
async def small(make_house: Callable[..., Any]) -> Any:
    return make_house(quota=4 * PIECE)


async def fill(house: Any, session_id: str) -> Any:
    """Let an agent say more than the session's log may hold."""
    turn = await running(house, session_id)
    await report(turn, 5 * PIECE)
    await turn.line.closed.wait()
    await house.settle()
    return turn


async def test_a_turn_that_outgrows_the_session_s_quota_fails_and_its_agent_is_cut(small: Any) -> None:
    session_id = await small.create(owner="ann")
    waiting = small.start_later(session_id, ANN, "first")
    turn = await small.agent.turn()
    await waiting
    behind = await small.start(session_id, by=ANN)
    await report(turn, 5 * PIECE)
    await turn.line.closed.wait()
    await small.settle()
    held = small.disk.records(f"session:{session_id}")
    ends = [(r.turn_id, msgspec.json.decode(r.data)) for r in held if r.kind == "turn.ended"]
    assert [turn_id for turn_id, _ in ends] == [turn.prompt.turn_id, behind["turn_id"]]
    assert [(end["outcome"], end["error"]["code"]) for _, end in ends] == [("failed", "too_large")] * 2
    assert sum(len(record.data) for record in held) < 6 * PIECE
    assert "turn.started" not in {record.kind for record in held if record.turn_id == behind["turn_id"]}
    assert len(small.agent.lines) == 1


async def test_a_broker_that_comes_back_to_a_full_log_hands_nothing_of_it_on(make_house: Callable[..., Any]) -> None:
    house = make_house()
    session_id = await house.create(owner="ann")
    turn = await running(house, session_id)
    behind = await house.start(session_id, by=ANN)
    await report(turn, 5 * PIECE)
    await house.settle()
    await house.kill()
    house = make_house(quota=4 * PIECE)
    await house.wake()
    assert [(told[1], told[3]) for told in house.ended] == [
        (turn.prompt.turn_id, "lost"),
        (behind["turn_id"], "failed"),
    ]
    held = house.disk.records(f"session:{session_id}")
    assert "turn.started" not in {record.kind for record in held if record.turn_id == behind["turn_id"]}
    assert house.agent.lines == []


@pytest.mark.parametrize("says", ["late words", "variables"])
async def test_an_agent_that_has_no_turn_fills_a_log_no_further_than_its_quota(small: Any, says: str) -> None:
    session_id = await small.create(owner="ann")
    turn = await running(small, session_id)
    turn.settle()
    for number in range(12):
        if says == "variables":
            turn.emit(VariablesSet(None, b'{"a":"%d%s"}' % (number, b"x" * PIECE)))
        else:
            turn.say("x" * PIECE)
        await small.settle()
    await until(turn.line.closed.is_set)
    assert sum(len(record.data) for record in small.disk.records(f"session:{session_id}")) < 7 * PIECE


async def test_an_agent_that_floods_after_it_settled_is_cut_and_its_turn_complete(small: Any) -> None:
    session_id = await small.create(owner="ann")
    turn = await running(small, session_id)
    turn.settle(last=False)
    await report(turn, 12 * PIECE)
    await until(turn.line.closed.is_set)
    await small.settle()
    assert [told[3] for told in small.ended] == ["completed"]
    assert sum(len(record.data) for record in small.disk.records(f"session:{session_id}")) < 6 * PIECE


async def test_variables_that_come_in_one_burst_with_what_filled_the_log_are_not_kept(small: Any) -> None:
    session_id = await small.create(owner="ann")
    turn = await running(small, session_id)
    for number in range(12):
        turn.emit(VariablesSet(None, b'{"a":"%d%s"}' % (number, b"x" * PIECE)))
    await until(turn.line.closed.is_set)
    await small.settle()
    assert sum(len(record.data) for record in small.disk.records(f"session:{session_id}")) < 7 * PIECE


async def test_a_full_session_takes_nothing_more_but_can_be_read_and_says_what_to_do(
    small: Any, make_house: Callable[..., Any]
) -> None:
    session_id = await small.create(owner="ann")
    first = await small.start(session_id, by=ANN, client_msg_id="m")
    (await small.agent.turn()).settle()
    await small.settle()
    await fill(small, session_id)
    await small.kill()
    house = make_house(quota=4 * PIECE)
    for operation in (Update(ANN, "title", None), Edit(ANN, first["turn_id"], b'"x"')):
        with pytest.raises(BrokerError) as refusal:
            await house.ask(session_id, operation)
        assert refusal.value.code == "too_large"
    with pytest.raises(BrokerError) as refusal:
        await house.start(session_id, by=ANN)
    assert (refusal.value.code, refusal.value.hint) == ("too_large", "create a new session; this one can still be read")
    again = await house.start(session_id, by=ANN, client_msg_id="m")
    assert (again["turn_id"], again["duplicate"]) == (first["turn_id"], True)
    assert (await house.ask(session_id, Describe(ANN)))["turn"] is None
    assert await house.ask(session_id, History(ANN, None, 5, "records"))
    client = house.connect("ann")
    assert (await client.session(session_id, Attach(client.by, client.ref, -1, None)))["recovered"]


async def test_without_a_quota_there_is_none(make_house: Callable[..., Any]) -> None:
    house = make_house(quota=0)
    session_id = await house.create(owner="ann")
    turn = await running(house, session_id)
    await report(turn, 10 * PIECE)
    turn.settle()
    await house.settle()
    assert not (await house.start(session_id, by=ANN))["duplicate"]
