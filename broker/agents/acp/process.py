"""A child process that talks in lines: started clean, read as it comes, gone when it is to be gone."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, cast

from loguru import logger

__all__ = ["INHERITED", "MARK", "STDIN_LIMIT", "Child", "Lines", "child_environment"]

INHERITED: Final = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
"""What a child sees of the broker's own environment: no keys, no tokens."""
MARK: Final = "ACTOR_BROKER_MARK"
"""The variable by which a broker finds what an earlier one left behind."""
STDIN_LIMIT: Final = 8 * 1024 * 1024
"""Bytes that may wait for a child which does not read its input."""
LINGER: Final = 0.5
"""Seconds in which the end of a child's output and its exit belong together."""
REAP: Final = 5.0
"""Seconds that a killed child may take to be gone."""

_STDOUT: Final = 1
_STDERR: Final = 2
_LOGGED_LINES: Final = 20
_LOGGED_WIDTH: Final = 500


def child_environment(extra: Mapping[str, str], mark: str | None = None) -> dict[str, str]:
    """Return the few variables every program needs, `extra`, and under `MARK` whose child it is."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | dict(extra) | ({} if mark is None else {MARK: mark})


class Lines:
    """Cuts a stream of bytes into lines of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that `data` completes, without their newlines.

        Raises:
            OverflowError: a line is larger than the limit, complete or not.
        """
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._begin(data[start:end])
            line = bytes(self._begun)
            self._begun.clear()
            yield line
            start = end + 1
        self._begin(data[start:])

    def _begin(self, part: bytes) -> None:
        if len(self._begun) + len(part) > self._limit:
            raise OverflowError(f"wrote a line of more than {self._limit} bytes")
        self._begun += part


class Child(asyncio.SubprocessProtocol):
    """One child process in its own process group, read without a task: each line is handed on as it arrives.

    Args:
        on_line: takes each line of its output, in order.
        on_end: told once, in words, that it can no longer be talked to, and why; not after `kill`.
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
        self._transport: asyncio.SubprocessTransport | None = None
        self._output_ended = False
        self._ended = False
        self._paused = False
        self._due: Callable[[], None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()

    async def start(self, command: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
        """Start `command` in `cwd` with `env` alone.

        Raises:
            OSError: there is no such command or directory, or it may not be run.
        """
        # Its own session, so that a signal reaches it together with all it started, and Ctrl-C does not.
        await asyncio.get_running_loop().subprocess_exec(
            lambda: self, *command, cwd=cwd, env=dict(env), start_new_session=True
        )

    @property
    def pid(self) -> int | None:
        """The process id, which is its group's id too; None before it has started."""
        return None if self._transport is None else self._transport.get_pid()

    def write(self, line: bytes) -> None:
        """Give it one line, newline included; never waits."""
        if self._ended or self._transport is None:
            return
        stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        if stdin.is_closing():
            return
        waiting = stdin.get_write_buffer_size()
        if waiting and waiting + len(line) > STDIN_LIMIT:
            self._cut("does not read its input")
            return
        stdin.write(line)

    def pause(self) -> None:
        """Read nothing of what it writes until `resume`; all of it waits, its end too. Idempotent."""
        if self._paused or self._ended:
            return
        self._paused = True
        if self._linger is not None:
            self._linger.cancel()
        if (output := self._output()) is not None:
            output.pause_reading()

    def resume(self) -> None:
        """Read again. Idempotent."""
        if not self._paused or self._ended:
            return
        self._paused = False
        if (output := self._output()) is not None:
            output.resume_reading()
        if self._due is not None:
            self._later(self._due)

    def _output(self) -> asyncio.ReadTransport | None:
        if self._transport is None or self._output_ended:
            return None
        return cast("asyncio.ReadTransport | None", self._transport.get_pipe_transport(_STDOUT))

    def kill(self) -> None:
        """End it and all it started, at once; nothing is handed on any more."""
        self._ended = True
        self._signal_group()

    async def reaped(self) -> None:
        """Wait until it is gone; call `kill` first."""
        if self._transport is None:
            return
        try:
            async with asyncio.timeout(REAP):
                await self._gone.wait()
        except TimeoutError:
            self._log.error("process {} was killed and is not gone after {} s", self.pid, REAP)

    @property
    def gone(self) -> bool:
        """Whether it never started, or has been reaped with all pipes closed."""
        return self._transport is None or self._gone.is_set()

    # -- what the event loop tells -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the process."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        if self._ended:
            self._signal_group()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Hand on what it wrote."""
        if fd == _STDERR:
            for text in data.decode(errors="replace").splitlines()[:_LOGGED_LINES]:
                self._log.debug("stderr: {}", text[:_LOGGED_WIDTH])
            return
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

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Its end closed, or it closed a pipe on purpose."""
        if fd == _STDERR or self._ended:
            return
        if fd == _STDOUT:
            self._output_ended = True
            if self._status() is not None:
                self._finish()
                return
        name = "output" if fd == _STDOUT else "input"
        self._later(lambda: self._cut(f"closed its {name}"))

    def process_exited(self) -> None:
        """Let what it started die with it, and take the last lines it wrote."""
        self._signal_group()
        if self._ended or self._output_ended:
            self._finish()
        else:
            self._later(self._finish)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is reaped and all its pipes are closed."""
        self._gone.set()

    # -- its end -----------------------------------------------------------------------------------

    def _status(self) -> int | None:
        return None if self._transport is None else self._transport.get_returncode()

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
        self._end(_in_words(self._status()))
        if self._transport is not None:
            self._transport.close()

    def _cut(self, reason: str) -> None:
        if self._status() is None:
            self._end(reason)
            self._signal_group()
        else:
            self._finish()

    def _end(self, reason: str) -> None:
        if self._linger is not None:
            self._linger.cancel()
        if not self._ended:
            self._ended = True
            self._on_end(reason)

    def _signal_group(self) -> None:
        pid = self.pid
        if pid is not None and not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _in_words(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "a signal"
    return f"was killed by {name} ({-status})"
