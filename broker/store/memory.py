"""The log in memory: the same promises as on disk, except that nothing outlives the process."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from threading import Lock

import attrs

from broker.messages import LogRow, Record, SessionRow, TurnRow, Write
from broker.store.rules import ROOM, SESSION, check

__all__ = ["MemoryEngine"]


@attrs.define
class _Log:
    """One log; `records[i]` has the number `floor + i`."""

    name: str
    epoch: str
    created_at: int
    updated_at: int
    head: int = 0
    floor: int = 1
    bytes: int = 0
    records: list[Record] = attrs.field(factory=list)
    session: SessionRow | None = None
    turns: dict[int, TurnRow] = attrs.field(factory=dict)

    def row(self) -> LogRow:
        return LogRow(self.name, self.epoch, self.head, self.floor, self.created_at, self.updated_at, self.bytes)

    def trim(self, floor: int) -> None:
        dropped = min(floor, self.head + 1) - self.floor
        if dropped > 0:
            del self.records[:dropped]
            self.floor += dropped

    def add(self, write: Write) -> None:
        self.updated_at = write.at
        self.records.extend(write.records)
        self.head += len(write.records)
        self.bytes += sum([len(record.data) for record in write.records])
        self.session = write.session or self.session
        for turn in write.turns:
            self.turns[turn.seq] = turn if turn.outcome is None else attrs.evolve(turn, content=None)
        if write.floor is not None:
            self.trim(write.floor)


class MemoryEngine:
    """Keeps logs for as long as the process lives: for trying out, and for tests.

    One thread writes and others read, as with any engine; a lock keeps a reader from half a batch.
    """

    durable = False

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}
        self._lock = Lock()

    def open(self) -> None:
        """Do nothing: memory is always there."""

    def write(self, writes: Sequence[Write]) -> None:
        """Apply all of it, or none.

        Raises:
            StoreError: the batch breaks a rule of `broker.store.rules`.
        """
        with self._lock:
            check(writes, self._head)
            for write in writes:
                self._apply(write)

    def expire(self, *, sessions_before: int, rooms_before: int, room_history: int, live: Collection[str]) -> list[str]:
        """Drop what is past keeping, as the port describes."""
        with self._lock:
            gone = []
            for log in [log for log in self._logs.values() if log.name not in live]:
                before = sessions_before if log.name.startswith(SESSION) else rooms_before
                if log.updated_at < before:
                    gone.append(log.name)
                    del self._logs[log.name]
                elif log.name.startswith(ROOM):
                    fresh = next((r.seq for r in log.records if r.at >= rooms_before), log.head + 1)
                    log.trim(max(fresh, log.head - room_history + 1))
            return gone

    def reader(self) -> "MemoryReader":
        """Return another reader."""
        return MemoryReader(self._logs, self._lock)

    def close(self) -> None:
        """Do nothing: a reader may still want to look."""

    def _head(self, name: str) -> int | None:
        log = self._logs.get(name)
        return None if log is None else log.head

    def _apply(self, write: Write) -> None:
        if write.delete:
            self._logs.pop(write.log, None)
            return
        if write.create is not None:
            self._logs[write.log] = _Log(write.log, write.create, write.at, write.at)
        self._logs[write.log].add(write)


class MemoryReader:
    """Reads what a `MemoryEngine` holds."""

    def __init__(self, logs: dict[str, _Log], lock: Lock) -> None:
        self._logs = logs
        self._lock = lock

    def log(self, name: str) -> LogRow | None:
        """Return the log's row, None if there is none."""
        with self._lock:
            log = self._logs.get(name)
            return None if log is None else log.row()

    def records_after(self, log: str, seq: int, *, limit: int, max_bytes: int) -> list[Record]:
        """Return a page of the records above `seq`, oldest first."""
        with self._lock:
            if (held := self._logs.get(log)) is None:
                return []
            start = max(seq + 1 - held.floor, 0)
            page = held.records[start : start + limit]
        return _fitting(page, max_bytes)

    def records_before(
        self, log: str, seq: int, *, limit: int, max_bytes: int, kinds: Collection[str] | None = None
    ) -> list[Record]:
        """Return a page of the newest records below `seq` (of these kinds only), oldest first."""
        with self._lock:
            if (held := self._logs.get(log)) is None:
                return []
            past = reversed(held.records[: max(seq - held.floor, 0)])
        wanted = islice((record for record in past if kinds is None or record.kind in kinds), limit)
        return _fitting(wanted, max_bytes)[::-1]

    def session(self, session_id: str) -> SessionRow | None:
        """Return the session's row, None if there is none."""
        with self._lock:
            log = self._logs.get(SESSION + session_id)
            return None if log is None else log.session

    def sessions(
        self, owner: str | None, *, everyone: bool, limit: int, before: tuple[int, str] | None = None
    ) -> list[SessionRow]:
        """Return a page of the sessions of `owner` (or of everyone), newest first, without their variables."""
        with self._lock:
            held = [(log.session, log.updated_at) for log in self._logs.values() if log.session is not None]
        rows = sorted((one for one in held if everyone or one[0].owner == owner), key=_age)
        end = len(rows) if before is None else bisect_left(rows, before, key=_age)
        page = rows[max(end - limit, 0) : end][::-1]
        return [attrs.evolve(row, variables=b"", updated_at=updated_at) for row, updated_at in page]

    def rooms(self, after: str, *, limit: int) -> list[LogRow]:
        """Return the logs of rooms whose names come after this one, in the order of their UTF-8."""
        with self._lock:
            rows = [log.row() for log in self._logs.values() if log.name.startswith(ROOM)]
        return sorted((row for row in rows if row.name > ROOM + after), key=_name)[:limit]

    def turns(self, session_id: str) -> list[TurnRow]:
        """Return all turns of a session, in the order in which they were accepted."""
        with self._lock:
            log = self._logs.get(SESSION + session_id)
            return [] if log is None else [log.turns[seq] for seq in sorted(log.turns)]

    def unfinished_sessions(self) -> list[str]:
        """Return the ids of the sessions with a turn that has not ended, and of ephemeral ones that are open."""
        with self._lock:
            return [
                log.name.removeprefix(SESSION)
                for log in self._logs.values()
                if any(turn.outcome is None for turn in log.turns.values())
                or (log.session is not None and log.session.ephemeral and not log.session.closed)
            ]

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


def _fitting(records: Iterable[Record], max_bytes: int) -> list[Record]:
    """Return as many of the first records as have so much data; at least one, if there is one."""
    page: list[Record] = []
    for record in records:
        max_bytes -= len(record.data)
        if max_bytes < 0 and page:
            break
        page.append(record)
    return page


def _name(row: LogRow) -> str:
    return row.name  # Python orders text by code points, which is the order of UTF-8


def _age(held: tuple[SessionRow, int]) -> tuple[int, str]:
    return held[0].created_at, held[0].session_id
