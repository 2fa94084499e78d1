"""The log on disk: one SQLite file in WAL mode, synchronised before a write returns.

Exactly one connection writes and checkpoints; readers open the file read-only. That is the rule which
keeps SQLite before 3.51.3 (its WAL-reset fault needs two) from damaging the file.
"""

import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from loguru import logger

from broker.messages import Write
from broker.store.faults import explain
from broker.store.lock import lock
from broker.store.port import StoreError
from broker.store.reader import SqliteReader
from broker.store.schema import VERSION, migrate
from broker.store.writer import Writer

__all__ = ["SqliteEngine", "Sync"]

Sync = Literal["full", "normal", "off"]

OLDEST_SQLITE: Final = (3, 32)
"""Has upserts, window functions, partial indexes and statements of more than 999 values."""

CHECKPOINT: Final = 4000
"""Pages (of 4 KiB) in the WAL before the writer copies them into the file; a checkpoint costs two more fsyncs."""

WAL_KEPT: Final = 64 * 1024 * 1024
"""Bytes the WAL may still have after a surge, such as a reader that held it open."""

PATIENCE: Final = 5.0
"""Seconds to wait for another program, such as a backup, that holds SQLite's own lock."""


class SqliteEngine:
    """Keeps logs in a file.

    Args:
        path: the file; made if it does not exist, its directory has to. `-wal`, `-shm` and `.lock` stand beside it.
        sync: `full`: a write that returned survives a power cut (PROTOCOL P1). `normal`: it survives `kill -9`;
            a power cut takes the last ones, and leaves the rest whole. `off`: a power cut may damage the file.
    """

    def __init__(self, path: str | Path, sync: Sync = "full") -> None:
        # Resolved, so that two links to one file find the same lock.
        self.path = Path(path).resolve()
        self.sync = sync
        self.durable = sync == "full"
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._writer: Writer | None = None

    def open(self) -> None:
        """Take the file's lock, make or migrate the store.

        Raises:
            StoreError: it cannot be used; the text says why and what to do.
        """
        _check_library()
        self._lock = lock(self.path)
        try:
            self._connect()
        except BaseException:
            self._release()
            raise

    def write(self, writes: Sequence[Write]) -> None:
        """Make all of it durable, in one transaction, or none of it.

        Raises:
            StoreError: nothing was written; the next write may succeed again, as when a full disk has been freed.
        """
        with self._transaction() as writer:
            writer.apply(writes)

    def expire(self, *, sessions_before: int, rooms_before: int, room_history: int, live: Collection[str]) -> list[str]:
        """Drop what is past keeping, as the port describes.

        Raises:
            StoreError: nothing was dropped.
        """
        with self._transaction() as writer:
            return writer.expire(
                sessions_before=sessions_before, rooms_before=rooms_before, room_history=room_history, live=live
            )

    def reader(self) -> SqliteReader:
        """Open another reader; whoever asks for it closes it.

        Raises:
            StoreError: the file cannot be opened.
        """
        return SqliteReader(self.path)

    def close(self) -> None:
        """Copy the WAL into the file and let go of everything; idempotent.

        Raises:
            StoreError: the copying failed; what was written is in the WAL and found again.
        """
        try:
            if self._connection is not None:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        finally:
            self._release()

    def _connect(self) -> None:
        created = _create(self.path)
        try:
            connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            self._connection = connection
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreError(f"store {self.path}: its file system cannot share memory; move it to a local disk")
            connection.execute(f"PRAGMA synchronous = {self.sync}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT}")
            found = migrate(connection, self.path)
            self._writer = Writer(connection)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        if not created and found != VERSION:
            logger.info("store {}: brought from version {} to {}", self.path, found, VERSION)

    @contextmanager
    def _transaction(self) -> Iterator[Writer]:
        """Commit what the caller does, and have it on disk, or undo it all."""
        connection, writer = self._connection, self._writer
        if connection is None or writer is None:
            raise StoreError(f"store {self.path}: it is not open")
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield writer
            connection.execute("COMMIT")
        except BaseException as error:
            writer.forget()
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            if isinstance(error, (sqlite3.Error, UnicodeError, OverflowError)):
                raise explain(error, self.path) from error
            raise

    def _release(self) -> None:
        """Let go of the connection before the lock, so that the next broker finds the file its own."""
        self._writer = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _check_library() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(f"Python here has SQLite {sqlite3.sqlite_version}; the store needs {oldest} or newer")


def _create(path: Path) -> bool:
    """Make the file if there is none, readable by its owner alone; SQLite gives `-wal` and `-shm` the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(
            f"store {path}: cannot be created ({error.strerror}); its directory has to belong to the broker's user"
        ) from error
    return True
