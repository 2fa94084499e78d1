"""Reads a SQLite store beside its writer, without ever waiting for it or writing a byte."""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from broker.messages import LogRow, Record, SessionRow, TurnRow
from broker.sessions import CONVERSATION
from broker.store.faults import explain
from broker.store.pages import Page
from broker.store.rules import ROOM, SESSION

__all__ = ["SqliteReader"]

_LOG: Final = "(SELECT id FROM logs WHERE name = ?)"
_HISTORY: Final = " OR ".join(f"kind = '{kind}'" for kind in CONVERSATION)
_LAST: Final = (1 << 63) - 1  # the highest number SQLite holds; a client may ask beyond it

_RECORDS: Final = Page(("seq", "at", "kind", "turn_id"), ("data", "author"))
_AFTER: Final = _RECORDS.select(
    f"SELECT {_RECORDS.columns} FROM records WHERE log = {_LOG} AND seq > ? AND seq <= ("  # noqa: S608
    "SELECT coalesce(max(CASE WHEN total <= ? THEN seq END), min(seq)) FROM ("
    "SELECT seq, sum(size) OVER (ORDER BY seq) AS total FROM ("
    f"SELECT seq, length(data) AS size FROM records WHERE log = {_LOG} AND seq > ? ORDER BY seq LIMIT ?))) "
    "ORDER BY seq"
)

_LISTED: Final = Page(
    ("session_id", "owner", "agent", "workspace_dir", "title", "closed", "created_at", "updated_at", "ephemeral"),
    ("members",),
)
_LISTING: Final = _LISTED.columns.replace(  # when anything happened in it, not only to its row
    "updated_at", "(SELECT logs.updated_at FROM logs WHERE logs.id = sessions.log) AS updated_at"
)
_SESSIONS: Final = Page(_LISTED.plain, ("members", "variables"))
_ROOMS: Final = Page(("name", "epoch", "head", "floor", "created_at", "updated_at", "bytes"), ())
_NEXT_ROOMS: Final = _ROOMS.select(
    f"SELECT {_ROOMS.columns} FROM logs WHERE name > ? AND name < ? ORDER BY name LIMIT ?"  # noqa: S608
)
_PAST_ROOMS: Final = ROOM[:-1] + chr(ord(ROOM[-1]) + 1)
"""What comes after all names of rooms."""
_TURNS: Final = Page(("turn_id", "seq", "user", "client_msg_id", "state", "outcome"), ("digest", "content"))
_TURNS_OF: Final = _TURNS.select(f"SELECT {_TURNS.columns} FROM turns WHERE log = {_LOG} ORDER BY seq")  # noqa: S608
_OPEN: Final = (
    "SELECT name FROM turns INDEXED BY open_turns JOIN logs ON logs.id = turns.log WHERE outcome IS NULL "
    "UNION SELECT name FROM sessions INDEXED BY ephemeral_sessions JOIN logs ON logs.id = sessions.log "
    "WHERE ephemeral AND NOT closed"
)


def _before(kinds: Collection[str] | None) -> str:
    """Return the statement for a page of the newest records of so many kinds; history has an index of its own."""
    index = wanted = ""
    if kinds is not None:
        wanted = f"AND kind IN ({', '.join('?' * len(kinds))}) "
        if kinds and set(CONVERSATION).issuperset(kinds):
            index = "INDEXED BY messages "
            wanted += f"AND ({_HISTORY}) "  # as the index says it, or SQLite would not know that it fits
    those = f"FROM records {index}WHERE log = {_LOG} AND seq < ? {wanted}"
    return _RECORDS.select(
        f"SELECT {_RECORDS.columns} {those}AND seq >= ("  # noqa: S608
        "SELECT coalesce(min(CASE WHEN total <= ? THEN seq END), max(seq)) FROM ("
        "SELECT seq, sum(size) OVER (ORDER BY seq DESC) AS total FROM ("
        f"SELECT seq, length(data) AS size {those}ORDER BY seq DESC LIMIT ?))) "
        "ORDER BY seq DESC"
    )


