"""What the store actor needs of an engine. Everything here blocks and runs in the store's own threads."""

from collections.abc import Collection, Sequence
from typing import Protocol

from broker.messages import LogRow, Record, SessionRow, TurnRow, Write

__all__ = ["Engine", "Reader", "StoreError", "UnstorableError"]


class StoreError(Exception):
    """The store cannot do what was asked: full, corrupt, gone or of a newer version. The text says what to do."""


class UnstorableError(StoreError):
    """What was given can never be stored: it breaks a rule, or cannot be encoded. The store itself is well."""


class Reader(Protocol):
    """Reads what is committed. One thread uses it; it never waits for the writer."""

    def log(self, name: str) -> LogRow | None:
        """Return the log's row, None if there is none."""

    def records_after(self, log: str, seq: int, *, limit: int, max_bytes: int) -> list[Record]:
        """Return a page of the records above `seq`, oldest first.

        At most `limit`, and few enough that their data stays within `max_bytes`, but at least one if there is one.
        """

    def records_before(
        self, log: str, seq: int, *, limit: int, max_bytes: int, kinds: Collection[str] | None = None
    ) -> list[Record]:
        """Return a page of the newest records below `seq` (of these kinds only), oldest first.

        At most `limit`, and few enough that their data stays within `max_bytes`, but at least one if there is one.
        """

    def session(self, session_id: str) -> SessionRow | None:
        """Return the session's row, None if there is none."""

    def sessions(
        self, owner: str | None, *, everyone: bool, limit: int, before: tuple[int, str] | None = None
    ) -> list[SessionRow]:
        """Return sessions of `owner` (or of everyone), newest first, those older than `before` (created_at, id).

        Their variables, which may be long and which no list shows, are left empty: no bytes at all. Their
        `updated_at` is that of their logs. It has no part in the order: a cursor must not skip what moves.
        """

    def rooms(self, after: str, *, limit: int) -> list[LogRow]:
        """Return the logs of rooms whose names come after this one, in the order of their UTF-8."""

    def turns(self, session_id: str) -> list[TurnRow]:
        """Return all turns of a session, in the order in which they were accepted."""

    def unfinished_sessions(self) -> list[str]:
        """Return the ids of the sessions with a turn that has not ended, and of ephemeral ones that are open."""

    def close(self) -> None:
        """Let go of the connection."""


class Engine(Protocol):
    """Keeps logs. `write` and `expire` are called by one thread only."""

    durable: bool
    """Whether a write that returned survives `kill -9` and, synchronised fully, a power cut."""

    def open(self) -> None:
        """Create or migrate the store.

        Raises:
            StoreError: it cannot be used; the text says why and what to do.
        """

    def write(self, writes: Sequence[Write]) -> None:
        """Make all of it durable, in one transaction, or none of it.

        Raises:
            UnstorableError: nothing was written, and would not be if it were tried again.
            StoreError: nothing was written.
        """

    def expire(self, *, sessions_before: int, rooms_before: int, room_history: int, live: Collection[str]) -> list[str]:
        """Drop what is past keeping and return the names of the logs that are gone.

        Those are the sessions not written to since `sessions_before` and the rooms not written to since
        `rooms_before`; of other rooms the records older than that, or beyond the newest `room_history`, are
        dropped. Logs named in `live` belong to their actors and are left alone.

        Raises:
            StoreError: nothing was dropped.
        """

    def reader(self) -> Reader:
        """Open another reader."""

    def close(self) -> None:
        """Checkpoint and let go of everything."""
