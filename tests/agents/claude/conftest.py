"""A stub of the Messages API on loopback, which does what the first word of the prompt says, and lines to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from broker.agents.claude.agent import AnthropicAgent, AnthropicLink
from broker.agents.port import Opening
from broker.config.secret import Secret
from broker.messages import AgentEvent, Prompt

KEY = "sk-ant-not-a-real-key"
FLOOD = 256
"""Deltas of 128 KiB: more than the kernel's buffers take."""


def sse(event: str, **data: Any) -> bytes:
    return f"event: {event}\ndata: {json.dumps({'type': event, **data})}\n\n".encode()


def delta(text: str, kind: str = "text") -> bytes:
    return sse("content_block_delta", index=0, delta={"type": f"{kind}_delta", kind: text})


def refusal(kind: str, words: str = "Said so.") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_1"}


START = sse(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 1},
    },
)
BLOCK = sse("content_block_start", index=0, content_block={"type": "text", "text": ""})
STOP = sse("message_stop")


def end(stop_reason: str = "end_turn") -> bytes:
    return sse("message_delta", delta={"stop_reason": stop_reason, "stop_sequence": None}, usage={"output_tokens": 5})


class Stub:
    """Answers like the Messages API.

    Attributes:
        url: where it listens.
        key: what the lines pay with.
        bodies: of the requests so far.
        headers: of the requests so far.
        connections: by which they came.
        said: set when it has got to where the test wants it.
        left: set when a client has gone before its answer was whole.
        go_on: set by a test to let it go on.
        deltas: how many a flood has.
        waiting: bytes of a flood that the kernel has not taken.
    """

    key = KEY
    deltas = FLOOD

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: set[Any] = set()
        self.said = asyncio.Event()
        self.left = asyncio.Event()
        self.go_on = asyncio.Event()
        self.waiting: Callable[[], int] = lambda: 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.connections.add(request.transport)
        word = body["messages"][-1]["content"][0]["text"].split()[0]
        script = getattr(self, f"do_{word.replace('-', '_')}", None)
        try:
            return await (self.echo(request, body) if script is None else script(request))
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise

    @property
    def tries(self) -> int:
        return len(self.bodies)

    async def stream(self, request: web.Request, *parts: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return response

    async def echo(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        words = body["messages"][-1]["content"][-1]["text"].split()
        return await self.stream(request, START, BLOCK, *(delta(f"{word} ") for word in words), end(), STOP)

    async def do_think(self, request: web.Request) -> web.StreamResponse:
        signature = sse("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "c2ln"})
        thoughts = (delta("Hm. ", "thinking"), delta("Well.", "thinking"), signature)
        return await self.stream(request, START, *thoughts, delta("Yes."), end("max_tokens"), STOP)

    async def do_odd(self, request: web.Request) -> web.StreamResponse:
        odd = (
            sse("ping"),
            sse("surprise", of="the future"),
            b": a comment\n\n",
            sse("content_block_start", index=0, content_block={"type": "new_block", "data": [1]}),
            sse("content_block_delta", index=0, delta={"type": "new_delta", "data": 1}),
            delta(""),
        )
        return await self.stream(request, START, *odd, delta("fine"), *odd, end(), STOP, *odd)

    async def do_mute(self, request: web.Request) -> web.StreamResponse:
        return await self.stream(request, START, end("refusal"), STOP)

    async def do_linger(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, START, delta("done"), end(), STOP)
        await self.go_on.wait()
        return response

    async def do_cut_after_the_end(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, START, delta("done"), end(), STOP)
        assert request.transport is not None
        request.transport.close()
        return response

    async def do_uncounted(self, request: web.Request) -> web.StreamResponse:
        start = sse("message_start", message={"id": "msg_1", "role": "assistant"})
        last = sse("message_delta", delta={"stop_reason": "end_turn"})
        return await self.stream(request, start, delta("free"), last, STOP)

    async def do_stall(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, START, delta("one "))
        await self.go_on.wait()
        return response

    async def do_hush(self, request: web.Request) -> web.StreamResponse:
        self.said.set()
        await self.go_on.wait()
        return await self.stream(request)

    async def do_flood(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, START, delta("first"))
        await self.go_on.wait()
        transport = request.transport
        assert transport is not None
        self.waiting = transport.get_write_buffer_size  # type: ignore[attr-defined]
        self.said.set()
        await response.write(b"".join(delta(f"{number:06}" + "x" * 131_072) for number in range(FLOOD)) + end() + STOP)
        return response

    async def do_shower(self, request: web.Request) -> web.StreamResponse:
        return await self.stream(request, START + b"".join(map(delta, "x" * 200)) + end() + STOP)

    async def do_cut(self, request: web.Request) -> web.StreamResponse:
        response = await self.stream(request, START, delta("one "))
        assert request.transport is not None
        request.transport.close()
        return response

    async def do_cut_before_a_word(self, request: web.Request) -> web.StreamResponse:
        if self.tries > 1:
            return await self.stream(request, START, delta("whole"), end(), STOP)
        response = await self.stream(request, START, BLOCK)
        assert request.transport is not None
        request.transport.close()
        return response

    async def do_hang_up(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def do_end_early(self, request: web.Request) -> web.StreamResponse:
        return await self.stream(request, START, delta("one "), end())

    async def do_nonsense(self, request: web.Request) -> web.StreamResponse:
        return await self.stream(request, START, delta("one "), b"event: message_delta\ndata: {nonsense\n\n")

    async def do_numbers(self, request: web.Request) -> web.StreamResponse:
        return await self.stream(request, START, delta("one "), b"event: message_delta\ndata: 7\n\n")

    async def do_html(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="<h1>Welcome</h1>", content_type="text/html")

    async def do_overload_once(self, request: web.Request) -> web.StreamResponse:
        if self.tries == 1:
            return web.json_response(refusal("overloaded_error"), status=529)
        return await self.stream(request, START, delta("at last"), end(), STOP)

    async def do_overload_in_stream(self, request: web.Request) -> web.StreamResponse:
        if self.tries == 1:
            return await self.stream(request, START, BLOCK, sse("error", **refusal("overloaded_error")))
        return await self.stream(request, START, delta("at last"), end(), STOP)

    async def do_overload(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(refusal("overloaded_error", "Overloaded"), status=529)

    async def do_error_after_a_word(self, request: web.Request) -> web.StreamResponse:
        return await self.stream(request, START, delta("one "), sse("error", **refusal("overloaded_error")))

    async def do_limit(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(refusal("rate_limit_error"), status=429, headers={"Retry-After": "3"})

    async def do_limit_for_an_hour(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(refusal("rate_limit_error"), status=429, headers={"Retry-After": "3600"})

    async def do_status(self, request: web.Request) -> web.StreamResponse:
        _, status, kind = self.bodies[-1]["messages"][-1]["content"][0]["text"].split()
        return web.json_response(refusal(kind, f"The key {KEY} may not."), status=int(status))


@pytest.fixture
async def stub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stub]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    stub = Stub()
    app = web.Application()
    app.router.add_post("/v1/messages", stub.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield stub
    stub.go_on.set()
    await runner.cleanup()


class Line:
    """A link to the stub, what it says, and how long it would have waited between its tries."""

    def __init__(self, agent: AnthropicAgent, ear: Any, pauses: list[float]) -> None:
        self.agent = agent
        self.ear = ear
        self.pauses = pauses
        self.link: AnthropicLink = agent.open(Opening("s1"), ear.emit)

    def ask(self, content: object, turn_id: str = "t1", messages: object = ()) -> None:
        history = msgspec.json.encode(messages)
        self.link.start_turn(Prompt("s1", turn_id, msgspec.json.encode(content), messages=history))

    async def told(self, content: object, **more: Any) -> list[AgentEvent]:
        self.ask(content, **more)
        return await self.ear.until()


@pytest.fixture
async def line(stub: Stub, ear: Any) -> AsyncIterator[Callable[..., Line]]:
    """Make a line to the stub; `settings` are those of `AnthropicAgent`."""
    agents: list[AnthropicAgent] = []

    def make(**settings: Any) -> Line:
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        given = {"model": "claude-test", "api_key": Secret(KEY), "base_url": stub.url, "sleep": sleep}
        agents.append(AnthropicAgent(**(given | settings)))
        return Line(agents[-1], ear, pauses)

    yield make
    for agent in agents:
        await agent.close()
