"""Agents that speak the Agent Client Protocol on stdin and stdout: one child process per session."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs
from loguru import logger

from broker.agents.dialogue import Dialogue
from broker.agents.port import Configuration, Configured, Emit, Opening
from broker.agents.process import Child, child_environment
from broker.errors import BrokerError
from broker.messages import AgentEvent, Prompt
from broker.tasks import spawn

__all__ = ["LINE_LIMIT", "AcpAgent", "AcpLink"]

LINE_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of the longest line an agent may write."""


@attrs.define(eq=False)
class AcpAgent:
    """An agent profile of kind `acp` (PROTOCOL section 4).

    Attributes:
        command: the program and its arguments; looked for on PATH, no shell in between.
        env: what its environment holds beside the few variables of `process.INHERITED`.
        start_timeout: seconds until it must have opened its session; 0 for no limit.
        line_limit: bytes of the longest line it may write.
        cwd: where it works in a session that names no directory.
    """

    command: Sequence[str]
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    start_timeout: float = 60.0
    line_limit: int = LINE_LIMIT
    cwd: str = attrs.Factory(os.getcwd)
    _links: set["AcpLink"] = attrs.field(factory=set, init=False, repr=False)

    on_capacity: Callable[[], None] = attrs.field(default=lambda: None, init=False, repr=False)

    @property
    def capacity(self) -> int | None:
        """Return how many turns may be under way at the same time; None for no limit."""
        return None

    async def start(self) -> None:
        """Do nothing: processes are started behind their first turns."""

    def open(self, opening: Opening, emit: Emit) -> "AcpLink":
        """Return a line for this session; its process is started behind the first turn."""
        link = AcpLink(self, opening.session_id, opening.workspace_dir or self.cwd, emit, self._links.discard)
        self._links.add(link)
        return link

    async def close(self) -> None:
        """Close every line that is still open."""
        await asyncio.gather(*(link.close() for link in tuple(self._links)))


class AcpLink:
    """One session's line to its agent process; after a loss the next turn starts a fresh one."""

    def __init__(
        self, agent: AcpAgent, session_id: str, cwd: str, emit: Emit, closed: Callable[["AcpLink"], None]
    ) -> None:
        self._agent = agent
        self._session_id = session_id
        self._cwd = cwd
        self._emit = emit
        self._on_closed = closed
        self._closed = False
        self._dialogue: Dialogue | None = None
        self._child: Child | None = None
        self._children: list[Child] = []
        self._launching: set[asyncio.Task[None]] = set()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The id of the agent's process and process group; None while there is none."""
        return None if self._child is None else self._child.pid

    def start_turn(self, prompt: Prompt) -> None:
        """Give the agent a turn, and start the agent if there is none."""
        if self._closed:
            return
        if self._dialogue is not None:
            self._dialogue.start_turn(prompt)
            return
        dialogue = self._dialogue = Dialogue(self._cwd, self._say, self._give_up)
        dialogue.start_turn(prompt)
        self._launch(dialogue)

    def cancel_turn(self, turn_id: str) -> None:
        """Ask the agent to stop this turn."""
        if self._dialogue is not None:
            self._dialogue.cancel_turn(turn_id)

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Answer a question of the agent's; None says it was cancelled."""
        if self._dialogue is not None:
            self._dialogue.answer_approval(turn_id, key, option_id)

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Refuse: modes and options are not passed on."""
        configured(BrokerError("unavailable", "This agent cannot be configured."))

    def pause(self) -> None:
        """Read nothing from the agent until `resume`."""

    def resume(self) -> None:
        """Read again."""

    async def close(self) -> None:
        """Kill the agent and all it started, and wait until they are reaped; emit nothing any more."""
        self._closed = True
        self._cut()
        if self._launching:
            await asyncio.wait(self._launching)
        await asyncio.gather(*(child.reaped() for child in self._children))
        self._on_closed(self)

    def _say(self, event: AgentEvent) -> None:
        if not self._closed:
            self._emit(event)

    # -- the process -------------------------------------------------------------------------------

    def _launch(self, dialogue: Dialogue) -> None:
        child = self._child = Child(
            dialogue.feed,
            partial(self._ended, dialogue),
            line_limit=self._agent.line_limit,
            label=self._session_id,
        )
        self._children = [*(child for child in self._children if not child.gone), child]
        task = spawn(self._start(dialogue, child), name=f"starts the agent of session {self._session_id}")
        self._launching.add(task)
        task.add_done_callback(self._launching.discard)
        if self._agent.start_timeout > 0:
            self._deadline = asyncio.get_running_loop().call_later(
                self._agent.start_timeout, self._out_of_time, dialogue
            )

    async def _start(self, dialogue: Dialogue, child: Child) -> None:
        try:
            error = await self._begin(dialogue, child)
        except Exception as e:  # noqa: BLE001 - a turn waits behind this, and must hear of its end
            logger.opt(exception=e).error("the agent of session {} could not be started", self._session_id)
            error = BrokerError("agent_unavailable", "The agent cannot be started.")
        if error is not None and self._dialogue is dialogue:
            self._give_up(error)

    async def _begin(self, dialogue: Dialogue, child: Child) -> BrokerError | None:
        # The directory may lie on a file system that does not answer; the loop must not wait for it.
        if not await asyncio.to_thread(os.path.isdir, self._cwd):
            return BrokerError("workspace_not_found")
        if self._dialogue is not dialogue:
            return None
        program = self._agent.command[0]
        try:
            await child.start(self._agent.command, self._cwd, child_environment(self._agent.env))
        except OSError as e:
            return BrokerError("agent_unavailable", f"The agent cannot be started: {program}: {e.strerror}.")
        except ValueError:
            return BrokerError("agent_unavailable", "The agent cannot be started: its command holds a NUL character.")
        if self._dialogue is dialogue:
            dialogue.begin(child.write)
        return None

    def _out_of_time(self, dialogue: Dialogue) -> None:
        if self._dialogue is dialogue and not dialogue.ready:
            seconds = f"{self._agent.start_timeout:g}"
            self._give_up(BrokerError("agent_unavailable", f"The agent was not ready within {seconds} seconds."))

    def _ended(self, dialogue: Dialogue, reason: str) -> None:
        if self._dialogue is dialogue:
            when = "" if dialogue.ready else " while starting"
            self._give_up(BrokerError("agent_unavailable", f"The agent {reason}{when}."))

    def _give_up(self, error: BrokerError) -> None:
        dialogue = self._dialogue
        self._cut()
        if dialogue is not None:
            dialogue.end(error)

    def _cut(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._child is not None:
            self._child.kill()
        self._dialogue = self._child = self._deadline = None
