"""An ACP agent that is started again: what it remembers, how long one waits for it, how it is configured."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.agents.acp import child
from broker.agents.port import Configuration
from broker.errors import BrokerError
from broker.messages import AgentLost, AgentRecord, TextDelta, TurnSettled, TurnTaken
from broker.testing import ManualClock, until


@pytest.mark.parametrize(
    ("mode", "context"),
    [
        ("resumes", "restored"),
        ("loads", "restored"),
        ("forgets", "fresh"),
        ("hints", "unknown"),
        ("lies", "fresh"),
        ("plain", "fresh"),
    ],
)
async def test_a_session_is_taken_up_again_as_well_as_the_agent_can(line: Callable[..., Any], mode: str, context: str):
    agent = line(mode, memory="fake")
    agent.ask("chunks 1")
    told = json.loads((await agent.ear.ready()).data)
    assert (told["context"], told["agent_session_id"]) == (context, "fake")
    assert "restarted" not in told
    said = await agent.ear.turn()
    assert agent.text(said) == "t0 "
    assert not any(isinstance(event, AgentRecord) for event in said)


async def test_an_agent_that_was_killed_remembers_in_its_next_process(line: Callable[..., Any]):
    agent = line("loads")
    agent.ask("chunks 1")
    await agent.ear.until(TurnSettled)
    os.kill(agent.link.pid, signal.SIGKILL)
    assert (await agent.ear.state())["state"] == "gone"
    agent.ask("chunks 1", "t2")
    told = json.loads((await agent.ear.ready()).data)
    assert (told["context"], told["restarted"]) == ("restored", True)
    assert agent.text(await agent.ear.until()) == "t0 "


async def test_an_agent_that_refuses_the_offer_of_version_2_is_spoken_to_in_1(line: Callable[..., Any]):
    agent = line("old")
    agent.ask("chunks 1")
    assert json.loads((await agent.ear.ready()).data)["protocol"] == 1


@pytest.mark.parametrize("protocol", [1, 2])
async def test_an_agent_that_repeats_the_version_it_is_offered_is_spoken_to_in_1(
    line: Callable[..., Any], protocol: int
):
    agent = line("parrot", protocol=protocol)
    agent.ask("chunks 1")
    assert json.loads((await agent.ear.ready()).data)["protocol"] == 1
    assert agent.text(await agent.ear.until()) == "t0 "


# -- dying again and again -----------------------------------------------------------------------------


async def test_an_agent_that_keeps_dying_is_started_at_once_and_then_after_longer_and_longer(line: Callable[..., Any]):
    clock = ManualClock()
    agent = line(clock=clock)
    bounds = [(0, 0), (0, 0), (0.3, 0.7), (0.7, 1.3), (1.5, 2.5), (3, 5)]
    for number, (least, most) in enumerate(bounds):
        agent.ask("crash 1", f"t{number}")
        state = await agent.ear.state()
        if most:
            assert state["state"] == "restarting"
            assert least <= state["wait"] <= most
            await until(lambda: clock.waiting)
            assert agent.link.pid is None
            clock.advance(most + 0.1)
            state = await agent.ear.state()
        assert state == {"state": "starting"}
        assert isinstance((await agent.ear.until())[-1], AgentLost)


async def test_one_that_lived_for_a_minute_is_started_at_once(line: Callable[..., Any]):
    clock = ManualClock()
    agent = line(clock=clock)
    for number in range(3):
        agent.ask("silent", f"t{number}")
        assert await agent.ear.state() == {"state": "starting"}
        await agent.ear.until(TextDelta)
        clock.advance(61)
        os.kill(agent.link.pid, signal.SIGKILL)
        assert isinstance((await agent.ear.until())[-1], AgentLost)


async def test_a_line_closed_while_it_waits_starts_nothing(line: Callable[..., Any]):
    clock = ManualClock()
    agent = line("exit", "1", clock=clock)
    for number in range(2):
        agent.ask("chunks 1", f"t{number}")
        await agent.ear.until()
    agent.ask("chunks 1", "t3")
    assert (await agent.ear.state())["state"] == "restarting"
    await agent.link.close()
    assert clock.waiting == 0
    assert agent.ear.rest() == []


# -- configuration ---------------------------------------------------------------------------------------


class Told:
    """Who wants to know what became of a configuration."""

    def __init__(self) -> None:
        self.answers: list[str | None] = []

    def __call__(self, error: BrokerError | None) -> None:
        self.answers.append(None if error is None else error.code)


async def test_a_configuration_starts_the_agent_and_is_there_again_after_it_died(line: Callable[..., Any]):
    agent, answer = line("modes"), Told()
    agent.link.configure(Configuration("code", {"model": "opus"}), answer)
    await agent.ear.ready()
    changed = [await agent.ear.state(), await agent.ear.state()]
    await until(lambda: answer.answers)
    assert answer.answers == [None]
    agent.ask("crash 1")
    await agent.ear.until()
    agent.ask("chunks 1", "t2")
    await agent.ear.ready()
    again = [await agent.ear.state(), await agent.ear.state()]
    assert again == changed
    assert [state["changed"] for state in changed] == ["mode", "config_options"]
    assert isinstance((await agent.ear.until())[-1], TurnSettled)


async def test_a_mode_that_there_is_not_is_refused_in_the_agents_words(line: Callable[..., Any]):
    agent, answers = line("modes"), []
    agent.link.configure(Configuration("fly"), answers.append)
    await until(lambda: answers)
    assert (answers[0].code, answers[0].message) == ("invalid_message", "No such mode")


async def test_who_configures_an_agent_that_cannot_be_started_is_told_so(line: Callable[..., Any]):
    agent, answer = line(command=("/no/such/agent",)), Told()
    agent.link.configure(Configuration("code"), answer)
    await until(lambda: answer.answers)
    assert answer.answers == ["agent_unavailable"]


async def test_a_close_answers_who_still_waits_for_a_configuration(line: Callable[..., Any]):
    agent, answer = line(), Told()
    agent.link.configure(Configuration("code"), answer)
    await agent.link.close()
    agent.link.configure(Configuration("code"), answer)
    assert answer.answers == ["unavailable", "unavailable"]


# -- pausing ---------------------------------------------------------------------------------------------


async def a_while(line: Callable[..., Any]) -> None:
    """Let another agent have a whole turn: whatever can be read meanwhile has been read then."""
    other = line().beside("s2")
    other.ask("chunks 1")
    await other.ear.until(TurnSettled)


async def test_a_paused_agent_is_not_read_and_nothing_of_it_is_lost(line: Callable[..., Any], tmp_path: Path):
    agent = line()
    agent.ask("chunks 1")
    await agent.ear.until(TurnSettled)
    agent.link.pause()
    agent.link.pause()
    agent.ask(f"note {tmp_path / 'written'}", "t2")
    await until((tmp_path / "written").exists)
    await a_while(line)
    assert agent.ear.rest() == [TurnTaken("t2")]  # which is the link's own word
    agent.link.resume()
    said = await agent.ear.until()
    assert agent.text(said) == "x" * 1000 + "".join(f"t{i} " for i in range(20000))


async def test_an_agent_that_dies_while_it_is_paused_is_heard_to_its_end_first(
    line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(child, "LINGER", 0.0)
    agent = line()
    agent.ask("chunks 1")
    await agent.ear.until(TurnSettled)
    agent.link.pause()
    agent.ask("crash 4", "t2")
    await until(lambda: not Path(f"/proc/{agent.link.pid}").exists())
    await a_while(line)
    agent.link.resume()
    said = await agent.ear.until()
    assert agent.text(said) == "half an ans"
    assert said[-1] == AgentLost("the agent exited with status 4", "t2")


async def test_a_paused_agent_can_be_closed(line: Callable[..., Any]):
    agent = line()
    agent.ask("silent")
    await agent.ear.until(TextDelta)
    pid = agent.link.pid
    agent.link.pause()
    await agent.link.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
