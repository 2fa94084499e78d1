"""The agent kind `worker` over real sockets; the workers are written with a library that is foreign to us."""

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import pytest
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from broker.agents.port import Opening
from broker.agents.remote.carrier import HEARTBEAT, HELLO_SECONDS, OUTBOX_LIMIT, Carrier
from broker.agents.remote.frames import FRAME_LIMIT, SUBPROTOCOL
from broker.agents.remote.line import Line
from broker.agents.remote.worker import WorkerAgent
from broker.messages import AgentEvent, AgentLost, LinkStalled, Prompt, TextDelta, TurnSettled, TurnTaken
from broker.testing import ManualClock, until
from broker.web.agent_frames import AgentFrames
from broker.web.reader import FrameSocket

PATIENCE = 30.0


@attrs.define
class Worker:
    """A worker's end of the link."""

    socket: ClientConnection

    async def say(self, kind: str, /, **data: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, "id": "1", "data": data, "timestamp": ""}))

    async def next(self, *kinds: str) -> Any:
        """Return the data of the next frame of these kinds; the link's end is an error."""
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = json.loads(await self.socket.recv())
                if frame["type"] in kinds:
                    return frame["data"]

    async def end(self) -> int:
        """Read to the end, and return the code with which the link was closed."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed as e:
                return e.rcvd.code if e.rcvd else 1006

    def vanish(self) -> None:
        """Be gone without a word, as a process that was killed."""
        self.socket.transport.abort()


class Session:
    """A session's end of its line."""

    def __init__(self, kind: WorkerAgent, session_id: str) -> None:
        self.session_id = session_id
        self.heard: list[AgentEvent] = []
        self.line: Line = kind.open(Opening(session_id), self.heard.append)

    def start(self, turn_id: str, content: str = "hi") -> None:
        self.line.start_turn(Prompt(self.session_id, turn_id, json.dumps(content).encode()))

    async def hears(self, event: AgentEvent) -> None:
        await until(lambda: event in self.heard)

    async def hears_a(self, kind: type) -> Any:
        await until(lambda: any(isinstance(event, kind) for event in self.heard))
        return next(event for event in self.heard if isinstance(event, kind))

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.heard if isinstance(event, TextDelta))


Dial = Callable[..., Awaitable[Worker]]


@pytest.fixture
def clock() -> ManualClock:
    """Time that a test moves."""
    return ManualClock()


@pytest.fixture
def kind(clock: ManualClock) -> WorkerAgent:
    """A profile."""
    return WorkerAgent(reattach=30.0, clock=clock)


@pytest.fixture
async def port(kind: WorkerAgent, clock: ManualClock) -> AsyncIterator[int]:
    """A server for workers of the profile, without questions."""

    async def serve(request: web.Request) -> web.StreamResponse:
        socket = FrameSocket(SUBPROTOCOL)
        await socket.prepare(request)
        assert request.transport is not None
        frames = AgentFrames(socket, request, request.transport)
        async with Carrier(frames, request.transport, clock) as carrier:
            hello = await carrier.hello()
            if hello is not None:
                await kind.accept(carrier, hello, None)
        return socket

    app = web.Application()
    app.router.add_get("/agent", serve)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await kind.close()
    await runner.cleanup()


@pytest.fixture
async def dial(port: int) -> AsyncIterator[Dial]:
    """Dial in, and say hello with what is given."""
    workers: list[Worker] = []

    async def dial_in(hello: dict[str, Any] | None = None, **options: Any) -> Worker:
        socket = await connect(f"ws://127.0.0.1:{port}/agent", subprotocols=[SUBPROTOCOL], max_size=None, **options)  # type: ignore[list-item]
        worker = Worker(socket)
        workers.append(worker)
        if hello is not None:
            await worker.say("hello", **{"agent": "coder", "instance": f"i{len(workers)}", **hello})
            await worker.next("welcome")
        return worker

    yield dial_in
    for worker in workers:
        if worker.socket.state is not State.CLOSED:  # a transport that wrote its last after the end bears no abort
            worker.vanish()
        await worker.socket.wait_closed()


async def test_a_turn_from_its_start_to_its_end(kind: WorkerAgent, dial: Dial) -> None:
    worker = await dial({})
    session = Session(kind, "s1")
    session.start("t1", "hello")
    assert (await worker.next("turn_start"))["content"] == "hello"
    await worker.say("turn_accepted", turn_id="t1")
    await worker.say("delta", turn_id="t1", seq=1, text="hi ")
    await worker.say("delta", turn_id="t1", seq=2, text="there")
    await worker.say("turn_end", turn_id="t1", stop_reason="end_turn", seq=3)
    await session.hears(TurnSettled("t1", "end_turn"))
    assert session.heard[0] == TurnTaken("t1")
    assert session.text == "hi there"


