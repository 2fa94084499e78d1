"""The stand-in for the Messages API that the docs name is one that the official SDK can talk to."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.agents.claude.agent import AnthropicAgent
from broker.agents.port import Opening
from broker.config import Secret
from broker.messages import AgentEvent, Prompt, TextDelta, TurnSettled

STAND_IN = Path(__file__).parents[3] / "examples" / "messages_stub.py"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Serve it."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", STAND_IN, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    async with asyncio.timeout(20):
        await process.stdout.readline()  # aiohttp says where it listens
    yield f"http://127.0.0.1:{port}"
    process.kill()
    await process.communicate()


async def test_it_streams_a_few_words(url: str) -> None:
    heard: asyncio.Queue[AgentEvent] = asyncio.Queue()
    agent = AnthropicAgent("any-model", Secret("dummy"), url)
    link = agent.open(Opening("s"), heard.put_nowait)
    link.start_turn(Prompt("s", "t", b'"hello"'))
    events: list[AgentEvent] = []
    async with asyncio.timeout(20):
        while not (events and isinstance(events[-1], TurnSettled)):
            events.append(await heard.get())
    await link.close()
    await agent.close()
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "tok0 tok1 tok2 tok3 tok4 "
