"""Agents that speak the Agent Client Protocol on stdin and stdout: a child process per session, or one for all."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import attrs

from broker.agents.acp.dialogue import Dialogue
from broker.agents.acp.folders import Folders
from broker.agents.acp.host import Host, Program
from broker.agents.port import Configuration, Configured, Emit, Opening
from broker.clock import Clock, SystemClock
from broker.errors import BrokerError
from broker.messages import AgentEvent, Prompt
from broker.tasks import spawn

__all__ = ["LINE_LIMIT", "AcpAgent", "AcpLink"]

LINE_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of the longest line an agent may write."""


def _limit(turns: int | None) -> int | None:
    return turns or None


@attrs.define(eq=False)
class AcpAgent:
    """An agent profile of kind `acp` (PROTOCOL section 4).

    Attributes:
        command: the program and its arguments; looked for on PATH, no shell in between.
        env: what its environment holds beside the few variables of `environment.INHERITED`.
        process: one process for each session, or one that all share.
        protocol: the newest version of the protocol to offer; the agent's answer decides.
        capacity: turns that may be under way at the same time; 0 or None for no limit.
        mark: what the environment of its processes says of whose they are (`broker.agents.acp.orphans`).
        line_limit: bytes of the longest line it may write.
        cwd: where it works in a session that names no directory, and where a shared process runs.
        clock: measures the processes' lives and the waits between them.
        on_capacity: never called: the capacity does not change.
        restarts: processes that were started in the place of one that had died.
    """

    command: Sequence[str]
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    process: Literal["session", "shared"] = "session"
    protocol: int = 2
    capacity: int | None = attrs.field(default=None, converter=_limit)
    mark: str | None = None
    line_limit: int = LINE_LIMIT
    cwd: str = attrs.Factory(os.getcwd)
    clock: Clock = attrs.field(factory=SystemClock, repr=False)
    on_capacity: Callable[[], None] = attrs.field(default=lambda: None, init=False, repr=False)
    restarts: int = attrs.field(default=0, init=False, repr=False)
    _folders: Folders = attrs.field(factory=Folders, init=False, repr=False)
    _links: set["AcpLink"] = attrs.field(factory=set, init=False, repr=False)
    _shared: Host | None = attrs.field(default=None, init=False, repr=False)

    async def start(self) -> None:
        """Do nothing: processes are started behind their first turns."""

    def open(self, opening: Opening, emit: Emit) -> "AcpLink":
        """Return a line for this session; its process is started behind the first turn."""
        cwd = opening.workspace_dir or self.cwd
        host = self._host(f"session {opening.session_id}", cwd) if self.process == "session" else self._shared_host()
        link = AcpLink(host, Place(cwd, self._folders, self.clock), opening, emit, self._links.discard)
        self._links.add(link)
        return link

    def _shared_host(self) -> Host:
        if self._shared is None:
            self._shared = self._host(f"all sessions of {self.command[0]}", self.cwd)
        return self._shared

    def _host(self, label: str, cwd: str) -> Host:
        program = Program(self.command, self.env, self.protocol, self.mark, self.line_limit)
        return Host(program, cwd, label=label, clock=self.clock, on_restart=self._count_restart)

    def _count_restart(self) -> None:
        self.restarts += 1

    async def close(self) -> None:
        """Close every line that is still open, and wait until all processes are gone."""
        await asyncio.gather(*(link.close() for link in tuple(self._links)))
        if self._shared is not None:
            await self._shared.closed()


@attrs.frozen
class Place:
    """Where a session's agent works, how that is looked for, and its time.

    Attributes:
        cwd: the directory, absolute.
        folders: tells whether it is there.
        clock: measures how long the agent says nothing.
    """

    cwd: str
    folders: Folders
    clock: Clock


class AcpLink:
    """One session's line to its agent; after a loss the next turn starts a fresh process."""

    def __init__(
        self, host: Host, place: Place, opening: Opening, emit: Emit, closed: Callable[["AcpLink"], None]
    ) -> None:
        self._host = host
        self._session_id = opening.session_id
        self._place = place
        self._emit = emit
        self._on_closed = closed
        self._closed = False
        self._joining: asyncio.Task[None] | None = None
        self._dialogue = Dialogue(place.cwd, self._say, self._give_up, opening.memory, place.clock)

    @property
    def pid(self) -> int | None:
        """The id of the agent's process and process group; None while there is none."""
        return self._host.pid

    def start_turn(self, prompt: Prompt) -> None:
        """Give the agent a turn, and start the agent if there is none."""
        if not self._closed:
            self._dialogue.start_turn(prompt)
            self._join()

    def cancel_turn(self, turn_id: str) -> None:
        """Ask the agent to stop this turn."""
        if not self._closed:
            self._dialogue.cancel_turn(turn_id)
            self._host.notice()

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Answer a question of the agent's; None says it was cancelled."""
        if not self._closed:
            self._dialogue.answer_approval(turn_id, key, option_id)

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Ask the agent to work like this from now on, and start the agent if there is none."""
        if self._closed:
            configured(BrokerError("unavailable", "The line to the agent was cut."))
            return
        self._dialogue.configure(configuration, configured)
        self._join()

    def pause(self) -> None:
        """Read nothing from the agent until `resume`; what it says waits in its pipe. Idempotent."""
        if not self._closed:
            self._host.pause(self._dialogue)

    def resume(self) -> None:
        """Read again."""
        self._host.resume(self._dialogue)

    async def close(self) -> None:
        """Leave the agent; the last to leave kills it and all it started. Emits nothing any more."""
        if not self._closed:
            self._closed = True
            self._host.leave(self._dialogue)
            self._dialogue.close()
        if self._joining is not None:
            self._joining.cancel()
        await self._host.closed()
        self._on_closed(self)

    def _say(self, event: AgentEvent) -> None:
        if not self._closed:
            self._emit(event)

    # -- the way to the process ----------------------------------------------------------------------

    def _join(self) -> None:
        if self._joining is None and self._dialogue not in self._host:
            self._joining = spawn(self._find_home(), name=f"takes session {self._session_id} to its agent")

    async def _find_home(self) -> None:
        there = await self._place.folders.holds(self._place.cwd)
        self._joining = None
        if self._closed or not self._dialogue.wanted:
            return
        if there:
            self._host.join(self._dialogue)
        else:
            self._dialogue.end("its workspace is not there", BrokerError("workspace_not_found"))

    def _give_up(self, reason: str, error: BrokerError | None) -> None:
        self._host.leave(self._dialogue)
        self._dialogue.end(reason, error)
