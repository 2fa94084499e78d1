"""What only the store on disk promises."""

import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from broker.messages import LogRow, Record, SessionRow, TurnRow, Write
from broker.sessions import CONVERSATION
from broker.store import schema
from broker.store.sqlite import SqliteEngine, Sync

R = "room:r"
APPENDER = Path(__file__).with_name("appender.py")
Held = Callable[[Path, str], list[Record]]


def record(seq: int, data: bytes = b"{}") -> Record:
    return Record(seq, seq, "message", data)


def test_everything_is_there_after_closing_and_opening_again(path: Path, held: Held) -> None:
    row = SessionRow("s", None, "echo", None, None, b"{}", False, 1, 1)
    turn = TurnRow("s", "t", 1, None, "c", b"d", "queued", None, b'"hi"')
    engine = SqliteEngine(path)
    engine.open()
    engine.write([Write(R, 1, (record(1), record(2)), create="e")])
    engine.write([Write("session:s", 1, (record(1),), create="e", session=row, turns=(turn,))])
    engine.close()
    engine.close()
    engine.open()
    engine.write([Write(R, 1, (record(3),)), Write("room:new", 1, (record(1),), create="e")])
    reader = engine.reader()
    assert (reader.session("s"), reader.turns("s")) == (row, [turn])
    reader.close()
    engine.close()
    assert [r.seq for r in held(path, R)] == [1, 2, 3]
    assert len(held(path, "session:s")) == len(held(path, "room:new")) == 1


def test_closing_leaves_one_whole_file(path: Path, engine: SqliteEngine) -> None:
    reader = engine.reader()
    engine.write([Write(R, 1, (record(1),), create="e")])
    reader.close()
    engine.close()
    assert {file.name for file in path.parent.iterdir()} == {"broker.db", "broker.db.lock"}


def test_its_files_are_for_the_owner_alone(path: Path, engine: SqliteEngine) -> None:
    engine.write([Write(R, 1, create="e")])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("broker.db", "broker.db-wal", "broker.db-shm", "broker.db.lock"), 0o600)


@pytest.mark.parametrize(("sync", "level"), [("off", 0), ("normal", 1), ("full", 2)])
def test_the_settings_are_in_force(path: Path, sync: Sync, level: int) -> None:
    engine = SqliteEngine(path, sync)
    engine.open()

    def pragma(name: str) -> object:
        assert engine._connection
        return engine._connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", level)
    assert pragma("wal_autocheckpoint") == 4000
    engine.close()


def test_each_write_is_fsynced_before_it_returns(tmp_path: Path) -> None:
    """Counted by the kernel, where strace is at hand."""
    script = (
        "import sys; from broker.store.sqlite import SqliteEngine; from broker.messages import Write\n"
        "e = SqliteEngine(sys.argv[1], sys.argv[2]); e.open()\n"
        "for n in range(50): e.write([Write(f'room:{n}', 1, create='e')])\n"
        "import os; os._exit(0)\n"
    )
    counts = {}
    for sync in ("full", "normal"):
        trace = tmp_path / sync
        command: list[str | Path] = [
            "strace",
            "-f",
            "-o",
            trace,
            "-e",
            "trace=fsync,fdatasync",
            sys.executable,
            "-c",
            script,
        ]
        try:
            subprocess.run([*command, tmp_path / f"{sync}.db", sync], check=True, timeout=30, capture_output=True)
        except (FileNotFoundError, subprocess.CalledProcessError):
            pytest.skip("strace is missing or not allowed here")
        counts[sync] = trace.read_text().count("sync(")
    assert counts["full"] >= counts["normal"] + 50


def test_readers_can_neither_write_nor_checkpoint(engine: SqliteEngine) -> None:
    engine.write([Write(R, 1, (record(1),), create="e")])
    reader = engine.reader()
    connection = reader._connection
    assert connection.execute("PRAGMA query_only").fetchone() == (1,)
    assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    for statement in ("DELETE FROM records", "PRAGMA query_only = OFF; DELETE FROM records"):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.executescript(statement)
    wal = engine.path.with_name("broker.db-wal").read_bytes()
    with pytest.raises(sqlite3.OperationalError):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert engine.path.with_name("broker.db-wal").read_bytes() == wal != b""
    reader.close()


def test_a_reader_sees_whole_batches_while_another_thread_writes(engine: SqliteEngine) -> None:
    engine.write([Write(name, 1, create="e") for name in (R, "room:q")])
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for n in range(1, 200):
                engine.write([Write(R, n, (record(n),)), Write("room:q", n, (record(n),))])
        except BaseException as error:  # noqa: BLE001 - to the asserting thread
            failures.append(error)

    reader, thread = engine.reader(), threading.Thread(target=write)
    thread.start()
    seen = 0
    while seen < 199 and (thread.is_alive() or not failures):
        first, second = reader.log(R), reader.log("room:q")
        assert first is not None
        assert second is not None
        assert seen <= first.head <= second.head
        page = reader.records_after(R, 0, limit=1000, max_bytes=1 << 20)
        assert [r.seq for r in page] == list(range(1, len(page) + 1))
        seen = first.head
    thread.join()
    reader.close()
    assert not failures


