"""The newest records of a log in memory: so many, of so many bytes, and no more."""

import pytest

from broker.actors import tail
from broker.actors.tail import Tail
from broker.messages import Record


def records(*sizes: int, first: int = 1) -> list[Record]:
    return [Record(seq, 1, "k", b"x" * size) for seq, size in enumerate(sizes, first)]


def seqs(page: list[Record]) -> list[int]:
    return [record.seq for record in page]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "RECORDS", 4)
    monkeypatch.setattr(tail, "BYTES", 100)


def test_it_holds_the_newest_records_and_no_more_than_so_many() -> None:
    kept = Tail()
    for record in records(*[1] * 9):
        kept.extend([record])
    assert (seqs(kept.page(5, limit=9, max_bytes=999)), len(kept), kept.bytes) == ([6, 7, 8, 9], 4, 4)
    assert [kept.reaches(after) for after in (4, 5, 9)] == [False, True, True]


def test_it_holds_no_more_bytes_however_large_its_records_are() -> None:
    kept = Tail()
    for record in records(60, 60, 30, 10):
        kept.extend([record])
        assert kept.bytes <= 100
    assert seqs(kept.page(1, limit=9, max_bytes=999)) == [2, 3, 4]
    kept.extend(records(95, 5, first=5))
    assert (seqs(kept.page(4, limit=9, max_bytes=999)), kept.bytes) == ([5, 6], 100)


def test_a_record_that_does_not_fit_leaves_nothing_and_what_comes_after_it_is_held_again() -> None:
    kept = Tail()
    kept.extend(records(1, 101))
    assert (len(kept), kept.bytes, kept.reaches(1), kept.reaches(2)) == (0, 0, False, False)
    assert kept.page(2, limit=9, max_bytes=9) == []
    kept.extend(records(7, first=3))
    assert (kept.reaches(2), seqs(kept.page(2, limit=9, max_bytes=9))) == (True, [3])


def test_a_page_has_so_many_records_and_bytes_but_at_least_one_record() -> None:
    kept = Tail()
    kept.extend(records(20, 30, 30))
    assert seqs(kept.page(0, limit=2, max_bytes=999)) == [1, 2]
    assert seqs(kept.page(0, limit=9, max_bytes=50)) == [1, 2]
    assert seqs(kept.page(0, limit=9, max_bytes=49)) == [1]
    assert seqs(kept.page(1, limit=9, max_bytes=1)) == [2]
    assert kept.page(3, limit=9, max_bytes=999) == []
