"""Turns as who sent them sees them: iterated over, awaited, cancelled, asked about, and gone on across links."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from broker.app import App
from broker.client import (
    Busy,
    Closed,
    Conflict,
    Connection,
    LogReset,
    NotCompleted,
    NotFound,
    Record,
    SentTurn,
    Session,
    TooLarge,
    Turn,
    Worker,
)

ACCEPTED = {"turn_id": "t1", "seq": 2, "status": "queued", "duplicate": False, "durable": True}
ENDLESS = "/silence after 2 not another word"

Opened = Callable[..., Awaitable[Connection]]
Wire = Callable[[int], Awaitable[Any]]
Employed = Callable[[int, Any], Any]


@pytest.fixture
async def employed() -> AsyncIterator[Employed]:
    """Have workers serve, to be called with a port and a worker, which is given back."""
    stop, serving = asyncio.Event(), []

    def employ(port: int, worker: Any) -> Any:
        serving.append(asyncio.ensure_future(worker.serve(f"ws://127.0.0.1:{port}/agent", stop=stop)))
        return worker

    yield employ
    stop.set()
    await asyncio.gather(*serving)


async def ask(broker: Connection, content: str, agent: str = "echo") -> SentTurn:
    """Start a turn in a new session."""
    session = await broker.create_session(agent=agent)
    return await session.send(content)


async def first(turn: SentTurn, event: str) -> Record:
    """Return the turn's first record of this kind."""
    async for record in turn:
        if record.event == event:
            return record
    raise AssertionError(f"there was no {event}")


async def test_a_turn_is_iterated_over_to_its_end_and_then_known_by_it(app: App, opened: Opened) -> None:
    turn = await ask(await opened(app.port), "good morning to you")
    records = [record async for record in turn]
    assert [record.seq for record in records] == list(range(turn.seq, turn.seq + len(records)))
    assert {record.turn_id for record in records} == {turn.id}
    assert records[0].event == "user.message"
    assert records[-1].event == "turn.ended"
    assert "".join(record.text for record in records) == "good morning to you"
    assert turn.ended is not None
    ended = await turn
    assert (ended.outcome, ended.completed, ended.reason) == ("completed", True, None)
    assert not turn.duplicate


async def test_it_can_be_iterated_over_again_and_awaited_without(app: App, opened: Opened) -> None:
    turn = await ask(await opened(app.port), "once and again")
    assert (await turn).completed
    assert await turn.text() == "once and again"
    again = [record.event async for record in turn]
    assert again[0] == "user.message"
    assert again[-1] == "turn.ended"


async def test_two_may_look_at_the_same_time(app: App, opened: Opened) -> None:
    turn = await ask(await opened(app.port), "one two three four", agent="slow")
    texts = await asyncio.gather(turn.text(), turn.text(), turn._wait())
    assert texts[:2] == ["one two three four"] * 2


async def test_the_text_of_a_turn_that_failed_is_not_taken_for_an_answer(app: App, opened: Opened) -> None:
    turn = await ask(await opened(app.port), "/crash after 2 it does not work", agent="faulty")
    with pytest.raises(NotCompleted) as lost:
        await turn.text()
    assert (lost.value.code, lost.value.ended.outcome) == ("lost", "lost")
    assert lost.value.text == "it does "
    turn = await turn._session.send("/fail It does not work.")
    with pytest.raises(NotCompleted, match="It does not work") as failed:
        await turn.text()
    assert (failed.value.code, failed.value.ended.outcome) == ("agent_unavailable", "failed")


async def test_to_stop_iterating_leaves_the_turn_running(app: App, opened: Opened) -> None:
    turn = await ask(await opened(app.port), ENDLESS, agent="faulty")

    async def look() -> None:
        async for _ in turn:
            pass

    looking = asyncio.ensure_future(look())
    assert (await first(turn, "message.delta")).text
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert (await turn._session.attach()).turn is not None
    assert turn.ended is None
    assert (await turn.cancel())["status"] == "cancelling"
    assert (await turn).outcome == "cancelled"
    assert await turn.cancel() == {"status": "ended", "outcome": "cancelled"}


async def test_who_leaves_altogether_finds_the_turn_where_it_got_to(app: App, opened: Opened) -> None:
    async with app_connection(app) as broker:
        turn = await ask(broker, "a b c d e f", agent="slow")
        waiting = asyncio.ensure_future(turn._wait())
        await first(turn, "message.delta")
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await turn
    later = (await opened(app.port)).session(turn._session.id)
    assert await later.turn(turn.id).text() == "a b c d e f"


def app_connection(app: App) -> Connection:
    from broker.client import connect

    return connect(f"http://127.0.0.1:{app.port}")


async def test_a_question_is_answered_by_whoever_is_first(app: App, opened: Opened) -> None:
    ann, bob = await opened(app.port), await opened(app.port)
    turn = await ask(ann, "/ask May I?", agent="faulty")
    asked = await first(turn, "approval.requested")
    approval_id = asked.data["approval_id"]
    there = bob.session(turn._session.id)
    assert [question["approval_id"] for question in (await there.attach()).approvals] == [approval_id]
    assert (await there.answer(approval_id, "allow"))["option_id"] == "allow"
    with pytest.raises(Conflict) as late:
        await turn._session.answer(approval_id, "reject")
    assert late.value.code == "already_resolved"
    assert (await turn).completed


