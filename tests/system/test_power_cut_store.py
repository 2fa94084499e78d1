"""P1 at the power switch: what the store acknowledged is there after a power cut, by default."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from broker.store.sqlite import SqliteEngine

APPENDER = Path(__file__).parents[1] / "store" / "appender.py"
FSYNCS = """
import os, sys
os.chdir(sys.argv[1])
kept = os.open("kept", os.O_RDWR | os.O_CREAT)
os.write(kept, b"0123456789")
os.fsync(kept)
os.fsync(os.open(".", os.O_RDONLY))
os.pwrite(kept, b"X", 0)
os.ftruncate(kept, 4)
nameless = os.open("nameless", os.O_RDWR | os.O_CREAT)
os.write(nameless, b"y")
os.fsync(nameless)
"""
Disk = Callable[[Path], AbstractContextManager[Any]]


def cut_while_writing(disk: Any, sync: str, lines: int) -> tuple[dict[str, int], Path]:
    """Have records written, kill the writer and cut the power; return the acknowledged heads and what survived."""
    command = [sys.executable, APPENDER, disk.path / "broker.db", sync]
    acknowledged: dict[str, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        for _ in range(lines):
            room, seq = writer.stdout.readline().split()
            acknowledged[room] = int(seq)
        disk.cut()
        writer.kill()
        for line in writer.stdout:
            room, seq = line.split()
            acknowledged[room] = int(seq)
    return acknowledged, disk.survived / "broker.db"


def heads(path: Path, rooms: list[str]) -> dict[str, int]:
    """Open the store and return how far each log reaches without a gap."""
    engine = SqliteEngine(path)
    engine.open()
    reader = engine.reader()
    found = {}
    for room in rooms:
        records = reader.records_after(room, 0, limit=100_000, max_bytes=1 << 30)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert all(b'"n":%d,' % record.seq in record.data for record in records)
        found[room] = len(records)
    reader.close()
    engine.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return found


def lost(acknowledged: dict[str, int], found: dict[str, int]) -> int:
    """Return how many acknowledged records are missing."""
    return sum(max(seq - found[room], 0) for room, seq in acknowledged.items())


@pytest.mark.parametrize("lines", [40, 333, 1500])
def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path, power_cut_disk: Disk, lines: int) -> None:
    with power_cut_disk(tmp_path) as disk:
        acknowledged, path = cut_while_writing(disk, "full", lines)
    assert sum(acknowledged.values()) >= lines
    assert lost(acknowledged, heads(path, list(acknowledged))) == 0


@pytest.mark.chaos
@pytest.mark.parametrize("lines", [600 * n + 7 for n in range(1, 11)])
def test_ten_power_cuts_take_nothing(tmp_path: Path, power_cut_disk: Disk, lines: int) -> None:
    with power_cut_disk(tmp_path) as disk:
        acknowledged, path = cut_while_writing(disk, "full", lines)
    assert lost(acknowledged, heads(path, list(acknowledged))) == 0


def test_the_weaker_mode_does_lose_records_which_proves_the_cut(tmp_path: Path, power_cut_disk: Disk) -> None:
    with power_cut_disk(tmp_path) as disk:
        acknowledged, path = cut_while_writing(disk, "normal", 300)
    assert lost(acknowledged, heads(path, list(acknowledged))) >= 300


def test_a_disk_that_is_not_cut_reads_back_what_was_written(tmp_path: Path, power_cut_disk: Disk) -> None:
    with power_cut_disk(tmp_path) as disk:
        file = disk.path / "a"
        file.write_bytes(b"one")
        assert file.read_bytes() == b"one"
        assert [entry.name for entry in disk.path.iterdir()] == ["a"]
        file.rename(disk.path / "b")
        assert not file.exists()
        (disk.path / "b").unlink()
        assert list(disk.path.iterdir()) == []


def test_only_what_was_fsynced_survives_names_and_bytes_apart(tmp_path: Path, power_cut_disk: Disk) -> None:
    with power_cut_disk(tmp_path) as disk:
        subprocess.run([sys.executable, "-c", FSYNCS, disk.path], check=True, timeout=20)
        assert (disk.path / "kept").read_bytes() == b"X123"
        survived = disk.cut()
    assert {file.name: file.read_bytes() for file in survived.iterdir()} == {"kept": b"0123456789"}
