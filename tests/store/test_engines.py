from pathlib import Path

import pytest

from broker.store.engines import engine_for
from broker.store.memory import MemoryEngine
from broker.store.port import StoreError
from broker.store.sqlite import SqliteEngine


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_memory_is_not_durable(url: str) -> None:
    engine = engine_for(url)
    assert isinstance(engine, MemoryEngine)
    assert engine.durable is False


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative, absolute = engine_for("sqlite:///a b.db"), engine_for("sqlite:////var/x.db")
    assert isinstance(relative, SqliteEngine)
    assert isinstance(absolute, SqliteEngine)
    assert (relative.path, absolute.path) == (tmp_path / "a b.db", Path("/var/x.db"))


@pytest.mark.parametrize(("sync", "durable"), [("full", True), ("normal", False), ("off", False)])
def test_only_full_synchronisation_is_durable(sync: str, durable: bool) -> None:
    engine = engine_for("sqlite:///x.db", sync)
    assert engine.durable is durable


@pytest.mark.parametrize(
    "url", ["", "broker.db", "sqlite:x.db", "sqlite://x.db", "sqlite:///", "sqlite:///:memory:", "sqlite:///x?mode=ro"]
)
def test_any_other_url_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(StoreError, match=r"sqlite:///broker\.db"):
        engine_for(url)


def test_a_refused_url_is_not_shown_whole_because_it_may_hold_a_password() -> None:
    with pytest.raises(StoreError, match="'postgres'") as refused:
        engine_for("postgres://ann:secret@db/x")
    assert "secret" not in str(refused.value)


def test_an_unknown_sync_is_refused() -> None:
    with pytest.raises(StoreError, match="full, normal or off"):
        engine_for("sqlite:///x.db", "sometimes")
