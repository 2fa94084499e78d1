"""Logs of sessions as clients follow them: whole, in order, once; and told where that cannot be (PROTOCOL P3)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App
from broker.client import Connection, Forbidden, LogReset, NotFound, Record, Session, TimedOut
from broker.client.inbox import ITEMS
from broker.testing import until

Opened = Callable[..., Awaitable[Connection]]
Wire = Callable[[int], Awaitable[Any]]


async def take(records: Any, upto: int) -> list[int]:
    """Return the numbers that come next, up to this one."""
    seqs: list[int] = []
    while not seqs or seqs[-1] < upto:
        async with asyncio.timeout(20):
            seqs.append((await anext(records)).seq)
    return seqs


async def spoken(broker: Connection, *texts: str, agent: str = "echo") -> Session:
    """Return a session in which this was said, and answered."""
    session = await broker.create_session(agent=agent)
    for text in texts:
        await (await session.send(text))
    return session


# -- following --------------------------------------------------------------------------------------


async def test_a_log_is_given_from_wherever_one_wants_and_then_goes_on(app: App, opened: Opened) -> None:
    session = await spoken(await opened(app.port), "one two", "three four")
    attached = await session.attach(after_seq=4)
    head = attached.head
    assert (attached.state, attached.floor, attached.recovered) == ("open", 1, True)
    whole, some, coming = session.records(after_seq=0), session.records(), session.records(after_seq=-1)
    assert await take(whole, head) == list(range(1, head + 1))
    assert await take(some, head) == list(range(5, head + 1))
    turn = await session.send("five")
    assert await take(coming, turn.seq) == [turn.seq]
    assert await take(whole, turn.seq) == [turn.seq]


async def test_two_clients_see_the_same(app: App, opened: Opened) -> None:
    session = await spoken(await opened(app.port), "one two")
    other = (await opened(app.port)).session(session.id)
    ours, theirs = session.records(after_seq=0), other.records(after_seq=0)
    assert (await anext(theirs)).event == "session.opened"
    turn = await other.send("three")
    end = (await session.history())[-1].seq if (await turn).completed else 0
    assert await take(ours, end) == list(range(1, end + 1))
    assert await take(theirs, end) == list(range(2, end + 1))


async def test_who_comes_back_goes_on_where_it_was(app: App, opened: Opened) -> None:
    session = await spoken(await opened(app.port), "one two")
    attached = await session.attach()
    later = (await opened(app.port)).session(session.id)
    records = later.records(after_seq=3, epoch=attached.epoch)
    assert await take(records, attached.head) == list(range(4, attached.head + 1))


@pytest.mark.parametrize("place", [{"after_seq": 3, "epoch": "another"}, {"after_seq": 1000}])
@pytest.mark.parametrize("inside", [True, False])
async def test_what_cannot_be_continued_is_told_and_then_all_is_given(
    app: App, opened: Opened, place: dict[str, Any], *, inside: bool
) -> None:
    broker = await opened(app.port)
    session = await spoken(broker, "one two")
    if not inside:
        session = (await opened(app.port)).session(session.id)
    records = session.records(**place)
    with pytest.raises(LogReset) as told:
        await anext(records)
    assert told.value.floor == 1
    attached = await session.attach(**place)
    assert not attached.recovered
    assert await take(records, attached.head) == list(range(1, attached.head + 1))


async def test_an_answer_is_ahead_of_its_record_but_no_reset(app: App, opened: Opened) -> None:
    """The number that an answer names is in the log, though the client has not been shown it yet."""
    session = await spoken(await opened(app.port))
    for _ in range(20):
        turn = await session.send("x")
        records = session.records(after_seq=turn.seq)
        assert (await anext(records)).seq == turn.seq + 1


async def test_a_consumer_that_does_not_read_costs_little_and_misses_nothing(app: App, opened: Opened) -> None:
    broker = await opened(app.port)
    session = await broker.create_session(agent="faulty")
    slow = session.records(after_seq=0)
    assert (await anext(slow)).seq == 1
    turn = await session.send("/flood 100000", metadata={"note": "x"})
    most = 0
    async for _ in turn:
        most = max(most, len(slow._kept))
        assert (await broker.request("echo", 1)) == 1
    tools = [await session.send(f"turn {number}") for number in range(200)]
    await tools[-1]
    head = (await session.attach()).head
    assert head > ITEMS * 2
    assert most <= ITEMS
    assert len(slow._kept) <= ITEMS
    assert await take(slow, head) == list(range(2, head + 1))


async def test_large_records_are_caught_up_page_by_page(app: App, opened: Opened) -> None:
    broker = await opened(app.port)
    session = await broker.create_session()
    for _ in range(12):
        await (await session.send("x" * 300_000))
    head = (await session.attach()).head
    assert await take((await opened(app.port)).session(session.id).records(), head) == list(range(1, head + 1))


async def test_histories_are_pages(app: App, opened: Opened) -> None:
    session = await spoken(await opened(app.port), "one two", "three")
    newest = await session.history(limit=3)
    assert newest.before_seq == newest[0].seq
    before = await session.history(before_seq=newest.before_seq, limit=1000)
    assert before.before_seq is None
    assert [record.seq for record in (*before, *newest)] == list(range(1, newest[-1].seq + 1))
    assert [message["content"] for message in await session.messages()] == ["one two", "one two", "three", "three"]


# -- the session itself -----------------------------------------------------------------------------


async def test_what_is_changed_is_seen(app: App, opened: Opened) -> None:
    broker = await opened(app.port)
    session = await broker.create_session(title="before", variables={"a": 1})
    assert session.made is not None
    assert session.made["agent"] == "echo"
    await session.update(title="after", variables={"a": None, "b": 2})
    attached = await session.attach()
    assert attached.variables == {"b": 2}
    assert [row["title"] for row in (await broker.sessions(limit=1))["sessions"]] == ["after"]
    await session.close()
    assert (await session.attach()).state == "closed"


@pytest.mark.parametrize("how", ["detach", "delete", "leave"])
async def test_iterators_end_when_one_lets_go(app: App, opened: Opened, how: str) -> None:
    broker = await opened(app.port)
    session = await spoken(broker, "one")
    seen: list[Record] = []

    async def read() -> None:
        seen.extend([record async for record in session.records()])

    reading = asyncio.ensure_future(read())
    head = (await session.attach()).head
    await until(lambda: session.seq == head)
    await (broker.__aexit__(None, None, None) if how == "leave" else getattr(session, how)())
    await reading
    assert [record.seq for record in seen] == list(range(1, len(seen) + 1))
    if how == "detach":
        turn = await session.send("two")
        assert await turn.text() == "two"


async def test_what_somebody_else_deletes_is_gone(app: App, opened: Opened) -> None:
    session = await spoken(await opened(app.port), "one")
    other = (await opened(app.port)).session(session.id)
    head = (await other.attach()).head
    records = other.records()
    await take(records, head)
    await session.delete()
    with pytest.raises(Forbidden):
        await take(records, 1000)
    with pytest.raises(NotFound):
        await other.attach()


async def test_another_session_of_the_same_id_is_not_taken_for_it(app: App, opened: Opened, wire: Wire) -> None:
    network = await wire(app.port)
    session = await spoken(await opened(network.port), "one two three")
    records = session.records(after_seq=-1)
    following = asyncio.ensure_future(anext(records))
    await until(lambda: session.seq == 7)
    network.open = False
    network.cut()
    other = await opened(app.port)
    await other.session(session.id).delete()
    await other.create_session(session_id=session.id, title="another")
    network.open = True
    with pytest.raises(LogReset):
        await following
    assert (await anext(records)).data["title"] == "another"


async def test_a_session_nobody_has_any_more_is_not_followed(app: App, opened: Opened, wire: Wire) -> None:
    network = await wire(app.port)
    broker = await opened(network.port)
    session = await spoken(broker, "one")
    assert broker.session(session.id) is session
    session_id = session.id
    del session
    assert not broker._hub.sessions
    network.cut()
    await broker.sessions()
    rows = (await broker.request("get_connections"))["connections"]
    assert [row["sessions"] for row in rows if row["connection_id"] == broker.identity.connection_id] == [[]]
    assert await (await broker.session(session_id).send("two")).text() == "two"


# -- what goes wrong on the way ---------------------------------------------------------------------


async def test_what_comes_twice_is_given_once_and_a_hole_is_asked_for(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    records = broker.session("s1").records(after_seq=-1)
    taking = asyncio.ensure_future(take(records, 15))
    assert (await visit.attach(head=10))["after_seq"] == -1
    for seq in (10, 11, 11, 12, 10, 14, 15):
        await visit.record(seq)
    assert await visit.attach(head=15) == {"session_id": "s1", "after_seq": 12, "epoch": "e1"}
    for seq in (12, 13, 14, 15):
        await visit.record(seq)
    assert await taking == [11, 12, 13, 14, 15]


async def test_a_hole_that_cannot_be_filled_is_told_and_passed(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    records = broker.session("s1").records(after_seq=-1)
    taking = asyncio.ensure_future(take(records, 15))
    await visit.attach(head=10)
    await visit.record(13)
    await visit.attach(head=13)
    await visit.record(13)
    with pytest.raises(LogReset):
        await taking
    assert await take(records, 13) == [13]


async def test_a_reset_after_a_reconnect_is_told_and_then_all_is_given(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    records = broker.session("s1").records(after_seq=-1)
    taking = asyncio.ensure_future(take(records, 15))
    await visit.attach(head=10)
    await visit.record(11)
    visit.drop()
    visit = await stage.greet()
    await visit.attach(head=2, epoch="e2", recovered=False)
    await visit.note("session.reset", {"epoch": "e2", "head": 2, "floor": 1}, session_id="s1")
    await visit.record(1)
    with pytest.raises(LogReset) as told:
        await taking
    assert (told.value.epoch, told.value.head) == ("e2", 2)
    await visit.record(2)
    assert await take(records, 2) == [1, 2]


async def test_what_is_too_much_just_now_is_asked_again(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    attaching = asyncio.ensure_future(broker.session("s1").attach())
    await visit.refuse(await visit.asked("session.attach"), "rate_limited", retry_after=0.01)
    await visit.refuse(await visit.asked("session.attach"), "overloaded", retry_after=0)
    visit.drop()
    visit = await stage.greet()
    await visit.attach(head=3, variables={"a": 1})
    assert (await attaching).variables == {"a": 1}


async def test_what_stays_too_much_is_not_waited_for_without_end(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened, timeout=0.05)
    session = broker.session("s1")
    attaching = asyncio.ensure_future(session.attach())
    await visit.refuse(await visit.asked("session.attach"), "overloaded", retry_after=1000)
    with pytest.raises(TimedOut, match="session s1 could not be followed"):
        await attaching
