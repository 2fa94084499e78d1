"""`broker top`: how a broker fares, live in a terminal and once for programs."""

import json
import re
import signal
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from broker.cli.board import Seen, board, sparkline

_LEAVES_SCREEN = "\x1b[?1049l"


def test_bars_show_the_newest_values_and_blanks_where_nothing_was_seen() -> None:
    assert sparkline([9, 0, 1, 4, None, 8], 5) == "▁▂▅ █"
    assert sparkline([0, 0, None], 5) == "▁▁ "
    assert sparkline([], 5) == ""


def test_a_title_takes_one_line_and_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    overview = {"now": {"version": "1", "uptime": 1, "trouble": None}, "series": {}}
    row = {"session_id": "s", "agent": "a", "state": "open", "updated_at": "2026-01-02T03:04:05Z"}
    titles = ["one\ntwo\x1b[2J", "[red]x[/red]", "漢字" * 100]
    seen = Seen("http://x", overview, [], [{**row, "title": title} for title in titles], [])
    Console(width=80, highlight=False).print(board(seen, 80))
    *_, first, second, third = capsys.readouterr().out.splitlines()
    assert "one two " in first
    assert "[red]x[/red]" in second
    assert cell_len(third) == 80


def test_where_nobody_looks_it_is_one_plain_table(command: Any, served: Any) -> None:
    command("chat", "so that there is a session", BROKER_URL=served.url)
    shown = command("top", BROKER_URL=served.url, COLUMNS="80")
    assert shown.returncode == 0
    for words in (served.url, "messages in", "loop lag", "Agents", "echo", "Newest sessions"):
        assert words in shown.stdout
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_json_is_one_document_or_a_line_for_each_look(command: Any, served: Any) -> None:
    keys = {"at", "url", "overview", "agents", "sessions", "connections"}
    one = command("top", "--json", BROKER_URL=served.url)
    assert json.loads(one.stdout).keys() == keys
    lines = command("top", "--json", "--count", "2", "--interval", "0.2", BROKER_URL=served.url).stdout.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first.keys() == keys
    assert first["at"] < second["at"]


def test_it_is_drawn_anew_and_left_clean(terminal: Any, served: Any) -> None:
    top = terminal("top", "--interval", "0.2", BROKER_URL=served.url)
    top.until("\x1b[?1049h", "Agents", "error rate")
    narrow = len(top.seen)
    top.until("Agents", since=narrow)  # by itself
    top.press("\x03")
    assert top.wait() == 0
    assert top.seen.rstrip().endswith(_LEAVES_SCREEN)
    assert top.seen.rfind("\x1b[?25h") > top.seen.rfind("\x1b[?25l")


def test_it_takes_another_size_and_says_when_the_broker_is_away(terminal: Any, mortal: Any) -> None:
    top = terminal("top", "--interval", "0.2", BROKER_URL=mortal.url, NO_COLOR="1")
    top.until("error rate")
    top.resize(120, 30)
    seen = len(top.seen)
    top.until(" " * 100, since=seen)
    mortal.process.send_signal(signal.SIGSTOP)
    top.hush(0.5)  # it waits for an answer
    frozen = len(top.seen)
    top.resize(80, 24)
    assert "no answer" not in top.until("\x1b[H", since=frozen), "it is drawn before it gives up on that one"
    mortal.kill()
    top.until("no answer, trying again", since=seen)
    mortal.start()
    away = len(top.seen)
    assert re.search(r"up \d s", top.until("up 1 s", since=away))
    top.press("q")
    assert top.wait() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", top.seen), "no colours where NO_COLOR is set"
