"""`broker send`: one thing to a session, a room, people, everybody; or any request."""

import json
from typing import Any

import pytest


def session(broker: Any, served: Any) -> str:
    """Make a session, as any request is made, and return its id."""
    made = broker("send", "--action", "session.create", BROKER_URL=served.url)
    assert made.returncode == 0, made.stderr
    session_id: str = json.loads(made.stdout)["session_id"]
    return session_id


def test_data_is_json_if_it_can_be_and_text_otherwise(broker: Any, served: Any) -> None:
    for data, flags in (('{"a": 1}', []), ("7", ["--text"])):
        sent = broker("send", "--room", "lobby", "--event", "said", *flags, data, "--json", BROKER_URL=served.url)
        assert json.loads(sent.stdout)["delivered"] == 0
    sent = broker("send", "--room", "lobby", "-", text="from a { pipe", BROKER_URL=served.url)
    assert sent.stdout == "Delivered to 0 connections, as number 3.\n"
    asked = broker("send", "--action", "room.history", '{"room": "lobby"}', BROKER_URL=served.url)
    events = [event["data"] for event in json.loads(asked.stdout)["events"]]
    assert [event["data"] for event in events] == [{"a": 1}, "7", "from a { pipe"]
    assert [event["event"] for event in events] == ["said", "said", "message"]


def test_a_turn_is_started_once_under_one_id_and_its_answer_streamed(broker: Any, served: Any) -> None:
    name = session(broker, served)
    first, again = (
        broker("send", "--session", name, "--id", "m1", "--wait", "hello there", BROKER_URL=served.url) for _ in "12"
    )
    assert (first.stdout, first.stderr, first.returncode) == ("hello there\n", "", 0)
    assert (again.stdout, again.returncode) == ("hello there\n", 0)
    accepted = broker("send", "--session", name, "--id", "m1", "hello there", "--json", BROKER_URL=served.url)
    assert json.loads(accepted.stdout)["duplicate"] is True


def test_a_turn_that_fails_is_told_and_is_a_failure(broker: Any, served: Any) -> None:
    name = session(broker, served)
    sent = broker("send", "--session", name, "--wait", "/fail no luck today", BROKER_URL=served.url)
    assert sent.returncode == 1
    assert "failed: no luck today" in sent.stderr
    assert "Traceback" not in sent.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hi"], "Say to whom"),
        (["--room", "a", "--broadcast", "hi"], "Say to whom"),
        (["--room", "a", "--wait", "hi"], "--wait and --id are for --session"),
        (["--user", "ann", "--event", "x", "hi"], "--event is for --room"),
        (["--session", "a"], "TEXT is missing"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(broker: Any, served: Any, arguments: list[str], words: str) -> None:
    sent = broker("send", *arguments, BROKER_URL=served.url)
    assert sent.returncode == 2
    assert words in sent.stderr


def test_who_may_not_is_told_how_he_may(broker: Any, dev: Any) -> None:
    running = dev()
    sent = broker("send", "--broadcast", "hi", BROKER_URL=running.url, BROKER_TOKEN="nonsense")
    assert sent.returncode == 77
    assert "broker gentoken" in sent.stderr
    assert "nonsense" not in sent.stderr
