"""An agent's process, that talks in lines: when one is complete, when it has ended, and why."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from loguru import logger

from broker.agents.acp.lines import Lines
from broker.agents.acp.process import Process

__all__ = ["STDIN_LIMIT", "Child"]

STDIN_LIMIT: Final = 8 * 1024 * 1024
"""Bytes that may wait for a child which does not read its input."""
LINGER: Final = 0.5
"""Seconds in which the end of a child's output and its exit belong together."""
REAP: Final = 5.0
"""Seconds that a killed child may take to be gone."""

_LOGGED_LINES: Final = 20
_LOGGED_WIDTH: Final = 500


class Child:
    """One child process, read without a task: each line is handed on as it arrives; a `process.Hearer`.

    Args:
        on_line: takes each line of its output, in order.
        on_end: told once that it can no longer be talked to, with what it did, as `exited with status 1`; not
            after `kill`.
        line_limit: bytes of the longest line that is taken.
        label: what it is called in the log.
    """

    def __init__(
        self, on_line: Callable[[bytes], None], on_end: Callable[[str], None], *, line_limit: int, label: str
    ) -> None:
        self._on_line = on_line
        self._on_end = on_end
        self._lines = Lines(line_limit)
        self._log = logger.bind(agent=label)
        self._process: Process | None = None
        self._output_ended = False
        self._ended = False
        self._paused = False
        self._due: Callable[[], None] | None = None
        self._linger: asyncio.TimerHandle | None = None

    async def start(self, command: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
        """Start `command` in `cwd` with `env` alone; after `kill` do nothing.

        Raises:
            OSError: there is no such command or directory, or it may not be run.
            ValueError: the command holds a NUL character.
        """
        if self._ended:
            return
        self._process = Process(command, cwd, env, self)
        try:
            await self._process.connect()
        except BaseException:
            self._ended = True
            raise

    @property
    def pid(self) -> int | None:
        """The process id, which is its group's id too; None before it has started."""
        return None if self._process is None else self._process.pid

    @property
    def stopped(self) -> bool:
        """Whether it can neither hear nor answer, because a signal has stopped it."""
        return self._process is not None and self._process.stopped

    def write(self, line: bytes) -> None:
        """Give it one line, newline included; never waits."""
        if self._ended or self._process is None:
            return
        waiting = self._process.unread
        if waiting and waiting + len(line) > STDIN_LIMIT:
            self._cut("does not read its input")
            return
        self._process.write(line)

    def pause(self) -> None:
        """Read nothing of what it writes until `resume`; all of it waits, its end too. Idempotent."""
        if self._paused or self._ended:
            return
        self._paused = True
        if self._linger is not None:
            self._linger.cancel()
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """Read again. Idempotent."""
        if not self._paused or self._ended:
            return
        self._paused = False
        if self._process is not None:
            self._process.resume()
        if self._due is not None:
            self._later(self._due)

    def kill(self) -> None:
        """End it and all it started, at once; nothing is handed on any more."""
        self._ended = True
        if self._process is not None:
            self._process.kill()

    async def reaped(self) -> None:
        """Wait until it is gone; call `kill` first."""
        if self._process is None:
            return
        try:
            async with asyncio.timeout(REAP):
                await self._process.gone.wait()
        except TimeoutError:
            self._log.error("process {} was killed and is not gone after {} s", self.pid, REAP)

    @property
    def gone(self) -> bool:
        """Whether it never started, or has been reaped with all pipes closed."""
        return self._process is None or self._process.gone.is_set()

    # -- what the process does -----------------------------------------------------------------------

    def said(self, data: bytes) -> None:
        """Hand on the lines that are complete."""
        try:
            for line in self._lines.feed(data):
                if self._ended:
                    return
                self._on_line(line)
        except OverflowError as e:
            self._cut(str(e))
        except Exception as e:  # noqa: BLE001 - whatever it said must not leave its turn without an end
            self._log.opt(exception=e).error("a line of the agent's could not be handled")
            self._cut("said something the broker could not handle")

    def complained(self, data: bytes) -> None:
        """Log it, within bounds."""
        for text in data.decode(errors="replace").splitlines()[:_LOGGED_LINES]:
            self._log.debug("stderr: {}", text[:_LOGGED_WIDTH])

    def closed_input(self) -> None:
        """See whether this is its end, or it did so on purpose."""
        if not self._ended:
            self._later(lambda: self._cut("closed its input"))

    def closed_output(self) -> None:
        """Take this for its end, or wait for that."""
        self._output_ended = True
        if self._ended:
            return
        if self._status is not None:
            self._finish()
        else:
            self._later(lambda: self._cut("closed its output"))

    def exited(self) -> None:
        """Take the last lines it wrote."""
        if self._ended or self._output_ended:
            self._finish()
        else:
            self._later(self._finish)

    # -- its end -------------------------------------------------------------------------------------

    @property
    def _status(self) -> int | None:
        return None if self._process is None else self._process.status

    def _later(self, then: Callable[[], None]) -> None:
        """Do this if nothing more is heard within `LINGER`, once it is listened to."""
        self._due = then
        if self._linger is not None:
            self._linger.cancel()
        if not self._paused:
            # What can be read by then is handed on first: it is one step of the loop ahead.
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(LINGER, loop.call_soon, then)

    def _finish(self) -> None:
        """Say how it exited, and close the pipes even if something that left its group holds them."""
        self._end(_in_words(self._status))
        if self._process is not None:
            self._process.close()

    def _cut(self, reason: str) -> None:
        if self._status is None:
            self._end(reason)
            self.kill()
        else:
            self._finish()

    def _end(self, reason: str) -> None:
        if self._linger is not None:
            self._linger.cancel()
        if not self._ended:
            self._ended = True
            self._on_end(reason)


def _in_words(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "a signal"
    return f"was killed by {name} ({-status})"
