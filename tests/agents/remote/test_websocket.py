"""The agent kind `websocket` over real sockets; the servers are written with a library that is foreign to us."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from loguru import logger
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from broker.agents.port import Opening
from broker.agents.remote.carrier import HEARTBEAT, HELLO_SECONDS
from broker.agents.remote.frames import SUBPROTOCOL
from broker.agents.remote.websocket import MOST_REST, WebSocketAgent, rest_seconds
from broker.messages import AgentEvent, AgentLost, LinkStalled, Prompt, TextDelta, TurnSettled
from broker.testing import ManualClock, until

PATIENCE = 30.0
SECRET = "Bearer s3cret"


class Link:
    """One link as the agents-server sees it."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.done = asyncio.Event()

    async def say(self, kind: str, /, **data: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, "id": "1", "data": data, "timestamp": ""}))

    async def hello(self, **more: Any) -> None:
        await self.say("hello", agent="theirs", version="9", capacity=2, **more)
        await self.next("welcome")

    async def next(self, kind: str) -> Any:
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = json.loads(await self.socket.recv())
                if frame["type"] == kind:
                    return frame["data"]

    async def end(self) -> int:
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed as e:
                return e.rcvd.code if e.rcvd else 1006


class AgentsServer:
    """An agents-server; a test takes its links one after the other."""

    def __init__(self) -> None:
        self.links: asyncio.Queue[Link] = asyncio.Queue()
        self.requests: list[Request] = []
        self.answer: HTTPStatus | None = None
        self.location = ""
        self.server: Server
        self.port = 0

    async def start(self, *, subprotocol: str = SUBPROTOCOL) -> None:
        self.server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            subprotocols=[subprotocol],  # type: ignore[list-item]
            select_subprotocol=lambda _, offered: subprotocol if subprotocol in offered else None,  # type: ignore[arg-type,return-value]
            process_request=self._look,
            max_size=None,
        )
        self.port = next(iter(self.server.sockets)).getsockname()[1]

    def _look(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if self.answer is None:
            return None
        response = connection.respond(self.answer, "no")
        if self.location:
            response.headers["Location"] = self.location
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        link = Link(socket)
        self.links.put_nowait(link)
        await socket.wait_closed()

    async def link(self) -> Link:
        async with asyncio.timeout(PATIENCE):
            return await self.links.get()

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed()


@pytest.fixture
def clock() -> ManualClock:
    """Time that a test moves."""
    return ManualClock()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged, as text with all that belongs to it."""
    found: list[str] = []
    sink = logger.add(lambda message: found.append(f"{message.record['extra']} {message}"), level="DEBUG")
    yield found
    logger.remove(sink)


@pytest.fixture
async def server() -> AsyncIterator[AgentsServer]:
    """An agents-server."""
    server = AgentsServer()
    await server.start()
    yield server
    await server.stop()


Make = Callable[..., Awaitable[WebSocketAgent]]


@pytest.fixture
async def make(server: AgentsServer, clock: ManualClock) -> AsyncIterator[Make]:
    """Make a profile of that server, and begin to dial."""
    kinds: list[WebSocketAgent] = []

    async def make_kind(**more: Any) -> WebSocketAgent:
        url = f"ws://127.0.0.1:{server.port}/agents?key=hidden"
        kind = WebSocketAgent(url, {"Authorization": SECRET}, reattach=30.0, clock=clock, **more)
        kinds.append(kind)
        await kind.start()
        return kind

    yield make_kind
    for kind in kinds:
        await kind.close()


class Session:
    """A session's end of its line."""

    def __init__(self, kind: WebSocketAgent, session_id: str = "s1") -> None:
        self.session_id = session_id
        self.heard: list[AgentEvent] = []
        self.line = kind.open(Opening(session_id), self.heard.append)

    def start(self, turn_id: str) -> None:
        self.line.start_turn(Prompt(self.session_id, turn_id, b'"hi"'))

    async def hears_a(self, kind: type) -> Any:
        await until(lambda: any(isinstance(event, kind) for event in self.heard))
        return next(event for event in self.heard if isinstance(event, kind))

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.heard if isinstance(event, TextDelta))


