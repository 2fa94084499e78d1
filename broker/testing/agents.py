"""An agent that says what a test says."""

import asyncio
from collections.abc import Callable

import msgspec

from broker.agents.port import Configuration, Configured, Emit, Opening
from broker.errors import BrokerError
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentReady,
    AgentRecord,
    ApprovalRequested,
    Prompt,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)
from broker.testing.patience import PATIENCE

__all__ = ["FakeAgent", "FakeLine", "FakeTurn"]


class FakeTurn:
    """One turn that a `FakeAgent` was given; the test decides what the agent says.

    Attributes:
        prompt: what it was given.
        line: the session's line it came by.
        cancelled: set when the agent was asked to stop.
        answers: (key, option id) of the questions that were answered.
    """

    def __init__(self, prompt: Prompt, line: "FakeLine") -> None:
        self.prompt = prompt
        self.line = line
        self.cancelled = asyncio.Event()
        self.answers: asyncio.Queue[tuple[str, str | None]] = asyncio.Queue()

    def take(self) -> None:
        """Say that the agent has the turn and is at work."""
        self.emit(TurnTaken(self.prompt.turn_id))

    def ready(self, memory: str | None = None, context: str = "fresh") -> None:
        """Say that the agent is up, and what it calls the session."""
        data = msgspec.json.encode({"state": "ready", "context": context})
        self.emit(AgentReady(self.prompt.turn_id, data, memory))

    def say(self, text: str, *, thought: bool = False, message_id: str | None = None) -> None:
        """Say some more text."""
        self.emit(TextDelta(self.prompt.turn_id, text, thought, message_id))

    def report(self, kind: str, data: bytes = b"{}") -> None:
        """Report anything else, such as `tool.started`; `data` is JSON."""
        self.emit(AgentRecord(self.prompt.turn_id, kind, data))

    def ask(self, key: str, *option_ids: str, title: str = "May I?") -> None:
        """Ask a person, who may choose one of the options."""
        options = [{"option_id": option_id, "name": option_id, "kind": "allow_once"} for option_id in option_ids]
        self.emit(ApprovalRequested(self.prompt.turn_id, key, title, msgspec.json.encode(options)))

    def settle(self, stop_reason: str = "end_turn", usage: bytes | None = None, *, last: bool = True) -> None:
        """End the turn; with `last` false more output may follow."""
        self.emit(TurnSettled(self.prompt.turn_id, stop_reason, usage, last))

    def fail(self, code: str = "agent_unavailable", message: str = "It does not work.") -> None:
        """End the turn with an error."""
        self.emit(TurnFailed(self.prompt.turn_id, code, message))

    def die(self, reason: str = "the agent exited with status 1") -> None:
        """Be gone, with the turn in flight."""
        self.emit(AgentLost(reason, self.prompt.turn_id))

    def emit(self, event: AgentEvent) -> None:
        """Say anything at all, at any time."""
        self.line.emit(event)


class FakeLine:
    """A session's line to a `FakeAgent`; a `broker.agents.port.AgentLink`."""

    def __init__(self, agent: "FakeAgent", opening: Opening, emit: Emit) -> None:
        self.session_id = opening.session_id
        self.workspace_dir = opening.workspace_dir
        self.memory = opening.memory
        self.emit = emit
        self.paused = False
        self.closed = asyncio.Event()
        self.configured: list[Configuration] = []
        self._agent = agent
        self._turns: dict[str, FakeTurn] = {}

    def start_turn(self, prompt: Prompt) -> None:
        """Show the turn to the test."""
        turn = self._turns[prompt.turn_id] = FakeTurn(prompt, self)
        self._agent.given.put_nowait(turn)

    def cancel_turn(self, turn_id: str) -> None:
        """Note that the turn is to stop; the test decides whether it does."""
        self._turns[turn_id].cancelled.set()

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Note the answer."""
        self._turns[turn_id].answers.put_nowait((key, option_id))

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Take the configuration, except for a mode called `impossible`."""
        self.configured.append(configuration)
        refused = configuration.mode == "impossible"
        configured(BrokerError("not_found", "There is no such mode.") if refused else None)

    def pause(self) -> None:
        """Note that nothing is to be read."""
        self.paused = True

    def resume(self) -> None:
        """Note that it is to be read again."""
        self.paused = False

    async def close(self) -> None:
        """Note that the line was cut."""
        self.closed.set()


class FakeAgent:
    """A `broker.agents.port.AgentKind` whose agents do what the test says.

    Attributes:
        lines: the lines opened so far.
        given: the turns started so far that `turn` has not returned.
        refuses: raised when a line is to be opened, if set.
        started: whether the profile was begun.
        closed: whether the profile was let go of.

    Args:
        capacity: turns at the same time; None for no limit.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = capacity
        self.on_capacity: Callable[[], None] = lambda: None
        self.started = False
        self.lines: list[FakeLine] = []
        self.given: asyncio.Queue[FakeTurn] = asyncio.Queue()
        self.refuses: Exception | None = None
        self.closed = False

    @property
    def capacity(self) -> int | None:
        """Return how many turns may be under way at the same time."""
        return self._capacity

    @capacity.setter
    def capacity(self, capacity: int | None) -> None:
        self._capacity = capacity
        self.on_capacity()

    async def start(self) -> None:
        """Note that the profile was begun."""
        self.started = True

    def open(self, opening: Opening, emit: Emit) -> FakeLine:
        """Return a line for this session."""
        if self.refuses is not None:
            raise self.refuses
        line = FakeLine(self, opening, emit)
        self.lines.append(line)
        return line

    async def close(self) -> None:
        """Let go of the profile."""
        self.closed = True

    async def turn(self) -> FakeTurn:
        """Wait for the next turn that is started, and return it."""
        async with asyncio.timeout(PATIENCE):
            return await self.given.get()
