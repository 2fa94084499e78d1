"""Which broker a program finds if nobody tells it: never a stale one, and never one that somebody else wrote down."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.nearby import DEFAULT_URL, Nearby, base_of, find, forget, nearest, note, running
from broker.web.listener import bind


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path)}


@pytest.fixture
def url() -> Iterator[str]:
    """Where somebody listens."""
    with bind("127.0.0.1", 0) as sock:
        sock.listen()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_what_was_noted_is_found_by_this_user_until_it_is_forgotten(environ: dict[str, str], url: str) -> None:
    file = note(Nearby(url, "secret"), os.getpid(), environ)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in file.parent.iterdir()] == [f"dev-{os.getpid()}.json"]
    assert running(environ) == find(environ=environ) == Nearby(url, "secret")
    forget(os.getpid() + 1, environ)
    assert running(environ) is not None
    forget(os.getpid(), environ)
    assert running(environ) is None
    assert not file.exists()


def test_one_that_ended_without_a_word_is_not_found(environ: dict[str, str], url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    left = note(Nearby(url, "secret"), process.pid, environ)
    assert running(environ) is None
    note(Nearby(url, "secret"), os.getpid(), environ)
    assert not left.exists()


def test_of_two_the_newest_is_meant_and_the_other_stays(environ: dict[str, str], url: str) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
        bind("127.0.0.1", 0) as sock,
    ):
        sock.listen()
        newer = Nearby(f"http://127.0.0.1:{sock.getsockname()[1]}", "another")
        file = note(Nearby(url, "secret"), os.getpid(), environ)
        os.utime(file, (1, 1))
        note(newer, other.pid, environ)
        assert running(environ) == newer
        assert find(url, environ) == Nearby(url, "secret")
        forget(other.pid, environ)
        assert running(environ) == Nearby(url, "secret")
        other.communicate()


def test_neither_a_link_nor_a_pipe_is_read(environ: dict[str, str], url: str, tmp_path: Path) -> None:
    file = note(Nearby(url, "secret"), os.getpid(), environ)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert running(environ) is None
    file.unlink()
    os.mkfifo(file, 0o600)
    assert running(environ) is None


def test_one_that_does_not_listen_is_not_found(environ: dict[str, str]) -> None:
    with bind("127.0.0.1", 0) as sock:
        note(Nearby(f"http://127.0.0.1:{sock.getsockname()[1]}", "secret"), os.getpid(), environ)
        assert running(environ) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"url":1,"token":"t","pid":1}', '{"url":"x","token":"t","pid":"1"}']
)
def test_a_file_that_says_something_else_is_nothing(environ: dict[str, str], url: str, text: str) -> None:
    note(Nearby(url, "secret"), os.getpid(), environ).write_text(text)
    assert running(environ) is None


def test_a_file_that_others_can_read_is_not_believed(environ: dict[str, str], url: str) -> None:
    note(Nearby(url, "secret"), os.getpid(), environ).chmod(0o640)
    assert running(environ) is None


def test_the_environment_goes_before_and_the_token_goes_nowhere_else(environ: dict[str, str], url: str) -> None:
    note(Nearby(url, "secret"), os.getpid(), environ)
    elsewhere = {**environ, "BROKER_URL": "wss://chat.example.org/ws"}
    assert find(environ=elsewhere) == Nearby("https://chat.example.org")
    assert find(environ={**elsewhere, "BROKER_TOKEN": "mine"}) == Nearby("https://chat.example.org", "mine")
    assert find(environ={**environ, "BROKER_TOKEN": "mine"}) == Nearby(url, "mine")
    assert find(f"{url}/", environ) == Nearby(url, "secret")
    assert find("http://127.0.0.1:1", environ) == Nearby("http://127.0.0.1:1")


def test_where_nobody_is_the_usual_address_is_meant(environ: dict[str, str]) -> None:
    assert find(environ=environ) is None
    assert nearest(environ) == Nearby(DEFAULT_URL)
    assert nearest({**environ, "BROKER_TOKEN": "mine"}) == Nearby(DEFAULT_URL, "mine")


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("ws://127.0.0.1:3000/ws", "http://127.0.0.1:3000"),
        ("wss://example.org/broker/agent", "https://example.org/broker"),
        ("https://example.org/broker/", "https://example.org/broker"),
        (" http://[::1]:3000/chat ", "http://[::1]:3000"),
    ],
)
def test_any_address_of_a_broker_leads_to_its_base(url: str, base: str) -> None:
    assert base_of(url) == base


@pytest.mark.parametrize(
    "url", ["", "localhost:3000", "ftp://x", "http://", "http://x/?a=1", "http://x/#b", "http://u:p@x/", "http://u@x"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        base_of(url)


def test_a_broker_says_its_addresses_and_not_its_token() -> None:
    there = Nearby("https://example.org/broker", "secret")
    assert (there.ws, there.agent) == ("wss://example.org/broker/ws", "wss://example.org/broker/agent")
    assert "secret" not in repr(there)