async def test_workers_share_the_load_by_their_capacity(kind: WorkerAgent, dial: Dial) -> None:
    small, large = await dial({"capacity": 1}), await dial({"capacity": 3})
    assert kind.capacity == 4
    for number in range(4):
        Session(kind, f"s{number}").start(f"t{number}")
    await small.next("turn_start")
    given = [(await large.next("turn_start"))["turn_id"] for _ in range(3)]
    assert len(set(given)) == 3


async def test_a_worker_that_dies_loses_its_turn_and_the_next_one_goes_elsewhere(
    kind: WorkerAgent, clock: ManualClock, dial: Dial
) -> None:
    dying = await dial({})
    session = Session(kind, "s1")
    session.start("t1")
    await dying.next("turn_start")
    dying.vanish()
    await session.hears_a(LinkStalled)
    clock.advance(30)
    assert "did not come back within 30 s" in (await session.hears_a(AgentLost)).reason
    session.start("t2")
    other = await dial({})
    assert (await other.next("turn_start"))["turn_id"] == "t2"


async def test_a_link_that_breaks_in_mid_stream_goes_on_exactly(kind: WorkerAgent, dial: Dial) -> None:
    worker = await dial({"instance": "w"})
    session = Session(kind, "s1")
    session.start("t1")
    for seq in range(1, 4):
        await worker.say("delta", turn_id="t1", seq=seq, text=f"{seq} ")
    await until(lambda: len(session.heard) == 3)
    worker.vanish()
    await session.hears_a(LinkStalled)
    back = await dial({"instance": "w", "turns": [{"turn_id": "t1", "seq": 5}]})
    assert await back.next("turn_resume") == {"turn_id": "t1", "seq": 3}
    for seq in range(2, 7):
        await back.say("delta", turn_id="t1", seq=seq, text=f"{seq} ")
    await back.say("turn_end", turn_id="t1", seq=7)
    await session.hears(TurnSettled("t1", "end_turn"))
    assert session.text == "1 2 3 4 5 6 "


@pytest.mark.parametrize("code", [1000, 1001])
async def test_a_worker_that_leaves_takes_its_turn_along(kind: WorkerAgent, dial: Dial, code: int) -> None:
    worker = await dial({})
    session = Session(kind, "s1")
    session.start("t1")
    await worker.next("turn_start")
    await worker.socket.close(code)
    assert await session.hears_a(AgentLost) == AgentLost(f"the agent closed its connection with code {code}", "t1")


async def test_any_other_good_bye_is_a_broken_link(kind: WorkerAgent, dial: Dial) -> None:
    worker = await dial({})
    session = Session(kind, "s1")
    session.start("t1")
    await worker.socket.close(1011)
    assert (await session.hears_a(LinkStalled)).reason == "the agent closed its connection with code 1011"


# -- what is not understood --------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["nonsense", "{}", '{"type":"delta","data":{}}', '{"type":"hello","data":{}}'])
async def test_who_does_not_say_hello_is_told_and_closed(kind: WorkerAgent, dial: Dial, first: str) -> None:
    worker = await dial()
    await worker.socket.send(first)
    assert (await worker.next("error"))["code"] in {"invalid_json", "invalid_message"}
    assert await worker.end() == 1008
    assert kind.capacity == 0


async def test_who_says_nothing_is_closed_after_a_while(kind: WorkerAgent, clock: ManualClock, dial: Dial) -> None:
    worker = await dial()
    await until(lambda: clock.waiting == 2)
    clock.advance(HELLO_SECONDS)
    assert await worker.end() == 1008


async def test_who_leaves_before_the_hello_is_forgotten(kind: WorkerAgent, clock: ManualClock, dial: Dial) -> None:
    worker = await dial()
    await until(lambda: clock.waiting == 2)
    worker.vanish()
    await until(lambda: clock.waiting == 0)


async def test_binary_frames_and_broken_text_end_the_link(kind: WorkerAgent, dial: Dial) -> None:
    worker = await dial({})
    await worker.socket.send(b"\x00")
    assert await worker.end() == 1003
    worker = await dial({})
    write_frames(worker, b'{"type":"\xff"}')
    assert await worker.end() == 1007


async def test_a_frame_beyond_the_limit_ends_the_link(kind: WorkerAgent, dial: Dial) -> None:
    worker = await dial({})
    session = Session(kind, "s1")
    session.start("t1")
    with suppress(ConnectionClosed):
        await worker.socket.send("x" * (FRAME_LIMIT + 1))
    assert await worker.end() == 1009
    assert "could not be read" in (await session.hears_a(LinkStalled)).reason


async def test_garbage_costs_nobody_else_anything(kind: WorkerAgent, dial: Dial) -> None:
    bad, good = await dial({}), await dial({})
    sessions = [Session(kind, "s1"), Session(kind, "s2")]
    for number, session in enumerate(sessions):
        session.start(f"t{number}")
    with suppress(ConnectionClosed):
        for _ in range(61):
            await bad.socket.send(os.urandom(16).hex())
    assert await bad.end() == 1008
    turn_id = (await good.next("turn_start"))["turn_id"]
    await good.say("turn_end", turn_id=turn_id)
    await until(lambda: any(TurnSettled(turn_id, "end_turn") in session.heard for session in sessions))


