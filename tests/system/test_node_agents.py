"""The example agents of the protocol's own JavaScript SDK, through the whole broker."""

import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]

HERE = Path(__file__).with_name("acp")
EXAMPLES = HERE / "node_modules" / "@agentclientprotocol" / "sdk" / "dist" / "examples"


@pytest.fixture(scope="module")
def node() -> str:
    """Node, with the SDK installed; the tests are skipped where that cannot be."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        pytest.skip("node or npm is not installed: the examples of the JavaScript SDK are not tested")
    if not EXAMPLES.exists():
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=HERE, check=True, capture_output=True, timeout=90)
        except (subprocess.SubprocessError, OSError) as e:
            pytest.skip(f"npm cannot install the SDK: its examples are not tested: {e}")
    return program


@pytest.fixture
async def client(make_broker: Make, dial: Dial, node: str) -> Any:
    """A client of a broker with the two examples, one of them offered either version."""

    def example(name: str, protocol: int) -> dict[str, Any]:
        return {"kind": "acp", "command": [node, str(EXAMPLES / name)], "protocol": protocol}

    dual = "dual-version-agent.js"
    agents = {"example": example("agent.js", 2), "first": example(dual, 1), "second": example(dual, 2)}
    broker = make_broker(agents=agents, default_agent="example")
    broker.start()
    return await dial(broker.port)


async def begin(client: Any, agent: str) -> str:
    """Start a turn in a new session and return the session's id."""
    session_id = str((await client.do("session.create", agent=agent))["session_id"])
    await client.do("turn.start", session_id=session_id, client_msg_id="1", content="Are you there?")
    return session_id


async def test_the_example_reads_asks_is_allowed_and_writes(client: Any) -> None:
    session_id = await begin(client, "example")
    asked = (await client.event("approval.requested"))["data"]
    assert [option["option_id"] for option in asked["options"]] == ["allow", "reject"]
    assert asked["tool"]["tool_id"] == "call_2"
    answer = {"session_id": session_id, "approval_id": asked["approval_id"], "option_id": "allow"}
    await client.do("approval.answer", **answer)
    assert (await client.event("turn.ended"))["data"]["outcome"] == "completed"
    log = (await client.do("session.history", session_id=session_id))["records"]
    kinds = [record["event"] for record in log]
    assert kinds.count("tool.started") == 2
    assert kinds.count("turn.ended") == 1
    (done,) = [record["data"] for record in log if record["event"] == "tool.updated" and "call_2" in str(record)]
    assert done["status"] == "completed"
    said = "".join(record["data"]["text"] for record in log if record["event"] == "message.delta")
    assert "successfully updated the configuration" in said


async def test_the_example_takes_its_time_to_heed_a_cancel_and_is_not_forced(client: Any) -> None:
    session_id = await begin(client, "example")
    turn_id = (await client.event("message.delta"))["turn_id"]
    await client.do("turn.cancel", session_id=session_id, turn_id=turn_id)
    data = (await client.event("turn.ended"))["data"]
    assert (data["outcome"], data["stop_reason"], data["partial"]) == ("cancelled", "cancelled", True)
    assert not data.get("forced")


async def test_a_cancel_takes_the_examples_question_back(client: Any) -> None:
    session_id = await begin(client, "example")
    turn_id = (await client.event("approval.requested"))["turn_id"]
    await client.do("turn.cancel", session_id=session_id, turn_id=turn_id)
    assert (await client.event("approval.resolved"))["data"]["outcome"] == "cancelled"
    assert (await client.event("turn.ended"))["data"]["outcome"] == "cancelled"


@pytest.mark.parametrize(("agent", "protocol"), [("first", 1), ("second", 2)])
async def test_an_agent_of_both_versions_speaks_the_one_it_is_offered(client: Any, agent: str, protocol: int) -> None:
    session_id = await begin(client, agent)
    assert (await client.event("turn.ended"))["data"]["outcome"] == "completed"
    log = (await client.do("session.history", session_id=session_id))["records"]
    ready = next(record["data"] for record in log if record["event"] == "agent.state" and "agent" in record["data"])
    assert ready["protocol"] == protocol
    completed = next(record["data"] for record in log if record["event"] == "message.completed")
    assert completed["content"] == f"Hello from the v{protocol} implementation."


async def test_a_cancelled_agent_of_version_2_goes_idle(client: Any) -> None:
    session_id = str((await client.do("session.create", agent="second"))["session_id"])
    turn = await client.do("turn.start", session_id=session_id, client_msg_id="1", content="Hello")
    await client.do("turn.cancel", session_id=session_id, turn_id=turn["turn_id"])
    assert (await client.event("turn.ended"))["data"]["outcome"] == "cancelled"
