"""`broker send`: one thing to a session, a room, people, everybody; or any request."""

import json
from typing import Any

import pytest


def session(command: Any, served: Any) -> str:
    """Make a session, as any request is made, and return its id."""
    made = command("send", "--action", "session.create", BROKER_URL=served.url)
    assert made.returncode == 0, made.stderr
    session_id: str = json.loads(made.stdout)["session_id"]
    return session_id


def test_data_is_json_if_it_can_be_and_text_otherwise(command: Any, served: Any) -> None:
    for data, flags in (('{"a": 1}', []), ("7", ["--text"])):
        sent = command("send", "--room", "lobby", "--event", "said", *flags, data, "--json", BROKER_URL=served.url)
        assert json.loads(sent.stdout)["delivered"] == 0
    sent = command("send", "--room", "lobby", "-", text="from a { pipe", BROKER_URL=served.url)
    assert sent.stdout == "Delivered to 0 connections, as number 3.\n"
    asked = command("send", "--action", "room.history", '{"room": "lobby"}', BROKER_URL=served.url)
    events = [event["data"] for event in json.loads(asked.stdout)["events"]]
    assert [event["data"] for event in events] == [{"a": 1}, "7", "from a { pipe"]
    assert [event["event"] for event in events] == ["said", "said", "message"]


def test_a_turn_is_started_once_under_one_id_and_its_answer_streamed(command: Any, served: Any) -> None:
    name = session(command, served)
    first, again = (
        command("send", "--session", name, "--id", "m1", "--wait", "hello there", BROKER_URL=served.url) for _ in "12"
    )
    assert (first.stdout, first.stderr, first.returncode) == ("hello there\n", "", 0)
    assert (again.stdout, again.returncode) == ("hello there\n", 0)
    accepted = command("send", "--session", name, "--id", "m1", "hello there", "--json", BROKER_URL=served.url)
    assert json.loads(accepted.stdout)["duplicate"] is True


def test_a_turn_that_fails_is_told_and_is_a_failure_and_no_terminal_obeys_it(command: Any, served: Any) -> None:
    name = session(command, served)
    text = "/fail no \x1b]0;title\x07luck \x9b2Jtoday"
    sent = command("send", "--session", name, "--wait", text, BROKER_URL=served.url)
    assert (sent.returncode, sent.stdout) == (1, "")
    assert sent.stderr == "The turn failed: no ]0;titleluck 2Jtoday\n"
    refused = command("send", "--action", "no \x1b]0;title\x07such", BROKER_URL=served.url)
    assert refused.returncode == 1
    assert "no ]0;titlesuch" in refused.stderr
    shown = command("send", "--action", "echo", '"\x9b2J\u202e"', BROKER_URL=served.url).stdout
    assert (shown, json.loads(shown)) == ('"\\u009b2J\\u202e"\n', "\x9b2J\u202e")


@pytest.mark.parametrize("data", ["NaN", "[1e999]", '"\\ud800"', "[" * 100_000], ids=lambda data: data[:10])
def test_what_only_looks_like_json_is_sent_as_text(command: Any, served: Any, data: str) -> None:
    sent = command("send", "--action", "echo", data, BROKER_URL=served.url)
    assert json.loads(sent.stdout) == data


def test_what_cannot_be_sent_whole_is_not_sent(command: Any, served: Any) -> None:
    for arguments in (["send", "--action", "echo"], ["chat"]):
        sent = command(*arguments, "half a character: \udcff", BROKER_URL=served.url)
        assert (sent.returncode, sent.stdout, sent.stderr) == (2, "", "That is no text in UTF-8; nothing was sent.\n")
    long = command("chat", text="x" * (1 << 20) + "x", BROKER_URL=served.url)
    assert (long.returncode, long.stdout) == (2, "")
    assert "more than 1048576 characters" in long.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hi"], "Say to whom"),
        (["--room", "a", "--broadcast", "hi"], "Say to whom"),
        (["--room", "a", "--wait", "hi"], "--wait and --id are for --session"),
        (["--user", "ann", "--event", "x", "hi"], "--event is for --room"),
        (["--session", "a"], "DATA is missing"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(command: Any, served: Any, arguments: list[str], words: str) -> None:
    sent = command("send", *arguments, BROKER_URL=served.url)
    assert sent.returncode == 2
    assert words in sent.stderr
