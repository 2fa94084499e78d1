"""How much memory the process has, against how much it may have (`limits.memory`)."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loguru import logger

from broker.clock import Clock, Timer
from broker.tasks import spawn

__all__ = ["Memory", "resident"]

SAMPLE_SECONDS: Final = 1.0
ENOUGH: Final = 0.9
"""Below this part of the limit new work is welcome again, so that it is not refused and welcome by turns."""
_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MIB: Final = 1 << 20


def resident() -> int | None:
    """Return the bytes of memory that the process has; None where the system does not tell (proc_pid_statm(5))."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except OSError:
        return None


class Memory:
    """Looks each second.

    Args:
        limit: bytes that the process may have; 0 for no limit.
        clock: time.
        measure: returns what it has.

    Attributes:
        short: whether it has more.
    """

    def __init__(self, limit: int, clock: Clock, measure: Callable[[], int | None] = resident) -> None:
        self.short = False
        self._limit = limit
        self._clock = clock
        self._measure = measure
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to look."""
        if not self._limit:
            return
        if self._measure() is None:
            logger.warning("limits.memory is not in force: this system does not tell how much memory a process has")
            return
        self._look()

    def stop(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._clock.call_later(SAMPLE_SECONDS, self._look)
        size = self._measure() or 0
        if not self.short and size > self._limit:
            self.short = True
            text = "memory is short: {} MiB of {} are in use; new connections, sessions and turns are refused"
            logger.warning(text, size // _MIB, self._limit // _MIB)
        elif self.short and size < self._limit * ENOUGH:
            self.short = False
            logger.info("there is memory again: {} MiB of {} are in use", size // _MIB, self._limit // _MIB)
        if self.short:  # what was freed is the allocator's until it is told to give it back
            spawn(asyncio.to_thread(_give_back), name="give memory back")


def _give_back() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return  # not glibc
