"""What the tests of agents share: an ear for what is emitted, and links that are closed again."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import msgspec
import pytest

from broker.agents.acp.agent import AcpAgent, AcpLink
from broker.agents.port import Opening
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentReady,
    AgentRecord,
    Prompt,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)

SCRIPTS = Path(__file__).parent / "acp" / "scripts"
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

    async def turn(self) -> list[AgentEvent]:
        """Return what the turn says up to its end, without how the agent came up and took it."""
        return [
            event
            for event in await self.until()
            if not isinstance(event, AgentReady | TurnTaken)
            and not (isinstance(event, AgentRecord) and event.kind == "agent.state")
        ]

    async def ready(self) -> AgentReady:
        """Wait until the agent is ready, and return how it says so."""
        *_, ready = await self.until(AgentReady)
        assert isinstance(ready, AgentReady)
        return ready

    async def state(self) -> dict[str, object]:
        """Return the next report of how the agent is."""
        *_, record = await self.until(AgentRecord)
        assert isinstance(record, AgentRecord)
        assert record.kind == "agent.state", record
        return dict(msgspec.json.decode(record.data))

    def rest(self) -> list[AgentEvent]:
        """Return what has been heard and not been asked for."""
        return [self._heard.get_nowait() for _ in range(self._heard.qsize())]


@attrs.frozen
class Line:
    """A link and what it says."""

    agent: AcpAgent
    link: AcpLink
    ear: Ear
    session_id: str = "s1"

    def ask(self, content: object, turn_id: str = "t1") -> None:
        self.link.start_turn(Prompt(self.session_id, turn_id, msgspec.json.encode(content)))

    def beside(self, session_id: str, workspace_dir: str | None = None, memory: str | None = None) -> "Line":
        """Open the line of another session of the same agent."""
        ear = Ear()
        opening = Opening(session_id, workspace_dir, memory)
        return Line(self.agent, self.agent.open(opening, ear.emit), ear, session_id)

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
        *arguments: str,
        script: str = "fake_acp.py",
        workspace_dir: str | None = None,
        memory: str | None = None,
        **settings: object,
    ) -> Line:
        # Without site-packages Python is up in half the time; the SDKs need them.
        flags = () if script in {"sdk_agent.py", "pydantic_agent.py"} else ("-S", "-E")
        command = (sys.executable, *flags, str(SCRIPTS / script), *arguments)
        agent = AcpAgent(**({"command": command} | settings))
        agents.append(agent)
        return Line(agent, agent.open(Opening("s1", workspace_dir, memory), ear.emit), ear)

    yield make
    for agent in agents:
        await agent.close()
