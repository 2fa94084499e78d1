"""What a running broker takes over of a changed configuration, and what it must not."""

import re
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from broker import config
from broker.config import ConfigErrors, Settings
from broker.reload import LIVE, changes, check, merge

Load = Callable[[str], Settings]


@pytest.fixture
def settings(tmp_path: Path) -> Load:
    """Settings from the text of a file."""

    def load(text: str) -> Settings:
        file = tmp_path / "config.yaml"
        file.write_text(text)
        return config.load(file, {}, {}).settings

    return load


def test_every_setting_that_is_live_exists() -> None:
    for block, names in LIVE.items():
        assert names <= {field.name for field in attrs.fields(type(getattr(Settings(), block)))}


def test_what_is_live_is_taken_and_the_rest_is_named_setting_by_setting(settings: Load) -> None:
    old = settings("{}")
    new = settings(
        "listen: {origins: ['https://a.example'], port: 4000}\n"
        "log: {level: debug}\nrooms: {history: 7}\nplugins_dir: null\n"
        "agents: {echo: {kind: echo}, other: {kind: echo, delay: 1s}}\n"
    )
    taken = merge(old, new)
    assert (taken.listen.origins, taken.listen.port, taken.log.level) == (("https://a.example",), 3000, "debug")
    assert changes(taken, new) == ["listen.port", "rooms.history", "agents.other", "plugins_dir"]
    assert changes(taken, taken) == []


def test_nobody_is_let_in_without_a_token_by_a_file_that_is_right_by_itself(settings: Load) -> None:
    old = settings("listen: {host: 0.0.0.0}\nplugins: {auth: {mode: jwt}}")
    new = settings("listen: {host: 127.0.0.1}\nplugins: {auth: {mode: none}}")
    with pytest.raises(ConfigErrors, match=r"nobody has to show a token.*until a restart the old one holds"):
        check(merge(old, new), new.plugins)
    check(merge(old, new), old.plugins)
    check(merge(new, new), new.plugins)


def test_the_page_names_what_is_live() -> None:
    text = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text().partition("## Reloading")[2]
    whole = {
        block
        for block, names in LIVE.items()
        if names == {f.name for f in attrs.fields(type(getattr(Settings(), block)))}
    }
    live = {f"{block}.{name}" for block, names in LIVE.items() for name in names if block not in whole} | whole
    listed = text[text.index("is taken over") : text.index("; and the settings")]
    assert set(re.findall(r"`([\w.]+)`", listed)) == live
