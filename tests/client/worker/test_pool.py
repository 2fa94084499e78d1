"""A worker at the broker's own pool of agents: both read the contract in the same way."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from broker.agents.port import Opening
from broker.agents.remote.carrier import Carrier
from broker.agents.remote.line import Line
from broker.agents.remote.worker import WorkerAgent
from broker.client import Option, Turn, TurnFailed, Worker
from broker.clock import SystemClock
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentRecord,
    ApprovalRequested,
    LinkStalled,
    Prompt,
    TextDelta,
    TurnSettled,
    TurnTaken,
    VariablesSet,
)
from broker.messages import TurnFailed as Failed
from broker.testing import until
from broker.web.agent_frames import AgentFrames
from broker.web.reader import FrameSocket

Serving = Any
ENDS = (TurnSettled, Failed, AgentLost)


class Hall:
    """A broker's pool of workers behind a real socket.

    Attributes:
        url: its door.
        agent: the pool.
        sockets: the links to it, the newest last.
    """

    def __init__(self) -> None:
        self.url = ""
        self.agent = WorkerAgent(reattach=60.0)
        self.sockets: list[web.Request] = []
        self.heard: asyncio.Queue[AgentEvent] = asyncio.Queue()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        socket = FrameSocket("agents.v1.json")
        await socket.prepare(request)
        self.sockets.append(request)
        assert request.transport is not None
        frames = AgentFrames(socket, request, request.transport)
        async with Carrier(frames, request.transport, SystemClock()) as carrier:
            hello = await carrier.hello()
            assert hello is not None
            await self.agent.accept(carrier, hello, None)
        return socket

    def line(self, session_id: str = "s1") -> Line:
        return self.agent.open(Opening(session_id), self.heard.put_nowait)

    def ask(self, text: str, turn_id: str = "t1") -> Line:
        line = self.line()
        line.start_turn(Prompt("s1", turn_id, json.dumps(text).encode(), variables=b'{"mood": "good"}'))
        return line

    async def until(self, *kinds: type) -> list[AgentEvent]:
        """Return the events up to the first of these kinds."""
        events: list[AgentEvent] = []
        async with asyncio.timeout(20):
            while not events or not isinstance(events[-1], kinds):
                events.append(await self.heard.get())
        return events

    def drop(self) -> None:
        transport = self.sockets[-1].transport
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


@pytest.fixture
async def hall(aiohttp_server: Callable[..., Any]) -> AsyncIterator[Hall]:
    hall, app = Hall(), web.Application()
    app.router.add_get("/agent", hall.serve)
    server = await aiohttp_server(app)
    hall.url = f"ws://127.0.0.1:{server.port}/agent"
    yield hall
    await hall.agent.close()


@pytest.fixture
def worker(hall: Hall, serving: Serving) -> Callable[..., Any]:
    """Have a worker serve there that answers by the function given, and wait until it is one of the pool."""

    async def begin(answer: Callable[..., Any], capacity: int = 1, **options: Any) -> asyncio.Task[None]:
        class Agent(Worker):
            agent = "shout"

            def answer(self, turn: Turn) -> Any:
                return answer(turn)

        Agent.capacity = capacity
        task: asyncio.Task[None] = serving(Agent(), hall.url, **options)
        await until(lambda: hall.agent.capacity)
        return task

    return begin


def text(events: list[AgentEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_all_that_a_turn_can_say_is_understood(hall: Hall, worker: Any) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        await turn.think("hm")
        await turn.tool("r1", "Read", "in_progress")
        await turn.tool("r1", "Read", "completed", [1])
        await turn.usage(input_tokens=3)
        await turn.set({"mood": "better"})
        yield f"{turn.text}, {turn.variables}, {await turn.ask('Sure?', ['yes', Option('n', 'No', 'reject_once')])}"

    await worker(answer)
    line = hall.ask("hello")
    events = await hall.until(ApprovalRequested)
    asked = events[-1]
    assert isinstance(asked, ApprovalRequested)
    assert json.loads(asked.options) == [
        {"option_id": "yes", "name": "yes"},
        {"option_id": "n", "name": "No", "kind": "reject_once"},
    ]
    line.answer_approval("t1", asked.key, "n")
    events += await hall.until(*ENDS)
    tool = {"tool_id": "r1", "title": "Read"}
    usage = b'{"input_tokens":3}'
    said = [
        TurnTaken("t1"),
        TextDelta("t1", "hm", thought=True),
        ("tool.started", tool | {"status": "in_progress"}),
        ("tool.updated", tool | {"status": "completed", "content": [1]}),
        ("usage.updated", {"input_tokens": 3}),
        VariablesSet("t1", b'{"mood":"better"}'),
        asked,
        TextDelta("t1", "hello, {'mood': 'better'}, n"),
        TurnSettled("t1", "end_turn", usage),
    ]
    assert [(e.kind, json.loads(e.data)) if isinstance(e, AgentRecord) else e for e in events] == said


async def test_a_broken_link_is_a_stall_and_nothing_more(hall: Hall, worker: Any) -> None:
    """No hole, no double: the answer is whole, and nothing was reported as missing."""
    gate = asyncio.Event()

    async def answer(turn: Turn) -> AsyncIterator[str]:
        for number in range(1000):
            if number == 500:
                await gate.wait()
            yield f"{number} "

    await worker(answer)
    hall.ask("count")
    events = await hall.until(TextDelta)
    hall.drop()
    events += await hall.until(LinkStalled)
    gate.set()
    events += await hall.until(*ENDS)
    assert text(events) == "".join(f"{number} " for number in range(1000))
    assert [type(event) for event in events if not isinstance(event, TextDelta)] == [
        TurnTaken,
        LinkStalled,
        TurnTaken,
        TurnSettled,
    ]
    hall.ask("again", "t2")
    assert text(await hall.until(*ENDS))


async def test_a_cancel_while_the_link_is_broken_is_heard_when_it_is_back(hall: Hall, worker: Any) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield "begun"
        await asyncio.Event().wait()

    await worker(answer)
    line = hall.ask("wait")
    await hall.until(TextDelta)
    hall.drop()
    await hall.until(LinkStalled)
    line.cancel_turn("t1")
    assert (await hall.until(*ENDS))[-1] == TurnSettled("t1", "cancelled")


async def test_a_turn_that_was_cut_while_the_link_was_broken_gives_its_place_back(hall: Hall, worker: Any) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield "begun"
        if turn.text == "wait":
            await asyncio.Event().wait()

    await worker(answer)
    line = hall.ask("wait")
    await hall.until(TextDelta)
    hall.drop()
    await hall.until(LinkStalled)
    await line.close()
    hall.ask("go on", "t2")
    assert (await hall.until(*ENDS))[-1] == TurnSettled("t2", "end_turn")


async def test_errors_keep_their_words(hall: Hall, worker: Any) -> None:
    async def answer(turn: Turn) -> None:
        raise TurnFailed("too_large", "Too long.") if turn.text == "typed" else ValueError("oops")

    await worker(answer)
    hall.ask("typed")
    assert (await hall.until(*ENDS))[-1] == Failed("t1", "too_large", "Too long.")
    hall.ask("plain", "t2")
    assert (await hall.until(*ENDS))[-1] == Failed("t2", "agent_unavailable", "ValueError: oops")


async def test_a_worker_that_is_stopped_has_ended_what_it_had(hall: Hall, worker: Any) -> None:
    stop = asyncio.Event()

    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield "begun"
        await asyncio.Event().wait()

    task = await worker(answer, stop=stop, grace=0)
    hall.ask("wait")
    await hall.until(TextDelta)
    stop.set()
    await task
    stopped = Failed("t1", "unavailable", "The worker was stopped.", retryable=True)
    assert (await hall.until(*ENDS))[-1] == stopped
    await until(lambda: not hall.agent.capacity)


async def test_while_a_worker_is_stopping_others_get_the_turns(hall: Hall, worker: Any) -> None:
    """So that workers can be restarted one after the other, and nobody notices."""
    stop, gate = asyncio.Event(), asyncio.Event()

    async def slow(turn: Turn) -> AsyncIterator[str]:
        yield "slow"
        await gate.wait()

    async def quick(turn: Turn) -> AsyncIterator[str]:
        yield "quick"

    task = await worker(slow, capacity=10, stop=stop, grace=1000)
    hall.ask("first")
    await hall.until(TextDelta)
    stop.set()
    await until(lambda: hall.agent.members[0].draining)
    hall.line("s2").start_turn(Prompt("s2", "t2", b'"second"'))
    await worker(quick)
    assert text(await hall.until(*ENDS)) == "quick"
    gate.set()
    assert (await hall.until(*ENDS))[-1] == TurnSettled("t1", "end_turn")
    await task
