"""`broker init`: what it writes can be started at once, and nothing is overwritten."""

import asyncio
import json
import re
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.config import Settings, load
from broker.config.sample import sample

Run = Callable[..., subprocess.CompletedProcess[str]]
Dial = Callable[..., Awaitable[Any]]


def test_a_configuration_is_written_that_starts_at_once(broker: Run, tmp_path: Path) -> None:
    done = broker("init", "house")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "house"
    assert {file.name for file in folder.iterdir()} == {"auth.key", "config.schema.json", "config.yaml"}
    assert stat.S_IMODE((folder / "auth.key").stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", (folder / "auth.key").read_text())
    assert json.loads((folder / "config.schema.json").read_text())["title"] == "actor-broker configuration"
    head = (folder / "config.yaml").read_text().partition("\n")[0]
    assert head == "# yaml-language-server: $schema=config.schema.json"
    assert broker("-c", "house/config.yaml", "check-config").stdout == "house/config.yaml: ok\n"
    made = broker("-c", "house/config.yaml", "gentoken", "--user", "me", "--scope", "admin")
    assert made.stdout.count(".") == 2


def test_two_keys_are_never_the_same(broker: Run, tmp_path: Path) -> None:
    broker("init", "one")
    broker("init", "two")
    assert (tmp_path / "one/auth.key").read_text() != (tmp_path / "two/auth.key").read_text()


def test_every_setting_stands_in_it_with_its_default(tmp_path: Path) -> None:
    """With each # before a setting taken away, and the examples left out, the file says what the defaults are."""
    text = sample()
    kept = [block for block in text.split("\n\n") if not block.startswith(("# yaml", "agents:", "plugins:"))]
    lines = [re.sub(r"^( {0,2})# (?=\w+: )", r"\1", line) for block in kept for line in block.splitlines()]
    file = tmp_path / "config.yaml"
    file.write_text("\n".join([*lines, "agents: {demo: {kind: demo}}"]))
    settings = load(file, {}, {}).settings
    default = Settings()
    for name in (
        "listen",
        "heartbeat",
        "limits",
        "store",
        "sessions",
        "rooms",
        "projects",
        "log",
        "shutdown",
        "runtime",
    ):
        assert getattr(settings, name) == getattr(default, name)
        assert re.search(rf"^{name}:", text, re.MULTILINE)
    assert settings.plugins_dir == default.plugins_dir


@pytest.mark.parametrize("name", ["config.yaml", "config.schema.json", "auth.key"])
def test_nothing_is_overwritten_and_then_nothing_is_written(broker: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    done = broker("init")
    assert done.returncode == 1
    assert f"{name} is there already; nothing was written." in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("arguments", [("agent", "a b"), ("agent", "class"), ("plugin", "../up"), ("plugin",)])
def test_a_name_that_is_none_is_refused(broker: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = broker("init", *arguments)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


async def test_the_agent_and_the_plugin_work_as_they_are_written(
    broker: Run, dev: Callable[..., Any], dial: Dial, tmp_path: Path
) -> None:
    for arguments in (("agent", "loud-one"), ("plugin", "thing")):
        done = broker("init", *arguments)
        assert done.returncode == 0, done.stderr
        assert broker("init", *arguments).returncode == 1
    assert len((tmp_path / "loud_one.py").read_text().splitlines()) == 12
    running = dev("--agent", "loud-one", "--plugin", "thing")
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "loud_one.py"), cwd=tmp_path, env=running.environ, stderr=subprocess.DEVNULL
    )
    try:
        port = int(running.url.rpartition(":")[2])
        client = await dial(port, additional_headers={"Authorization": f"Bearer {running.token}"})
        assert await client.do("thing.shout", text="hi") == {"text": "HI!"}
        refused = await client.ask("thing.shout", {"text": "x" * 1001})
        assert refused["type"] == "error", refused
        assert refused["data"]["code"] == "too_large"
        session_id = (await client.do("session.create", agent="loud-one"))["session_id"]
        await client.do("turn.start", session_id=session_id, client_msg_id="1", content="hello world")
        records = await client.records("turn.ended")
        assert "".join(one["data"]["text"] for one in records if one["event"] == "message.delta") == "HELLO WORLD "
    finally:
        worker.terminate()
        await worker.wait()
