"""Lines that somebody types, without a thread that waits for them."""

import asyncio
import os
import select
import termios
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from broker.cli.output import printable

__all__ = ["Keyboard"]

_MOST: Final = 64 * 1024
"""Bytes that are taken at once."""


class Keyboard:
    """The lines of a terminal, which edits them itself. What comes in one go, as a paste does, is one line of many.

    It listens only while a line is waited for: until then what is typed is the terminal's, or another program's.

    Args:
        source: the terminal's descriptor.

    Attributes:
        came: set while there is something to take.
        over: whether there will be no more lines: Ctrl-D, or a terminal that is gone.
    """

    def __init__(self, source: int) -> None:
        self.came = asyncio.Event()
        self.over = False
        self._source = source
        self._lines: deque[str] = deque()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take lines as they come."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._source, self._read)
        try:
            yield
        finally:
            loop.remove_reader(self._source)

    def take(self) -> str | None:
        """Return the next line if there is one."""
        line = self._lines.popleft() if self._lines else None
        if not self._lines and not self.over:
            self.came.clear()
        return line

    def forget(self) -> None:
        """Drop what was typed ahead: it was not meant for what is asked now."""
        self._lines.clear()
        with suppress(termios.error):
            termios.tcflush(self._source, termios.TCIFLUSH)

    def _read(self) -> None:
        said = b""
        while len(said) <= _MOST and (part := self._part()):
            said += part
            if not select.select([self._source], [], [], 0)[0]:
                break
        if said:
            self._lines.append(printable(said.decode(errors="replace")).strip())
        self.over = not said
        self.came.set()

    def _part(self) -> bytes:
        try:
            return os.read(self._source, _MOST)
        except OSError:  # the terminal is gone
            return b""
