"""One ACP process for all sessions of a profile."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.agents.acp.dialogue import MUTE
from broker.agents.port import Configuration
from broker.messages import AgentLost, TextDelta, TurnFailed, TurnSettled, TurnTaken
from broker.testing import ManualClock, until


@pytest.fixture
def hall(line: Callable[..., Any]) -> Callable[..., Any]:
    """Make a line to an agent with one process for all its sessions."""
    return lambda *arguments, **settings: line(*arguments, script="hall.py", process="shared", **settings)


async def welcomed(agent: Any) -> str:
    """Wait until the session is open, and return the agent's id of it."""
    told = json.loads((await agent.ear.ready()).data)
    return str(told["agent_session_id"])


async def test_all_sessions_share_one_process_and_each_hears_its_own(hall: Callable[..., Any]):
    one = hall()
    two = one.beside("s2")
    one.ask("hold")
    two.ask("pid", "t2")
    assert {await welcomed(one), await welcomed(two)} == {"a1", "a2"}
    said = await two.ear.turn()
    assert two.text(said) == str(one.link.pid)
    assert one.link.pid == two.link.pid
    one.link.cancel_turn("t1")
    assert isinstance((await one.ear.until())[-1], TurnSettled)
    assert two.ear.rest() == []


async def test_what_is_said_of_a_session_before_it_is_open_comes_after_that(hall: Callable[..., Any]):
    one = hall()
    one.ask("hold")
    session_id = await welcomed(one)
    early = await one.ear.next()
    assert (early.turn_id, json.loads(early.data)["text"]) == (None, f"welcome to {session_id}. ")


async def test_a_session_that_cannot_be_opened_fails_alone(hall: Callable[..., Any]):
    one = hall()
    one.ask("hold")
    await one.ear.until(TextDelta)
    other = one.beside("s2", "/")
    other.ask("say hi")
    (failed,) = await other.ear.turn()
    assert failed == TurnFailed("t1", "invalid_message", "not here")
    one.link.cancel_turn("t1")
    assert isinstance((await one.ear.until())[-1], TurnSettled)


async def test_a_process_that_dies_takes_all_its_turns_and_the_next_one_starts_another(hall: Callable[..., Any]):
    one = hall()
    idle, busy = one.beside("s2"), one.beside("s3")
    idle.ask("say hi")
    await idle.ear.until(TurnSettled)
    busy.ask("hold")
    await busy.ear.until(TextDelta)
    pid = busy.link.pid
    one.ask("die")
    lost = AgentLost("the agent exited with status 3", "t1")
    assert (await one.ear.until())[-1] == lost
    assert (await busy.ear.until())[-1] == lost
    assert (await idle.ear.state())["state"] == "gone"
    busy.ask("pid", "t2")
    assert int(busy.text((await busy.ear.turn())[-2:])) != pid


async def test_a_line_cut_from_an_agent_that_still_speaks_costs_the_others_nothing(hall: Callable[..., Any]):
    one = hall()
    other = one.beside("s2")
    other.ask("hold")
    await other.ear.until(TextDelta)
    one.ask("stubborn")
    await one.ear.until(TextDelta)
    one.link.cancel_turn("t1")
    await one.ear.until(TextDelta)  # "no": it speaks, and does not stop
    pid = other.link.pid
    await one.link.close()
    assert other.link.pid == pid
    other.link.cancel_turn("t1")
    assert isinstance((await other.ear.until())[-1], TurnSettled)
    other.ask("tell a2 boo", "t2")
    assert isinstance((await other.ear.until())[-1], TurnSettled)
    assert one.ear.rest() == []


async def test_a_turn_cancelled_at_a_stopped_agent_ends_it_for_all(hall: Callable[..., Any]):
    one = hall()
    other = one.beside("s2")
    for agent in (one, other):
        agent.ask("hold")
        await agent.ear.until(TextDelta)
    os.kill(one.link.pid, signal.SIGSTOP)
    await until(lambda: "T (stopped)" in Path(f"/proc/{one.link.pid}/status").read_text())
    one.link.cancel_turn("t1")
    lost = [AgentLost("the agent's process is stopped", "t1")]
    assert (one.ear.rest(), other.ear.rest()) == (lost, lost)


