"""The store refuses: nothing is acknowledged, what is durable stays, and everybody goes on when it is back (P1, P9)."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.actors.store import PROBE_SECONDS
from broker.errors import BrokerError, CloseCode
from broker.messages import Principal
from broker.operations import Answer, Cancel, Describe, Start, Update
from broker.testing import until

ANN = Principal("ann", frozenset())


def kinds(house: Any, session_id: str) -> list[str]:
    return [record.kind for record in house.disk.records(f"session:{session_id}")]


async def recovered(house: Any) -> None:
    """Let the store be well again and find it out."""
    house.disk.fault = None
    house.clock.advance(PROBE_SECONDS)
    await house.settle()
    await house.settle()
    assert house.handle.healthy


async def test_a_refused_write_is_answered_as_unavailable_and_never_shown(house: Any) -> None:
    client = house.connect("ann")
    session_id = await house.create(client)
    house.disk.fault = "the disk is full"
    for operation in (Update(ANN, "lost", None), Update(ANN, None, {"a": 1}), Start(ANN, "m", b'"hi"', "queue")):
        asked = asyncio.ensure_future(client.session(session_id, operation))
        await house.pass_time(2)  # a session that failed again is started again after a moment
        with pytest.raises(BrokerError) as refusal:
            await asked
        assert (refusal.value.code, refusal.value.retryable) == ("unavailable", True)
        assert "disk" not in refusal.value.message
    assert house.agent.given.empty()
    assert not house.handle.healthy
    await house.settle()
    assert client.seqs() == [1]


async def test_a_session_that_could_not_be_created_is_not_there(house: Any) -> None:
    house.disk.fault = "the disk is full"
    client = house.connect("ann")
    with pytest.raises(BrokerError) as refusal:
        await house.create(client, session_id="mine")
    assert refusal.value.code == "unavailable"
    await recovered(house)
    with pytest.raises(BrokerError) as refusal:
        await house.ask("mine", Describe(ANN))
    assert refusal.value.code == "not_found"
    await house.settle()
    assert await house.create(client, session_id="mine") == "mine"


async def test_when_the_store_is_back_the_session_goes_on_from_what_is_durable_and_so_do_its_viewers(
    house: Any,
) -> None:
    session_id = await house.create(owner="ann")
    client = house.connect("ann")
    await client.attach(session_id)
    await house.update(session_id, "kept", by=ANN)
    house.disk.fault = "the disk is full"
    with pytest.raises(BrokerError):
        await house.update(session_id, "refused", by=ANN)
    await recovered(house)
    assert await house.update(session_id, "again", by=ANN) == {"head": 3, "durable": False}
    await client.socket.message(seq=3)
    titles = [m["data"]["title"] for m in client.socket.messages if m.get("event") == "session.changed"]
    assert titles == ["kept", "again"]
    assert client.seqs() == [1, 2, 3]


async def test_the_same_turn_sent_again_after_the_outage_is_a_new_one(house: Any) -> None:
    session_id = await house.create(owner="ann")
    house.disk.fault = "the disk is full"
    with pytest.raises(BrokerError):
        await house.start(session_id, by=ANN, client_msg_id="m1")
    await recovered(house)
    accepted = await house.start(session_id, by=ANN, client_msg_id="m1")
    assert not accepted["duplicate"]
    (await house.agent.turn()).settle()
    await house.settle()
    assert kinds(house, session_id).count("user.message") == 1


async def test_a_turn_that_ran_into_the_outage_ends_lost_once_and_its_agent_is_cut(house: Any) -> None:
    client = house.connect("ann")
    session_id = await house.create(client)
    accepted = await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    house.disk.fault = "the disk is full"
    turn.say("nobody sees this")
    await turn.line.closed.wait()
    await house.settle()
    assert "message.delta" not in kinds(house, session_id)
    refused = house.traces.find(accepted["turn_id"]).steps[-1]
    assert (refused.where, refused.what, refused.reason.split(":")[0]) == ("store", "refused", "unavailable")
    await recovered(house)
    for _ in range(3):  # a session that failed too often is taken up again after a while
        house.clock.advance(60)
        await house.settle()
    (end,) = [r for r in house.disk.records(f"session:{session_id}") if r.kind == "turn.ended"]
    assert (end.turn_id, msgspec.json.decode(end.data)["outcome"]) == (accepted["turn_id"], "lost")
    assert await house.ask(session_id, Cancel(ANN, accepted["turn_id"])) == {"status": "ended", "outcome": "lost"}


async def test_viewers_of_a_session_that_failed_too_often_are_sent_away_to_come_back(house: Any) -> None:
    client = house.connect("ann")
    session_id = await house.create(client)
    await house.start(session_id, by=ANN)
    house.disk.fault = "the disk is full"
    (await house.agent.turn()).say("nobody sees this")
    await house.pass_time(6)
    await client.socket.until(lambda socket: socket.close_code)
    assert client.socket.close_code == CloseCode.TRY_AGAIN_LATER
    assert house.place(f"session:{session_id}") is None


async def test_one_write_that_is_refused_does_not_fail_the_others_of_its_transaction(house: Any) -> None:
    good, bad = await house.create(owner="ann"), await house.create(owner="ann")
    house.place(f"session:{bad}").actor.head += 1  # its next record makes a gap
    house.disk.gate.clear()
    blocking = house.update_later(good, "first", ANN)
    await until(lambda: house.store._writing and not house.store._waiting)
    waiting = [house.update_later(bad, "refused", ANN), house.update_later(good, "second", ANN)]
    await house.tick(10)
    house.disk.gate.set()
    await blocking
    assert await waiting[1] == {"head": 3, "durable": False}
    with pytest.raises(BrokerError):
        await waiting[0]
    assert kinds(house, good) == ["session.opened", "session.changed", "session.changed"]
    assert kinds(house, bad) == ["session.opened"]


async def test_a_store_that_cannot_be_read_is_told_as_unavailable_and_a_viewer_is_sent_away_to_come_back(
    house: Any, make_house: Callable[..., Any]
) -> None:
    session_id = await house.create(owner="ann")
    await house.kill()
    house = make_house()
    client = house.connect("ann")
    await house.ask(session_id, Describe(ANN))
    house.disk.unreadable = "the disk reports an error"
    await client.attach(session_id)
    await client.socket.until(lambda socket: socket.close_code)
    assert client.socket.close_code == CloseCode.TRY_AGAIN_LATER
    assert client.seqs() == []
    house.disk.unreadable = None
    again = house.connect("ann")
    await again.attach(session_id)
    await again.socket.message(event="session.caught_up")
    assert again.seqs() == [1]
    house.clock.advance(60)


async def test_a_viewer_whose_session_cannot_be_loaded_again_is_not_left_waiting(
    house: Any,
) -> None:
    client = house.connect("ann")
    session_id = await house.create(client)
    house.disk.fault = house.disk.unreadable = "the disk is gone"
    with pytest.raises(BrokerError):
        await client.session(session_id, Update(ANN, "refused", None))
    await house.pass_time(6)
    await client.socket.until(lambda socket: socket.close_code)
    assert client.socket.close_code == CloseCode.TRY_AGAIN_LATER


async def test_a_session_that_fails_with_a_write_on_its_way_starts_again_from_what_became_of_that(house: Any) -> None:
    session_id = await house.create(owner="ann")
    house.disk.gate.clear()
    asked = house.start_later(session_id, ANN, "m1")
    session = house.place(f"session:{session_id}")
    await until(lambda: len(house.disk.batches) == 2)
    failed = session.actor
    session.tell(Cancel(ANN, "unknown"))  # nobody asks, so nobody can be refused, and the actor fails
    await until(lambda: session.actor is not failed)
    with pytest.raises(BrokerError):
        await asked
    await house.tick(10)
    house.disk.gate.set()
    await house.settle()
    assert kinds(house, session_id) == ["session.opened", "user.message", "turn.started", "turn.ended"]
    assert [outcome for _, _, _, outcome, *_ in house.ended] == ["lost"]
    assert (await house.start(session_id, by=ANN, client_msg_id="m1"))["duplicate"]


@pytest.fixture
async def asked(house: Any) -> tuple[Any, str, str]:
    """Return a house, a session with a running turn whose agent asks something, and the question's id."""
    session_id = await house.create(owner="ann")
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.ask("key", "yes")
    await house.settle()
    (approval,) = (await house.ask(session_id, Describe(ANN)))["approvals"]
    return house, session_id, approval["approval_id"]


