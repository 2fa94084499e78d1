"""The bridge: a line for each session, the agent's order kept, and a line that was cut heard no more."""

import asyncio
from collections.abc import Callable
from typing import Any, get_args

import pytest

from broker.actors.agent_bridge import AgentBridge, start_bridge
from broker.actors.agent_mail import (
    AnswerAgent,
    CancelAtAgent,
    CloseAgents,
    ConfigureAgent,
    CutAgent,
    Dispatch,
    Flooded,
    PauseAgent,
    ReleaseSlot,
    ResumeAgent,
    WantSlot,
)
from broker.actors.futures import LoopFuture
from broker.actors.line import CONFIGURATIONS, CONFIGURE_SECONDS, FLOOD
from broker.actors.loop import LoopActor, handles
from broker.actors.ref import LoopRef
from broker.actors.supervisor import DELAYS, RESTARTS, Supervisor
from broker.agents.port import Configuration, Opening
from broker.errors import BrokerError
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentRecord,
    Prompt,
    SlotAnswer,
    TextDelta,
    TurnFailed,
    TurnSettled,
)
from broker.testing import FakeAgent, ManualClock, settled
from broker.traces import Traces


class Ear(LoopActor):
    """A session that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    @handles(*get_args(AgentEvent), SlotAnswer, Flooded)
    def hear(self, event: Any) -> None:
        self.heard.append(event)


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def traces(clock: ManualClock) -> Traces:
    return Traces(clock.now)


@pytest.fixture
async def bridge(agent: FakeAgent, clock: ManualClock, traces: Traces) -> LoopRef[AgentBridge]:
    return start_bridge(Supervisor(clock), "fake", agent, clock, traces)


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


async def break_bridge(bridge: LoopRef[AgentBridge]) -> None:
    """Let the bridge's actor fail, by a message that cannot be."""
    bridge.tell(CutAgent([]))  # type: ignore[arg-type]
    await settled(bridge)


async def test_a_bridge_that_fails_tells_its_sessions_and_the_next_one_opens_new_lines(
    bridge: Any, agent: Any, ear: Any
) -> None:
    bridge.tell(Dispatch(ear, prompt("t1")))
    turn = await agent.turn()
    await break_bridge(bridge)
    await turn.line.closed.wait()
    await settled(ear)
    assert ear.actor.heard == [AgentLost("the agent bridge failed")]
    bridge.tell(Dispatch(ear, prompt("t2")))
    assert (await agent.turn()).line is not turn.line


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("cancel_turn", CancelAtAgent("s1", "t1")),
        ("answer_approval", AnswerAgent("s1", "t1", "k", "yes")),
        ("pause", PauseAgent("s1")),
        ("resume", ResumeAgent("s1")),
    ],
)
async def test_a_link_that_raises_is_cut_and_its_session_alone_loses_its_agent(
    bridge: Any, agent: Any, ear: Any, method: str, message: Any
) -> None:
    other = Ear.start()
    bridge.tell(Dispatch(ear, prompt("t1")))
    turn = await agent.turn()
    bridge.tell(Dispatch(other, prompt("t2", "s2")))
    undisturbed = await agent.turn()
    setattr(turn.line, method, None)
    bridge.tell(message)
    await turn.line.closed.wait()
    await settled(ear)
    assert ear.actor.heard == [AgentLost("the link to the agent failed")]
    undisturbed.say("still here")
    await settled(other)
    assert [event.text for event in other.actor.heard] == ["still here"]
    assert not undisturbed.line.closed.is_set()


async def test_a_link_that_cannot_be_closed_costs_nothing_else(
    bridge: Any, agent: Any, ear: Any, heard: Callable[[], Any]
) -> None:
    other = Ear.start()
    bridge.tell(Dispatch(other, prompt("t", "s2")))
    await agent.turn()
    bridge.tell(Dispatch(ear, prompt("t1")))
    (await agent.turn()).line.close = None
    bridge.tell(CutAgent("s1"))
    bridge.tell(Dispatch(ear, prompt("t2")))
    assert (await agent.turn()).prompt.turn_id == "t2"
    assert await heard() == []
    await settled(other)
    assert other.actor.heard == []


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


# -- places -------------------------------------------------------------------------------------------


class Places:
    """Sessions that want places of one bridge's agents."""

    def __init__(self, bridge: Any, clock: ManualClock) -> None:
        self.bridge = bridge
        self.clock = clock
        self.ears = {f"s{number}": Ear.start() for number in range(4)}
        self.asks: dict[str, int] = {}

    def want(self, *session_ids: str, turn: str = "t") -> None:
        for session_id in session_ids:
            number = self.asks[session_id] = self.asks.get(session_id, 0) + 1
            self.bridge.tell(WantSlot(self.ears[session_id], session_id, f"{turn} of {session_id}", number))

    def release(self, session_id: str, turn: str = "t") -> None:
        self.bridge.tell(ReleaseSlot(session_id, f"{turn} of {session_id}"))

    async def told(self, session_id: str) -> list[str]:
        """Return what a session was told, `granted` and so on, since it was last asked."""
        await settled(self.bridge)
        ear = self.ears[session_id]
        await settled(ear)
        assert ear.actor is not None
        heard, ear.actor.heard = ear.actor.heard, []
        assert all(answer.turn_id.endswith(session_id) for answer in heard)
        assert all(answer.number == self.asks[session_id] for answer in heard)
        return [answer.state for answer in heard]

    async def all_told(self) -> list[list[str]]:
        return [await self.told(session_id) for session_id in self.ears]


