"""A child process and its pipes, alike under every event loop: started, watched, killed with all it started.

The loops' own `subprocess_exec` will not do: uvloop's leaves copies of the pipes open in the child, so that one
which closes its output would only seem to be silent.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, cast

__all__ = ["Hearer", "Process"]

_PROC: Final = Path("/proc")
_STOPPED: Final = (b"T", b"t")


class Hearer(Protocol):
    """Who is told what a process does."""

    def said(self, data: bytes) -> None:
        """Take some of its output."""

    def complained(self, data: bytes) -> None:
        """Take some of what it wrote to its standard error."""

    def closed_output(self) -> None:
        """It will say nothing more."""

    def closed_input(self) -> None:
        """It will read nothing more."""

    def exited(self) -> None:
        """It has exited, with `Process.status`; what it said before may still come."""


class Process:
    """One process that leads its own session and group: a signal reaches it with all it started, and Ctrl-C does not.

    Args:
        command: the program and its arguments; looked for on PATH, no shell in between.
        cwd: its directory.
        env: its environment, alone.
        hearer: told what it does, from `connect` on.

    Attributes:
        gone: set once it has been reaped and all its pipes are closed.

    Raises:
        OSError: there is no such command or directory, or it may not be run.
        ValueError: the command holds a NUL character.
    """

    def __init__(self, command: Sequence[str], cwd: str, env: Mapping[str, str], hearer: Hearer) -> None:
        # Whatever else is open here closes in the child; of the pipes it has its three ends and no copies.
        self._popen = subprocess.Popen(  # noqa: S603 - the configuration says what to run
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
        self.gone = asyncio.Event()
        self._hearer = hearer
        self._reaped = False
        self._input = _Pipe(self._input_closed, _nothing)
        self._output = _Pipe(self._output_closed, hearer.said)
        self._complaints = _Pipe(self._settle, hearer.complained)

    @property
    def pid(self) -> int:
        """Its id, which is its group's id too."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """How it exited, or minus the signal that killed it; None while it lives."""
        return self._popen.returncode

    @property
    def stopped(self) -> bool:
        """Whether a signal or a tracer has stopped it; where there is no `/proc`, nobody can tell."""
        if self._reaped:
            return False
        try:
            stat = (_PROC / str(self.pid) / "stat").read_bytes()
        except OSError:
            return False
        return stat.rpartition(b")")[2].split()[0] in _STOPPED

    async def connect(self) -> None:
        """Begin to hear it, and to watch for its end.

        Raises:
            OSError: that cannot be done; it is killed.
        """
        loop, popen = asyncio.get_running_loop(), self._popen
        try:
            # A pipe that the loop was given is the loop's to close, also if it fails.
            pipe, popen.stdin = popen.stdin, None
            await loop.connect_write_pipe(lambda: self._input, pipe)
            pipe, popen.stdout = popen.stdout, None
            await loop.connect_read_pipe(lambda: self._output, pipe)
            pipe, popen.stderr = popen.stderr, None
            await loop.connect_read_pipe(lambda: self._complaints, pipe)
        except BaseException:
            self.kill()
            self.close()
            raise
        finally:
            self._watch(loop)

    # -- what is done with it ------------------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Bytes written to it that its pipe has not taken yet."""
        pipe = self._input.usable
        return 0 if pipe is None else pipe.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Give it input, as soon as it takes it; nothing happens if it reads no more."""
        if (pipe := self._input.usable) is not None:
            pipe.write(data)

    def pause(self) -> None:
        """Read none of its output."""
        if (pipe := self._output.usable) is not None:
            pipe.pause_reading()

    def resume(self) -> None:
        """Read its output again."""
        if (pipe := self._output.usable) is not None:
            pipe.resume_reading()

    def kill(self) -> None:
        """End it and all that is still in its group, unless it has exited: then that was done."""
        if not self._reaped:
            # EPERM: what is left of it works for another user now.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the pipes, also if something that left its group holds the other ends."""
        if (pipe := self._input.usable) is not None:
            pipe.abort()  # what was written and not read need not be any more
        for output in (self._output, self._complaints):
            if (pipe := output.usable) is not None:
                pipe.close()
        for file in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if file is not None:
                file.close()

    # -- its end -------------------------------------------------------------------------------------

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            fd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not on this system, or no descriptor is left
            threading.Thread(target=self._wait, args=(loop,), name=f"waits for {self.pid}", daemon=True).start()
        else:
            loop.add_reader(fd, self._ended, loop, fd)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(self._exited)

    def _ended(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        loop.remove_reader(fd)
        os.close(fd)
        self._exited()

    def _exited(self) -> None:
        # Before it is reaped: until then nobody else can be called what its group is called.
        self.kill()
        self._popen.poll()
        self._reaped = True
        self._hearer.exited()
        self._settle()

    def _input_closed(self) -> None:
        self._hearer.closed_input()
        self._settle()

    def _output_closed(self) -> None:
        self._hearer.closed_output()
        self._settle()

    def _settle(self) -> None:
        pipes = (self._input, self._output, self._complaints)
        if self._reaped and not any(pipe.open for pipe in pipes):
            self.gone.set()


def _nothing(_: bytes) -> None:
    """Take what nobody asked for."""


class _Pipe(asyncio.Protocol):
    """Our end of a pipe.

    Args:
        closed: told that it is closed, whichever end was first.
        received: takes what comes.

    Attributes:
        open: whether the loop has it.
    """

    def __init__(self, closed: Callable[[], None], received: Callable[[bytes], None]) -> None:
        self.open = False
        self._closed = closed
        self._received = received
        self._transport: asyncio.Transport  # once it was open

    @property
    def usable(self) -> asyncio.Transport | None:
        """The loop's side of it, of which only the half works that there is; None if it is closed or about to be."""
        return self._transport if self.open and not self._transport.is_closing() else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Hand on what came."""
        self._received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that it is closed."""
        self.open = False
        self._closed()
