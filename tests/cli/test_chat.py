"""`broker chat`: talking to an agent in a terminal, or through a pipe."""

import json
import re
from typing import Any

import pytest

from broker.cli.screen import Screen

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def test_through_a_pipe_the_answer_stands_alone(command: Any, served: Any) -> None:
    said = command("chat", text="hello\nthere", BROKER_URL=served.url)
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
    command: Any, served: Any, text: str, flags: list[str], code: int, out: str, err: str
) -> None:
    said = command("chat", *flags, text, BROKER_URL=served.url)
    assert (said.returncode, said.stdout) == (code, out), said.stderr
    assert err in said.stderr
    assert err or not said.stderr


def shown(capsys: pytest.CaptureFixture[str], *records: tuple[str, dict[str, Any]], alone: bool = False) -> str:
    """What a terminal shows of records; of those where answers stand alone, what is on stdout."""
    screen = Screen(lambda _: False, alone=alone)
    for event, data in records:
        screen.show(event, data)
    return capsys.readouterr().out


def test_the_end_of_a_turn_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for reason, words in (
        ("cancelled by dev", "The turn was cancelled by dev."),
        ("cancelled; it was cut off", "The turn was cancelled; it was cut off."),
        (None, "The turn was cancelled."),
        ("the session was closed", "The turn was cancelled: the session was closed"),
    ):
        assert shown(capsys, ("turn.ended", {"outcome": "cancelled", "reason": reason})) == f"{words}\n"


def test_what_an_agent_calls_things_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    option = {"option_id": "1", "name": "Reject\n  2  Allow" + "!" * 1000}
    out = shown(capsys, ("approval.requested", {"title": "May I\n> yes", "options": [option]}))
    asked, offered = out.splitlines()
    assert asked == "The agent asks: May I > yes"
    assert offered.startswith("  1  Reject 2 Allow!!")
    assert len(offered) < 250


def test_messages_that_stand_alone_do_not_run_together(capsys: pytest.CaptureFixture[str]) -> None:
    first = ("message.delta", {"message_id": "1", "text": "one"}), ("message.completed", {"message_id": "1"})
    second = ("message.completed", {"message_id": "2", "content": "two"}), ("turn.ended", {"outcome": "completed"})
    assert shown(capsys, *first, *second, alone=True) == "one\ntwo\n"


def test_json_is_the_turns_records(command: Any, served: Any) -> None:
    said = command("chat", "--json", "hello", BROKER_URL=served.url)
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
