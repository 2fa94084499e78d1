"""Brings a SQLite file to the version this broker writes: numbered scripts, each in a transaction."""

import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import Final

from broker.store.port import StoreError

__all__ = ["VERSION", "migrate", "version_of"]

APPLICATION: Final = int.from_bytes(b"BRKR", "big")


def _scripts() -> list[str]:
    """Return the scripts; the one at index n leads from version n to n + 1."""
    found = sorted((f for f in (files("broker.store") / "migrations").iterdir() if f.name.endswith(".sql")), key=str)
    return [script.read_text(encoding="utf-8") for script in found]


VERSION: Final = len(_scripts())
"""The version this broker reads and writes; a file holds its own as `user_version`."""


def migrate(connection: sqlite3.Connection, path: Path) -> int:
    """Bring the file to `VERSION`, from whatever older version it has; return the version it had.

    Raises:
        StoreError: the file is of a newer broker, or another program's.
        sqlite3.Error: a step failed; the file is at the version before that step.
    """
    found = version_of(connection, path)
    for number, script in enumerate(_scripts()[found:], found + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
        finally:
            if connection.in_transaction:
                connection.rollback()
    return found


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version that a file has; 0 for an empty one.

    Raises:
        StoreError: the file is of a newer broker, or another program's.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (application or version or tables):
        raise StoreError(f"store {path}: it is another program's database; give store.url another path")
    if version > VERSION:
        raise StoreError(
            f"store {path}: it has version {version} and this broker knows versions up to {VERSION}; start "
            f"the newer broker that wrote it, or restore a backup from before the upgrade"
        )
    return int(version)