async def rested(clock: ManualClock) -> None:
    """Let the pause before the next dialling pass: nothing else is waited for then."""
    await until(lambda: clock.waiting == 1)
    clock.advance(MOST_REST)


# -- turns -------------------------------------------------------------------------------------------


async def test_the_broker_dials_with_its_headers_and_the_server_gets_turns(make: Make, server: AgentsServer) -> None:
    kind = await make()
    link = await server.link()
    assert server.requests[0].headers["Authorization"] == SECRET
    assert server.requests[0].path == "/agents?key=hidden"
    assert link.socket.subprotocol == SUBPROTOCOL
    await link.hello()
    assert kind.capacity == 2
    session = Session(kind)
    session.start("t1")
    assert (await link.next("turn_start"))["turn_id"] == "t1"
    await link.say("delta", turn_id="t1", seq=1, text="hello")
    await link.say("turn_end", turn_id="t1", stop_reason="end_turn", seq=2)
    await session.hears_a(TurnSettled)
    assert session.text == "hello"


async def test_errors_that_the_server_is_sent_are_counted(make: Make, server: AgentsServer) -> None:
    errors: Counter[str] = Counter()
    await make(errors=errors)
    link = await server.link()
    await link.say("hello")
    assert (await link.next("error"))["code"] == "invalid_message"
    assert errors == {"invalid_message": 1}


async def test_a_server_that_is_lost_is_dialled_again_and_its_turns_go_on(
    make: Make, server: AgentsServer, clock: ManualClock
) -> None:
    kind = await make()
    link = await server.link()
    await link.hello()
    session = Session(kind)
    session.start("t1")
    await link.next("turn_start")
    await link.say("delta", turn_id="t1", seq=1, text="a")
    await session.hears_a(TextDelta)
    link.socket.transport.abort()
    await session.hears_a(LinkStalled)
    assert kind.capacity == 0
    await until(lambda: clock.waiting == 2)  # the pause, and the turn's wait
    clock.advance(1)
    again = await server.link()
    await again.hello(turns=[{"turn_id": "t1", "seq": 2}])
    assert await again.next("turn_resume") == {"turn_id": "t1", "seq": 1}
    for seq, text in ((1, "a"), (2, "b")):
        await again.say("delta", turn_id="t1", seq=seq, text=text)
    await again.say("turn_end", turn_id="t1", seq=3)
    await session.hears_a(TurnSettled)
    assert session.text == "ab"


async def test_a_server_that_starts_anew_has_lost_its_turns(
    make: Make, server: AgentsServer, clock: ManualClock
) -> None:
    """Whatever answers at the address is the same agent to us, and it does not name the turn."""
    kind = await make()
    link = await server.link()
    await link.hello()
    session = Session(kind)
    session.start("t1")
    await link.next("turn_start")
    link.socket.transport.abort()
    await session.hears_a(LinkStalled)
    await until(lambda: clock.waiting == 2)
    clock.advance(1)
    await (await server.link()).hello()
    assert await session.hears_a(AgentLost) == AgentLost("the agent came back without this turn", "t1")
    session.start("t2")
    assert kind.capacity == 2


async def test_a_server_that_answers_no_ping_is_cut(make: Make, server: AgentsServer, clock: ManualClock) -> None:
    kind = await make()
    link = await server.link()
    await link.hello()
    session = Session(kind)
    session.start("t1")
    await link.next("turn_start")
    link.socket.transport.pause_reading()
    clock.advance(HEARTBEAT)
    clock.advance(HEARTBEAT)
    assert (await session.hears_a(LinkStalled)).reason == "the agent gave no sign of life"
    link.socket.transport.abort()


# -- servers that cannot be used ---------------------------------------------------------------------


