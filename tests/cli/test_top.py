"""`broker top`: how a broker fares, live in a terminal and once for programs."""

import json
import re
from typing import Any

from broker.cli.board import sparkline

_LEAVES_SCREEN = "\x1b[?1049l"


def test_bars_show_the_newest_values_and_blanks_where_nothing_was_seen() -> None:
    assert sparkline([9, 0, 1, 4, None, 8], 5) == "▁▂▅ █"
    assert sparkline([0, 0, None], 5) == "▁▁ "
    assert sparkline([], 5) == ""


def test_where_nobody_looks_it_is_one_plain_table(broker: Any, served: Any) -> None:
    broker("chat", "so that there is a session", BROKER_URL=served.url)
    shown = broker("top", BROKER_URL=served.url, COLUMNS="80")
    assert shown.returncode == 0
    for words in (served.url, "messages in", "loop lag", "Agents", "echo", "Newest sessions"):
        assert words in shown.stdout
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_json_is_one_document_or_a_line_for_each_look(broker: Any, served: Any) -> None:
    keys = {"at", "url", "overview", "agents", "sessions", "connections"}
    one = broker("top", "--json", BROKER_URL=served.url)
    assert json.loads(one.stdout).keys() == keys
    lines = broker("top", "--json", "--count", "2", "--interval", "0.2", BROKER_URL=served.url).stdout.splitlines()
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
    mortal.kill()
    top.until("no answer, trying again", since=seen)
    mortal.start()
    away = len(top.seen)
    assert re.search(r"up \d s", top.until("up 1 s", since=away))
    top.press("q")
    assert top.wait() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", top.seen), "no colours where NO_COLOR is set"
