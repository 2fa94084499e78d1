"""Commands that talk to a broker, where there is none, or not one that lets them in."""

import socket
from typing import Any

import pytest

COMMANDS = [["send", "--broadcast", "hi"], ["chat", "hi"], ["top"], ["tail"], ["trace", "x"], ["bench"]]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_broker_that_is_not_there_is_told_in_a_sentence(command: Any, arguments: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = command(*arguments, "--url", f"http://127.0.0.1:{port}")
    assert (ended.returncode, ended.stdout) == (69, "")
    said, advice = ended.stderr.splitlines()
    assert said.startswith("There is no broker at ")
    assert f"127.0.0.1:{port}" in said
    assert said.endswith(": Connection refused.")
    assert "--url" in advice


def test_who_may_not_is_told_how_he_may(command: Any, dev: Any) -> None:
    running = dev()
    for arguments in COMMANDS:
        refused = command(*arguments, BROKER_URL=running.url, BROKER_TOKEN="nonsense")
        assert (refused.returncode, refused.stdout) == (77, ""), arguments
        assert "broker gentoken" in refused.stderr
        assert "nonsense" not in refused.stderr
