"""`broker tail`: what goes through a broker, as it goes."""

import json
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from websockets.sync.client import connect

from broker.cli.tail import _Lines

COMMAND_SECONDS = 30.0


@pytest.fixture
def start(tmp_path: Path, environ: Mapping[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command beside the test."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str, url: str) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).with_name("broker")), *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = {**environ, "BROKER_URL": url}
        running.append(subprocess.Popen(command, cwd=tmp_path, env=env, text=True, **pipes))
        return running[-1]

    yield run
    for one in running:
        one.kill()
        one.communicate(timeout=COMMAND_SECONDS)


def prodded(served: Any, process: subprocess.Popen[str], payload: Any) -> dict[str, Any]:
    """Have a thing echoed until the process tells of it, and return what it tells."""
    end = time.monotonic() + COMMAND_SECONDS
    with connect(f"{served.url.replace('http', 'ws')}/ws") as socket:
        while time.monotonic() < end:
            socket.send(json.dumps({"type": "request", "action": "echo", "payload": payload}))
            if select.select([process.stdout], [], [], 0.05)[0]:
                shown: dict[str, Any] = json.loads(process.stdout.readline() if process.stdout else "")
                if shown["data"] == payload:
                    return shown
    pytest.fail("it was not shown")


def test_everybodys_messages_are_shown_as_they_go_and_a_restart_is_survived(start: Any, mortal: Any) -> None:
    tail = start("tail", "ech?", "--what", "message", "--json", url=mortal.url)
    shown = prodded(mortal, tail, {"text": "hello"})
    assert (shown["what"], shown["name"]) == ("message", "echo")
    mortal.kill()
    assert "away" in tail.stderr.readline()
    mortal.start()
    assert "back" in tail.stderr.readline()
    prodded(mortal, tail, "again")
    tail.send_signal(signal.SIGINT)
    assert tail.wait(COMMAND_SECONDS) == 0


def test_a_sessions_records_need_no_scope_and_stand_in_columns(command: Any, served: Any) -> None:
    name = json.loads(command("send", "--action", "session.create", BROKER_URL=served.url).stdout)["session_id"]
    text = "a \x1b]0;title\x07word"
    command("send", "--session", name, "--wait", text, BROKER_URL=served.url)
    more = {"BROKER_URL": served.url, "COLUMNS": "80"}
    shown = command("tail", "--session", name, "--after", "0", "--count", "6", **more)
    lines = shown.stdout.splitlines()
    names = [line.split()[2] for line in lines]
    assert names[:4] == ["session.opened", "user.message", "turn.started", "message.delta"]
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} record     ", line) for line in lines)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in shown.stdout


def test_nobodys_text_breaks_out_of_its_line_or_its_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    item = {"at": "2026-01-02T03:04:05.678Z", "what": "message", "user": "a\nn", "size": 7, "connection_id": "x" * 40}
    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        _Lines().show({**item, "name": "evil\n03:04:05.678 record", "data": {"text": "漢字\r\n" * 5000}})
        line, *more = capsys.readouterr().out.splitlines()
        assert more == []
        assert columns - 1 <= cell_len(line) <= columns
    _Lines().show({**item, "name": "漢字", "data": 1})
    _Lines().show({**item, "name": "echo", "data": 1})
    assert len({cell_len(line) for line in capsys.readouterr().out.splitlines()}) == 1, "they stand in columns"


def test_a_rooms_events_are_shown_from_its_log(command: Any, served: Any) -> None:
    for number in "12":
        command("send", "--room", "news", number, BROKER_URL=served.url)
    shown = command("tail", "--room", "news", "--after", "0", "--count", "2", "--json", BROKER_URL=served.url)
    assert [json.loads(line)["data"] for line in shown.stdout.splitlines()] == [1, 2]
