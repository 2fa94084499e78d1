"""Commands that talk to a broker, where there is none."""

import socket
from typing import Any

import pytest


@pytest.mark.parametrize(
    "command",
    [["send", "--broadcast", "hi"], ["chat", "hi"], ["top"], ["trace", "x"], ["bench"]],
    ids="".join,
)
def test_a_broker_that_is_not_there_is_told_in_a_sentence(broker: Any, command: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        ended = broker(*command, "--url", f"http://127.0.0.1:{port}")
    assert (ended.returncode, ended.stdout) == (69, "")
    assert f"127.0.0.1:{port}" in ended.stderr.splitlines()[0]
    assert len(ended.stderr.splitlines()) <= 2
    assert "Traceback" not in ended.stderr
