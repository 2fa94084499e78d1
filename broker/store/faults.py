"""What SQLite says when something is wrong, in words that tell an operator what to do."""

import sqlite3
from pathlib import Path
from typing import Final

from broker.store.port import StoreError, UnstorableError

__all__ = ["explain"]

_ADVICE: Final = {
    "SQLITE_FULL": "the disk is full; free some space and the broker goes on by itself",
    "SQLITE_IOERR": "the disk reports an error; look at the system's log, and move the store if it goes on",
    "SQLITE_CORRUPT": "the file is damaged; stop the broker, keep a copy of it and restore a backup",
    "SQLITE_NOTADB": "the file is not a broker's store; give store.url another path or restore a backup",
    "SQLITE_READONLY": "the file may not be written to; give it, and its directory, to the broker's user",
    "SQLITE_CANTOPEN": "the file cannot be opened; check that its directory exists and belongs to the broker's user",
    "SQLITE_PERM": "the file may not be used; give it, and its directory, to the broker's user",
    "SQLITE_BUSY": "another program holds a lock on the file; end it, only one broker may write to a store",
    "SQLITE_LOCKED": "another program holds a lock on the file; end it, only one broker may write to a store",
    "SQLITE_PROTOCOL": "another program keeps the file's lock busy; end it, only one broker may write to a store",
}


def explain(error: Exception, path: Path) -> StoreError:
    """Return what to raise in place of an error of sqlite3.

    Args:
        error: a `sqlite3.Error`, or what binding a value raises (`UnicodeError`, `OverflowError`).
        path: the store's file.
    """
    if not isinstance(error, sqlite3.Error):
        return UnstorableError(f"store {path}: a value cannot be stored: {type(error).__name__}")
    name: str = getattr(error, "sqlite_errorname", "")
    advice = _ADVICE.get("_".join(name.split("_")[:2]))
    if advice is None:
        return StoreError(f"store {path}: {error}")
    return StoreError(f"store {path}: {advice} ({name}: {error})")
