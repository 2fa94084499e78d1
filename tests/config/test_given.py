"""A program's own values, checked as a file's are."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs
import pytest

from broker.config import ConfigErrors, Secret, Settings, structure_block, take
from broker.config.given import located


@attrs.frozen
class Block:
    key: Secret
    names: frozenset[str] = frozenset()


def problems_of(given: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigErrors) as mistakes:
        take(given)
    return [(problem.path, problem.message) for problem in mistakes.value.problems]


def test_values_are_read_as_those_of_a_file_and_the_environment_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_LISTEN__PORT", "9")
    given: Mapping[str, Any] = MappingProxyType(
        {"listen": {"origins": ("https://a.example",), "hosts": ["b.example"]}, "limits": {"handshake": "1m"}}
    )
    loaded = take(given)
    listen = loaded.settings.listen
    assert (listen.port, listen.origins, listen.hosts) == (3000, ("https://a.example",), ("b.example",))
    assert loaded.settings.limits.handshake == 60.0
    assert loaded.file is None
    assert loaded.origins["limits.handshake"] == "the settings given"


def test_whole_settings_are_taken_as_they_are_if_no_rule_between_them_is_broken() -> None:
    settings = Settings(default_agent="echo")
    assert take(settings).settings is settings
    ((path, message),) = problems_of(Settings(default_agent="nobody"))
    assert path == "default_agent"
    assert "known are: echo" in message


def test_a_secret_stays_one() -> None:
    block = take({"plugins": {"p": {"key": Secret("hidden"), "names": {"a"}}}}).settings.plugins["p"]
    key = block.child("key")
    assert key is not None
    assert key.secret
    assert structure_block(Block, block) == Block(Secret("hidden"), frozenset({"a"}))
    wrong = problems_of({"log": {"level": Secret("hidden")}})
    assert "hidden" not in str(wrong)


@pytest.mark.parametrize("value", [object(), b"bytes", {1: "a"}, [1.5, object()], "\ud800"])
def test_what_no_file_could_hold_is_a_mistake_at_its_setting(value: Any) -> None:
    ((path, _),) = problems_of({"plugins": {"p": {"a": value}}})
    assert path.startswith("plugins.p.a")


def test_nobody_is_kept_busy_by_what_has_no_end() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ConfigErrors, match="holds itself"):
        located({"plugins": endless})
    with pytest.raises(ConfigErrors, match="too many values"):
        located({"plugins": list(range(20_000))})
