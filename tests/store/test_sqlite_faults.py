"""What the store on disk says and does when something is wrong."""

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker.messages import Record, Write
from broker.store import schema
from broker.store.port import StoreError
from broker.store.sqlite import SqliteEngine

R = "room:r"
APPENDER = Path(__file__).with_name("appender.py")
Held = Callable[[Path, str], list[Record]]


def record(seq: int, data: bytes = b"{}") -> Record:
    return Record(seq, seq, "message", data)


def refusal(path: Path) -> str:
    """Return the words in which the store is refused; nothing stays open or locked."""
    engine = SqliteEngine(path)
    with pytest.raises(StoreError) as refused:
        engine.open()
    assert engine._lock is None
    assert engine._connection is None
    return str(refused.value)


def test_a_second_process_is_refused_and_told_who_has_it(path: Path, engine: SqliteEngine) -> None:
    script = "import sys; from broker.store.sqlite import SqliteEngine; SqliteEngine(sys.argv[1]).open()"
    link = path.with_name("link.db")
    link.symlink_to(path)
    for name in (path, link):
        command: list[str | Path] = [sys.executable, "-c", script, name]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert f"another broker (process {os.getpid()}) has it open" in second.stderr
    engine.close()
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=30)


def test_the_lock_goes_with_its_holder(path: Path, held: Held) -> None:
    with subprocess.Popen([sys.executable, APPENDER, path, "full"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        assert f"process {holder.pid}" in refusal(path)
        holder.kill()
    assert held(path, "room:0")


def test_a_lock_of_another_program_is_named_and_the_next_write_succeeds(path: Path, engine: SqliteEngine) -> None:
    assert engine._connection
    engine._connection.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program holds a lock"):
            engine.write([Write(R, 1, create="e")])
    engine.write([Write(R, 1, create="e")])


def test_a_migration_that_fails_leaves_the_version_before_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = schema._scripts()
    monkeypatch.setattr(schema, "_scripts", lambda: [*first, "CREATE TABLE later (x); INSERT INTO nowhere VALUES (1);"])
    assert "no such table: nowhere" in refusal(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(first),)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'later'").fetchone() == (0,)


def test_a_newer_store_is_refused_and_left_alone(path: Path, held: Held) -> None:
    held(path, R)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    assert "version 99" in refusal(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    assert "another program's database" in refusal(path)


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be looked at" * 100, b"SQLite format 3\0"]
)
def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "not a broker's store" in refusal(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path}/nowhere has to exist" in refusal(tmp_path / "nowhere" / "broker.db")


def test_a_directory_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        closed = Path("/proc")  # root may write everywhere else
    assert f"{closed} has to exist and to belong to the broker's user" in refusal(closed / "broker.db")


def test_a_directory_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    assert "cannot be opened" in refusal(path)


def test_a_damaged_file_is_named_and_never_read_as_something_else(path: Path) -> None:
    """Pages overwritten by random bytes: an error that says so, or records as they were written."""
    whole = [record(n, b"%d" % n * 100) for n in range(1, 400)]
    engine = SqliteEngine(path)
    engine.open()
    engine.write([Write(R, 1, tuple(whole), create="e")])
    engine.close()
    pages, dice, named = path.read_bytes(), random.Random(7), 0
    for page in range(1, len(pages) // 4096):
        path.write_bytes(pages[: page * 4096] + dice.randbytes(4096) + pages[(page + 1) * 4096 :])
        engine = SqliteEngine(path)
        try:
            engine.open()
            reader = engine.reader()
            found = reader.records_after(R, 0, limit=1000, max_bytes=1 << 30)
            reader.close()
            assert found == whole
        except StoreError as error:
            named += "is damaged" in str(error)
        finally:
            engine.close()
    assert named > 3


def fill(engine: SqliteEngine, acknowledged: list[int]) -> None:
    while True:
        seq = len(acknowledged) + 1
        engine.write([Write(R, 1, (record(seq, b"x" * 10_000),))])
        acknowledged.append(seq)


def test_a_full_disk_is_said_and_the_store_goes_on_when_it_is_freed(tmp_path: Path, held: Held) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False, timeout=10).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        engine = SqliteEngine(disk / "broker.db")
        engine.open()
        engine.write([Write(R, 1, create="e")])
        (disk / "ballast").write_bytes(bytes(1024 * 1024))
        acknowledged: list[int] = []
        with pytest.raises(StoreError, match="the disk is full; free some space"):
            fill(engine, acknowledged)
        head = len(acknowledged)
        with pytest.raises(StoreError, match="full"):
            engine.write([Write(R, 1, (record(head + 1, b"x" * 100_000),))])
        assert head > 5
        (disk / "ballast").unlink()
        engine.write([Write(R, 1, (record(head + 1, b"x" * 10_000),))])
        engine.close()
        assert [r.seq for r in held(disk / "broker.db", R)] == list(range(1, head + 2))
    finally:
        subprocess.run(["umount", "-l", disk], check=True, timeout=10)


def test_a_value_that_cannot_be_stored_spoils_its_batch_only(engine: SqliteEngine) -> None:
    with pytest.raises(StoreError, match="cannot be stored"):
        engine.write([Write("room:\ud800", 1, create="e")])
    with pytest.raises(StoreError, match="cannot be stored"):
        engine.write([Write(R, 1, create="e"), Write(R, 1 << 63)])
    engine.write([Write(R, 1, create="e")])


def test_a_closed_store_says_so(path: Path) -> None:
    with pytest.raises(StoreError, match="not open"):
        SqliteEngine(path).write([Write(R, 1, create="e")])