@pytest.fixture
async def places(bridge: Any, agent: FakeAgent, clock: ManualClock) -> Places:
    agent.capacity = 1
    return Places(bridge, clock)


async def test_places_are_given_in_the_order_of_asking_and_again_as_they_become_free(places: Places) -> None:
    places.want("s0", "s1", "s2")
    assert await places.all_told() == [["granted"], ["waiting"], ["waiting"], []]
    places.release("s0")
    assert await places.all_told() == [[], ["granted"], [], []]
    places.want("s0")
    places.release("s1")
    assert await places.all_told() == [["waiting"], [], ["granted"], []]
    places.release("s2")
    assert await places.told("s0") == ["granted"]


async def test_who_does_not_want_any_longer_is_passed_over(places: Places) -> None:
    places.want("s0", "s1", "s2")
    places.release("s1")
    places.release("s0")
    assert await places.all_told() == [["granted"], ["waiting"], ["waiting", "granted"], []]


async def test_giving_back_what_another_turn_has_changes_nothing(places: Places) -> None:
    places.want("s0", "s1")
    places.release("s0", turn="an older turn")
    assert await places.all_told() == [["granted"], ["waiting"], [], []]


async def test_more_agents_serve_those_who_wait_and_none_at_all_is_said(places: Places, agent: FakeAgent) -> None:
    agent.capacity = 0
    places.want("s0", "s1")
    assert await places.all_told() == [["unserved"], ["unserved"], [], []]
    agent.capacity = 1
    assert await places.all_told() == [["granted"], ["waiting"], [], []]
    agent.capacity = 0
    assert await places.all_told() == [[], ["unserved"], [], []]
    agent.capacity = 2
    assert await places.all_told() == [[], ["granted"], [], []]


async def test_fewer_agents_than_turns_give_no_place_before_enough_have_ended(places: Places, agent: FakeAgent) -> None:
    agent.capacity = 2
    places.want("s0", "s1", "s2")
    assert await places.all_told() == [["granted"], ["granted"], ["waiting"], []]
    agent.capacity = 1
    places.release("s0")
    assert await places.all_told() == [[], [], [], []]
    places.release("s1")
    assert await places.told("s2") == ["granted"]


async def test_a_session_whose_line_is_cut_frees_its_place(places: Places, bridge: Any) -> None:
    places.want("s0", "s1")
    bridge.tell(CutAgent("s0"))
    assert await places.told("s1") == ["waiting", "granted"]


async def test_a_session_that_wants_a_place_for_another_turn_keeps_its_own_or_its_rank(places: Places) -> None:
    places.want("s0", "s1", "s2")
    await places.all_told()
    places.want("s0", "s1", turn="an urgent turn")
    assert await places.all_told() == [["granted"], ["waiting"], [], []]
    places.release("s0", turn="an urgent turn")
    assert await places.all_told() == [[], ["granted"], [], []]


async def test_places_outlive_a_bridge_that_fails(places: Places, bridge: Any, agent: FakeAgent) -> None:
    places.want("s0", "s1", "s2")
    await break_bridge(bridge)
    places.release("s0")
    assert await places.all_told() == [["granted"], ["waiting", "granted"], ["waiting"], []]
    agent.capacity = 2  # the new incarnation hears of it
    assert await places.told("s2") == ["granted"]


async def test_a_session_that_is_gone_is_passed_over(places: Places) -> None:
    places.want("s0", "s1", "s2")
    await places.ears["s1"].stop()
    places.release("s0")
    assert await places.told("s2") == ["waiting", "granted"]


async def test_those_who_wait_for_a_bridge_that_stays_dead_go_on_and_learn_why(places: Places, bridge: Any) -> None:
    places.want("s0", "s1")
    await places.all_told()
    for _ in range(RESTARTS + 1):
        bridge.tell(CutAgent([]))  # type: ignore[arg-type]
        for _ in range(3):
            await asyncio.sleep(0)
        places.clock.advance(DELAYS[-1])
    assert not bridge.is_alive()
    await settled(places.ears["s1"])
    assert [answer.state for answer in places.ears["s1"].actor.heard] == ["granted"]


async def test_an_agent_kind_that_cannot_tell_its_capacity_serves_nobody_and_breaks_nothing(
    places: Places, bridge: Any, agent: FakeAgent
) -> None:
    del agent._capacity
    places.want("s0")
    assert await places.told("s0") == ["unserved"]
    agent.capacity = 1
    assert await places.told("s0") == ["granted"]