async def test_what_refuses_is_tried_again_and_logged_once(
    make: Make, server: AgentsServer, clock: ManualClock, lines: list[str]
) -> None:
    server.answer = HTTPStatus.UNAUTHORIZED
    kind = await make()
    for _ in range(3):
        await rested(clock)
    assert len(server.requests) == 3
    away = [line for line in lines if "is away" in line]
    assert len(away) == 1
    assert "HTTP status 401" in away[0]
    server.answer = None
    await (await server.link()).hello()
    assert kind.capacity == 2
    assert any("is up: 'theirs' '9', 2 turns" in line for line in lines)


async def test_a_secret_is_in_no_line_of_the_log(
    make: Make, server: AgentsServer, clock: ManualClock, lines: list[str]
) -> None:
    server.answer = HTTPStatus.FORBIDDEN
    kind = await make()
    await rested(clock)
    server.answer = None
    await (await server.link()).hello()
    assert lines
    assert all("s3cret" not in line and "hidden" not in line for line in [*lines, repr(kind)])


async def test_a_redirect_is_not_followed_with_our_headers(
    make: Make, server: AgentsServer, clock: ManualClock, lines: list[str]
) -> None:
    other = AgentsServer()
    await other.start()
    server.answer, server.location = HTTPStatus.FOUND, f"ws://127.0.0.1:{other.port}/"
    await make()
    await rested(clock)
    assert any("HTTP status 302" in line for line in lines)
    assert other.requests == []
    await other.stop()


async def test_a_server_that_is_not_there_is_waited_for(
    make: Make, server: AgentsServer, clock: ManualClock, lines: list[str]
) -> None:
    await server.stop()
    kind = await make()
    await rested(clock)
    await rested(clock)
    await until(lambda: clock.waiting == 1)
    assert ["Connection refused" in line for line in lines if "is away" in line] == [True]
    await server.start()
    await rested(clock)
    await (await server.link()).hello()
    assert kind.capacity == 2


async def test_a_server_of_another_protocol_is_told_apart(
    make: Make, server: AgentsServer, clock: ManualClock, lines: list[str]
) -> None:
    await server.stop()
    await server.start(subprotocol="chat")
    kind = await make()
    assert await (await server.link()).end() == 1002
    await rested(clock)
    assert any(f"does not speak {SUBPROTOCOL}" in line for line in lines)
    assert kind.capacity == 0


async def test_a_server_that_does_not_introduce_itself_is_left(
    make: Make, server: AgentsServer, clock: ManualClock
) -> None:
    await make()
    mute = await server.link()
    await until(lambda: clock.waiting == 2)  # the pings, and the wait for the hello
    clock.advance(HELLO_SECONDS)
    assert await mute.end() == 1008
    clock.advance(MOST_REST)
    await (await server.link()).hello()


# -- pauses and the end ------------------------------------------------------------------------------


def test_pauses_grow_up_to_a_bound_and_the_first_is_short() -> None:
    for failures, most in ((0, 1), (1, 2), (2, 4), (5, 20), (10_000, 20)):
        pauses = [rest_seconds(failures) for _ in range(200)]
        assert 0.5 <= min(pauses) < max(pauses) <= most


async def test_closing_says_good_bye_and_dials_no_more(make: Make, server: AgentsServer, clock: ManualClock) -> None:
    kind = await make()
    link = await server.link()
    await link.hello()
    session = Session(kind)
    session.start("t1")
    ended = asyncio.ensure_future(link.end())
    await kind.close()
    assert await ended == 1001
    assert isinstance(session.heard[-1], AgentLost)
    clock.advance(MOST_REST)
    assert len(server.requests) == 1
    await kind.close()


async def test_closing_ends_a_pause_and_a_wait_for_the_hello(make: Make, server: AgentsServer) -> None:
    waiting = await make()
    mute = await server.link()
    ended = asyncio.ensure_future(mute.end())
    await waiting.close()
    assert await ended == 1001
    await server.stop()
    resting = await make()
    await resting.close()
    never_started = WebSocketAgent(f"ws://127.0.0.1:{server.port}/")
    await never_started.close()
    await server.start()
