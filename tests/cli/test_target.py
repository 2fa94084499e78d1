"""Which broker a command talks to, and with which token."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from broker.cli.options import json_option
from broker.cli.output import NOT_ALLOWED, UNREACHABLE, coloured, exit_code
from broker.cli.target import Target, target_options
from broker.nearby import Nearby, note
from broker.web.listener import bind

Ask = Callable[..., Result]


@click.command()
@target_options
@json_option
@click.argument("word")
def look(target: Target, word: str, *, as_json: bool) -> None:
    """Say what it was given."""
    click.echo(f"{word} {as_json} {target.http} {target.ws} {target.token}")


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run the command in an empty folder, where no broker is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("BROKER_URL", "BROKER_TOKEN", "BROKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, text: str | None = None, **environ: str) -> Result:
        return CliRunner().invoke(look, ["hi", *arguments], input=text, env=environ, obj=(None, {}))

    return run


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[str]:
    """The address of a broker that seems to be run by `broker dev`."""
    with bind("127.0.0.1", 0) as sock:
        sock.listen()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        note(Nearby(url, "devs"), os.getpid(), {"XDG_STATE_HOME": str(tmp_path / "state")})
        yield url


def test_the_address_is_the_flags_the_environments_devs_or_the_configurations(ask: Ask, dev: str) -> None:
    assert (
        ask("--json", "--url", "https://a.example/ws").output == "hi True https://a.example wss://a.example/ws None\n"
    )
    assert ask(BROKER_URL="http://b.example").output.split()[2] == "http://b.example"
    assert ask().output.split()[2:] == [dev, f"ws{dev[4:]}/ws", "devs"]


def test_without_any_it_is_where_the_configuration_listens(ask: Ask, tmp_path: Path) -> None:
    assert ask().output.split()[2] == "http://127.0.0.1:3000"
    (tmp_path / "config.yaml").write_text('listen: {host: "::", port: 4000, insecure: true}')
    assert ask().output.split()[2] == "http://[::1]:4000"
    (tmp_path / "config.yaml").write_text("listen: {prot: 4000}")
    assert ask().exit_code == 78


def test_the_token_is_the_files_or_the_environments(ask: Ask, dev: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-the-file\n")
    assert ask("--token-file", "token", BROKER_TOKEN="other").output.split()[4] == "of-the-file"
    assert ask("--token-file", "-", text="typed\n").output.split()[4] == "typed"
    assert ask(BROKER_TOKEN="mine").output.split()[4] == "mine"
    assert ask("--url", dev).output.split()[4] == "devs"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--url", "nonsense"), "--url: an address of a broker looks like"),
        (("--token-file", "nowhere"), "nowhere cannot be read"),
        (("--token-file", "empty"), "holds no token"),
        (("--token-file", "two"), "holds no token"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error(ask: Ask, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "two").write_text("two words")
    done = ask(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_an_address_in_the_environment_that_is_none_is_named(ask: Ask) -> None:
    assert "BROKER_URL: an address" in ask(BROKER_URL="nonsense").stderr


def test_exit_codes_say_whether_it_was_the_broker_or_who_asks() -> None:
    assert exit_code("forbidden") == exit_code("token_expired") == NOT_ALLOWED
    assert exit_code("unavailable") == UNREACHABLE
    assert exit_code("not_found") == 1


@pytest.mark.parametrize(
    ("environ", "wanted"), [({}, None), ({"NO_COLOR": ""}, None), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_can_be_forbidden(environ: dict[str, str], wanted: bool | None) -> None:
    assert coloured(environ) is wanted
