"""Real ACP agents in child processes, through the whole broker, to real sockets."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from broker.testing import until

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]

SCRIPTS = Path(__file__).parents[1] / "agents" / "acp" / "scripts"


def acp(script: str) -> dict[str, Any]:
    return {"kind": "acp", "command": [sys.executable, str(SCRIPTS / script)]}


AGENTS = {
    "pydantic": acp("pydantic_agent.py"),
    "clerk": acp("sdk_agent.py"),
    "fake": acp("fake_acp.py"),
    "second": acp("fake_v2.py"),
    "hall": acp("hall.py") | {"process": "shared"},
    "hasty": acp("fake_acp.py") | {"deadlines": {"idle": "500ms"}},
}


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"agents": AGENTS, "default_agent": "fake"}


@pytest.fixture
async def client(make_broker: Make, dial: Dial, settings: dict[str, Any]) -> Any:
    """A client of a broker with agents."""
    broker = make_broker(**settings)
    broker.start()
    client = await dial(broker.port)
    client.broker = broker
    return client


async def begin(client: Any, agent: str, content: str) -> str:
    """Start a turn in a new session and return the session's id."""
    session_id = str((await client.do("session.create", agent=agent))["session_id"])
    await client.do("turn.start", session_id=session_id, client_msg_id="1", content=content)
    return session_id


def kinds(log: list[Any]) -> list[str]:
    return [message["event"] for message in log if "seq" in message]


async def test_an_agent_of_pydantic_ai_calls_its_tool_and_answers(client: Any) -> None:
    await begin(client, "pydantic", "How is the weather?")
    log = await client.records("turn.ended")
    assert [message["seq"] for message in log] == list(range(1, len(log) + 1))
    found = kinds(log)
    assert found.index("tool.started") < found.index("tool.updated") < found.index("message.delta")
    assert log[-1]["data"]["outcome"] == "completed"
    said = "".join(message["data"]["text"] for message in log if message["event"] == "message.delta")
    assert "The weather is fine today." in said


