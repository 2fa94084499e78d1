"""A plugin's block becomes its settings as strictly as the broker's own."""

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import attrs
import msgspec
import pytest

from broker.config import ByteRate, ConfigErrors, Located, Percent, Rate, load, structure_block

Block = Callable[[str], Located]


class Colour(Enum):
    RED = "red"


@attrs.frozen(kw_only=True)
class Inner:
    share: Percent = 50.0
    wait: int = attrs.field(default=1, validator=attrs.validators.le(5))


@attrs.frozen(kw_only=True)
class Example:
    messages: Rate = 50.0
    volume: ByteRate = 1.0
    names: list[str] = attrs.Factory(list)
    unique: frozenset[Annotated[str, msgspec.Meta(max_length=3)]] = frozenset()
    by_name: dict[str, int] = attrs.Factory(dict)
    inner: Inner = attrs.Factory(Inner)
    mode: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    note: str | None = None


@pytest.fixture
def block(tmp_path: Path):
    """Return a function that gives the located block `plugins.example` of YAML text."""

    def of_text(text: str) -> Located:
        file = tmp_path / "config.yaml"
        file.write_text(f"plugins:\n  example: {text}\n")
        return load(file, {}, {}).settings.plugins["example"]

    return of_text


def test_a_block_becomes_an_instance(block: Block):
    text = (
        "{messages: 600/m, volume: 1MiB/s, names: [a], unique: [a, a], by_name: {x: 1}, inner: {share: 5}, mode: b,"
        " colour: red, note: hi}"
    )
    assert structure_block(Example, block(text)) == Example(
        messages=10.0,
        volume=1048576.0,
        names=["a"],
        unique=frozenset("a"),
        by_name={"x": 1},
        inner=Inner(share=5.0),
        mode="b",
        note="hi",
    )


@pytest.mark.parametrize("text", ["", "{}", "null"])
def test_an_empty_block_gives_the_defaults(block: Block, text: str):
    assert structure_block(Example, block(text)) == Example()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{mesages: 1/s}", "2:13: plugins.example.mesages: unknown setting; did you mean 'messages'?"),
        ("{messages: 50}", "2:23: plugins.example.messages: expected a rate such as 50/s or 600/m"),
        ("{volume: 50/s}", "2:21: plugins.example.volume: expected a rate of bytes such as 1MiB/s"),
        ("{names: abc}", "2:20: plugins.example.names: expected a list, got text"),
        ("{unique: [abcd]}", "2:22: plugins.example.unique[0]: expected at most 3 characters"),
        ("{by_name: [a]}", "2:22: plugins.example.by_name: expected a block of settings, got a list"),
        ("{by_name: {x: y}}", "2:26: plugins.example.by_name.x: expected a whole number, got text"),
        ("{inner: {share: 101}}", "2:28: plugins.example.inner.share: expected a number of at most 100"),
        ("{inner: {wait: 6}}", "2:20: plugins.example.inner: 'wait' must be <= 5: 6"),
        ("{colour: blue}", "2:21: plugins.example.colour: 'blue' is not a valid Colour"),
        ("{note: 3}", "2:19: plugins.example.note: expected text, got a whole number; put it in quotes"),
    ],
)
def test_a_mistake_is_told_at_its_place(block: Block, text: str, expected: str):
    with pytest.raises(ConfigErrors) as caught:
        structure_block(Example, block(text))
    assert [problem.render().splitlines()[0].partition("config.yaml:")[2] for problem in caught.value.problems] == [
        expected
    ]


def test_all_mistakes_are_told_at_once(block: Block):
    with pytest.raises(ConfigErrors) as caught:
        structure_block(Example, block("{mode: c, note: 1, x: 2, inner: {y: 1}}"))
    assert [problem.path.removeprefix("plugins.example.") for problem in caught.value.problems] == [
        "mode",
        "note",
        "x",
        "inner.y",
    ]