class SqliteReader:
    """A connection that can only read; used by one thread at a time, closed by whoever asked for it.

    Raises:
        StoreError: from every method, if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._explained():
            self._connection = sqlite3.connect(
                f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA query_only = ON")
            self._connection.execute("PRAGMA wal_autocheckpoint = 0")

    def log(self, name: str) -> LogRow | None:
        """Return the log's row, None if there is none."""
        with self._explained():
            row = self._connection.execute(
                "SELECT name, epoch, head, floor, created_at, updated_at, bytes FROM logs WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else LogRow(*row)

    def records_after(self, log: str, seq: int, *, limit: int, max_bytes: int) -> list[Record]:
        """Return a page of the records above `seq`, oldest first."""
        seq = min(seq, _LAST)
        with self._explained():
            rows = _RECORDS.read(self._connection, _AFTER, (log, seq, max_bytes, log, seq, limit))
        return [_record(*row) for row in rows]

    def records_before(
        self, log: str, seq: int, *, limit: int, max_bytes: int, kinds: Collection[str] | None = None
    ) -> list[Record]:
        """Return a page of the newest records below `seq` (of these kinds only), oldest first."""
        those = (log, min(seq, _LAST), *(kinds or ()))
        values = (*those, max_bytes, *those, limit)
        with self._explained():
            rows = _RECORDS.read(self._connection, _before(kinds), values)
        return [_record(*row) for row in reversed(rows)]

    def session(self, session_id: str) -> SessionRow | None:
        """Return the session's row, None if there is none."""
        rows = self._sessions(_SESSIONS, _SESSIONS.columns, f"WHERE log = {_LOG}", (SESSION + session_id,))
        return rows[0] if rows else None

    def sessions(
        self, owner: str | None, *, everyone: bool, limit: int, before: tuple[int, str] | None = None
    ) -> list[SessionRow]:
        """Return a page of the sessions of `owner` (or of everyone), newest first, without their variables."""
        terms: list[str] = []
        values: list[object] = []
        if not everyone:
            terms.append("owner IS ?")
            values.append(owner)
        if before is not None:
            terms.append("(created_at, session_id) < (?, ?)")
            values += before
        where = f"WHERE {' AND '.join(terms)} " if terms else ""
        order = "ORDER BY created_at DESC, session_id DESC LIMIT ?"
        return self._sessions(_LISTED, _LISTING, f"{where}{order}", (*values, limit))

    def rooms(self, after: str, *, limit: int) -> list[LogRow]:
        """Return the logs of rooms whose names come after this one, in the order of their UTF-8."""
        with self._explained():
            rows = _ROOMS.read(self._connection, _NEXT_ROOMS, (ROOM + after, _PAST_ROOMS, limit))
        return [LogRow(*row) for row in rows]

    def turns(self, session_id: str) -> list[TurnRow]:
        """Return all turns of a session, in the order in which they were accepted."""
        with self._explained():
            rows = _TURNS.read(self._connection, _TURNS_OF, (SESSION + session_id,))
        return [
            TurnRow(session_id, turn_id, seq, user, client_msg_id, digest, state, outcome, content)
            for turn_id, seq, user, client_msg_id, state, outcome, digest, content in rows
        ]

    def unfinished_sessions(self) -> list[str]:
        """Return the ids of the sessions with a turn that has not ended, and of ephemeral ones that are open."""
        with self._explained():
            return [name.removeprefix(SESSION) for (name,) in self._connection.execute(_OPEN)]

    def close(self) -> None:
        """Let go of the connection; idempotent."""
        self._connection.close()

    def _sessions(self, page: Page, columns: str, where: str, values: tuple[object, ...]) -> list[SessionRow]:
        statement = page.select(f"SELECT {columns} FROM sessions {where}")  # noqa: S608
        with self._explained():
            rows = page.read(self._connection, statement, values)
        return [_session(*row) for row in rows]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise explain(error, self._path) from error


def _record(seq: int, at: int, kind: str, turn_id: str | None, data: bytes, author: bytes | None) -> Record:
    return Record(seq, at, kind, data, turn_id, author)


def _session(
    session_id: str,
    owner: str | None,
    agent: str,
    workspace_dir: str | None,
    title: str | None,
    closed: int,
    created_at: int,
    updated_at: int,
    ephemeral: int,
    members: bytes,
    variables: bytes = b"",
) -> SessionRow:
    return SessionRow(
        session_id,
        owner,
        agent,
        workspace_dir,
        title,
        variables,
        bool(closed),
        created_at,
        updated_at,
        members,
        bool(ephemeral),
    )
