"""What the tests of the client share: a broker that plays its part of `agents.v1.json` by the contract, and no more."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from broker.client import Worker

PATIENCE = 20.0
"""Seconds after which what is waited for will not come, on a machine that is busy with other tests."""
Frame = dict[str, Any]


class Visit:
    """One link of a worker, from the broker's side; what the worker says is read when a test asks for it."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.hello: dict[str, Any] = {}

    async def frame(self) -> Frame:
        """Return the next frame."""
        async with asyncio.timeout(PATIENCE):
            frame: Frame = json.loads(await self.socket.recv())
        return frame

    async def next(self, kind: str) -> dict[str, Any]:
        """Return the data of the next frame, which is to be of this kind."""
        frame = await self.frame()
        assert frame["type"] == kind, frame
        data: dict[str, Any] = frame["data"]
        return data

    async def until(self, *kinds: str) -> list[Frame]:
        """Return the frames up to the first of these kinds."""
        frames = [await self.frame()]
        while frames[-1]["type"] not in kinds:
            frames.append(await self.frame())
        return frames

    async def send(self, kind: str, **data: Any) -> None:
        """Say something."""
        frame = {"type": kind, "id": "b1", "data": data, "timestamp": "2026-01-01T00:00:00.000Z"}
        await self.socket.send(json.dumps(frame))

    async def start(self, text: Any = "hi", turn_id: str = "t1", **more: Any) -> None:
        """Give a turn."""
        turn = {"session_id": "s1", "content": text, "messages": [], "variables": {}, "workspace_dir": None}
        await self.send("turn_start", turn_id=turn_id, **(turn | more))

    async def answer(self, text: Any = "hi", turn_id: str = "t1", **more: Any) -> list[Frame]:
        """Give a turn, and return its frames to the end."""
        await self.start(text, turn_id, **more)
        return await self.until("turn_end", "turn_error")

    def drop(self) -> None:
        """Vanish without a good-bye."""
        self.socket.transport.abort()

    async def close(self, code: int, reason: str = "") -> None:
        """Say good-bye."""
        await self.socket.close(code, reason)

    async def left(self) -> tuple[int, str]:
        """Return the code and the reason with which the worker leaves, whatever it says before."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as e:
            return (1006, "") if e.rcvd is None else (e.rcvd.code, e.rcvd.reason)


class Door:
    """A broker's door for agents.

    Attributes:
        url: where it is.
        handshakes: the requests of all handshakes.
        refusal: the HTTP status to answer handshakes with; None lets in.
    """

    def __init__(self) -> None:
        self.url = ""
        self.handshakes: list[Request] = []
        self.refusal: HTTPStatus | None = None
        self._visits: asyncio.Queue[Visit] = asyncio.Queue()

    def look(self, socket: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request)
        return None if self.refusal is None else socket.respond(self.refusal, "no\n")

    async def attend(self, socket: ServerConnection) -> None:
        self._visits.put_nowait(Visit(socket))
        await socket.wait_closed()

    async def visit(self) -> Visit:
        """Return the next link, before anything was said on it."""
        async with asyncio.timeout(PATIENCE):
            return await self._visits.get()

    async def greet(self) -> Visit:
        """Return the next link, once its worker has said hello and was welcomed."""
        visit = await self.visit()
        visit.hello = await visit.next("hello")
        await visit.send("welcome", agent=visit.hello["agent"], heartbeat=30)
        return visit


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A broker's door for agents; `agents.v1.json` is the only thing spoken there."""
    door = Door()
    server: Server = await serve(
        door.attend,
        "127.0.0.1",
        0,
        compression=None,
        max_size=None,
        max_queue=4,
        ping_interval=None,
        close_timeout=1,
        process_request=door.look,
        subprotocols=[Subprotocol("agents.v1.json")],
    )
    port = server.sockets[0].getsockname()[1]
    door.url = f"ws://127.0.0.1:{port}/agent"
    yield door
    for socket in server.connections:
        socket.transport.abort()
    server.close()


Served = Callable[..., asyncio.Task[None]]


@pytest.fixture
async def serving() -> AsyncIterator[Served]:
    """Have a worker serve in the background, to be called as its `serve` is; it pauses for no time."""
    tasks: list[asyncio.Task[None]] = []

    def begin(worker: Worker, url: str, **options: Any) -> asyncio.Task[None]:
        worker.pauses = (0.0, 0.0)
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(worker.serve(url, **options))
        tasks.append(task)
        return task

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


Linked = Callable[..., Awaitable[Visit]]


@pytest.fixture
def linked(door: Door, serving: Served) -> Linked:
    """Have a worker serve that answers by the function given, and return its link, welcomed."""

    async def link(answer: Callable[..., Any], capacity: int = 1, **options: Any) -> Visit:
        class Agent(Worker):
            agent = "shout"

            def answer(self, turn: Any) -> Any:
                return answer(turn)

        Agent.capacity = capacity
        serving(Agent(), door.url, **options)
        return await door.greet()

    return link
