"""Turns a batch of writes into as few statements as can be, inside the caller's transaction.

Python's sqlite3 lets go of the interpreter's lock at every step of a statement, and a busy event loop
hands it back only after up to 5 ms. One INSERT of many rows is one step, where `executemany` takes one
for each row: beside a busy loop that is the difference between hundreds and thousands of records a second.
`OR ROLLBACK` spares SQLite the copies it would keep to undo just one statement; we always undo them all.
"""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import Any, Final

import attrs

from broker.messages import Record, SessionRow, TurnRow, Write
from broker.store.rules import ROOM, SESSION, check

__all__ = ["Writer"]

ROWS: Final = 256
"""Rows of one INSERT; with it, its prepared statement is a few dozen kilobytes."""

KNOWN: Final = 10_000
"""Logs whose heads are remembered; asking SQLite again costs some 10 µs for each."""

_LOG: Final = ("id", "name", "epoch", "head", "floor", "created_at", "updated_at", "bytes")
_RECORD: Final = ("log", "seq", "at", "kind", "turn_id", "author", "data")
_SESSION: Final = ("log", *(field.name for field in attrs.fields(SessionRow)))
_TURN: Final = ("log", "seq", "turn_id", "user", "client_msg_id", "digest", "state", "outcome", "content")


def _insert(table: str, columns: Sequence[str], update: Sequence[str] = ()) -> Callable[[int], str]:
    """Return what makes the INSERT of so many rows, which updates these columns of a row that exists."""
    head = f"INSERT OR ROLLBACK INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608
    row = f"({', '.join('?' * len(columns))})"
    key = ", ".join(columns[: 2 if table == "turns" else 1])
    tail = f" ON CONFLICT ({key}) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in update)}" if update else ""
    statements = {1 << power: head + ", ".join([row] * (1 << power)) + tail for power in range(ROWS.bit_length())}
    return statements.__getitem__


_PUT_LOGS: Final = _insert("logs", _LOG, update=("head", "floor", "updated_at", "bytes"))
_PUT_RECORDS: Final = _insert("records", _RECORD)
_PUT_SESSIONS: Final = _insert("sessions", _SESSION, update=_SESSION[1:])
_PUT_TURNS: Final = _insert("turns", _TURN, update=("state", "outcome", "content"))


_cells: Final = attrgetter(*_LOG)


@attrs.define
class _Log:
    """What the writer remembers of a log: its row."""

    id: int
    name: str
    epoch: str
    head: int
    floor: int
    created_at: int
    updated_at: int
    bytes: int


