"""What becomes of a turn when its ACP agent, a real child process, does something bad."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from loguru import logger

from broker.agents.acp import process
from broker.agents.port import Opening
from broker.messages import (
    AgentEvent,
    AgentLost,
    Prompt,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)
from broker.testing import until


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    """A pipe in the file system, for an agent's grandchild to hold open."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


def stopped(pid: int) -> bool:
    """Tell whether a process has been stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@asynccontextmanager
async def held(fifo: str):
    """Yield a reader of `fifo` that ends when the last process which holds it is dead."""
    reader = asyncio.StreamReader()
    source = os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
    loop = asyncio.get_running_loop()
    # A pipe nobody has opened for writing yet reads as ended; this end keeps it open until the holder is there.
    keeper = os.open(fifo, os.O_WRONLY)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    try:
        async with asyncio.timeout(10):
            yield reader, lambda: os.close(keeper)
    finally:
        transport.close()


async def test_lines_that_are_no_json_are_passed_over_and_the_log_says_so_without_them(line: Callable[..., Any]):
    logged = []
    sink = logger.add(lambda message: logged.append(message.record), level="INFO")
    agent = line()
    agent.ask("mumble")
    events = await agent.ear.until()
    logger.remove(sink)
    assert agent.text(events) == "clear"
    assert [record["level"].name for record in logged] == ["WARNING"] * 3
    assert "Loading" not in str(logged)


async def test_what_an_agent_complains_is_logged_at_debug_only_and_bounded(line: Callable[..., Any]):
    logged = []
    sink = logger.add(lambda message: logged.append(message.record), level="DEBUG")
    agent = line()
    agent.ask("complain")
    await agent.ear.until()
    await agent.link.close()
    logger.remove(sink)
    complaints = [record for record in logged if "secret plan" in record["message"]]
    assert {record["level"].name for record in complaints} == {"DEBUG"}
    assert 0 < len(complaints) < 500


async def test_two_answers_settle_the_turn_once(line: Callable[..., Any]):
    agent = line()
    agent.ask("twice")
    await agent.ear.until()
    agent.ask("chunks 1", "t2")
    assert [event.turn_id for event in await agent.ear.turn()] == ["t2", "t2"]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("crash 7", "the agent exited with status 7"),
        ("crash 0", "the agent exited with status 0"),
        ("suicide", "the agent was killed by SIGKILL (9)"),
        ("hang_up", "the agent closed its output"),
        ("huge 5000", "the agent wrote a line of more than 4096 bytes"),
    ],
)
async def test_an_agent_lost_in_mid_turn_says_how_and_the_next_turn_has_a_fresh_one(
    line: Callable[..., Any], prompt: str, reason: str
):
    agent = line(line_limit=4096)
    agent.ask(prompt)
    events = await agent.ear.until()
    assert events[-1] == AgentLost(reason, "t1")
    assert agent.text(events) == ("half an ans" if prompt.startswith(("crash", "sui")) else "")
    agent.ask("chunks 1", "t2")
    told = json.loads((await agent.ear.ready()).data)
    assert (told["context"], told["restarted"]) == ("fresh", True)
    *_, settled = await agent.ear.until()
    assert (settled.turn_id, settled.stop_reason) == ("t2", "end_turn")


async def test_a_line_of_many_megabytes_comes_in_pieces(line: Callable[..., Any]):
    agent = line()
    agent.ask("huge 5000000")
    events = await agent.ear.until()
    assert agent.text(events) == "x" * 5_000_000
    assert isinstance(events[-1], TurnSettled)


async def test_an_agent_killed_between_turns_is_reported_gone(line: Callable[..., Any]):
    agent = line()
    agent.ask("chunks 1")
    await agent.ear.until()
    os.kill(agent.link.pid, signal.SIGKILL)
    gone = await agent.ear.next()
    assert (gone.turn_id, gone.kind) == (None, "agent.state")
    assert json.loads(gone.data) == {"state": "gone", "reason": "the agent was killed by SIGKILL (9)"}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("fail -32603", "Out of luck: really"),
        ("fail -32000", "The agent wants a login: log it in with its own command first (it offers: API key)."),
        ("babble", "an error that cannot be read"),
    ],
)
async def test_an_agents_error_fails_the_turn_and_not_the_next(line: Callable[..., Any], prompt: str, message: str):
    agent = line()
    agent.ask(prompt)
    *_, failed = await agent.ear.until()
    assert failed == TurnFailed("t1", "agent_unavailable", message, retryable=True)
    agent.ask("chunks 1", "t2")
    assert isinstance((await agent.ear.until())[-1], TurnSettled)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (("exit", "3"), "The agent exited with status 3 while starting."),
        (("exit", "0"), "The agent exited with status 0 while starting."),
        (("version",), "The agent speaks version 3 of ACP, the broker offered 2."),
        (("login",), "The agent wants a login: log it in with its own command first (it offers: API key)."),
    ],
)
async def test_a_start_that_fails_fails_the_turn(line: Callable[..., Any], mode: tuple[str, ...], message: str):
    agent = line(*mode)
    agent.ask("chunks 1")
    assert await agent.ear.turn() == [TurnFailed("t1", "agent_unavailable", message, retryable=True)]
    assert agent.link.pid is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"command": ("/no/such/agent",)}, "The agent cannot be started: /no/such/agent: No such file or directory."),
        ({"command": ("/etc",)}, "The agent cannot be started: /etc: Permission denied."),
        ({"command": ("a\0b",)}, "its command holds a NUL character"),
    ],
)
async def test_a_command_that_cannot_be_run_fails_the_turn(
    line: Callable[..., Any], settings: dict[str, Any], message: str
):
    agent = line(**settings)
    agent.ask("chunks 1")
    (failed,) = await agent.ear.turn()
    assert failed.code == "agent_unavailable"
    assert message in failed.message


async def test_a_missing_workspace_fails_the_turn_as_that(line: Callable[..., Any], tmp_path: Path):
    agent = line(workspace_dir=str(tmp_path / "nowhere"))
    agent.ask("chunks 1")
    (failed,) = await agent.ear.until()
    assert (type(failed), failed.code) == (TurnFailed, "workspace_not_found")


async def test_an_agent_that_never_gets_ready_is_killed_with_all_it_started_when_it_is_given_up(
    line: Callable[..., Any], fifo: str
):
    """How long that takes is for the turn to know; the link keeps no deadline."""
    async with held(fifo) as (reader, let_go):
        agent = line("mute", fifo)
        agent.ask("chunks 1")
        assert await reader.readexactly(1) == b"x"
        let_go()
        await agent.link.close()
        assert await reader.read() == b""


@pytest.mark.parametrize("word", ["fork", "abandon"])
async def test_no_grandchild_survives_a_close_or_the_agents_own_end(line: Callable[..., Any], fifo: str, word: str):
    async with held(fifo) as (reader, let_go):
        agent = line()
        agent.ask(f"{word} {fifo}")
        assert await reader.readexactly(1) == b"x"
        let_go()
        if word == "abandon":
            *_, lost = await agent.ear.until()
            assert lost == AgentLost("the agent exited with status 0", "t1")
        else:
            await agent.link.close()
        assert await reader.read() == b""


async def test_close_kills_an_agent_that_refuses_to_cancel_and_emits_nothing_more(line: Callable[..., Any]):
    agent = line()
    agent.ask("stubborn")
    await agent.ear.until(TextDelta)
    agent.link.cancel_turn("t1")
    await agent.ear.until(TextDelta)
    pid = agent.link.pid
    await asyncio.gather(agent.link.close(), agent.link.close())
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)
    agent.ask("chunks 1", "t2")
    assert agent.ear.rest() == []


@asynccontextmanager
async def stopped_herd(line: Callable[..., Any], fifo: str, **settings: Any):
    """Yield an agent that has stopped its whole group in mid-turn; at the end nothing of that may be left."""
    async with held(fifo) as (reader, let_go):
        agent = line(**settings)
        agent.ask(f"herd {fifo}")
        assert await reader.readexactly(1) == b"x"
        await agent.ear.until(TextDelta)
        let_go()
        pid = agent.link.pid
        await until(lambda: stopped(pid))
        assert agent.ear.rest() == []
        yield agent
        assert await reader.read() == b""
    await agent.link.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_close_kills_a_stopped_agent_and_leaves_no_survivor_in_its_group(line: Callable[..., Any], fifo: str):
    """SIGSTOP is no error to anybody until something is asked of the agent."""
    async with stopped_herd(line, fifo) as agent:
        await agent.link.close()
        assert agent.ear.rest() == []


async def test_a_stopped_agent_is_lost_as_soon_as_its_turn_is_cancelled(line: Callable[..., Any], fifo: str):
    async with stopped_herd(line, fifo) as agent:
        agent.link.cancel_turn("t1")
        assert agent.ear.rest() == [AgentLost("the agent's process is stopped", "t1")]


async def test_a_stopped_agent_is_given_its_time_where_there_is_no_proc_to_look_into(
    line: Callable[..., Any], fifo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(process, "_PROC", tmp_path)
    async with stopped_herd(line, fifo) as agent:
        agent.link.cancel_turn("t1")
        assert agent.ear.rest() == []
        await agent.link.close()


async def test_starting_an_agent_does_not_block_the_loop(line: Callable[..., Any], tmp_path: Path):
    with blockbuster_ctx("broker.agents") as watched:
        # The loop waits until the program runs, as in asyncio's own `subprocess_exec`: no thread can fork for it.
        watched.functions["os.read"].can_block_in("subprocess.py", "_execute_child")
        agent = line(workspace_dir=str(tmp_path))
        agent.ask("crash 3")
        assert (await agent.ear.until())[-1] == AgentLost("the agent exited with status 3", "t1")


async def test_close_while_the_agent_is_being_started_leaves_nothing(line: Callable[..., Any]):
    agent = line()
    agent.ask("chunks 1")
    await agent.agent.close()
    assert agent.ear.rest() == []
    assert agent.link.pid is None


async def test_an_agent_that_never_reads_blocks_nobody_and_is_lost_once_too_much_waits(line: Callable[..., Any]):
    agent = line("deaf")
    agent.ask("x" * 12_000_000)
    await agent.ear.until(TurnTaken)
    agent.link.cancel_turn("t1")
    assert await agent.ear.until() == [AgentLost("the agent does not read its input", "t1")]


async def test_an_agent_that_asks_without_end_and_never_reads_is_lost(line: Callable[..., Any]):
    agent = line()
    agent.ask("flood")
    assert (await agent.ear.until())[-1] == AgentLost("the agent does not read its input", "t1")


async def test_a_grandchild_that_left_the_group_and_holds_the_pipes_delays_nothing_for_long(
    line: Callable[..., Any], fifo: str
):
    keeper = os.open(fifo, os.O_RDWR)
    agent = line()
    agent.ask(f"escape {fifo}")
    assert (await agent.ear.until())[-1] == AgentLost("the agent exited with status 0", "t1")
    await agent.link.close()
    os.close(keeper)


async def test_a_receiver_that_fails_loses_the_agent_and_not_the_turns_end(line: Callable[..., Any], ear: Any):
    """Whoever takes the events is ours; if it fails, the turn must not hang on it."""

    def deaf_to_text(event: AgentEvent) -> None:
        if type(event) is TextDelta:
            raise LookupError("nobody here takes text")
        ear.emit(event)

    agent = line().agent
    link = agent.open(Opening("s2"), deaf_to_text)
    link.start_turn(Prompt("s2", "t1", b'"chunks 3"'))
    assert (await ear.until())[-1] == AgentLost("the agent said something the broker could not handle", "t1")