async def answer_twice(house: Any, session_id: str, approval_id: str) -> tuple[Any, Any]:
    """Have two answer while nothing becomes durable, and return what they wait for."""
    house.disk.gate.clear()
    first = house.ask_later(session_id, Answer(ANN, approval_id, "yes"))
    count = len(house.disk.batches)
    await until(lambda: len(house.disk.batches) > count)
    second = house.ask_later(session_id, Answer(ANN, approval_id, "yes"))
    await house.tick(10)
    assert not second.done()
    return first, second


async def test_who_answers_second_hears_so_once_the_first_answer_is_durable(asked: tuple[Any, str, str]) -> None:
    house, *question = asked
    first, second = await answer_twice(house, *question)
    house.disk.gate.set()
    assert (await first)["resolved_by"] == "ann"
    with pytest.raises(BrokerError) as refusal:
        await second
    assert refusal.value.code == "already_resolved"


async def test_who_answers_second_is_not_told_of_an_answer_that_the_store_refused(asked: tuple[Any, str, str]) -> None:
    house, *question = asked
    answers = await answer_twice(house, *question)
    house.disk.fault = "the disk is full"
    house.disk.gate.set()
    for each in answers:
        with pytest.raises(BrokerError) as refusal:
            await each
        assert refusal.value.code == "unavailable"
