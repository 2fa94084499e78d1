"""What the fuzzer has found stays found: `fuzz/config.py` says what has to hold for any text."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = sorted((ROOT / "tests/config/corpus").iterdir())


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """The fuzzer's rules; fuzz/ is no package that is installed."""
    spec = importlib.util.spec_from_file_location("fuzz_config", ROOT / "fuzz" / "config.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_the_rules_hold_for_what_the_fuzzer_has_found(fuzz: ModuleType, file: Path) -> None:
    fuzz.check(file.read_bytes())


def test_the_fuzzer_would_see_an_error_that_is_no_mistake(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(sys.modules[fuzz.load.__module__], "clashes", fall)
    with pytest.raises(KeyError):
        fuzz.check(b"\x04{}")
    monkeypatch.undo()
    monkeypatch.setattr(fuzz, "SLOWEST", 0)
    with pytest.raises(AssertionError, match="took"):
        fuzz.check(b"\x04{}")