# -- pace, configuration, traces ------------------------------------------------------------------------


async def test_a_link_is_paused_and_resumed_when_its_session_says_so(bridge: Any, agent: Any, ear: Any) -> None:
    bridge.tell(Dispatch(ear, prompt("t1")))
    turn = await agent.turn()
    bridge.tell(PauseAgent("s1"))
    await settled(bridge)
    assert turn.line.paused
    bridge.tell(ResumeAgent("s1"))
    bridge.tell(PauseAgent("of nobody"))
    await settled(bridge)
    assert not turn.line.paused


async def test_an_agent_that_floods_its_session_is_paused_and_the_session_told_behind_all_it_said(
    bridge: Any, agent: Any, ear: Any, heard: Any
) -> None:
    bridge.tell(Dispatch(ear, prompt("t1")))
    turn = await agent.turn()
    for _ in range(FLOOD):
        turn.say("x")
    assert not turn.line.paused
    for _ in range(10):
        turn.say("x")
    assert turn.line.paused
    events = await heard()
    assert [type(event) for event in events].count(Flooded) == 1
    assert events.index(Flooded()) == FLOOD + 1
    bridge.tell(ResumeAgent("s1"))
    await settled(bridge)
    assert not turn.line.paused


@pytest.fixture
def configure(bridge: LoopRef[Any], ear: LoopRef[Ear]) -> Callable[[str], LoopFuture[Any]]:
    def configure(mode: str) -> LoopFuture[Any]:
        answer: LoopFuture[Any] = LoopFuture()
        bridge.tell(ConfigureAgent(ear, Opening("s1", "/srv", "memory"), Configuration(mode), answer))
        return answer

    return configure


async def test_a_configuration_opens_a_line_if_there_is_none_and_the_answer_is_the_agent_s(
    bridge: Any, agent: Any, ear: Any, configure: Any
) -> None:
    assert await configure("plan") == {}
    (line,) = agent.lines
    assert (line.session_id, line.workspace_dir, line.memory) == ("s1", "/srv", "memory")
    with pytest.raises(BrokerError) as refusal:
        await configure("impossible")
    assert refusal.value.code == "not_found"
    assert [configuration.mode for configuration in line.configured] == ["plan", "impossible"]
    bridge.tell(Dispatch(ear, prompt("t1")))
    assert (await agent.turn()).line is line


async def test_a_configuration_whose_agent_cannot_be_opened_or_raises_is_refused(
    bridge: Any, agent: Any, configure: Any
) -> None:
    agent.refuses = OSError("no such program")
    with pytest.raises(BrokerError) as refusal:
        await configure("plan")
    assert (refusal.value.code, "no such program" in refusal.value.message) == ("agent_unavailable", False)
    agent.refuses = None
    await configure("plan")
    agent.lines[0].configure = None
    with pytest.raises(BrokerError) as refusal:
        await configure("plan")
    assert refusal.value.code == "agent_unavailable"
    assert bridge.is_alive()


async def test_a_configuration_is_answered_even_if_the_agent_never_does(
    bridge: Any, agent: Any, configure: Any, clock: ManualClock
) -> None:
    await configure("plan")
    agent.lines[0].configure = lambda configuration, configured: None
    late = configure("plan")
    await settled(bridge)
    clock.advance(CONFIGURE_SECONDS)
    with pytest.raises(BrokerError) as refusal:
        await late
    assert refusal.value.code == "timeout"
    waiting = [configure("plan") for _ in range(CONFIGURATIONS + 1)]
    with pytest.raises(BrokerError) as refusal:
        await waiting.pop()
    assert refusal.value.code == "overloaded"
    bridge.tell(CutAgent("s1"))
    for each in waiting:
        with pytest.raises(BrokerError) as refusal:
            await each
        assert refusal.value.code == "agent_unavailable"
    assert clock.waiting == 0


async def test_the_way_of_a_turn_through_the_bridge_is_noted(places: Places, bridge: Any, traces: Traces) -> None:
    for turn_id in ("t of s0", "t of s1"):
        traces.begin(turn_id, session_id=turn_id[-2:], client_msg_id="m", user=None)
    places.want("s0", "s1")
    bridge.tell(Dispatch(places.ears["s0"], prompt("t of s0", "s0")))
    bridge.tell(CutAgent("s0"))
    bridge.tell(CutAgent("s0"))
    await settled(bridge)

    def steps(turn_id: str) -> list[tuple[str, str]]:
        trace = traces.find(turn_id)
        assert trace is not None
        return [(step.where, step.what) for step in trace.steps]

    assert {turn_id: steps(turn_id) for turn_id in ("t of s0", "t of s1")} == {
        "t of s0": [("bridge", "granted"), ("bridge", "handed to the agent")],
        "t of s1": [("bridge", "waiting"), ("bridge", "granted")],
    }
