"""`broker trace`: where a reply went."""

import json
import re
from typing import Any


def test_each_step_has_its_time_and_the_end_its_reason(command: Any, served: Any) -> None:
    said = command("chat", "/fail on purpose", "--json", BROKER_URL=served.url)
    message = json.loads(said.stdout.splitlines()[0])["data"]["client_msg_id"]
    traced = command("trace", message, BROKER_URL=served.url)
    assert traced.returncode == 0
    steps = re.findall(r"^\d\d:\d\d:\d\d\.\d{3}( +\+\d+ ms)? +(\w+) +(\w[\w ]*\w)", traced.stdout, re.MULTILINE)
    assert [(where, what.split("  ")[0]) for _, where, what in steps][:2] == [
        ("socket", "received"),
        ("session", "accepted"),
    ]
    assert [bool(delta) for delta, _, _ in steps] == [False, *[True] * (len(steps) - 1)]
    assert f"message  {message}" in traced.stdout
    assert traced.stdout.splitlines()[-1].startswith("It is over: ")
    assert "\x1b" not in traced.stdout
    as_json = json.loads(command("trace", message, "--json", BROKER_URL=served.url).stdout)
    assert as_json["client_msg_id"] == message
    assert len(as_json["steps"]) == len(steps)


def test_an_id_that_nothing_is_known_of_is_a_failure(command: Any, served: Any) -> None:
    traced = command("trace", "no/such?id", BROKER_URL=served.url)
    assert (traced.stdout, traced.returncode) == ("", 1)
    assert "Nothing is known of no/such?id." in traced.stderr
