"""Clients that are not ours: Node's `ws` and Python's `websockets`, through a death of the broker."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Make = Callable[..., Any]

FOREIGN = Path(__file__).with_name("foreign")
AGENTS = {"slow": {"kind": "echo", "delay": "50ms"}}


@pytest.fixture(scope="module")
def node() -> str:
    """Node, with `ws` installed beside the client; the test is skipped where that cannot be."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        pytest.skip("node or npm is not installed: no foreign JavaScript client is tested")
    if not (FOREIGN / "node_modules" / "ws").exists():
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=FOREIGN, check=True, capture_output=True, timeout=90)
        except (subprocess.SubprocessError, OSError) as e:
            pytest.skip(f"npm cannot install ws: no foreign JavaScript client is tested: {e}")
    return program


def records(broker: Any, session_id: str) -> list[Any]:
    """Return a session's records by HTTP, with the names that notifications have."""
    page = broker.get(f"/api/v1/sessions/{session_id}/records?limit=1000")["records"]
    return [{"type": "notification", "session_id": session_id, **record} for record in page]


async def lines(process: asyncio.subprocess.Process) -> AsyncIterator[Any]:
    """Yield what the client says."""
    assert process.stdout
    async with asyncio.timeout(60):
        async for line in process.stdout:
            yield json.loads(line)


async def test_nodes_ws_streams_and_resumes_after_a_kill(node: str, make_broker: Make) -> None:
    broker = make_broker(agents=AGENTS, default_agent="slow")
    broker.start()
    command = (node, str(FOREIGN / "client.js"), f"ws://127.0.0.1:{broker.port}/ws")
    client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, limit=1 << 22)
    said = lines(client)
    try:
        assert await anext(said) == {"welcome": "broker.v1.json", "chosen": "broker.v1.json"}
        assert (await anext(said))["streaming"].startswith("one")
        broker.end(SIGKILL)
        await asyncio.to_thread(broker.start)
        rest = [line async for line in said]
        assert await client.wait() == 0
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    assert {"recovered": True} in rest
    assert [line["ended"] for line in rest if "ended" in line] == ["lost", "completed"]
    result = rest[-1]
    assert [message["seq"] for message in result["shown"]] == list(range(1, len(result["shown"]) + 1))
    assert result["shown"] == records(broker, result["session"])
    assert result["closes"][0] == 1006


class Follower:
    """A client as users of `websockets` write it: `async for` over connections, resuming in each where it was."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session_id: str | None = None
        self.shown: list[Any] = []

    async def talk(self) -> AsyncGenerator[Any, None]:
        """Have a turn, and yield what the log says, across connections."""
        async for socket in connect(self.url, compression=None):
            try:
                if self.session_id is None:
                    await self.ask(socket, "session.create")
                else:
                    await self.ask(socket, "session.attach", session_id=self.session_id, after_seq=len(self.shown))
                async for text in socket:
                    message = json.loads(text)
                    if message.get("id") == "session.create":
                        self.session_id = message["data"]["session_id"]
                        await self.turn(socket, "1", "a b c d e f g h i j")
                    if message.get("id") == "session.attach":
                        assert message["data"]["recovered"] is True
                        await self.turn(socket, "2", "good bye")
                    if "seq" in message:
                        self.shown.append(message)
                        yield message
            except ConnectionClosed:
                continue

    async def turn(self, socket: ClientConnection, client_msg_id: str, content: str) -> None:
        """Start a turn."""
        await self.ask(socket, "turn.start", session_id=self.session_id, client_msg_id=client_msg_id, content=content)

    async def ask(self, socket: ClientConnection, action: str, **payload: Any) -> None:
        """Send a request under its own name."""
        await socket.send(json.dumps({"id": action, "type": "request", "action": action, "payload": payload}))


async def test_pythons_websockets_streams_and_resumes_after_a_kill(make_broker: Make) -> None:
    broker = make_broker(agents=AGENTS, default_agent="slow")
    broker.start()
    follower = Follower(f"ws://127.0.0.1:{broker.port}/ws")
    outcomes: list[str] = []
    killed = False
    async with asyncio.timeout(60), aclosing(follower.talk()) as talk:
        async for message in talk:
            if message["event"] == "message.delta" and not killed:
                killed = True
                broker.end(SIGKILL)
                await asyncio.to_thread(broker.start)
            if message["event"] == "turn.ended":
                outcomes.append(message["data"]["outcome"])
            if len(outcomes) == 2:
                break
    assert outcomes == ["lost", "completed"]
    assert follower.shown == records(broker, str(follower.session_id))
