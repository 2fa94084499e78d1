"""Secrets are read from files and variables, and never shown."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from loguru import logger

from broker.config import ConfigErrors, Duration, Located, Secret, load, structure_block
from broker.config.show import as_data, as_yaml
from broker.config.tree import find

Block = Callable[..., Located]

CANARY = "hunter2-Zq"


@attrs.frozen(kw_only=True)
class Keys:
    """A plugin's settings."""

    secret: Secret
    more: tuple[Secret, ...] = ()
    wait: Duration = 1.0


@pytest.fixture
def block(tmp_path: Path):
    """Return a function that gives the located block `plugins.keys` of YAML text."""

    def of_text(text: str, environ: dict[str, str] | None = None) -> Located:
        file = tmp_path / "config.yaml"
        file.write_text(f"plugins:\n  keys: {text}\n")
        return load(file, environ or {}, {}).settings.plugins["keys"]

    return of_text


def test_a_secret_reveals_itself_only_when_asked(caplog: pytest.LogCaptureFixture):
    secret = Secret(CANARY)
    logging.getLogger("x").warning("%s %r", secret, secret)
    shown = f"{secret} {secret!r} {secret:>20} {[secret]} {attrs.asdict(Keys(secret=secret), recurse=False)}"
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), diagnose=False)
    logger.info("{} {!r}", secret, secret)
    logger.remove(sink)
    assert CANARY not in shown + caplog.text + "".join(lines)
    assert secret.reveal() == CANARY


def test_a_secret_is_equal_to_its_like_and_true_if_there_is_one():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert not Secret("")


def test_a_file_gives_its_first_line_stripped_relative_to_the_configuration(block: Block, tmp_path: Path):
    (tmp_path / "key.txt").write_text(f"  {CANARY} \nsecond line\n")
    (tmp_path / "other").write_text("12345")
    keys = structure_block(Keys, block("{secret: !file key.txt, more: [!file '${NAME}', plain]}", {"NAME": "other"}))
    assert keys == Keys(secret=Secret(CANARY), more=(Secret("12345"), Secret("plain")))


def test_a_variable_gives_a_secret(block: Block):
    assert structure_block(Keys, block("{secret: !env KEY}", {"KEY": CANARY})).secret.reveal() == CANARY


@pytest.mark.parametrize(
    ("content", "expected"),
    [("\nlate\n", "the first line of the file key.txt is empty"), (b"\xff\xfe", "not UTF-8 text")],
)
def test_a_file_without_a_secret_is_refused(block: Block, tmp_path: Path, content: str | bytes, expected: str):
    (tmp_path / "key.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigErrors, match=expected):
        block("{secret: !file key.txt}")


@pytest.mark.parametrize(
    "text",
    [
        f"{{secret: '{CANARY}', wiat: 1s}}",
        f"{{secrte: '{CANARY}'}}",
        f"{{sekrit: '{CANARY}', wait: 3}}",
        f"\n    sekrit: '{CANARY}'\n    wait: 3",
        f"{{secret: ['{CANARY}']}}",
        f"{{secret: ok, more: [1, '{CANARY}']}}",
        f"{{secret: {CANARY}, wait: 3}}",
        f"{{secret: ok, wait: 'redis://me:{CANARY}@host'}}",
    ],
)
def test_no_mistake_shows_a_secret(block: Block, text: str):
    with pytest.raises(ConfigErrors) as caught:
        structure_block(Keys, block(text))
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value.problems)


@pytest.mark.parametrize(
    "text",
    [
        f"plugins: {{x: {{api_key: {CANARY}}}, x: 1}}",
        f"plugins: {{x: {{'token': '{CANARY}, {CANARY}'}}, x: 1}}",
        f"a: {{password: {CANARY} {CANARY}}}",
        f"secret: {CANARY}",
        f"secret: a, [{CANARY}] # {CANARY}",
        f"- my-token: 'a' {CANARY}",
        f"a: https://me:{CANARY}@host/",
        f"listen: [a, {{token: {CANARY}",
    ],
)
def test_no_line_shows_what_is_called_a_secret(tmp_path: Path, text: str):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        load(file, {}, {})
    assert "*****" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_no_listing_shows_a_secret(tmp_path: Path):
    (tmp_path / "key.txt").write_text(CANARY)
    file = tmp_path / "config.yaml"
    file.write_text(
        f"agents: {{a: {{kind: acp, command: [a], env: {{FOO: {CANARY}}}}}}}\n"
        "default_agent: a\n"
        f"plugins: {{p: {{x: !file key.txt, y: [!env KEY], u: 'http://u:{CANARY}@h', "
        f"token: {CANARY}, deep: {{api_key: [{CANARY}]}}, z: 1}}}}\n"
    )
    loaded = load(file, {"KEY": CANARY}, {})
    shown = "\n".join(as_yaml(loaded)) + json.dumps(as_data(loaded)) + repr(loaded) + str(loaded.settings)
    assert CANARY not in shown
    assert 'x: "********"' in shown
    assert find(loaded.root, "plugins", "p", "token") is not None