@pytest.mark.parametrize("acknowledged", [1, 120, 500])
def test_what_was_acknowledged_survives_kill_9(path: Path, acknowledged: int, held: Held) -> None:
    heads: dict[str, int] = {}
    with subprocess.Popen([sys.executable, APPENDER, path, "full"], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        for count, line in enumerate(writer.stdout, 1):
            room, seq = line.split()
            heads[room] = int(seq)
            if count == acknowledged:
                writer.kill()
    assert sum(heads.values()) >= acknowledged
    for room, head in heads.items():
        records = held(path, room)
        assert [r.seq for r in records] == list(range(1, len(records) + 1))
        assert len(records) >= head
        assert all(b'"n":%d,' % r.seq in r.data for r in records)


def test_a_store_of_version_0_is_brought_up_step_by_step(
    path: Path, monkeypatch: pytest.MonkeyPatch, held: Held
) -> None:
    first = schema._scripts()
    engine = SqliteEngine(path)
    engine.open()
    engine.write([Write(R, 1, (record(1),), create="e")])
    engine.close()
    later = "CREATE TABLE later (x); INSERT INTO later SELECT count(*) FROM records;"
    monkeypatch.setattr(schema, "_scripts", lambda: [*first, later])
    monkeypatch.setattr(schema, "VERSION", len(first) + 1)
    assert [r.seq for r in held(path, R)] == [1]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(first) + 1,)
        assert connection.execute("SELECT x FROM later").fetchone() == (1,)


VERSION_1 = """
PRAGMA user_version = 1;
INSERT INTO logs VALUES
    (3, 'session:s', 'e', 5, 3, 10, 20), (4, 'room:r', 'f', 0, 1, 10, 10), (5, 'room:q', 'g', 1, 1, 7, 7);
INSERT INTO records VALUES
    (3, 3, 11, 'user.message', 't', NULL, CAST('"é"' AS BLOB)), (3, 4, 12, 'message.delta', 't', NULL, x'7B7D'),
    (3, 5, 13, 'turn.started', 't', NULL, x'7B7D'), (5, 1, 7, 'message', NULL, x'6E756C6C', zeroblob(70000));
INSERT INTO sessions VALUES (3, 's', 'ann', 'echo', '/w', 'T', x'7B2261223A317D', 1, 10, 20);
INSERT INTO turns VALUES (3, 3, 't', 'ann', 'c', x'00FF', 'running', NULL, x'226869220A');
"""
"""What a broker of the first version left: a log that was trimmed, one that is empty, and one with large data."""


def test_a_file_of_version_1_keeps_all_it_held(path: Path, held: Held) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema._scripts()[0] + VERSION_1)
    engine = SqliteEngine(path)
    engine.open()
    reader = engine.reader()
    assert reader.log("session:s") == LogRow("session:s", "e", 5, 3, 10, 20, 8)
    assert reader.log(R) == LogRow(R, "f", 0, 1, 10, 10, 0)
    assert reader.log("room:q") == LogRow("room:q", "g", 1, 1, 7, 7, 70_000)
    row = SessionRow("s", "ann", "echo", "/w", "T", b'{"a":1}', True, 10, 20, b"{}")
    listed = [attrs.evolve(row, variables=b"")]
    assert (reader.session("s"), reader.sessions("ann", everyone=False, limit=5)) == (row, listed)
    assert reader.turns("s") == [TurnRow("s", "t", 3, "ann", "c", b"\0\xff", "running", None, b'"hi"\n')]
    engine.write([Write("session:s", 30, (record(6),)), Write("room:new", 30, (record(1),), create="h")])
    assert reader.log("session:s") == LogRow("session:s", "e", 6, 3, 10, 30, 10)
    reader.close()
    engine.close()
    assert [r.seq for r in held(path, "session:s")] == [3, 4, 5, 6]


def test_history_does_not_read_through_the_deltas(engine: SqliteEngine) -> None:
    """The message kinds have an index of their own; the plan says so."""
    engine.write([Write(R, 1, create="e")])
    reader = engine.reader()
    plans: list[str] = []
    reader._connection.set_trace_callback(plans.append)
    reader.records_before(R, 99, limit=5, max_bytes=1 << 20, kinds=CONVERSATION)
    steps = [step[-1] for step in reader._connection.execute(f"EXPLAIN QUERY PLAN {plans[-1]}")]
    searches = [step for step in steps if step.startswith("SEARCH records")]
    assert len(searches) == 2
    assert all("USING INDEX messages" in step and "seq<?" in step for step in searches), searches
    reader.close()


def test_a_list_of_sessions_does_not_read_their_variables(engine: SqliteEngine) -> None:
    row = SessionRow("s", "ann", "echo", "/w", "T", b'{"a":1}', False, 10, 20)
    engine.write([Write("session:s", 1, create="e", session=row)])
    reader = engine.reader()
    asked: list[str] = []
    reader._connection.set_trace_callback(asked.append)
    assert len(reader.sessions(None, everyone=True, limit=5)) == 1
    assert asked
    assert not [statement for statement in asked if "variables" in statement]
    reader.close()


def test_a_batch_and_a_page_pass_a_busy_interpreter_in_a_few_steps(engine: SqliteEngine) -> None:
    """Row by row, each would wait its turn 300 times: at 20 ms, 6 s and more."""
    batch = [Write(R, 1, create="e"), *(Write(R, n, (record(n),)) for n in range(1, 301))]
    reader, stop = engine.reader(), threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    spinner, interval = threading.Thread(target=spin), sys.getswitchinterval()
    sys.setswitchinterval(0.02)
    spinner.start()
    try:
        start = time.perf_counter()
        engine.write(batch)
        assert len(reader.records_after(R, 0, limit=300, max_bytes=1 << 20)) == 300
        assert time.perf_counter() - start < 3
    finally:
        stop.set()
        spinner.join()
        sys.setswitchinterval(interval)
    reader.close()
