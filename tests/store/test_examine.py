"""Looking at a store changes nothing of it, and finds what is wrong."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.messages import Record, Write
from broker.store.examine import disk_of, examine
from broker.store.port import StoreError
from broker.store.schema import VERSION
from broker.store.sqlite import SqliteEngine


@pytest.fixture
def engine(tmp_path: Path) -> SqliteEngine:
    return SqliteEngine(tmp_path / "broker.db")


def fill(engine: SqliteEngine, records: int = 200) -> None:
    written = tuple(Record(seq, 1, "message", b'{"text":"%s"}' % (b"x" * 500), None) for seq in range(1, records + 1))
    engine.write([Write("session:s1", 1, written, create="e1")])


def test_where_there_is_none_there_is_nothing_to_say(engine: SqliteEngine) -> None:
    assert examine(engine.path) is None
    assert not engine.path.exists()


def test_a_store_that_nobody_has_open_is_whole_and_stays_as_it_is(engine: SqliteEngine, tmp_path: Path) -> None:
    engine.open()
    fill(engine)
    engine.close()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    found = examine(engine.path)
    assert found is not None
    assert (found.version, found.current, found.damage, found.complete) == (VERSION, VERSION, "", True)
    assert found.size == engine.path.stat().st_size
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_store_in_use_is_looked_at_as_it_is_now(engine: SqliteEngine) -> None:
    engine.open()
    try:
        fill(engine)
        found = examine(engine.path)
        assert found is not None
        assert (found.damage, found.holder) == ("", os.getpid())
        fill_more = Write("session:s2", 1, (), create="e2")
        engine.write([fill_more])
    finally:
        engine.close()


def test_damage_is_found(engine: SqliteEngine) -> None:
    engine.open()
    fill(engine)
    engine.close()
    pages = bytearray(engine.path.read_bytes())
    for page in range(4, len(pages) // 4096):
        pages[page * 4096 : page * 4096 + 64] = bytes(64)
    engine.path.write_bytes(pages)
    found = examine(engine.path)
    assert found is not None
    assert found.damage


def test_a_lock_s_holder_is_whoever_lives(engine: SqliteEngine) -> None:
    engine.open()
    fill(engine)
    engine.close()
    for text in ("9" * 30, "-1", "0", "nobody"):
        Path(f"{engine.path}.lock").write_text(text)
        found = examine(engine.path)
        assert found is not None
        assert found.holder is None


def test_a_look_ends_in_time(engine: SqliteEngine) -> None:
    engine.open()
    fill(engine, 2000)
    engine.close()
    found = examine(engine.path, seconds=-1.0)
    assert found is not None
    assert (found.damage, found.complete) == ("", False)


@pytest.mark.parametrize("make", ["another program's", "no database", "a folder"])
def test_what_is_no_store_is_said(tmp_path: Path, make: str) -> None:
    file = tmp_path / "other.db"
    if make == "no database":
        file.write_bytes(b"text" * 4096)
    elif make == "a folder":
        file.mkdir()
    else:
        with closing(sqlite3.connect(file)) as other:
            other.execute("CREATE TABLE things (name TEXT)")
    with pytest.raises(StoreError, match=r"program's database|not a broker's store|is no file"):
        examine(file)


def test_the_disk_is_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    assert disk.free > 0
    assert disk.sync > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="has to exist and to belong to the broker's user"):
        disk_of(tmp_path / "nowhere")
