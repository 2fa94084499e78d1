"""The Python client against a broker that is killed and started again: what was accepted ends, and is seen to."""

import asyncio
from collections.abc import Callable
from signal import SIGKILL, SIGTERM
from typing import Any

from broker.client import Connection, Record, SentTurn, Session, Turn, Worker, connect
from broker.testing import until

Make = Callable[..., Any]

AGENTS = {"faulty": {"kind": "echo", "faults": True}, "shout": {"kind": "worker"}}


def client(broker: Any) -> Connection:
    return connect(f"http://127.0.0.1:{broker.port}", pauses=(0.1, 0.1))


async def off_loop(work: Callable[[], Any]) -> Any:
    """Do something to a process while the client goes on."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


async def see(turn: SentTurn, seen: list[Record], begun: asyncio.Event) -> None:
    """Iterate over a turn to its end."""
    async for record in turn:
        seen.append(record)
        if record.event == "message.delta":
            begun.set()


def check(seen: list[Record], log: list[Record], turn: SentTurn) -> None:
    """See that what was seen of a turn is what the log has of it, in order and once, up to one end."""
    assert seen == [record for record in log if record.turn_id == turn.id]
    assert [record.event for record in seen].count("turn.ended") == 1
    assert seen[-1].event == "turn.ended"


async def test_a_broker_killed_in_mid_stream_ends_what_ran_as_lost_and_goes_on_with_what_waited(
    make_broker: Make,
) -> None:
    broker = make_broker(agents=AGENTS, default_agent="faulty")
    broker.start()
    async with client(broker) as connection:
        session = await connection.create_session()
        room = await connection.join("team")
        await room.publish("message", "before")
        running = await session.send("/silence after 3 one two three four")
        waiting = await session.send("this one waited")
        looks = [(turn, list[Record](), asyncio.Event()) for turn in (running, waiting)]
        seeing = [asyncio.ensure_future(see(*look)) for look in looks]
        await looks[0][2].wait()
        await off_loop(lambda: broker.end(SIGKILL))
        sending = asyncio.ensure_future(session.send("said while it was away"))
        await until(lambda: connection.state.name != "open")
        await off_loop(broker.start)
        await asyncio.gather(*seeing)
        assert (await running).outcome == "lost"
        assert (await running).data["partial"]
        assert (await waiting).completed
        assert await waiting.text() == "this one waited"
        assert await (await sending).text() == "said while it was away"
        log = list(await session.history(limit=1000))
        assert [record.seq for record in log] == list(range(1, len(log) + 1))
        for turn, seen, _ in looks:
            check(seen, log, turn)
        await room.publish("message", "after")
        assert [(await anext(aiter(room))).data for _ in range(2)] == ["before", "after"]


class Careful(Worker):
    agent = "shout"
    pauses = (0.1, 0.1)

    async def answer(self, turn: Turn) -> None:
        await turn.say("Shall I")
        await turn.say(f"? {await turn.ask('Shall I?', ['yes', 'no'])}")


async def test_a_restart_is_hardly_noticed(make_broker: Make) -> None:
    """What runs ends within the grace; what waits is answered by the same worker, when it has come back."""
    broker = make_broker(agents=AGENTS, default_agent="shout", shutdown={"grace": "20s"})
    broker.start()
    stop = asyncio.Event()
    working = asyncio.ensure_future(Careful().serve(f"ws://127.0.0.1:{broker.port}/agent", stop=stop))
    async with client(broker) as connection:
        states = connection.states()
        notes = connection.notifications()
        session = await connection.create_session()
        running, waiting = await session.send("one"), await session.send("two")
        answering = asyncio.ensure_future(agree(session))
        async for record in running:
            if record.event == "approval.requested":
                broker.signal(SIGTERM)
                assert (await anext(notes)).event == "restarting"
                late = asyncio.ensure_future(session.send("three"))
                await session.answer(record.data["approval_id"], "yes")
        assert (await running).completed
        assert await off_loop(broker.wait) == 0
        await off_loop(broker.start)
        assert await waiting.text() == "Shall I? yes"
        assert await (await late).text() == "Shall I? yes"
        assert 1012 in {(await anext(states)).code for _ in range(2)}
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
    stop.set()
    await working


async def agree(session: Session) -> None:
    """Answer yes to whatever is asked of a turn but the first."""
    asked = 0
    async for record in session.records():
        if record.event == "approval.requested":
            asked += 1
            if asked > 1:
                await session.answer(record.data["approval_id"], "yes")