async def test_an_agent_of_the_sdk_streams_asks_is_answered_from_elsewhere_and_goes_on(client: Any, dial: Dial) -> None:
    session_id = await begin(client, "clerk", "this letter")
    asked = await client.event("approval.requested")
    assert asked["data"]["options"] == [{"option_id": "ok", "name": "File it", "kind": "allow_once"}]
    other = await dial(client.broker.port)
    attached = await other.do("session.attach", session_id=session_id)
    assert [approval["approval_id"] for approval in attached["approvals"]] == [asked["data"]["approval_id"]]
    assert attached["turn"]["state"] == "awaiting_approval"
    answer = {"session_id": session_id, "approval_id": asked["data"]["approval_id"]}
    wrong = await other.refused("approval.answer", option_id="shred", **answer)
    assert (wrong["code"], wrong["field"]) == ("invalid_message", "$.payload.option_id")
    assert await other.do("approval.answer", option_id="ok", **answer) == {"resolved_by": None, "option_id": "ok"}
    assert (await client.refused("approval.answer", option_id="ok", **answer))["code"] == "already_resolved"
    log = await other.records("turn.ended")
    found = kinds(log)
    assert found.count("message.delta") >= 2
    assert found[found.index("approval.requested") :] == [
        "approval.requested",
        "approval.resolved",
        "tool.updated",
        "message.completed",
        "turn.ended",
    ]
    tool = next(message["data"] for message in log if message["event"] == "tool.updated")
    assert tool["status"] == "completed"
    assert log[-1]["data"]["outcome"] == "completed"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples in the source of the SDK, of the version installed here; skipped where it cannot be had."""
    folder = tmp_path_factory.mktemp("sdk")
    wanted = f"agent-client-protocol=={version('agent-client-protocol')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", wanted]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=90)
    except subprocess.SubprocessError as e:
        pytest.skip(f"the source of {wanted} cannot be had: its own examples are not tested: {e}")
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder, filter="data")
    return next(folder.glob("*/examples"))


@pytest.mark.parametrize("name", ["agent.py", "echo_agent.py"])
async def test_the_own_examples_of_the_sdk_work(make_broker: Make, dial: Dial, examples: Path, name: str) -> None:
    agent = {"kind": "acp", "command": [sys.executable, str(examples / name)]}
    broker = make_broker(agents={"example": agent}, default_agent="example")
    broker.start()
    client = await dial(broker.port)
    await begin(client, "example", "Are you there?")
    log = await client.records("turn.ended")
    assert log[-1]["data"]["outcome"] == "completed"
    said = "".join(message["data"]["text"] for message in log if message["event"] == "message.delta")
    assert "Are you there?" in said


async def test_an_agent_killed_in_mid_turn_is_lost_and_the_next_turn_has_a_new_one(client: Any) -> None:
    session_id = await begin(client, "fake", "silent")
    await client.event("message.delta")
    agents = psutil.Process(client.broker.process.pid).children()
    assert len(agents) == 1
    os.kill(agents[0].pid, signal.SIGKILL)
    data = (await client.event("turn.ended"))["data"]
    assert (data["outcome"], data["partial"]) == ("lost", True)
    assert "SIGKILL" in data["reason"]
    await client.do("turn.start", session_id=session_id, client_msg_id="2", content="chunks 3")
    assert (await client.event("turn.ended"))["data"]["outcome"] == "completed"


@pytest.mark.parametrize("prompt", ["crash 3", "suicide", "abandon {fifo}"])
async def test_an_agent_that_dies_by_itself_is_lost_once(client: Any, prompt: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    holder = os.open(tmp_path / "fifo", os.O_RDWR)
    await begin(client, "fake", prompt.format(fifo=tmp_path / "fifo"))
    assert (await client.event("turn.ended"))["data"]["outcome"] == "lost"
    await client.do("ping")
    assert [message for message in client.heard if message.get("event") == "turn.ended"] == []
    os.close(holder)


async def test_a_stopped_agent_times_out_and_nothing_of_its_group_survives(client: Any, tmp_path: Path) -> None:
    """Nothing tells of SIGSTOP but silence; at its deadline it is found out, and not asked to stop for long."""
    os.mkfifo(tmp_path / "fifo")
    await begin(client, "hasty", f"herd {tmp_path / 'fifo'}")
    with (tmp_path / "fifo").open("rb") as held:
        await client.event("message.delta")
        group = psutil.Process(client.broker.process.pid).children(recursive=True)
        assert len(group) == 2
        data = (await client.event("turn.ended"))["data"]
        assert (data["outcome"], data["deadline"], data["forced"]) == ("timed_out", "idle", True)
        assert data["reason"] == "the agent said nothing for 0.5 s; the agent's process is stopped"
        assert await asyncio.to_thread(held.read) == b"x"
    _, alive = await asyncio.to_thread(psutil.wait_procs, group, timeout=10)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


async def test_a_stopped_agent_keeps_nobody_waiting_who_cancels(client: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    holder = os.open(tmp_path / "fifo", os.O_RDWR)
    session_id = await begin(client, "fake", f"herd {tmp_path / 'fifo'}")
    turn = await client.event("message.delta")
    (agent,) = psutil.Process(client.broker.process.pid).children()
    await until(lambda: agent.status() == psutil.STATUS_STOPPED)
    await client.do("turn.cancel", session_id=session_id, turn_id=turn["turn_id"])
    data = (await client.event("turn.ended"))["data"]
    assert (data["outcome"], data["forced"]) == ("cancelled", True)
    assert data["reason"] == "cancelled; the agent's process is stopped"
    os.close(holder)


async def test_sessions_share_a_process_where_the_profile_says_so(client: Any) -> None:
    one, other = await begin(client, "hall", "hold"), await begin(client, "hall", "pid")
    said = await client.event("turn.ended")
    assert (said["session_id"], said["data"]["outcome"]) == (other, "completed")
    assert len(psutil.Process(client.broker.process.pid).children()) == 1
    turn_id = (await client.do("session.attach", session_id=one))["turn"]["turn_id"]
    await client.do("turn.cancel", session_id=one, turn_id=turn_id)
    assert (await client.event("turn.ended"))["data"]["outcome"] == "cancelled"


async def test_an_agent_of_version_2_is_asked_configured_and_answered(client: Any) -> None:
    session_id = await begin(client, "second", "permission")
    asked = await client.event("approval.requested")
    assert (asked["data"]["title"], asked["data"]["tool"]["subject"]["command"]) == ("Run it?", "rm -r /")
    approval_id = asked["data"]["approval_id"]
    await client.do("approval.answer", session_id=session_id, approval_id=approval_id, option_id="yes")
    assert (await client.event("turn.ended"))["data"]["outcome"] == "completed"
    assert await client.do("session.configure", session_id=session_id, mode="code") == {}
    changed = await client.take(lambda message: "changed" in message.get("data", {}))
    assert changed["data"]["config_options"][0]["currentValue"] == "code"
    history = (await client.do("session.history", session_id=session_id))["records"]
    states = [record["data"] for record in history if record["event"] == "agent.state"]
    assert [state.get("changed", state["state"]) for state in states] == ["starting", "ready", "config_options"]
    assert states[1]["protocol"] == 2


async def test_a_cancelled_agent_settles_and_its_last_words_are_kept(client: Any) -> None:
    session_id = await begin(client, "fake", "silent")
    turn = await client.event("message.delta")
    answer = await client.do("turn.cancel", session_id=session_id, turn_id=turn["turn_id"])
    assert answer == {"status": "cancelling"}
    log = await client.records("turn.ended")
    assert log[-1]["data"]["outcome"] == "cancelled"
    completed = next(message for message in log if message["event"] == "message.completed")
    assert completed["data"]["content"].endswith("one more")


async def test_an_agent_that_settles_twice_ends_its_turn_once(client: Any) -> None:
    session_id = await begin(client, "fake", "twice")
    await client.event("turn.ended")
    await client.do("turn.start", session_id=session_id, client_msg_id="2", content="chunks 1")
    second = await client.event("turn.ended")
    assert second["data"]["outcome"] == "completed"
    history = (await client.do("session.history", session_id=session_id))["records"]
    assert [record["event"] for record in history].count("turn.ended") == 2


async def test_no_agent_outlives_its_broker(client: Any) -> None:
    await begin(client, "fake", "silent")
    await client.event("message.delta")
    (agent,) = psutil.Process(client.broker.process.pid).children()
    await client.leave()
    client.broker.end(signal.SIGKILL)
    _, alive = psutil.wait_procs([agent], timeout=10)
    assert alive == []  # its input ended with the broker


async def test_what_a_killed_broker_left_behind_is_gone_when_the_next_one_is_up(client: Any, tmp_path: Path) -> None:
    """The agent ignores the end of its input, and what it started is in a session of its own."""
    os.mkfifo(tmp_path / "fifo")
    await begin(client, "fake", f"scatter {tmp_path / 'fifo'}")
    with (tmp_path / "fifo").open("rb") as held:
        await client.event("message.delta")
        left = psutil.Process(client.broker.process.pid).children(recursive=True)
        assert len(left) == 2
        await client.leave()
        client.broker.end(signal.SIGKILL)
        assert all(process.is_running() for process in left)
        client.broker.start()
        assert held.read() == b"x"  # nobody holds the other end any more
    assert [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
    assert "ended 2 processes of agents that an earlier run had left behind" in client.broker.log
