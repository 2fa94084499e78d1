"""`broker chat`: talking to an agent in a terminal, or through a pipe."""

import json
import re
from typing import Any

import pytest

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def test_through_a_pipe_the_answer_stands_alone(broker: Any, served: Any) -> None:
    said = broker("chat", text="hello\nthere", BROKER_URL=served.url)
    assert (said.stdout, said.stderr, said.returncode) == ("hello\nthere\n", "", 0)


@pytest.mark.parametrize(
    ("text", "flags", "code", "out", "err"),
    [
        ("/fail no luck", [], 1, "", "The turn failed: no luck"),
        ("/crash after 2 one two", [], 1, "one two\n", "The turn was lost"),
        ("/ask me", ["--approvals", "reject"], 0, "I may not.\n", 'May I say "me"?'),
        ("/ask me", [], 1, "", "Nobody can answer here"),
        ("not \x1b[2Jcleared \x9b2J", [], 0, "not cleared 2J\n", ""),
    ],
)
def test_the_exit_code_is_the_outcome(
    broker: Any, served: Any, text: str, flags: list[str], code: int, out: str, err: str
) -> None:
    said = broker("chat", *flags, text, BROKER_URL=served.url)
    assert (said.returncode, said.stdout) == (code, out), said.stderr
    assert err in said.stderr
    assert err or not said.stderr


def test_json_is_the_turns_records(broker: Any, served: Any) -> None:
    said = broker("chat", "--json", "hello", BROKER_URL=served.url)
    records = [json.loads(line) for line in said.stdout.splitlines()]
    assert [records[0]["event"], records[-1]["event"]] == ["user.message", "turn.ended"]


def test_a_question_is_answered_and_a_session_gone_on_with(terminal: Any, served: Any) -> None:
    chat = terminal("chat", BROKER_URL=served.url)
    chat.until("> ")
    chat.press("/ask hello there\r")
    chat.until("1  Allow", "2  Reject", "1-2? ")
    chat.press("7\r")
    chat.until("Type the number of an option.")
    chat.until("1-2? ", since=chat.seen.index("Type the number"))
    chat.press("1\r")
    chat.until("\nhello there", "> ", since=chat.seen.index("Type the number"))
    chat.press("\x04")
    assert chat.wait() == 0
    again = re.search(r"broker (chat --session \S+)", chat.seen)
    assert again is not None
    resumed = terminal(*again[1].split(), BROKER_URL=served.url, NO_COLOR="1")
    resumed.until("user: /ask hello there", "assistant: hello there", "> ")
    resumed.press("\x03")
    assert resumed.wait() == 0
    assert not _COLOURS.search(resumed.seen)


def test_ctrl_c_stops_the_answer_and_then_leaves(terminal: Any, served: Any) -> None:
    chat = terminal("chat", BROKER_URL=served.url)
    chat.until("> ")
    chat.press("/silence after 2 one two\r")
    chat.until("\none two")
    chat.press("\x03")
    chat.until("Stopping it", "The turn was cancelled.")
    stopped = chat.seen.index("The turn was cancelled.")
    chat.until("> ", since=stopped)
    chat.press("/deaf after 2 three four\r")
    chat.until("\nthree four")
    chat.press("\x03")
    chat.until("Stopping it", since=stopped)
    chat.press("\x03")
    assert chat.wait() == 0
    assert "The turn goes on. Come back with: broker chat --session" in chat.seen[stopped:]


def test_a_broker_that_dies_in_mid_answer_is_waited_for(terminal: Any, mortal: Any) -> None:
    chat = terminal("chat", BROKER_URL=mortal.url)
    chat.until("> ")
    chat.press("/silence after 2 one two\r")
    chat.until("\none two")
    mortal.kill()
    chat.until("The broker is away")
    mortal.start()
    chat.until("The broker is back.", "The turn was lost")
    back = chat.seen.index("The turn was lost")
    chat.until("> ", since=back)
    chat.press("still there?\r")
    chat.until("\nstill there?", since=back)
    chat.press("\x04")
    assert chat.wait() == 0
