"""The JavaScript client in Node, with brokers that are started, killed and started again (PROTOCOL P3 to P5)."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

Make = Callable[..., Any]

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "broker" / "web" / "static" / "client.js"
SCRIPT = Path(__file__).with_name("scripts") / "node_client.mjs"
BEFORE = 10
"""What the client has said when the broker is killed: it is connected, and pieces of the answer are there."""


@pytest.fixture
def broker(make_broker: Make) -> Any:
    agents = {"echo": {"kind": "echo"}, "slow": {"kind": "echo", "delay": "10ms"}}
    broker = make_broker(agents=agents)
    broker.start()
    return broker


def test_an_iterator_goes_on_through_the_death_of_the_broker_to_the_honest_end(broker: Any, node_tools: Path) -> None:
    url = f"ws://127.0.0.1:{broker.port}/ws"
    command = ["node", str(SCRIPT), url, CLIENT.as_uri(), str(node_tools)]
    said: list[dict[str, Any]] = []
    is_killed = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout
        for line in client.stdout:
            said.append(json.loads(line))
            if said[-1].get("event") == "message.delta" and len(said) >= BEFORE and not is_killed:
                broker.end(SIGKILL)
                broker.start()
                is_killed = True
        assert client.wait(10) == 0
    (accepted,) = [one for one in said if "durable" in one]
    assert accepted["durable"] is True
    records = [one for one in said if "seq" in one and "event" in one]
    assert [one["seq"] for one in records] == sorted({one["seq"] for one in records})
    assert records[0] == {"seq": accepted["seq"], "event": "user.message"}
    assert records[-1]["event"] == "turn.ended"
    (end,) = [one for one in said if "outcome" in one]
    assert (end["outcome"], end["partial"]) == ("lost", True)
    assert {"reset": True} not in said
    assert said[-2:] == [{"next": "completed"}, {"state": "closed"}]


def test_the_example_of_the_package_does_what_it_says(broker: Any, node_tools: Path, tmp_path: Path) -> None:
    example = re.search(r"^```js\n(.*?)^```", (ROOT / "npm" / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert example
    package = tmp_path / "node_modules" / "actor-broker-client"
    (package / "dist").mkdir(parents=True)
    shutil.copy(ROOT / "npm" / "package.json", package)
    shutil.copy(CLIENT, package / "dist")
    (tmp_path / "node_modules" / "ws").symlink_to(node_tools / "ws")
    (tmp_path / "example.mjs").write_text(example[1].replace("127.0.0.1:3000", f"127.0.0.1:{broker.port}"))
    environ = {name: value for name, value in os.environ.items() if name != "BROKER_TOKEN"}
    command = ["node", "example.mjs"]
    run = subprocess.run(command, cwd=tmp_path, env=environ, check=True, capture_output=True, text=True, timeout=30)
    assert run.stdout == "Good morning\ncompleted\n"
    assert run.stderr.split() == ["connecting", "open", "closed", "closed", "here"]
