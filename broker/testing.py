"""For tests of the broker, of plugins and of agents: time moved by hand, a socket, an agent, and a barrier.

These stand at the edges, where the broker meets the world; everything between them is the real thing.
"""

import asyncio
import heapq
import itertools
import struct
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
from pykka.messages import ProxyGetAttr

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

if TYPE_CHECKING:
    from broker.actors.ref import LoopRef

__all__ = ["FakeAgent", "FakeLine", "FakeTransport", "FakeTurn", "Frame", "ManualClock", "settled", "until"]

PATIENCE: Final = 10.0
"""Real seconds after which waiting for something counts as a failed test; what is waited for takes milliseconds."""


async def settled(ref: "LoopRef[Any]") -> None:
    """Return once the actor has handled all the mail it has now: inboxes are in order, so a question is a barrier."""
    await ref.ask(ProxyGetAttr(attr_path=("actor_urn",)), timeout=PATIENCE)


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop go on until `condition()` is true; for what no message tells of.

    Raises:
        TimeoutError: it did not become so.
    """
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the tests of an actor's inside have no event to wait for
            await asyncio.sleep(0)


# -- time -------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _ManualTimer:
    callback: Callable[[], object] | None

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A `broker.clock.Clock` that stands still until a test moves it.

    Args:
        now: what the wall clock shows first, milliseconds since the epoch.
    """

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self._began = now
        self._seconds = 0.0
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._numbers = itertools.count()

    def monotonic(self) -> float:
        """Return the seconds that were moved so far."""
        return self._seconds

    def now(self) -> int:
        """Return milliseconds since the epoch."""
        return self._began + round(self._seconds * 1000)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> _ManualTimer:
        """Call `callback` when the clock has been moved by `seconds`."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self._seconds + seconds, next(self._numbers), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move the clock, and call what falls due on the way, each at its own time and in order."""
        end = self._seconds + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._seconds = max(self._seconds, due)
            if timer.callback is not None:
                timer.callback()
        self._seconds = end

    @property
    def waiting(self) -> int:
        """How many timers were set and have neither fallen due nor been cancelled."""
        return sum(timer.callback is not None for _, _, timer in self._timers)


# -- a socket ---------------------------------------------------------------------------------------


@attrs.frozen
class Frame:
    """One WebSocket frame: its opcode (RFC 6455 section 5.2) and its payload, decompressed."""

    opcode: int
    payload: bytes


class FakeTransport(asyncio.Transport):
    """The server's end of a socket whose peer reads as much as a test lets it.

    Attributes:
        frames: what the peer has read, frame by frame.
        writes: how often something was written.
        aborted: whether the line was cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.writes = 0
        self.aborted = False
        self._closing = False
        self._stalled = False
        self._outbox = bytearray()  # written, and not yet taken off by the peer
        self._half = bytearray()  # taken off, and not yet a whole frame
        self._wakes: set[asyncio.Future[None]] = set()

    # -- what a connection asks of it -----------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take some bytes; those of a closed socket are lost, as with asyncio's own."""
        if self._closing:
            return
        self.writes += 1
        self._outbox += data
        if not self._stalled:
            self.read()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the peer has not taken off."""
        return len(self._outbox)

    def is_closing(self) -> bool:
        """Tell whether the socket is closed."""
        return self._closing

    def close(self) -> None:
        """Close the socket."""
        self._closing = True
        self._wake()

    def abort(self) -> None:
        """Cut the line: what the peer has not taken off is lost."""
        self.aborted = True
        self._outbox.clear()
        self.close()

    # -- what a test does with the peer ---------------------------------------------------------------

    def stall(self) -> None:
        """Let the peer read nothing more."""
        self._stalled = True

    def resume(self) -> None:
        """Let the peer read again, all there is and all that comes."""
        self._stalled = False
        self.read()

    def read(self, size: int | None = None) -> None:
        """Let the peer read `size` bytes more, or all that wait."""
        taken = self._outbox[:size]
        del self._outbox[:size]
        self._half += taken
        while (frame := _take_frame(self._half)) is not None:
            self.frames.append(frame)
        self._wake()

    @property
    def messages(self) -> list[Any]:
        """The text messages that the peer has read, decoded from JSON."""
        return [msgspec.json.decode(frame.payload) for frame in self.frames if frame.opcode == 1]

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that the peer has read, if any."""
        codes = [int(struct.unpack("!H", frame.payload[:2])[0]) for frame in self.frames if frame.opcode == 8]  # noqa: PLR2004
        return codes[0] if codes else None

    async def until(self, found: Callable[["FakeTransport"], Any]) -> Any:
        """Wait until `found(transport)` is true, and return what it returned.

        Raises:
            TimeoutError: it did not become so.
        """
        async with asyncio.timeout(PATIENCE):
            while not (result := found(self)):
                wake = asyncio.get_running_loop().create_future()
                self._wakes.add(wake)
                await wake
        return result

    async def message(self, **wanted: Any) -> Any:
        """Wait for the first message that has these keys and values, and return it."""
        return await self.until(
            lambda _: next((m for m in self.messages if all(m.get(k) == v for k, v in wanted.items())), None)
        )

    def _wake(self) -> None:
        wakes, self._wakes = self._wakes, set()
        for wake in wakes:
            if not wake.done():
                wake.set_result(None)


def _take_frame(data: bytearray) -> Frame | None:
    """Take a whole, unmasked frame off the front, if there is one (RFC 6455 section 5.2)."""
    if len(data) < 2:  # noqa: PLR2004 - the shortest header
        return None
    start, size = 2, data[1]
    for mark, width, form in ((126, 2, "!H"), (127, 8, "!Q")):
        if data[1] == mark:
            start = 2 + width
            if len(data) < start:
                return None
            size = int(struct.unpack_from(form, data, 2)[0])
    if len(data) < start + size:
        return None
    first, payload = data[0], bytes(data[start : start + size])
    del data[: start + size]
    if first & 0x40:  # compressed (RFC 7692 section 7.2.2)
        payload = zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")
    return Frame(first & 0x0F, payload)


# -- an agent ---------------------------------------------------------------------------------------


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