class Writer:
    """Applies batches through the one connection that writes.

    Args:
        connection: open, migrated, in autocommit mode.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, _Log] = {}
        (self._last_id,) = connection.execute("SELECT coalesce(max(id), 0) FROM logs").fetchone()
        self._start_afresh()

    def apply(self, writes: Sequence[Write]) -> None:
        """Run the statements that a batch comes to; the transaction around them is the caller's.

        Raises:
            StoreError: the batch breaks a rule of `broker.store.rules`; nothing was run.
            sqlite3.Error: a statement failed; roll back and `forget`.
        """
        if len(self._known) > KNOWN:
            self.forget()
        check(writes, self._head)
        for write in writes:
            if write.delete:
                self._flush()
                self._drop(write.log)
            else:
                self._add(write)
        self._flush()

    def expire(self, *, sessions_before: int, rooms_before: int, room_history: int, live: Collection[str]) -> list[str]:
        """Run the statements that the port's `expire` comes to; the transaction is the caller's."""
        gone = []
        for row in self._connection.execute(f"SELECT {', '.join(_LOG)} FROM logs").fetchall():  # noqa: S608
            log = _Log(*row)
            if log.name in live:
                continue
            if log.updated_at < (sessions_before if log.name.startswith(SESSION) else rooms_before):
                self._drop(log.name)
                gone.append(log.name)
            elif log.name.startswith(ROOM):
                self._trim(log, max(self._first_since(log, rooms_before), log.head - room_history + 1))
        self.forget()
        return gone

    def forget(self) -> None:
        """Drop what is remembered, because the transaction it came from was rolled back."""
        self._known.clear()
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._records: dict[int, list[Any]] = {}
        self._logs: dict[int, _Log] = {}
        self._sessions: dict[int, SessionRow] = {}
        self._turns: dict[tuple[int, int], TurnRow] = {}
        self._floors: dict[int, int] = {}

    def _head(self, name: str) -> int | None:
        log = self._find(name)
        return None if log is None else log.head

    def _find(self, name: str) -> _Log | None:
        log = self._known.get(name)
        if log is None:
            statement = f"SELECT {', '.join(_LOG)} FROM logs WHERE name = ?"  # noqa: S608
            row = self._connection.execute(statement, (name,)).fetchone()
            if row is not None:
                log = self._known[name] = _Log(*row)
        return log

    def _begin(self, write: Write, epoch: str) -> _Log:
        self._last_id += 1
        log = _Log(self._last_id, write.log, epoch, 0, 1, write.at, write.at, 0)
        self._known[write.log] = log
        return log

    def _add(self, write: Write) -> None:
        log = self._known[write.log] if write.create is None else self._begin(write, write.create)
        log.updated_at = write.at
        self._logs[log.id] = log
        if write.records:
            log.bytes += self._append(log.id, write.records)
            log.head += len(write.records)
        if write.session is not None:
            self._sessions[log.id] = write.session
        for turn in write.turns:
            self._turns[log.id, turn.seq] = turn
        if write.floor is not None:
            floor = min(write.floor, log.head + 1)
            if floor > log.floor:
                log.floor = self._floors[log.id] = floor

    def _append(self, log: int, records: tuple[Record, ...]) -> int:
        """Gather the rows of some records, and return how many bytes their data has."""
        rows, size = self._records.setdefault(log, []), 0
        for r in records:
            rows += (log, r.seq, r.at, r.kind, r.turn_id, r.author, r.data)
            size += len(r.data)
        return size

    def _flush(self) -> None:
        """Run what has gathered: logs first, for the others refer to them."""
        self._put(_PUT_LOGS, len(_LOG), [cell for log in self._logs.values() for cell in _cells(log)])
        # In the table's own order: neighbours share a page, which halves the cost beside many logs.
        records = [cell for log in sorted(self._records) for cell in self._records[log]]
        self._put(_PUT_RECORDS, len(_RECORD), records)
        sessions = [(log, *attrs.astuple(row, recurse=False)) for log, row in self._sessions.items()]
        self._put(_PUT_SESSIONS, len(_SESSION), [cell for row in sessions for cell in row])
        self._put(_PUT_TURNS, len(_TURN), [cell for key, t in self._turns.items() for cell in _turn(key, t)])
        for log, floor in self._floors.items():
            self._connection.execute("DELETE FROM records WHERE log = ? AND seq < ?", (log, floor))
        self._start_afresh()

    def _put(self, statement: Callable[[int], str], width: int, cells: list[Any]) -> None:
        """Insert rows of `width` cells each, in chunks of powers of two, whose statements stay prepared."""
        start, left = 0, len(cells) // width
        while left:
            rows = min(ROWS, 1 << (left.bit_length() - 1))
            self._connection.execute(statement(rows), cells[start : start + rows * width])
            start += rows * width
            left -= rows

    def _drop(self, name: str) -> None:
        log = self._find(name)
        if log is None:
            return
        del self._known[name]
        for table, key in (("records", "log"), ("turns", "log"), ("sessions", "log"), ("logs", "id")):
            self._connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (log.id,))  # noqa: S608

    def _trim(self, log: _Log, floor: int) -> None:
        if floor > log.floor:
            self._connection.execute("DELETE FROM records WHERE log = ? AND seq < ?", (log.id, floor))
            self._connection.execute("UPDATE logs SET floor = ? WHERE id = ?", (floor, log.id))

    def _first_since(self, log: _Log, at: int) -> int:
        """Return the number of the first record written at `at` or later, one past the head if there is none."""
        row = self._connection.execute(
            "SELECT seq FROM records WHERE log = ? AND at >= ? ORDER BY seq LIMIT 1", (log.id, at)
        ).fetchone()
        return log.head + 1 if row is None else int(row[0])


def _turn(key: tuple[int, int], turn: TurnRow) -> tuple[Any, ...]:
    content = turn.content if turn.outcome is None else None
    return (*key, turn.turn_id, turn.user, turn.client_msg_id, turn.digest, turn.state, turn.outcome, content)
