"""What the tests of agents share: an ear for what is emitted, and links that are closed again."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import msgspec
import pytest

from broker.agents.acp import AcpAgent, AcpLink
from broker.agents.port import Opening
from broker.messages import AgentEvent, AgentLost, AgentRecord, Prompt, TextDelta, TurnFailed, TurnSettled

SCRIPTS = Path(__file__).parent / "scripts"
ENDS = (TurnSettled, TurnFailed, AgentLost)


class Ear:
    """Hears what a link emits."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[AgentEvent] = asyncio.Queue()
        self.emit = self._heard.put_nowait

    async def next(self) -> AgentEvent:
        """Return the next event; agents that take seconds to import set the bound."""
        async with asyncio.timeout(30):
            return await self._heard.get()

    async def until(self, *kinds: type) -> list[AgentEvent]:
        """Return all events up to the first of `kinds`; of those that end a turn if none is given."""
        events = [await self.next()]
        while not isinstance(events[-1], kinds or ENDS):
            events.append(await self.next())
        return events

    async def ready(self) -> None:
        """Pass over the report that the agent is ready."""
        event = await self.next()
        assert isinstance(event, AgentRecord), event
        assert event.kind == "agent.state"

    def rest(self) -> list[AgentEvent]:
        """Return what has been heard and not been asked for."""
        return [self._heard.get_nowait() for _ in range(self._heard.qsize())]


@attrs.frozen
class Line:
    """A link and what it says."""

    agent: AcpAgent
    link: AcpLink
    ear: Ear

    def ask(self, content: object, turn_id: str = "t1") -> None:
        self.link.start_turn(Prompt("s1", turn_id, msgspec.json.encode(content)))

    @staticmethod
    def text(events: list[AgentEvent]) -> str:
        """Return the answer's text in `events`."""
        return "".join(event.text for event in events if isinstance(event, TextDelta) and not event.thought)


@pytest.fixture
def ear() -> Ear:
    """What a link emits, to be waited for."""
    return Ear()


@pytest.fixture
async def line(ear: Ear) -> AsyncIterator[Callable[..., Line]]:
    """Make a line to the fake agent, or to the script named; `settings` are those of `AcpAgent`."""
    agents: list[AcpAgent] = []

    def make(
        *arguments: str, script: str = "fake_acp.py", workspace_dir: str | None = None, **settings: object
    ) -> Line:
        # Without site-packages Python is up in half the time; the SDKs need them.
        flags = ("-S", "-E") if script == "fake_acp.py" else ()
        command = (sys.executable, *flags, str(SCRIPTS / script), *arguments)
        agent = AcpAgent(**({"command": command} | settings))
        agents.append(agent)
        return Line(agent, agent.open(Opening("s1", workspace_dir), ear.emit), ear)

    yield make
    for agent in agents:
        await agent.close()
