"""What fuzzing has come upon, and what it began with, replayed (fuzz/tokens.py)."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__)
CORPUS = sorted((HERE.parent / "corpus").iterdir())


@pytest.fixture(scope="module")
def fuzzing() -> ModuleType:
    """The harness; it is no package, so it is loaded by path."""
    spec = importlib.util.spec_from_file_location("fuzz_tokens", HERE.parents[3] / "fuzz" / "tokens.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) > 10


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_each_input_is_let_in_rightly_or_refused(fuzzing: ModuleType, file: Path) -> None:
    fuzzing.check(file.read_bytes())


def test_the_harness_sees_a_forger_that_comes_in(fuzzing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fuzzing.verifier,
        "check",
        lambda token, key: b'{"iss":"actor-broker","aud":"actor-broker","sub":"eve","exp":1700000100}',
    )
    forged = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhY3Rvci1icm9rZXIifQ.AAAA"
    with pytest.raises(AssertionError, match="nothing that we have signed"):
        fuzzing.check(b"\0" + forged.encode())
