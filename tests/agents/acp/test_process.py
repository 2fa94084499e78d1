"""What a child process is given, and what becomes of its pipes."""

import asyncio
import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.agents.acp.child import Child
from broker.agents.acp.environment import INHERITED, MARK, child_environment
from broker.messages import AgentLost, TextDelta, TurnFailed, TurnSettled

EMFILE = os.strerror(errno.EMFILE)


def descriptors(pid: int) -> dict[int, str]:
    """Return what a process has open."""
    found = {}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(fd.name)] = str(fd.readlink())
        except FileNotFoundError:  # it was open to read this directory
            continue
    return found


async def settled_descriptors(line: Callable[..., Any]) -> dict[int, str]:
    """Return what this process has open once a first agent has come and gone: loops open some things when needed."""
    agent = line()
    agent.ask("silent")
    await agent.ear.until(TextDelta)
    await agent.agent.close()
    agent.ear.rest()
    return descriptors(os.getpid())


def no_more(*_: object) -> Any:
    """Fail as if no descriptor were left."""
    raise OSError(errno.EMFILE, EMFILE)


def test_a_child_sees_none_of_the_brokers_keys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BROKER_SECRET", "hush")
    monkeypatch.setenv("PATH", "/bin")
    environment = child_environment({"OWN": "1", "LANG": "C"})
    assert environment["PATH"] == "/bin"
    assert environment["OWN"] == "1"
    assert environment["LANG"] == "C"
    assert set(environment) <= {*INHERITED, "OWN"}


def test_a_child_is_marked_if_its_broker_has_a_mark():
    assert child_environment({}, "m1")[MARK] == "m1"
    assert MARK not in child_environment({})


# -- pipes ---------------------------------------------------------------------------------------------


async def test_an_agent_has_three_pipes_of_its_own_and_nothing_else_that_is_open_here(line: Callable[..., Any]):
    one, other = line(), line()
    for agent in (one, other):
        agent.ask("chunks 1")
        await agent.ear.until(TurnSettled)
    first, second, ours = (descriptors(pid) for pid in (one.link.pid, other.link.pid, os.getpid()))
    assert set(first) == set(second) == {0, 1, 2}
    assert not set(first.values()) & set(second.values())
    for pipe in (*first.values(), *second.values()):
        assert pipe.startswith("pipe:")
        assert list(ours.values()).count(pipe) == 1  # the other end of it, and no copy of this one


async def test_no_descriptor_is_left_of_agents_that_were_closed_died_or_never_started(line: Callable[..., Any]):
    before = await settled_descriptors(line)
    for prompt, settings in (("silent", {}), ("crash 1", {}), ("chunks 1", {"command": ("/no/such/agent",)})):
        agent = line(**settings)
        agent.ask(prompt)
        await agent.ear.until(TextDelta, AgentLost, TurnFailed)
        await agent.agent.close()
    assert descriptors(os.getpid()) == before


async def test_an_agent_that_closes_its_input_is_lost(line: Callable[..., Any]):
    agent = line()
    agent.ask("plug_ears")
    assert (await agent.ear.until())[-1] == AgentLost("the agent closed its input", "t1")


async def test_an_agent_ends_as_well_where_its_end_is_waited_for_by_a_thread(
    line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "pidfd_open", no_more)
    agent = line()
    agent.ask("crash 7")
    assert (await agent.ear.until())[-1] == AgentLost("the agent exited with status 7", "t1")
    agent.ask("silent", "t2")
    await agent.ear.until(TextDelta)
    pid = agent.link.pid
    await agent.link.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_an_agent_for_which_no_descriptor_is_left_cannot_be_started_and_the_next_can(line: Callable[..., Any]):
    agent = line()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        agent.ask("chunks 1")
        (failed,) = await agent.ear.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert EMFILE in failed.message
    agent.ask("chunks 1", "t2")
    assert isinstance((await agent.ear.until())[-1], TurnSettled)


@pytest.mark.parametrize("name", ["connect_write_pipe", "connect_read_pipe"])
async def test_an_agent_that_cannot_be_heard_is_killed_and_leaves_no_descriptor(
    line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
):
    before = await settled_descriptors(line)

    async def refuse(_: object, pipe: Any) -> None:
        pipe.close()  # as loops do
        no_more()

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), name, refuse)
        agent = line()
        agent.ask("chunks 1")
        (failed,) = await agent.ear.turn()
    assert EMFILE in failed.message
    await agent.agent.close()
    assert descriptors(os.getpid()) == before


async def test_a_child_that_is_killed_before_it_was_started_is_not_started():
    child = Child(print, print, line_limit=1, label="early")
    child.kill()
    await child.start(("/no/such/agent",), "/", {})
    assert child.gone