# -- pings -------------------------------------------------------------------------------------------


async def test_both_sides_may_ask_whether_the_other_is_there(kind: WorkerAgent, clock: ManualClock, dial: Dial) -> None:
    worker = await dial({})
    pong = await worker.socket.ping()
    async with asyncio.timeout(PATIENCE):
        await pong
    await worker.say("ping")
    await worker.next("pong")
    clock.advance(HEARTBEAT)
    await worker.next("ping")


async def test_who_answers_pings_stays_and_who_does_not_is_cut(
    kind: WorkerAgent, clock: ManualClock, dial: Dial
) -> None:
    worker = await dial({})
    session = Session(kind, "s1")
    session.start("t1")
    await worker.next("turn_start")
    for _ in range(3):
        clock.advance(HEARTBEAT)
        await worker.next("ping")  # and the library has answered the other ping that came before it
        await worker.say("pong")
        await worker.say("ping")
        await worker.next("pong")
    worker.socket.transport.pause_reading()
    clock.advance(HEARTBEAT)
    clock.advance(HEARTBEAT)
    assert (await session.hears_a(LinkStalled)).reason == "the agent gave no sign of life"


# -- backpressure ------------------------------------------------------------------------------------


def write_frames(worker: Worker, *payloads: bytes) -> None:
    """Write text frames by hand, as no library would: all at once, and masked with zeros."""
    frames = bytearray()
    for payload in payloads:
        size = len(payload)
        head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0x80 | 126, size)
        frames += head + bytes(4) + payload
    worker.socket.transport.write(frames)


async def test_a_flood_keeps_its_order(kind: WorkerAgent, dial: Dial) -> None:
    worker = await dial({})
    session = Session(kind, "s1")
    session.start("t1")
    form = '{"type":"delta","id":"1","data":{"turn_id":"t1","seq":%d,"text":"%d "}}'
    for start in range(1, 100_001, 1000):
        write_frames(worker, *((form % (seq, seq)).encode() for seq in range(start, start + 1000)))
    await worker.say("turn_end", turn_id="t1", seq=100_001)
    await until(lambda: session.heard and isinstance(session.heard[-1], TurnSettled))
    assert session.text == "".join(f"{seq} " for seq in range(1, 100_001))


async def test_a_worker_is_not_read_while_a_session_is_behind_and_loses_nothing(
    kind: WorkerAgent, clock: ManualClock, dial: Dial
) -> None:
    worker = await dial({})
    session = Session(kind, "s1")
    session.start("t1")
    await worker.next("turn_start")
    session.line.pause()
    text = "x" * 1000
    for start in range(1, 20_001, 1000):
        write_frames(
            worker,
            *(
                json.dumps({"type": "delta", "data": {"turn_id": "t1", "seq": seq, "text": text}}).encode()
                for seq in range(start, start + 1000)
            ),
        )
    clock.advance(3 * HEARTBEAT)  # nor is it taken for dead
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(session.heard) <= 1
    assert worker.socket.transport.get_write_buffer_size() > 0
    session.line.resume()
    await until(lambda: len(session.heard) == 20_000)
    assert all(isinstance(event, TextDelta) for event in session.heard)


async def test_a_worker_that_does_not_read_is_cut_and_the_others_go_on(kind: WorkerAgent, dial: Dial) -> None:
    deaf = await dial({})
    deaf.socket.transport.pause_reading()
    session = Session(kind, "s1")
    session.start("t1")
    for number in range(40):
        session.line.answer_approval("t1", f"q{number}", "x" * (OUTBOX_LIMIT // 16))
        await asyncio.sleep(0)
    stalled = await session.hears_a(LinkStalled)
    assert stalled.reason == "the agent did not read what it was sent"
    other = await dial({})
    Session(kind, "other").start("t2")
    assert await other.next("turn_start")


async def test_a_worker_that_has_read_nothing_yet_is_given_no_more_than_may_wait_for_it(
    kind: WorkerAgent, dial: Dial
) -> None:
    """Far more than may wait is wanted at once; a worker with all the places is cut for none of it."""
    busy = await dial({"capacity": 100})
    busy.socket.transport.pause_reading()
    sessions = [Session(kind, f"s{number}") for number in range(40)]
    for session in sessions:
        session.start(f"t{session.session_id}", "x" * (OUTBOX_LIMIT // 16))
    busy.socket.transport.resume_reading()
    given = [(await busy.next("turn_start"))["turn_id"] for _ in sessions]
    assert given == [f"t{session.session_id}" for session in sessions]
    assert not any(session.heard for session in sessions)


async def test_the_end_is_a_restart_to_workers(kind: WorkerAgent, dial: Dial) -> None:
    workers = [await dial({}), await dial({})]
    await kind.close()
    assert [await worker.end() for worker in workers] == [1012, 1012]
    late = await dial()
    await late.say("hello", agent="coder")
    assert (await late.next("error"))["code"] == "unavailable"
    assert await late.end() == 1013
