"""Looks at a store without changing it, a broker's that runs too: whether it is whole, and what its disk is like."""

import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import attrs

from broker.store.faults import explain
from broker.store.port import StoreError
from broker.store.schema import VERSION, version_of

__all__ = ["SQLITE_FIXED", "Disk", "Examined", "disk_of", "examine", "sqlite_version"]

SQLITE_FIXED: Final = (3, 51, 3)
"""From here on several programs may write to one file; before, that can damage it (ARCHITECTURE section 3)."""
LOOKING: Final = 20.0
"""Seconds after which a large file has been looked at for long enough."""
STEPS: Final = 1000
"""Steps of SQLite's machine between two looks at the clock."""
TRIES: Final = 5
"""Times that a write is synchronised; the middle one counts."""


def sqlite_version() -> tuple[int, ...]:
    """Return the version of the SQLite library."""
    return sqlite3.sqlite_version_info


@attrs.frozen
class Examined:
    """What was found of a store.

    Attributes:
        size: bytes of the file, and of the write-ahead log beside it.
        version: the version of what is in it.
        current: the version that this broker writes.
        damage: what is wrong with it; empty if nothing was found.
        complete: whether all of it was looked at.
        holder: the process that has it open; None if nobody does.
    """

    size: int
    version: int
    current: int
    damage: str
    complete: bool
    holder: int | None


@attrs.frozen
class Disk:
    """What the disk under a store is like.

    Attributes:
        free: bytes that are free.
        sync: seconds that a small write takes until it is on it.
    """

    free: int
    sync: float


def examine(path: Path, seconds: float = LOOKING) -> Examined | None:
    """Return what is to be said of the store at `path`; None if there is no such file yet.

    Raises:
        StoreError: it cannot be read, or is none of ours; the text says why and what to do.
    """
    try:
        if not path.exists():
            return None
        if not path.is_file():
            raise StoreError(f"store {path}: it is no file; give store.url another path")
    except OSError as error:
        raise StoreError(f"store {path}: it cannot be looked at ({error.strerror or error})") from error
    # While nobody has it open there is no WAL, and reading makes none if SQLite is told that nothing will change.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as connection:
            version = version_of(connection, path)
            damage, complete = _damage(connection, seconds)
    except sqlite3.Error as error:
        raise explain(error, path) from error
    return Examined(_size(path), version, VERSION, damage, complete, _holder(path))


def disk_of(folder: Path) -> Disk:
    """Return what the disk is like that a store in `folder` is on, by writing a little beside it.

    Raises:
        StoreError: the folder cannot be written to.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            taken = sorted(_synchronised(file.fileno()) for _ in range(TRIES))
        return Disk(shutil.disk_usage(folder).free, taken[TRIES // 2])
    except OSError as error:
        why = error.strerror or error
        text = f"{folder} cannot be written to ({why}); it has to exist and to belong to the broker's user"
        raise StoreError(text) from error


def _synchronised(descriptor: int) -> float:
    began = time.perf_counter()
    os.write(descriptor, bytes(4096))
    os.fsync(descriptor)
    return time.perf_counter() - began


def _size(path: Path) -> int:
    """Return the bytes of the file, and of what was written lately and is beside it still."""
    size = path.stat().st_size
    with suppress(FileNotFoundError):
        size += path.with_name(f"{path.name}-wal").stat().st_size
    return size


def _damage(connection: sqlite3.Connection, seconds: float) -> tuple[str, bool]:
    """Return what is wrong, and whether there was time to look at everything."""
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, STEPS)
    try:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            return "", False
        raise
    return "" if said == "ok" else str(said), True


def _holder(path: Path) -> int | None:
    """Return the process that says it holds the lock, if it lives; to try the lock could keep one from starting."""
    try:
        pid = int(path.resolve().with_name(f"{path.name}.lock").read_text(encoding="ascii"))
        if pid <= 0:
            return None
        os.kill(pid, 0)
    except PermissionError:
        return pid
    except (OSError, ValueError, OverflowError):
        return None
    return pid
