"""The bridge: a line for each session, the agent's order kept, and a line that was cut heard no more."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.actors.agent_bridge import AgentBridge, AnswerAgent, CancelAtAgent, CloseAgents, CutAgent, Dispatch
from broker.actors.loop import LoopActor, handles
from broker.actors.ref import LoopRef
from broker.actors.supervisor import Supervisor
from broker.messages import AgentLost, AgentRecord, ApprovalRequested, Prompt, TextDelta, TurnFailed, TurnSettled
from broker.testing import FakeAgent, ManualClock, settled


class Ear(LoopActor):
    """A session that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    @handles(TextDelta, AgentRecord, ApprovalRequested, TurnSettled, TurnFailed, AgentLost)
    def hear(self, event: Any) -> None:
        self.heard.append(event)


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
async def bridge(agent: FakeAgent) -> LoopRef[AgentBridge]:
    return AgentBridge.start("fake", agent)


@pytest.fixture
async def ear() -> LoopRef[Ear]:
    return Ear.start()


@pytest.fixture
def heard(bridge: LoopRef[Any], ear: LoopRef[Ear]) -> Callable[[], Any]:
    async def heard() -> list[Any]:
        await settled(bridge)
        await settled(ear)
        assert ear.actor is not None
        return ear.actor.heard

    return heard


def prompt(turn_id: str, session_id: str = "s1") -> Prompt:
    return Prompt(session_id, turn_id, b'"hi"', b"{}", "/srv")


async def test_what_an_agent_says_reaches_its_session_in_order(bridge: Any, agent: Any, ear: Any, heard: Any) -> None:
    bridge.tell(Dispatch(ear, prompt("t1")))
    turn = await agent.turn()
    turn.say("a")
    turn.report("tool.started")
    turn.say("b")
    turn.settle()
    assert [type(event) for event in await heard()] == [TextDelta, AgentRecord, TextDelta, TurnSettled]
    assert (agent.lines[0].session_id, agent.lines[0].workspace_dir) == ("s1", "/srv")


async def test_cancels_and_answers_reach_the_line_and_those_for_nobody_are_dropped(
    bridge: Any, agent: Any, ear: Any
) -> None:
    bridge.tell(Dispatch(ear, prompt("t1")))
    turn = await agent.turn()
    bridge.tell(AnswerAgent("s1", "t1", "k", "yes"))
    bridge.tell(CancelAtAgent("s1", "t1"))
    bridge.tell(AnswerAgent("s2", "t1", "k", "yes"))
    bridge.tell(CancelAtAgent("s2", "t1"))
    bridge.tell(CutAgent("s2"))
    await settled(bridge)
    assert turn.cancelled.is_set()
    assert turn.answers.get_nowait() == ("k", "yes")
    assert bridge.is_alive()


async def test_a_line_that_was_cut_is_closed_and_heard_no_more_and_the_next_turn_gets_another(
    bridge: Any, agent: Any, ear: Any, heard: Any
) -> None:
    bridge.tell(Dispatch(ear, prompt("t1")))
    turn = await agent.turn()
    turn.say("heard, since it was said before")
    bridge.tell(CutAgent("s1"))
    await settled(bridge)
    turn.say("not heard")
    await turn.line.closed.wait()
    bridge.tell(Dispatch(ear, prompt("t2")))
    assert (await agent.turn()).line is not turn.line
    assert [event.text for event in await heard()] == ["heard, since it was said before"]


async def test_another_incarnation_of_a_session_gets_another_line(bridge: Any, agent: Any, ear: Any) -> None:
    bridge.tell(Dispatch(ear, prompt("t1")))
    first = await agent.turn()
    bridge.tell(Dispatch(Ear.start(), prompt("t2")))
    second = await agent.turn()
    await first.line.closed.wait()
    assert second.line is not first.line


async def test_an_agent_that_cannot_be_opened_or_given_a_turn_fails_that_turn_alone(
    bridge: Any, agent: Any, ear: Any, heard: Any
) -> None:
    agent.refuses = OSError("no such program")
    bridge.tell(Dispatch(ear, prompt("t1")))
    (failed,) = await heard()
    assert (type(failed), failed.turn_id, failed.code) == (TurnFailed, "t1", "agent_unavailable")
    assert "no such program" not in failed.message
    agent.refuses = None
    bridge.tell(Dispatch(ear, prompt("t2")))
    await agent.turn()


async def test_a_bridge_that_fails_tells_its_sessions_and_the_next_one_opens_new_lines(agent: Any, ear: Any) -> None:
    bridge = Supervisor(ManualClock()).start(lambda: AgentBridge("fake", agent))
    bridge.tell(Dispatch(ear, prompt("t1")))
    turn = await agent.turn()
    turn.line.cancel_turn = None  # so that the bridge fails on it
    bridge.tell(CancelAtAgent("s1", "t1"))
    await turn.line.closed.wait()
    await settled(ear)
    assert ear.actor.heard == [AgentLost("the agent bridge failed")]
    bridge.tell(Dispatch(ear, prompt("t2")))
    assert (await agent.turn()).line is not turn.line


async def test_closing_waits_until_nothing_is_left_of_any_line(bridge: Any, agent: Any, ear: Any) -> None:
    for number in range(3):
        bridge.tell(Dispatch(ear, prompt("t1", f"s{number}")))
        await agent.turn()
    await bridge.ask(CloseAgents())
    assert all(line.closed.is_set() for line in agent.lines)
    assert agent.closed


async def test_an_agent_may_speak_although_its_session_or_its_bridge_is_gone(bridge: Any, agent: Any, ear: Any) -> None:
    bridge.tell(Dispatch(ear, prompt("t1")))
    turn = await agent.turn()
    await ear.stop()
    turn.say("to nobody")
    await settled(bridge)
    await bridge.stop()
    turn.say("to nobody")
    assert not bridge.is_alive()
