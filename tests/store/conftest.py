"""The store on disk, for the tests that are about it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.messages import Record
from broker.store.sqlite import SqliteEngine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def engine(path: Path) -> Iterator[SqliteEngine]:
    engine = SqliteEngine(path)
    engine.open()
    yield engine
    engine.close()


@pytest.fixture
def held() -> Callable[[Path, str], list[Record]]:
    """Return what opens a store, reads all of one log and closes it again."""

    def read(path: Path, log: str) -> list[Record]:
        engine = SqliteEngine(path)
        engine.open()
        reader = engine.reader()
        found = reader.records_after(log, 0, limit=1_000_000, max_bytes=1 << 40)
        reader.close()
        engine.close()
        return found

    return read