async def test_what_is_refused_is_raised_by_its_kind(app: App, opened: Opened) -> None:
    broker = await opened(app.port)
    turn = await ask(broker, ENDLESS, agent="faulty")
    session = turn._session
    with pytest.raises(Busy):
        await session.send("more", if_busy="reject")
    with pytest.raises(NotFound):
        await session.cancel("no such turn")
    with pytest.raises(NotFound):
        await broker.session("nobody").send("hi")
    with pytest.raises(TooLarge):
        await session.send("x" * (1 << 20))
    same = await session.send(ENDLESS, client_msg_id=turn.client_msg_id)
    assert (same.id, same.duplicate) == (turn.id, True)
    with pytest.raises(Conflict):
        await session.send("other", client_msg_id=turn.client_msg_id)
    queued = await session.send("behind it", metadata={"n": 1})
    assert queued.status == "queued"
    await turn.cancel()
    assert await queued.text() == "behind it"


# -- across links -----------------------------------------------------------------------------------


class Counting(Worker):
    agent = "shout"

    def __init__(self) -> None:
        self.go = asyncio.Queue[None]()

    async def answer(self, turn: Turn) -> None:
        for number in range(60):
            await turn.tool(str(number), "Count", "completed")
            await self.go.get()


async def test_nothing_is_lost_or_doubled_however_often_the_link_breaks(
    app: App, opened: Opened, wire: Wire, employed: Employed
) -> None:
    network, worker = await wire(app.port), employed(app.port, Counting())
    session = await (await opened(network.port)).create_session(agent="shout")
    turn = await session.send("go")
    seen: list[Record] = []
    async for record in turn:
        seen.append(record)
        if record.event == "tool.started":
            network.cut()
            worker.go.put_nowait(None)
    assert network.links > 50
    assert [record.seq for record in seen] == list(range(turn.seq, turn.seq + len(seen)))
    assert seen == list(await session.history(limit=1000))[turn.seq - 1 :]


async def test_what_comes_of_a_turn_in_a_session_that_is_followed_need_not_be_asked_for(
    stage: Any, opened: Opened
) -> None:
    visit, broker = await stage.meet(opened)
    session: Session = broker.session("s1")
    attaching = asyncio.ensure_future(session.attach())
    await visit.attach(head=3)
    await attaching
    sending = asyncio.ensure_future(session.send("hi"))
    await visit.answer(await visit.asked("turn.start"), {**ACCEPTED, "seq": 5})
    for seq, event in enumerate(("activity", "user.message", "message.delta"), start=4):
        await visit.record(seq, event)
    await visit.record(7, "turn.ended", {"outcome": "completed", "partial": True})
    assert await (await sending).text() == "6"
    asking = asyncio.ensure_future(broker.request("echo"))
    await visit.answer(await visit.asked("echo"), None)
    await asking


async def test_what_was_not_answered_is_sent_again_under_the_same_id(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    sending = asyncio.ensure_future(broker.session("s1").send("hi", timeout=20))
    before = (await visit.asked("turn.start"))["payload"]
    visit.drop()
    visit = await stage.greet()
    again = await visit.asked("turn.start")
    assert again["payload"] == before
    await visit.answer(again, {"turn_id": "t1", "seq": 2, "status": "ended", "duplicate": True, "durable": True})
    turn = await sending
    assert (turn.id, turn.client_msg_id) == ("t1", before["client_msg_id"])


async def test_a_session_that_is_made_while_the_link_breaks_is_made_once(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    making = asyncio.ensure_future(broker.create_session(title="x"))
    before = (await visit.asked("session.create"))["payload"]
    visit.drop()
    visit = await stage.greet()
    again = await visit.asked("session.create")
    assert again["payload"] == before
    await visit.refuse(again, "session_exists")
    assert (await making).id == before["session_id"]


async def test_what_a_broker_that_is_about_to_restart_does_not_take_is_sent_to_the_next(
    stage: Any, opened: Opened
) -> None:
    visit, broker = await stage.meet(opened)
    sending = asyncio.ensure_future(broker.session("s1").send("hi"))
    request = await visit.asked("turn.start")
    await visit.note("restarting", {"retry_after": 0.01})
    await visit.refuse(request, "unavailable")
    await visit.close(1012)
    visit = await stage.greet()
    request = await visit.asked("turn.start")
    await visit.answer(request, ACCEPTED)
    assert (await sending).status == "queued"


class Asking(Worker):
    agent = "shout"

    async def answer(self, turn: Turn) -> None:
        await turn.say("Well, ")
        await turn.say(f"{await turn.ask('Which?', ['left', 'right'])}.")


async def test_a_worker_and_a_client_of_the_same_package_talk(app: App, opened: Opened, employed: Employed) -> None:
    employed(app.port, Asking())
    turn = await ask(await opened(app.port), "where to", agent="shout")
    asked = await first(turn, "approval.requested")
    await turn._session.answer(asked.data["approval_id"], "right")
    assert await turn.text() == "Well, right."


async def test_a_turn_of_a_session_that_began_anew_is_not_waited_for(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    session: Session = broker.session("s1")
    sending = asyncio.ensure_future(session.send("hi"))
    request = await visit.asked("turn.start")
    await visit.answer(request, ACCEPTED)
    turn = await sending
    waiting = asyncio.ensure_future(turn._wait())
    await visit.attach(head=1)
    await visit.record(2, "user.message")
    visit.drop()
    visit = await stage.greet()
    assert await visit.attach(head=9, epoch="e2", recovered=False) == {
        "session_id": "s1",
        "after_seq": 2,
        "epoch": "e1",
    }
    with pytest.raises(LogReset):
        await waiting
