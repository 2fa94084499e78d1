"""An ACP agent's process: started when a session wants it, again when it died, killed when nobody is left."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
from loguru import logger

from broker.agents.acp.backoff import Backoff
from broker.agents.acp.child import Child
from broker.agents.acp.dialogue import Dialogue
from broker.agents.acp.environment import child_environment
from broker.agents.acp.switchboard import Switchboard
from broker.clock import Clock, Timer
from broker.errors import BrokerError
from broker.tasks import spawn

__all__ = ["Host", "Program"]

_MUTE: Final = "the agent was cut off: it did not heed what another session asked of it"
_STOPPED: Final = "the agent's process is stopped"


def _nothing() -> None:
    return


@attrs.frozen
class Program:
    """What to run.

    Attributes:
        command: the program and its arguments; looked for on PATH, no shell in between.
        env: what its environment holds beside the few variables of `environment.INHERITED`.
        protocol: the newest version of ACP to offer it.
        mark: what its environment says of whose child it is (`broker.agents.acp.orphans`); None for nothing.
        line_limit: bytes of the longest line it may write.
    """

    command: Sequence[str]
    env: Mapping[str, str] = attrs.field(repr=False)
    protocol: int
    mark: str | None
    line_limit: int


class Host:
    """One process at a time, and the dialogues that have a session in it.

    Args:
        program: what to run.
        cwd: where.
        label: what it is called in the log.
        clock: measures its life and its waits.
        on_restart: called when a process is started in the place of one that had died.
    """

    def __init__(
        self, program: Program, cwd: str, *, label: str, clock: Clock, on_restart: Callable[[], None] = _nothing
    ) -> None:
        self._program = program
        self._cwd = cwd
        self._label = label
        self._clock = clock
        self._on_restart = on_restart
        self._died = False
        self._backoff = Backoff()
        self._guests: dict[Dialogue, None] = {}
        self._pausing: set[Dialogue] = set()
        self._waiting: Timer | None = None
        self._wait = 0.0
        self._child: Child | None = None
        self._board: Switchboard | None = None
        self._up = False
        self._born = 0.0
        self._children: list[Child] = []
        self._launching: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """The id of the process and its group; None while there is none."""
        return None if self._child is None else self._child.pid

    # -- who has a session here ----------------------------------------------------------------------

    def __contains__(self, dialogue: Dialogue) -> bool:
        return dialogue in self._guests

    def join(self, dialogue: Dialogue) -> None:
        """Open the dialogue on the process, as soon as there is one."""
        if dialogue in self._guests:
            return
        self._guests[dialogue] = None
        if self._up and self._board is not None:
            dialogue.open(self._board)
        elif self._waiting is not None:
            dialogue.report("restarting", wait=self._wait)
        elif self._child is not None:
            dialogue.report("starting")
        else:
            self._start()

    def leave(self, dialogue: Dialogue) -> None:
        """Let the dialogue go. The process goes too if that was the last, or if it ignores what it was asked."""
        self.resume(dialogue)
        if dialogue not in self._guests:
            return
        del self._guests[dialogue]
        if not self._guests:
            self._cut()
        elif dialogue.mute:
            self._end(_MUTE)
        else:
            dialogue.part()

    def pause(self, dialogue: Dialogue) -> None:
        """Read nothing from the process until this dialogue, and all others that paused it, go on."""
        if dialogue in self._guests:
            self._pausing.add(dialogue)
            if self._child is not None:
                self._child.pause()

    def resume(self, dialogue: Dialogue) -> None:
        """Read again, as far as this dialogue is concerned."""
        self._pausing.discard(dialogue)
        if self._child is not None and not self._pausing:
            self._child.resume()

    def notice(self) -> None:
        """Look whether a signal has stopped the process; then it can neither hear nor answer, and has to go.

        Only the process that was started is looked at, for it is the one that talks.
        """
        if self._child is not None and self._child.stopped:
            self._fail(_STOPPED)

    async def closed(self) -> None:
        """Wait until no process that was killed is left."""
        if self._launching:
            await asyncio.wait(self._launching)
        await asyncio.gather(*(child.reaped() for child in self._children if child is not self._child))

    # -- the process ---------------------------------------------------------------------------------

    def _start(self) -> None:
        wait = self._backoff.wait()
        if not wait:
            self._launch()
            return
        self._wait = round(wait, 1)
        self._waiting = self._clock.call_later(wait, self._launch)
        for dialogue in tuple(self._guests):
            dialogue.report("restarting", wait=self._wait)

    def _launch(self) -> None:
        self._waiting = None
        if self._died:
            self._died = False
            self._on_restart()
        self._born = self._clock.monotonic()
        board = self._board = Switchboard(self._program.protocol, up=self._greeted, down=self._unfit)
        child = self._child = Child(
            board.feed,
            self._ended,
            line_limit=self._program.line_limit,
            label=self._label,
        )
        self._children = [*(child for child in self._children if not child.gone), child]
        for dialogue in tuple(self._guests):
            dialogue.report("starting")
        task = spawn(self._run(board, child), name=f"starts the agent of {self._label}")
        self._launching.add(task)
        task.add_done_callback(self._launching.discard)

    async def _run(self, board: Switchboard, child: Child) -> None:
        try:
            error = await self._exec(child)
        except Exception as e:  # noqa: BLE001 - turns wait behind this, and must hear of its end
            logger.opt(exception=e).error("the agent of {} could not be started", self._label)
            error = BrokerError("agent_unavailable", "The agent cannot be started.")
        if self._board is not board:
            return
        if error is not None:
            self._unfit(error)
            return
        if self._pausing:
            child.pause()
        board.begin(child.write)

    async def _exec(self, child: Child) -> BrokerError | None:
        program = self._program
        try:
            await child.start(program.command, self._cwd, child_environment(program.env, program.mark))
        except OSError as e:
            return BrokerError("agent_unavailable", f"The agent cannot be started: {program.command[0]}: {e.strerror}.")
        except ValueError:
            return BrokerError("agent_unavailable", "The agent cannot be started: its command holds a NUL character.")
        return None

    def _greeted(self) -> None:
        self._up = True
        for dialogue in tuple(self._guests):
            if self._board is not None:
                dialogue.open(self._board)

    def _ended(self, reason: str) -> None:
        self._fail(f"the agent {reason}" if self._up else f"the agent {reason} while starting")

    def _unfit(self, error: BrokerError) -> None:
        self._fail("the agent could not be started", error)

    def _fail(self, reason: str, error: BrokerError | None = None) -> None:
        """It died, or might as well have."""
        self._died = True
        self._backoff.died(self._clock.monotonic() - self._born)
        self._end(reason, error)

    def _end(self, reason: str, error: BrokerError | None = None) -> None:
        guests = tuple(self._guests)
        self._guests.clear()
        self._pausing.clear()
        self._cut()
        for dialogue in guests:
            dialogue.end(reason, error)

    def _cut(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        if self._child is not None:
            self._child.kill()
        if self._board is not None:
            self._board.end()
        self._child = self._board = self._waiting = None
        self._up = False