async def test_a_line_cut_from_an_agent_that_is_mute_kills_it_for_all(hall: Callable[..., Any]):
    clock = ManualClock()
    one = hall(clock=clock)
    other = one.beside("s2")
    other.ask("hold")
    await other.ear.until(TextDelta)
    one.ask("faint")
    await one.ear.until(TextDelta)
    one.link.cancel_turn("t1")
    clock.advance(MUTE)
    pid = one.link.pid
    await one.link.close()
    lost = (await other.ear.until())[-1]
    assert lost == AgentLost("the agent was cut off: it did not heed what another session asked of it", "t1")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(("mode", "context", "name"), [("closes", "restored", "a1"), ("resumes", "fresh", "a3")])
async def test_a_session_left_at_work_is_taken_up_again_only_if_it_could_be_closed(
    hall: Callable[..., Any], mode: str, context: str, name: str
):
    one = hall(mode)
    one.ask("stubborn")
    assert await welcomed(one) == "a1"
    other = one.beside("s2")
    other.ask("hold")
    await other.ear.until(TextDelta)
    one.link.cancel_turn("t1")
    *_, heard = await one.ear.until(TextDelta)
    while heard.text != "no":
        *_, heard = await one.ear.until(TextDelta)
    await one.link.close()
    again = one.beside("s1", memory="a1")
    again.ask("say hi", "t2")
    told = json.loads((await again.ear.ready()).data)
    assert (told["context"], told["agent_session_id"]) == (context, name)
    assert again.text(await again.ear.turn()) == "hi"


async def test_the_last_to_leave_kills_the_process(hall: Callable[..., Any]):
    one = hall()
    two = one.beside("s2")
    for agent in (one, two):
        agent.ask("say hi")
        await agent.ear.until(TurnSettled)
    pid = one.link.pid
    await one.link.close()
    assert two.link.pid == pid
    await two.link.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_line_closed_before_its_session_was_open_leaves_the_others_alone(hall: Callable[..., Any]):
    one = hall()
    one.ask("hold")
    await one.ear.until(TextDelta)
    two = one.beside("s2")
    two.ask("hold")
    await two.link.close()
    assert one.link.pid is not None
    assert two.ear.rest() == []


async def test_a_line_closed_while_its_session_is_opened_costs_the_others_nothing(
    hall: Callable[..., Any], tmp_path: Path
):
    (tmp_path / "slow").touch()
    one = hall()
    one.ask("hold")
    await one.ear.until(TextDelta)
    two = one.beside("s2", str(tmp_path))
    two.ask("hold")
    await until((tmp_path / "asked").exists)
    await two.link.close()
    one.link.cancel_turn("t1")
    assert (await one.ear.until())[-1] == TurnSettled("t1", "cancelled", last=False)


async def test_one_paused_session_pauses_the_pipe_that_all_share(
    hall: Callable[..., Any], line: Callable[..., Any], tmp_path: Path
):
    one = hall()
    two = one.beside("s2")
    for agent in (one, two):
        agent.ask("say hi")
        await agent.ear.until(TurnSettled)
    one.link.pause()
    two.link.pause()
    one.link.resume()
    one.ask(f"note {tmp_path / 'written'}", "t2")
    await until((tmp_path / "written").exists)
    passer_by = line().beside("s3")
    passer_by.ask("chunks 1")
    await passer_by.ear.until(TurnSettled)  # by now it would have been read
    assert one.ear.rest() == [TurnTaken("t2")]
    await two.link.close()  # whoever has left pauses nothing
    assert one.text(await one.ear.until()) == "noted"


async def test_closing_the_agent_kills_the_shared_process(hall: Callable[..., Any]):
    one = hall()
    one.ask("hold")
    await one.ear.until(TextDelta)
    pid = one.link.pid
    await one.agent.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_shared_agent_that_knows_no_modes_says_so(hall: Callable[..., Any]):
    one, answers = hall(), []
    one.link.configure(Configuration("code"), answers.append)
    await until(lambda: answers)
    assert answers[0].code == "not_found"
