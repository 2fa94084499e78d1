"""`broker gentoken` and `broker checktoken`, as processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.config import load
from broker.tokens import Refused, Wanted, issue

Run = Callable[..., subprocess.CompletedProcess[str]]
KEY = "k" * 64


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `broker` in a folder whose configuration asks for tokens."""
    (tmp_path / "auth.key").write_text(f"{KEY}\n")
    (tmp_path / "config.yaml").write_text(
        "plugins: {auth: {mode: jwt, keys: [{algorithm: HS256, secret: !file auth.key}]}}"
    )

    def start(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("broker")), *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return start


def test_a_token_is_made_and_looked_at(run: Run) -> None:
    made = run("gentoken", "--user", "ann", "--scope", "api", "--room", "team-*", "--ttl", "10m", "--claim", "a=[1]")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.count(".") == 2
    assert made.stdout.count("\n") == 1
    looked = run("checktoken", "-", stdin=made.stdout)
    assert looked.returncode == 0
    for line in ("sub: ann", 'scopes: ["api"]', 'rooms: ["team-*"]', "good until "):
        assert line in looked.stdout
    answer = json.loads(run("checktoken", "--json", made.stdout.strip()).stdout)
    assert answer["ok"]
    assert answer["claims"]["exp"] - answer["claims"]["iat"] == 600
    bad = run("checktoken", f"{made.stdout.strip()[:-5]}AAAAA")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr == "That token is not accepted.\n"
    assert KEY not in made.stdout + made.stderr + bad.stderr + looked.stdout


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"ttl": "2d"}, "exp is further away"),
        ({"ttl": "soon"}, "--ttl: expected a duration"),
        ({"claims": ["x"]}, "write name=value"),
        ({"claims": ["aud=other"]}, "aud does not name"),
        ({"rooms": ["x" * 300]}, "at most 256 characters"),
        ({"user": ""}, "sub has the wrong form"),
    ],
)
def test_a_token_that_would_not_be_let_in_is_not_made(
    run: Run, tmp_path: Path, wanted: dict[str, Any], text: str
) -> None:
    loaded = load(tmp_path / "config.yaml", {}, {})
    with pytest.raises(Refused, match=text):
        issue(loaded, "auth", Wanted(**{"user": "ann", **wanted}))


def test_a_token_stands_for_somebody(run: Run) -> None:
    done = run("gentoken")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing option '--user'" in done.stderr


def test_public_keys_alone_make_no_tokens(run: Run, tmp_path: Path, pems: Callable[[str], tuple[str, str]]) -> None:
    """A PEM file has several lines, and `!file` reads them all."""
    private, public = pems("ES256")
    (tmp_path / "public.pem").write_text(public)
    (tmp_path / "private.pem").write_text(private)
    block = "plugins: {auth: {mode: jwt, keys: [{algorithm: ES256, public_key: !file public.pem%s}]}}"
    (tmp_path / "config.yaml").write_text(block % "")
    done = run("gentoken", "--user", "ann")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no key under keys: can sign" in done.stderr
    (tmp_path / "config.yaml").write_text(block % ", private_key: !file private.pem")
    assert run("checktoken", "-", stdin=run("gentoken", "--user", "ann").stdout).returncode == 0


def test_without_the_plugin_it_is_said_where_to_read_on(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("plugins: {}")
    done = run("checktoken", "x")
    assert (done.returncode, done.stdout) == (78, "")
    assert "docs/auth.md" in done.stderr
    (tmp_path / "config.yaml").write_text("plugins: {auth: {mode: none}}")
    assert "mode: jwt" in run("gentoken", "--user", "ann").stderr


def test_a_scope_that_the_key_may_not_give_is_not_promised(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        'plugins: {auth: {mode: jwt, keys: [{algorithm: HS256, secret: !file auth.key, prefix: "ci:", scopes: [api]}]}}'
    )
    done = run("gentoken", "--user", "bot", "--scope", "admin")
    assert (done.returncode, done.stdout) == (1, "")
    assert "may not give admin" in done.stderr
    looked = run("checktoken", "-", stdin=run("gentoken", "--user", "bot", "--scope", "api").stdout)
    assert "user: ci:bot" in looked.stdout
    assert 'scopes: ["api"]' in looked.stdout
