"""A session: opened, attached to, changed, closed, deleted, put to sleep and woken; every answer after its record."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.actors.following import Pull
from broker.clock import rfc3339
from broker.config.profiles import Deadlines
from broker.errors import BrokerError
from broker.messages import Principal, TextDelta
from broker.operations import Attach, Close, Delete, Describe, Detach, History, Start, Update
from broker.testing import settled, until

ANN = Principal("ann", frozenset())
BOB = Principal("bob", frozenset())
ADMIN = Principal("root", frozenset({"admin"}))


def kinds(house: Any, session_id: str) -> list[str]:
    return [record.kind for record in house.disk.records(f"session:{session_id}")]


async def test_a_created_session_answers_its_creator_before_it_shows_the_first_record(house: Any) -> None:
    client = house.connect("ann")
    session_id = await house.create(client, title="Plans")
    opened = await client.socket.message(event="session.opened")
    created = client.socket.messages[0]["data"]
    assert client.socket.messages[1] == opened
    assert (created["session_id"], created["agent"], created["head"]) == (session_id, "fake", 1)
    assert created["epoch"]
    assert opened["seq"] == 1
    assert opened["data"] == {"title": "Plans", "agent": "fake", "owner": "ann", "variables": {}}


async def test_nothing_is_answered_or_shown_before_it_is_durable(house: Any) -> None:
    client = house.connect("ann")
    session_id = await house.create(client)
    await client.socket.message(event="session.opened")
    house.disk.gate.clear()
    update = client.send_to_session(session_id, Update(ANN, "new", None))
    start = client.send_to_session(session_id, Start(ANN, "m1", b'"hi"', "queue"))
    await until(lambda: len(house.disk.batches) == 2)
    assert len(client.socket.messages) == 2
    assert house.agent.given.empty()
    assert await client.attach(session_id) | {"turn": None} == await client.attach(session_id) | {"turn": None}
    assert client.socket.messages[-1].get("data", {}).get("head") == 1
    house.disk.gate.set()
    await house.settle()
    answers = [m["id"] for m in client.socket.messages if m.get("id") in {update, start}]
    assert answers == [update, start]
    assert house.agent.given.qsize() == 1


async def test_attaching_tells_how_the_session_stands_then_all_records_then_that_it_caught_up(house: Any) -> None:
    session_id = await house.create(owner="ann", variables=b'{"mood":"good"}')
    await house.update(session_id, "one", by=ANN)
    client = house.connect("ann")
    answer = await client.attach(session_id)
    await client.socket.message(event="session.caught_up")
    assert answer == {
        "session_id": session_id,
        "epoch": answer["epoch"],
        "head": 2,
        "floor": 1,
        "state": "open",
        "turn": None,
        "queue": [],
        "approvals": [],
        "variables": {"mood": "good"},
        "recovered": True,
    }
    assert client.events() == ["session.opened", "session.changed", "session.caught_up"]
    assert client.socket.messages[-1]["data"] == {"head": 2}
    await house.update(session_id, "two", by=ANN)
    assert (await client.socket.message(seq=3))["data"]["title"] == "two"


async def test_attaching_after_a_number_replays_only_what_comes_after_it(house: Any) -> None:
    session_id = await house.create(owner="ann")
    for title in "abcd":
        await house.update(session_id, title, by=ANN)
    client = house.connect("ann")
    answer = await client.attach(session_id, after_seq=3)
    await client.socket.message(event="session.caught_up")
    assert answer["recovered"]
    assert client.seqs() == [4, 5]


async def test_attaching_with_minus_one_replays_nothing_and_shows_what_comes(house: Any) -> None:
    session_id = await house.create(owner="ann")
    client = house.connect("ann")
    await client.attach(session_id, after_seq=-1)
    await client.socket.message(event="session.caught_up")
    assert client.seqs() == []
    await house.update(session_id, "a", by=ANN)
    await client.socket.message(seq=2)


@pytest.mark.parametrize(("after", "epoch"), [(1, "of another life"), (99, None), (0, "of another life")])
async def test_what_cannot_be_continued_is_reset_explicitly_and_told_from_the_beginning(
    house: Any, after: int, epoch: str | None
) -> None:
    session_id = await house.create(owner="ann")
    await house.update(session_id, "a", by=ANN)
    client = house.connect("ann")
    answer = await client.attach(session_id, after_seq=after, epoch=epoch)
    await client.socket.message(event="session.caught_up")
    assert answer["recovered"] is False
    assert client.events() == ["session.reset", "session.opened", "session.changed", "session.caught_up"]
    reset = client.socket.messages[1]
    assert reset["data"] == {"epoch": answer["epoch"], "head": 2, "floor": 1}
    assert "seq" not in reset


async def test_a_log_that_no_longer_reaches_back_resets_too(house: Any) -> None:
    session_id = await house.create(owner="ann")
    for title in "abcd":
        await house.update(session_id, title, by=ANN)
    session = house.place(f"session:{session_id}").actor
    session.floor = session._new_floor = 4
    await house.update(session_id, "e", by=ANN)
    session._tail.clear()
    client = house.connect("ann")
    answer = await client.attach(session_id, after_seq=2)
    await client.socket.message(event="session.caught_up")
    assert (answer["recovered"], answer["floor"]) == (False, 4)
    assert client.seqs() == [4, 5, 6]
    late = house.connect("ann")
    assert (await late.attach(session_id, after_seq=3))["recovered"] is True


async def test_the_same_epoch_lets_a_client_resume_across_a_restart(house: Any, make_house: Callable[..., Any]) -> None:
    session_id = await house.create(owner="ann")
    await house.update(session_id, "a", by=ANN)
    epoch = (await house.ask(session_id, Describe(ANN)))["epoch"]
    await house.kill()
    house = make_house()
    client = house.connect("ann")
    answer = await client.attach(session_id, after_seq=1, epoch=epoch)
    await client.socket.message(event="session.caught_up")
    assert answer["recovered"]
    assert client.seqs() == [2]


async def test_leaving_is_heard_and_two_viewers_are_shown_the_same_frames(house: Any) -> None:
    session_id = await house.create(owner="ann")
    first, second = house.connect("ann"), house.connect("ann")
    for client in (first, second):
        await client.attach(session_id, after_seq=-1)
    await house.update(session_id, "a", by=ANN)
    await first.socket.message(seq=2)
    await first.hang_up()
    await house.update(session_id, "b", by=ANN)
    await second.socket.message(seq=3)
    assert first.seqs() == [2]
    session = house.place(f"session:{session_id}").actor
    assert list(session._followers) == [second.ref]


async def test_somebody_else_is_refused_and_an_admin_is_not(house: Any) -> None:
    session_id = await house.create(owner="ann")
    bob = house.connect("bob")
    for operation in (Attach(BOB, bob.ref, 0, None), Describe(BOB), Close(BOB), Delete(BOB), Update(BOB, "x", None)):
        with pytest.raises(BrokerError, match="somebody else") as refusal:
            await house.ask(session_id, operation)
        assert refusal.value.code == "forbidden"
    assert (await house.ask(session_id, Describe(ADMIN)))["owner"] == "ann"
    assert bob.socket.messages == []


async def test_a_session_that_does_not_exist_is_not_found_and_leaves_nothing_behind(house: Any) -> None:
    with pytest.raises(BrokerError) as refusal:
        await house.ask("nobody", Describe(ANN))
    assert refusal.value.code == "not_found"
    await house.settle()
    assert house.place("session:nobody") is None
    assert house.stats.sessions == 0


async def test_an_id_can_be_chosen_once(house: Any) -> None:
    await house.create(session_id="mine", owner="ann")
    for _ in range(2):
        with pytest.raises(BrokerError) as refusal:
            await house.create(session_id="mine")
        assert refusal.value.code == "session_exists"
    await put_to_sleep(house, "mine")
    with pytest.raises(BrokerError) as refusal:
        await house.create(session_id="mine")
    assert refusal.value.code == "session_exists"
    assert len(kinds(house, "mine")) == 1


# -- variables and history ---------------------------------------------------------------------------


async def test_variables_are_merged_and_removed_by_null_and_each_change_is_kept_whole(house: Any) -> None:
    session_id = await house.create(owner="ann")
    assert await house.ask(session_id, Update(ANN, None, {"a": 1, "b": {"c": [2]}})) == {"head": 2, "durable": False}
    assert await house.ask(session_id, Update(ANN, None, {"a": None, "d": 4})) == {"head": 3, "durable": False}
    assert (await house.ask(session_id, Describe(ANN)))["variables"] == {"b": {"c": [2]}, "d": 4}
    records = house.disk.records(f"session:{session_id}")
    assert msgspec.json.decode(records[-1].data) == {
        "set": {"a": None, "d": 4},
        "variables": {"b": {"c": [2]}, "d": 4},
        "by": "ann",
    }


async def test_an_agent_is_given_the_variables_as_they_are_when_its_turn_starts(house: Any) -> None:
    session_id = await house.create(owner="ann", variables=b'{"a":1}', workspace_dir="/srv/work")
    await house.ask(session_id, Update(ANN, None, {"b": 2}))
    await house.start(session_id, by=ANN)
    prompt = (await house.agent.turn()).prompt
    assert msgspec.json.decode(prompt.variables) == {"a": 1, "b": 2}
    assert (prompt.session_id, prompt.workspace_dir, prompt.content) == (session_id, "/srv/work", b'"hi"')


async def test_history_comes_in_pages_oldest_first_below_a_number_and_of_messages_alone(house: Any) -> None:
    session_id = await house.create(owner="ann")
    await house.start(session_id, "question", by=ANN)
    turn = await house.agent.turn()
    turn.say("answer")
    turn.settle()
    await house.settle()
    page = await house.ask(session_id, History(ANN, None, 3, "records"))
    assert [record.seq for record in page] == [4, 5, 6]
    page = await house.ask(session_id, History(ANN, 4, 2, "records"))
    assert [record.seq for record in page] == [2, 3]
    messages = await house.ask(session_id, History(ANN, None, 10, "messages"))
    assert [record.kind for record in messages] == ["user.message", "message.completed"]
    assert [record.seq for record in await house.ask(session_id, History(ANN, 99, 1, "messages"))] == [5]


async def test_describing_shows_the_row_the_log_and_the_turns(house: Any) -> None:
    session_id = await house.create(owner="ann", title="Plans")
    await house.start(session_id, by=ANN)
    view = await house.ask(session_id, Describe(ANN))
    assert {"session_id", "agent", "owner", "created_at", "updated_at", "epoch", "floor"} < set(view)
    assert (view["title"], view["state"], view["head"], view["turn"]["state"]) == ("Plans", "open", 3, "dispatching")


async def test_a_session_was_updated_when_anything_was_last_written_also_after_a_restart(house: Any) -> None:
    session_id = await house.create(owner="ann")
    made = (await house.ask(session_id, Describe(ANN)))["updated_at"]
    house.clock.advance(5)
    await house.start(session_id, by=ANN)
    await house.settle()
    updated = (await house.ask(session_id, Describe(ANN)))["updated_at"]
    assert updated > made
    (listed,) = await house.handle.read("sessions", "ann", everyone=False, limit=1)
    assert rfc3339(listed.updated_at) == updated
    await house.stop_session(session_id)
    assert (await house.ask(session_id, Describe(ANN)))["updated_at"] == updated


# -- the end -----------------------------------------------------------------------------------------


async def test_a_closed_session_can_be_read_but_takes_nothing_more(house: Any) -> None:
    session_id = await house.create(owner="ann")
    assert await house.ask(session_id, Close(ANN)) == {}
    assert await house.ask(session_id, Close(ANN)) == {}
    assert kinds(house, session_id) == ["session.opened", "session.closed"]
    for operation in (Start(ANN, "m", b'"hi"', "queue"), Update(ANN, "t", None)):
        with pytest.raises(BrokerError) as refusal:
            await house.ask(session_id, operation)
        assert refusal.value.code == "already_ended"
    client = house.connect("ann")
    assert (await client.attach(session_id))["state"] == "closed"
    await client.socket.message(event="session.closed")


async def test_closing_cancels_what_runs_and_what_waits(house: Any) -> None:
    session_id = await house.create(owner="ann")
    await house.start(session_id, by=ANN)
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    await house.ask(session_id, Close(ANN))
    await turn.cancelled.wait()
    turn.settle("cancelled")
    await house.settle()
    await house.settle()
    assert kinds(house, session_id).count("turn.ended") == 2
    assert {outcome for _, _, _, outcome, *_ in house.ended} == {"cancelled"}


async def test_closing_lets_the_agent_go_once_it_has_settled(house: Any) -> None:
    idle, busy = await house.create(owner="ann"), await house.create(owner="ann")
    for session_id in (idle, busy):
        await house.start(session_id, by=ANN)
        (await house.agent.turn()).settle()
        await house.settle()
    await house.start(busy, by=ANN)
    turn = await house.agent.turn()
    for session_id in (idle, busy):
        await house.ask(session_id, Close(ANN))
    first, second = house.agent.lines
    await first.closed.wait()
    await turn.cancelled.wait()
    assert not second.closed.is_set()
    turn.settle("cancelled")
    await second.closed.wait()


async def test_a_deleted_session_is_gone_from_memory_and_from_the_store(house: Any) -> None:
    session_id = await house.create(owner="ann")
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.say("under way")
    assert await house.ask(session_id, Delete(ANN)) == {}
    turn.say("late")
    await turn.line.closed.wait()
    await house.settle()
    assert house.place(f"session:{session_id}") is None
    assert house.disk.reader().log(f"session:{session_id}") is None
    assert house.store.healthy
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, Describe(ANN))
    assert refusal.value.code == "not_found"


@pytest.mark.parametrize("leave", ["delete", "stop"])
async def test_a_session_that_leaves_memory_leaves_no_timer(house: Any, leave: str) -> None:
    session_id = await house.create(owner="ann")
    before = house.clock.waiting
    await house.start(session_id, by=ANN)
    (await house.agent.turn()).settle()
    await house.settle()
    assert house.clock.waiting == before + 1
    if leave == "delete":
        await house.ask(session_id, Delete(ANN))
    else:
        await house.place(f"session:{session_id}").stop()
    await house.settle()
    assert house.clock.waiting == before


async def test_a_delete_is_answered_although_others_ask_for_the_session_meanwhile(house: Any) -> None:
    session_id = await house.create(owner="ann")
    house.disk.gate.clear()
    deleting = asyncio.ensure_future(house.ask(session_id, Delete(ANN)))
    await until(lambda: len(house.disk.batches) == 2)
    asking = [asyncio.ensure_future(house.ask(session_id, Describe(ANN))) for _ in range(3)]
    for _ in range(20):
        await asyncio.sleep(0)
    house.disk.gate.set()
    assert await deleting == {}
    for asked in asking:
        with pytest.raises(BrokerError) as refusal:
            await asked
        assert refusal.value.code == "not_found"


async def test_what_an_agent_still_says_to_a_session_being_deleted_does_no_harm(house: Any) -> None:
    session_id = await house.create(owner="ann")
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    session = house.place(f"session:{session_id}")
    house.disk.gate.clear()
    deleting = asyncio.ensure_future(house.ask(session_id, Delete(ANN)))
    await until(lambda: session.actor._missing)
    session.tell(TextDelta(turn.prompt.turn_id, "too late"))
    await settled(session)
    house.disk.gate.set()
    assert await deleting == {}
    await house.settle()
    assert house.store.healthy
    assert house.place(f"session:{session_id}") is None


# -- sleep -------------------------------------------------------------------------------------------


async def put_to_sleep(house: Any, session_id: str) -> None:
    """Let so much time pass that an idle session leaves memory."""
    for _ in range(3):
        house.clock.advance(3600)
        await house.settle()
        await house.settle()
    assert house.place(f"session:{session_id}") is None


async def test_an_idle_session_leaves_memory_and_comes_back_with_the_same_log(house: Any) -> None:
    session_id = await house.create(owner="ann", variables=b'{"a":1}')
    await house.start(session_id, by=ANN, client_msg_id="m1")
    turn = await house.agent.turn()
    turn.say("hello")
    turn.settle()
    await house.settle()
    before = await house.ask(session_id, Describe(ANN))
    await put_to_sleep(house, session_id)
    assert house.stats.sessions == 0
    assert turn.line.closed.is_set()
    after = await house.ask(session_id, Describe(ANN))
    assert after == before
    assert house.stats.sessions == 1
    again = await house.start(session_id, by=ANN, client_msg_id="m1")
    assert (again["duplicate"], again["status"]) == (True, "ended")
    client = house.connect("ann")
    await client.attach(session_id)
    await client.socket.message(event="session.caught_up")
    assert client.seqs() == list(range(1, before["head"] + 1))
    await house.update(session_id, "awake", by=ANN)
    await client.socket.message(seq=before["head"] + 1)


async def test_a_session_with_a_viewer_or_a_turn_stays(make_house: Callable[..., Any]) -> None:
    house = make_house(deadlines=Deadlines(start=0))
    watched, busy = await house.create(owner="ann"), await house.create(owner="ann")
    client = house.connect("ann")
    await client.attach(watched)
    await house.start(busy, by=ANN)
    for _ in range(3):
        house.clock.advance(3600)
        await house.settle()
    assert house.place(f"session:{watched}") is not None
    assert house.place(f"session:{busy}") is not None
    await client.hang_up()
    (await house.agent.turn()).settle()
    await house.settle()
    for session_id in (watched, busy):
        await put_to_sleep(house, session_id)


async def test_who_comes_while_a_session_is_let_go_is_held_and_served_by_the_next_one(house: Any) -> None:
    session_id = await house.create(owner="ann")
    old = house.place(f"session:{session_id}")
    house.clock.advance(3601)
    asked = []
    while house.place(f"session:{session_id}") is old:
        asked.append(asyncio.ensure_future(house.ask(session_id, Describe(ANN))))
        await asyncio.sleep(0)
        if len(asked) > 50:
            house.clock.advance(3601)
    assert {(await each)["head"] for each in asked} == {1}


async def test_a_slow_read_of_the_history_holds_up_neither_the_turn_nor_its_deadlines(
    make_house: Callable[..., Any],
) -> None:
    house = make_house(deadlines=Deadlines(idle=5.0, stalled=0))
    session_id = await house.create(owner="ann")
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.say("a")
    await house.settle()
    held = len(kinds(house, session_id))
    house.disk.reading.clear()
    asked = house.ask_later(session_id, History(ANN, None, 100, "records"))
    await house.tick(10)
    await house.update(session_id, "meanwhile", by=ANN)
    house.clock.advance(6)
    await turn.cancelled.wait()
    assert not asked.done()
    house.disk.reading.set()
    assert [record.seq for record in await asked] == list(range(1, held + 1))


async def test_a_history_that_cannot_be_read_is_answered_as_unavailable_and_the_session_goes_on(house: Any) -> None:
    session_id = await house.create(owner="ann")
    house.disk.unreadable = "the disk reports an error"
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, History(ANN, None, 100, "records"))
    assert refusal.value.code == "unavailable"
    assert (await house.update(session_id, "still here", by=ANN))["head"] == 2


@pytest.fixture
async def asleep(make_house: Callable[..., Any]) -> tuple[Any, str]:
    """Return a house and a session of 5 records, none of which it has in memory."""
    house = make_house()
    session_id = await house.create(owner="ann")
    for title in "abcd":
        await house.update(session_id, title, by=ANN)
    await house.kill()
    house = make_house()
    await house.ask(session_id, Describe(ANN))
    return house, session_id


async def test_a_slow_replay_holds_nobody_up_and_goes_on_with_what_came_meanwhile(asleep: tuple[Any, str]) -> None:
    house, session_id = asleep
    house.disk.reading.clear()
    client, other = house.connect("ann"), house.connect("ann")
    await client.attach(session_id)
    await other.attach(session_id, after_seq=-1)
    await house.update(session_id, "meanwhile", by=ANN)
    await other.socket.message(seq=6)
    assert client.seqs() == []
    house.disk.reading.set()
    await client.socket.message(event="session.caught_up")
    await house.update(session_id, "live", by=ANN)
    await client.socket.message(seq=7)
    assert client.seqs() == [1, 2, 3, 4, 5, 6, 7]
    assert other.seqs() == [6, 7]


async def test_who_left_or_attached_anew_while_a_page_was_read_for_it_gets_no_page_of_before(
    asleep: tuple[Any, str],
) -> None:
    house, session_id = asleep
    house.disk.reading.clear()
    anew, gone = house.connect("ann"), house.connect("ann")
    await anew.attach(session_id)
    await gone.attach(session_id)
    await anew.attach(session_id, after_seq=3)
    await gone.session(session_id, Detach(ANN, gone.ref))
    house.disk.reading.set()
    await anew.socket.message(event="session.caught_up")
    await house.update(session_id, "live", by=ANN)
    await anew.socket.message(seq=6)
    await house.settle()
    assert anew.seqs() == [4, 5, 6]
    assert gone.seqs() == []
    assert list(house.place(f"session:{session_id}").actor._followers) == [anew.ref]


async def test_what_an_agent_says_in_the_burst_of_a_delete_is_neither_kept_nor_shown(house: Any) -> None:
    client = house.connect("ann")
    session_id = await house.create(client)
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    await house.settle()
    session = house.place(f"session:{session_id}")
    deleted = asyncio.ensure_future(session.ask(Delete(ANN)))
    while not session.actor_inbox:
        await house.tick()
    turn.say("late")
    assert len(session.actor_inbox) > 1
    await deleted
    await house.settle()
    assert "message.delta" not in client.events()
    (final,) = [write for batch in house.disk.batches for write in batch if write.delete]
    assert final.records == ()


async def test_a_session_stays_while_the_first_page_is_read_for_a_follower(asleep: tuple[Any, str]) -> None:
    house, session_id = asleep
    house.disk.reading.clear()
    client = house.connect("ann")
    await client.attach(session_id)
    house.clock.advance(3601)
    await house.tick(30)
    house.disk.reading.set()
    await client.socket.message(event="session.caught_up")
    assert client.seqs() == [1, 2, 3, 4, 5]


async def test_a_pull_from_before_it_attached_anew_takes_no_page_from_a_follower(asleep: tuple[Any, str]) -> None:
    house, session_id = asleep
    house.disk.reading.clear()
    client = house.connect("ann")
    await client.attach(session_id)
    house.place(f"session:{session_id}").tell(Pull(client.ref, 3))
    await house.tick(10)
    house.disk.reading.set()
    await client.socket.message(event="session.caught_up")
    assert client.seqs() == [1, 2, 3, 4, 5]
