"""What the composition root decides by itself."""

import os
from pathlib import Path

import pytest

from broker.system import mark_of


def test_what_a_broker_starts_is_marked_by_its_store_however_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    spellings = ["broker.db", "./broker.db", f"{tmp_path}/broker.db", f"{tmp_path}/link/broker.db"]
    marks = {mark_of(f"sqlite:///{os.fspath(path)}") for path in spellings}
    assert len(marks) == 1
    assert None not in marks
    assert mark_of("sqlite:///other.db") not in marks


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_a_store_in_memory_marks_nothing_for_no_later_run_has_it_too(url: str) -> None:
    assert mark_of(url) is None
