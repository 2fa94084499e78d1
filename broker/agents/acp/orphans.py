"""What an earlier run of the broker left behind: agents' processes, found by the mark in their environment.

A broker that is killed cannot kill its agents. Most of them end with their input; those that do not, and what they
started in sessions of their own, are found here, wherever they have gone, as long as they keep their environment.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from loguru import logger

from broker.agents.acp.environment import MARK

__all__ = ["PATIENCE", "reap"]

PATIENCE: Final = 5.0
"""Seconds that all of them together may take to be gone."""

_PROC: Final = Path("/proc")


def reap(mark: str) -> int:
    """Kill every process of this user, but this one, that carries `mark`, and wait until they are gone.

    Blocks for up to `PATIENCE` seconds. What they start meanwhile carries the mark too, so it looks again until
    there is nothing to be found. Without a `/proc` nothing is found.

    Returns:
        How many processes it killed.
    """
    wanted = f"{MARK}={mark}".encode()
    until = time.monotonic() + PATIENCE
    killed: set[int] = set()
    while (found := dict(_marked(wanted))) and time.monotonic() < until:
        killed |= found.keys()
        for fd in found.values():
            _end(fd, until)
    for fd in found.values():
        os.close(fd)
    if found:
        logger.error("processes {} were killed and are not gone", sorted(found))
    return len(killed)


def _end(fd: int, until: float) -> None:
    """Kill the process behind `fd` and wait for its end."""
    try:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        end = select.poll()
        end.register(fd, select.POLLIN)
        end.poll(max(0, until - time.monotonic()) * 1000)
    finally:
        os.close(fd)


def _marked(wanted: bytes) -> Iterator[tuple[int, int]]:
    """Yield the processes that carry the mark, and a descriptor of each that cannot come to mean another process."""
    try:
        names = [folder.name for folder in _PROC.iterdir()]
    except OSError:
        return
    for pid in (int(name) for name in names if name.isdecimal()):
        if pid == os.getpid():
            continue
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue
        if _carries(pid, wanted):
            yield pid, fd
        else:
            os.close(fd)


def _carries(pid: int, wanted: bytes) -> bool:
    folder = _PROC / str(pid)
    try:
        return folder.stat().st_uid == os.geteuid() and wanted in (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
