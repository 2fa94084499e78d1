"""Turns that no agent has taken up: tried again, handed to another agent, answered by the broker; each ends once."""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from broker.actors.dispatching import ATTEMPTS
from broker.config.profiles import Deadlines
from broker.errors import BrokerError
from broker.hooks import Attempt, Degraded, HandTo
from broker.messages import AgentLost, AgentReady, Principal, SlotAnswer, TextDelta, TurnFailed, VariablesSet
from broker.operations import Answer, Cancel, Close, Configure, Delete
from broker.testing import FakeAgent, until

ANN = Principal("ann", frozenset())
AGAIN, OTHER = HandTo("fake"), HandTo("other")
Decision = HandTo | Degraded | None


class Says:
    """What plugins say, in turn, and None from then on; it remembers what it was asked."""

    def __init__(self, *answers: Decision) -> None:
        self.answers = list(answers)
        self.asked: list[Attempt] = []

    def __call__(self, attempt: Attempt) -> Decision:
        self.asked.append(attempt)
        return self.answers.pop(0) if self.answers else None


class Scene:
    """A session of the agent `fake` beside an agent `other`, and somebody who says who gets its turns."""

    def __init__(self, house: Any, session_id: str, says: Says, other: FakeAgent) -> None:
        self.house, self.session_id, self.says, self.other = house, session_id, says, other
        self.agent: FakeAgent = house.agent

    async def start(self, content: str = "hi", **more: Any) -> str:
        return str((await self.house.start(self.session_id, content, by=ANN, **more))["turn_id"])

    def records(self, kind: str) -> list[Any]:
        held = self.house.disk.records(f"session:{self.session_id}")
        return [msgspec.json.decode(record.data) for record in held if record.kind == kind]

    @property
    def kinds(self) -> list[str]:
        return [record.kind for record in self.house.disk.records(f"session:{self.session_id}")]

    async def ending(self) -> Any:
        """Return how the session's one turn has ended."""
        await self.house.settle()
        (ended,) = self.records("turn.ended")
        return ended

    async def cancel(self, turn_id: str) -> Any:
        return await self.house.ask(self.session_id, Cancel(ANN, turn_id))


Set = Callable[..., Any]


@pytest.fixture
def scene(make_house: Callable[..., Any]) -> Set:
    async def make(*answers: Decision, other: FakeAgent | None = None, **house: Any) -> Scene:
        says, other = Says(*answers), other or FakeAgent()
        made = make_house(others={"other": other}, on_dispatch=says, **house)
        return Scene(made, await made.create(owner="ann"), says, other)

    return make


# -- asked, and nothing said ---------------------------------------------------------------------------


async def test_who_says_nothing_leaves_a_turn_its_usual_way(scene: Set) -> None:
    s = await scene(None, None)
    turn_id = await s.start()
    (await s.agent.turn()).fail(message="No.")
    ended = await s.ending()
    assert (ended["outcome"], ended["error"]["message"]) == ("failed", "No.")
    assert s.says.asked == [
        Attempt(s.session_id, turn_id, "fake"),
        Attempt(s.session_id, turn_id, "fake", ("fake",), "agent_unavailable", "No."),
    ]
    assert "activity" not in s.kinds


@pytest.mark.parametrize("sign", ["taken", "said", "thought", "asked", "reported"])
async def test_a_turn_that_an_agent_took_is_never_tried_again(scene: Set, sign: str) -> None:
    s = await scene(None, OTHER, OTHER)
    await s.start()
    turn = await s.agent.turn()
    act: Mapping[str, Callable[[], None]] = {
        "taken": turn.take,
        "said": lambda: turn.say("a"),
        "thought": lambda: turn.say("a", thought=True),
        "asked": lambda: turn.ask("k", "yes"),
        "reported": lambda: turn.report("tool.started"),
    }
    act[sign]()
    turn.fail()
    assert (await s.ending())["outcome"] == "failed"
    assert len(s.says.asked) == 1
    assert s.other.given.empty()


async def test_a_turn_that_was_lost_is_never_tried_again(scene: Set) -> None:
    s = await scene(None, OTHER)
    await s.start()
    (await s.agent.turn()).die()
    assert (await s.ending())["outcome"] == "lost"
    assert len(s.says.asked) == 1


# -- tried again, handed on ----------------------------------------------------------------------------


async def test_a_turn_that_was_refused_is_tried_again_in_its_time_and_completes(scene: Set) -> None:
    s = await scene(None, HandTo("fake", 0.5))
    turn_id = await s.start()
    (await s.agent.turn()).fail(message="Busy.")
    await s.house.settle()
    assert s.agent.given.empty()
    s.house.clock.advance(0.5)
    turn = await s.agent.turn()
    assert turn.prompt.turn_id == turn_id
    assert turn.line.closed.is_set() is False
    turn.say("there")
    turn.settle()
    assert (await s.ending())["outcome"] == "completed"
    assert s.records("activity") == [
        {
            "late_of": None,
            "kind": "turn.handed_on",
            "from": "fake",
            "agent": "fake",
            "after": 0.5,
            "reason": "agent fake could not take the turn (agent_unavailable: Busy.); it is asked again in 0.5 s",
            "error": {"code": "agent_unavailable", "message": "Busy."},
        }
    ]
    assert [entry[2:4] for entry in s.house.ended] == [("fake", "completed")]


async def test_another_agent_gets_a_turn_that_was_refused_and_viewers_see_it(scene: Set) -> None:
    s = await scene(None, OTHER, None, None)
    viewer = s.house.connect("ann")
    await viewer.attach(s.session_id)
    await s.start("hello")
    first = await s.agent.turn()
    first.fail(message="No.")
    turn = await s.other.turn()
    assert first.line.closed.is_set()
    assert turn.prompt.content == b'"hello"'
    turn.say("from the other")
    turn.settle()
    assert (await s.ending())["outcome"] == "completed"
    (told,) = s.records("activity")
    assert (told["from"], told["agent"]) == ("fake", "other")
    assert s.records("message.completed")[0]["content"] == "from the other"
    assert {"activity", "message.completed"} <= set(viewer.events(s.session_id))
    assert [entry[2:4] for entry in s.house.ended] == [("other", "completed")]
    await s.start("again")
    assert (await s.agent.turn()).prompt.content == b'"again"'
    assert turn.line.closed.is_set()


async def test_a_turn_may_go_elsewhere_before_its_agent_was_asked(scene: Set) -> None:
    s = await scene(OTHER)
    await s.start()
    (await s.other.turn()).settle()
    assert (await s.ending())["outcome"] == "completed"
    assert s.agent.given.empty()
    (told,) = s.records("activity")
    assert told["reason"] == "agent fake is not asked; agent other is asked"
    assert "error" not in told


async def test_what_each_refused_is_told_to_who_decides_with_the_time_it_took(scene: Set) -> None:
    s = await scene(None, HandTo("other", 2), HandTo("fake", 1))
    await s.start()
    (await s.agent.turn()).fail("busy", "One.")
    await s.house.settle()
    s.house.clock.advance(2)
    (await s.other.turn()).fail("overloaded", "Two.")
    await s.house.settle()
    s.house.clock.advance(1)
    (await s.agent.turn()).fail("internal", "Three.")
    assert (await s.ending())["error"]["message"] == "Three."
    asked = [(attempt.tried, attempt.code, attempt.message, attempt.seconds) for attempt in s.says.asked]
    assert asked == [
        ((), None, None, 0.0),
        (("fake",), "busy", "One.", 0.0),
        (("fake", "other"), "overloaded", "Two.", 2.0),
        (("fake", "other", "fake"), "internal", "Three.", 3.0),
    ]


async def test_an_agent_that_refuses_for_ever_is_not_asked_for_ever(scene: Set) -> None:
    s = await scene(None, *[AGAIN] * 100)
    await s.start()
    for _ in range(ATTEMPTS + 1):
        (await s.agent.turn()).fail()
    assert (await s.ending())["outcome"] == "failed"
    assert [attempt.last for attempt in s.says.asked] == [False] * (ATTEMPTS + 1) + [True]
    assert s.agent.given.empty()


async def test_a_turn_that_was_refused_too_often_may_still_be_answered(scene: Set) -> None:
    s = await scene(None, *[AGAIN] * ATTEMPTS, Degraded("Sorry."))
    await s.start()
    for _ in range(ATTEMPTS + 1):
        (await s.agent.turn()).fail()
    assert (await s.ending())["degraded"]


async def test_a_turn_that_no_agent_was_given_is_said_to_be_so(scene: Set) -> None:
    s = await scene(None, Degraded("Sorry."))
    await s.start("a")
    await s.start("b")
    turn = await s.agent.turn()
    turn.say("a")
    turn.settle()
    await s.house.settle()
    assert [told[3:6:2] for told in s.house.ended] == [("completed", True), ("completed", False)]


async def test_a_bridge_that_cannot_open_its_agent_refuses_as_the_agent_would(scene: Set) -> None:
    s = await scene(None, OTHER)
    s.agent.refuses = OSError("no such program")
    await s.start()
    (await s.other.turn()).settle()
    assert (await s.ending())["outcome"] == "completed"


async def test_an_agent_that_the_configuration_has_no_more_is_stood_in_for(scene: Set) -> None:
    s = await scene(None, OTHER)
    s.session_id = await s.house.create(owner="ann", agent="gone")
    await s.start()
    (await s.other.turn()).settle()
    assert (await s.ending())["outcome"] == "completed"
    assert s.says.asked[1].tried == ("gone",)
    await s.start()
    await s.house.settle()
    assert [ended["outcome"] for ended in s.records("turn.ended")] == ["completed", "failed"]


# -- the agent that has it -------------------------------------------------------------------------------


async def test_cancel_approvals_and_pace_go_to_the_agent_that_has_the_turn(scene: Set) -> None:
    s = await scene(OTHER)
    turn_id = await s.start()
    turn = await s.other.turn()
    turn.ask("k", "yes")
    await s.house.settle()
    (question,) = s.records("approval.requested")
    await s.house.ask(s.session_id, Answer(ANN, question["approval_id"], "yes"))
    assert await turn.answers.get() == ("k", "yes")
    session = s.house.place(f"session:{s.session_id}").actor
    session._conductor.line.pause()
    await s.house.settle()
    assert turn.line.paused
    await s.cancel(turn_id)
    await turn.cancelled.wait()
    turn.settle("cancelled")
    assert (await s.ending())["outcome"] == "cancelled"
    await s.house.settle()
    assert turn.line.closed.is_set()


async def test_an_agent_that_does_not_stop_is_cut_wherever_it_is(scene: Set) -> None:
    s = await scene(OTHER)
    turn_id = await s.start()
    turn = await s.other.turn()
    turn.take()
    await s.cancel(turn_id)
    await s.house.pass_time(11)
    assert turn.line.closed.is_set()
    assert (await s.ending())["forced"] is True


async def test_the_questions_of_another_agent_are_answered_as_its_own_profile_says(scene: Set) -> None:
    s = await scene(OTHER, None)
    own, others = s.house.sessions.agents["fake"].rules, s.house.sessions.agents["other"].rules
    object.__setattr__(own, "approvals", "allow")
    assert others.approvals == "ask"
    await s.start()
    turn = await s.other.turn()
    turn.ask("k", "yes")
    await s.house.settle()
    assert s.records("approval.resolved") == []
    turn.settle()
    await s.start()
    turn = await s.agent.turn()
    turn.ask("k", "yes")
    assert await turn.answers.get() == ("k", "yes")


async def test_nothing_is_heard_of_an_agent_that_was_left(scene: Set) -> None:
    s = await scene(None, OTHER)
    await s.start()
    first = await s.agent.turn()
    first.fail()
    for late in (first.take, first.die, first.settle, lambda: first.say("late"), lambda: first.ask("k", "yes")):
        late()
    first.emit(AgentLost("gone"))
    turn = await s.other.turn()
    first.say("later still")
    first.emit(AgentLost("gone"))
    turn.say("mine")
    turn.settle()
    assert (await s.ending())["outcome"] == "completed"
    assert [message["content"] for message in s.records("message.completed")] == ["mine"]


async def test_an_agent_that_refuses_twice_is_counted_once_and_its_death_meanwhile_loses_nothing(scene: Set) -> None:
    s = await scene(None, HandTo("fake", 5))
    await s.start()
    first = await s.agent.turn()
    first.fail()
    first.fail()
    first.emit(AgentLost("gone"))
    first.emit(TurnFailed("another", "internal", "of no turn"))
    await s.house.settle()
    s.house.clock.advance(5)
    turn = await s.agent.turn()
    turn.settle()
    assert (await s.ending())["outcome"] == "completed"
    assert len(s.says.asked) == 2


async def test_the_death_of_another_agent_after_its_turn_does_not_lose_the_next_one(scene: Set) -> None:
    s = await scene(OTHER, None)
    await s.start()
    await s.start("next")
    turn = await s.other.turn()
    s.house.disk.gate.clear()
    turn.settle()
    turn.emit(AgentLost("gone"))
    turn.emit(TextDelta(turn.prompt.turn_id, "late"))
    await s.house.tick(20)
    s.house.disk.gate.set()
    turn = await s.agent.turn()
    turn.emit(AgentLost("gone", "some other turn"))
    turn.settle()
    await s.house.settle()
    assert [ended["outcome"] for ended in s.records("turn.ended")] == ["completed", "completed"]


async def test_the_next_turn_is_begun_once_the_other_agent_is_silent_for_good(scene: Set) -> None:
    s = await scene(OTHER, None)
    await s.start()
    turn = await s.other.turn()
    bridge = s.house.sessions.agents["other"].bridge
    bridge.hold()
    turn.settle()
    await until(lambda: "turn.ended" in s.kinds)
    s.house.disk.gate.clear()
    next_one = asyncio.ensure_future(s.start("next"))
    await s.house.tick(50)
    turn.emit(AgentLost("gone"))
    await s.house.tick(50)
    s.house.disk.gate.set()
    await next_one
    turn.emit(AgentLost("gone"))
    await s.house.tick(50)
    assert s.agent.given.empty()
    bridge.release()
    (await s.agent.turn()).settle()
    await s.house.settle()
    assert [ended["outcome"] for ended in s.records("turn.ended")] == ["completed", "completed"]


async def test_the_session_s_own_agent_is_not_told_what_another_calls_the_session(scene: Set) -> None:
    s = await scene(None, OTHER, None, memory=True)
    await s.start()
    first = await s.agent.turn()
    first.emit(AgentReady(None, b'{"state":"ready","agent_session_id":"own"}', "own"))
    first.fail()
    other = await s.other.turn()
    assert other.prompt.memory is None
    other.emit(AgentReady(None, b'{"state":"ready","agent_session_id":"foreign"}', "foreign"))
    other.settle()
    await s.house.settle()
    assert [state.get("agent_session_id") for state in s.records("agent.state")] == ["own", None]
    await s.start()
    assert (await s.agent.turn()).prompt.memory == "own"


async def test_another_agent_is_told_what_was_said_if_its_kind_is(scene: Set) -> None:
    s = await scene(None, OTHER, history=False, kept=True)
    object.__setattr__(s.house.sessions.agents["other"], "history", True)
    await s.start("one")
    turn = await s.agent.turn()
    assert turn.prompt.messages == b"[]"
    turn.say("first")
    turn.settle()
    await s.house.settle()
    await s.start("two")
    turn = await s.other.turn()
    said = msgspec.json.decode(turn.prompt.messages)
    assert said == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "first"}]
    turn.settle()
    await s.start("three")
    assert (await s.agent.turn()).prompt.messages == b"[]"


async def test_variables_are_said_to_be_set_by_the_agent_that_set_them(scene: Set) -> None:
    s = await scene(OTHER)
    turn_id = await s.start()
    turn = await s.other.turn()
    turn.emit(VariablesSet(turn_id, b'{"a":1}'))
    turn.settle()
    await s.ending()
    assert s.records("variables.changed")[0]["agent"] == "other"


async def test_the_session_s_agent_cannot_be_configured_while_another_has_the_turn(scene: Set) -> None:
    s = await scene(OTHER)
    await s.start()
    turn = await s.other.turn()
    with pytest.raises(BrokerError, match="Another agent has the turn") as refused:
        await s.house.ask(s.session_id, Configure(ANN, "plan", {}))
    assert refused.value.code == "busy"
    turn.settle()
    await s.house.settle()
    assert await s.house.ask(s.session_id, Configure(ANN, "plan", {})) == {}


# -- stopped on the way ----------------------------------------------------------------------------------


async def test_a_turn_that_waits_to_be_tried_again_is_cancelled_at_once(scene: Set) -> None:
    s = await scene(None, HandTo("other", 30), None)
    turn_id = await s.start()
    (await s.agent.turn()).fail()
    await s.house.settle()
    assert await s.cancel(turn_id) == {"status": "cancelling"}
    ended = await s.ending()
    assert (ended["outcome"], ended["by"], "forced" in ended) == ("cancelled", "ann", False)
    assert s.house.place(f"session:{s.session_id}").actor._conductor._dispatching._timer is None
    s.house.clock.advance(60)
    await s.house.settle()
    assert s.other.given.empty()
    await s.start()
    (await s.agent.turn()).settle()
    await s.house.settle()
    assert [ended["outcome"] for ended in s.records("turn.ended")] == ["cancelled", "completed"]


@pytest.mark.parametrize("moment", range(6))
async def test_a_cancel_ends_a_turn_once_whenever_it_comes_on_the_way(scene: Set, moment: int) -> None:
    s = await scene(None, OTHER)
    turn_id = await s.start()
    (await s.agent.turn()).fail()
    await s.house.tick(moment)
    await s.cancel(turn_id)
    await s.house.settle()
    while not s.other.given.empty():
        s.other.given.get_nowait().settle("cancelled")
    assert (await s.ending())["outcome"] == "cancelled"


@pytest.mark.parametrize("decision", [HandTo("fake", 3600), HandTo("other", 3600), HandTo("other")])
async def test_the_start_deadline_covers_all_attempts_together(scene: Set, decision: HandTo) -> None:
    s = await scene(None, decision, deadlines=Deadlines(start=10))
    await s.start()
    turn = await s.agent.turn()
    await s.house.pass_time(6)
    turn.fail()
    await s.house.pass_time(3.6)
    assert "turn.ended" not in s.kinds
    await s.house.pass_time(0.8)
    ended = await s.ending()
    assert (ended["outcome"], ended["deadline"]) == ("failed", "start")
    assert s.house.place(f"session:{s.session_id}").actor._conductor._dispatching._timer is None
    await s.start()
    (await s.agent.turn()).settle()


@pytest.mark.parametrize("operation", [Close, Delete])
async def test_a_session_that_goes_takes_a_turn_on_its_way_with_it(scene: Set, operation: Any) -> None:
    s = await scene(None, HandTo("other", 30))
    await s.start()
    (await s.agent.turn()).fail()
    await s.house.settle()
    await s.house.ask(s.session_id, operation(ANN))
    await s.house.settle()
    assert [outcome for _, _, _, outcome, *_ in s.house.ended] == ["cancelled"]
    s.house.clock.advance(60)
    await s.house.settle()
    assert s.other.given.empty()


@pytest.mark.parametrize("where", ["at the other agent", "on its way"])
async def test_a_turn_that_was_handed_on_is_lost_by_a_crash_as_any_other(
    scene: Set, make_house: Callable[..., Any], where: str
) -> None:
    s = await scene(None, HandTo("other", 30) if where == "on its way" else OTHER)
    await s.start()
    (await s.agent.turn()).fail()
    if where != "on its way":
        await s.other.turn()
    await s.house.settle()
    await s.house.kill()
    restarted = make_house(others={"other": FakeAgent()}, on_dispatch=Says())
    await restarted.wake()
    s.house = restarted
    assert (await s.ending())["outcome"] == "lost"
    assert restarted.agent.given.empty()


async def test_a_session_s_actor_that_fails_on_the_way_ends_the_turn_once(scene: Set) -> None:
    s = await scene(None, HandTo("other", 30))
    await s.start()
    (await s.agent.turn()).fail()
    await s.house.settle()
    s.house.disk.fault = "full"
    with pytest.raises(BrokerError):
        await s.house.update(s.session_id, "t", by=ANN)
    s.house.disk.fault = None
    await s.house.pass_time(4)
    assert (await s.ending())["outcome"] == "lost"
    s.house.clock.advance(60)
    await s.house.settle()
    assert s.other.given.empty()


# -- answered by the broker --------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_degraded_answer_says_so_and_is_all_there_is(scene: Set, when: str) -> None:
    answers = [Degraded("Nobody is in.")] if when == "before" else [None, Degraded("Nobody is in.")]
    s = await scene(*answers)
    await s.start()
    if when == "after":
        (await s.agent.turn()).fail(message="No.")
    ended = await s.ending()
    why = "is not asked" if when == "before" else "could not take the turn (agent_unavailable: No.)"
    assert ended == {
        "outcome": "completed",
        "partial": True,
        "degraded": True,
        "reason": f"agent fake {why}; the broker answers itself",
        "stop_reason": "degraded",
    }
    (message,) = s.records("message.completed")
    assert (message["content"], message["role"], message["degraded"]) == ("Nobody is in.", "assistant", True)
    assert s.kinds[-2:] == ["message.completed", "turn.ended"]
    await s.start()
    (await s.agent.turn()).settle()


# -- places ------------------------------------------------------------------------------------------------


async def test_places_are_asked_for_where_the_turn_goes_and_given_back_everywhere(scene: Set) -> None:
    other = FakeAgent(capacity=1)
    s = await scene(None, None, None, OTHER, other=other, agent=FakeAgent(capacity=1))
    await s.start()
    first = await s.agent.turn()
    neighbour = await s.house.create(owner="ann")
    await s.house.start(neighbour, by=ANN)
    await s.house.settle()
    assert s.agent.given.empty()
    first.fail()
    turn = await s.other.turn()
    assert (await s.agent.turn()).prompt.session_id == neighbour
    turn.settle()
    assert (await s.ending())["outcome"] == "completed"
    for name in ("fake", "other"):
        bridge = s.house.sessions.agents[name].bridge.actor
        assert set(bridge._slots._taken) == ({neighbour} if name == "fake" else set())
        assert not bridge._slots._waiting


async def test_a_turn_waits_at_another_agent_for_its_place(scene: Set) -> None:
    other = FakeAgent(capacity=1)
    s = await scene(OTHER, OTHER, other=other)
    neighbour = await s.house.create(owner="ann")
    await s.house.start(neighbour, by=ANN)
    occupant = await other.turn()
    await s.start()
    await s.house.settle()
    assert other.given.empty()
    occupant.settle()
    (await other.turn()).settle()
    assert (await s.ending())["outcome"] == "completed"


async def test_a_turn_that_waits_to_be_tried_again_leaves_its_place_to_others_meanwhile(scene: Set) -> None:
    s = await scene(None, None, HandTo("fake", 5), agent=FakeAgent(capacity=1))
    await s.start()
    (await s.agent.turn()).fail()
    neighbour = await s.house.create(owner="ann")
    await s.house.start(neighbour, by=ANN)
    other = await s.agent.turn()
    assert other.prompt.session_id == neighbour
    await s.house.settle()
    s.house.clock.advance(5)
    await s.house.settle()
    assert s.agent.given.empty()
    other.settle()
    (await s.agent.turn()).settle()
    assert (await s.ending())["outcome"] == "completed"


async def test_a_place_that_was_granted_elsewhere_meanwhile_starts_nothing(scene: Set) -> None:
    other = FakeAgent(capacity=0)
    s = await scene(OTHER, None, other=other)
    turn_id = await s.start()
    await s.house.settle()
    s.house.place(f"session:{s.session_id}").tell(SlotAnswer(turn_id, "granted", -99))
    await s.house.settle()
    assert other.given.empty()
    other.capacity = 1
    (await other.turn()).settle()
    assert (await s.ending())["outcome"] == "completed"


async def test_another_agent_is_told_once_it_is_durable_that_it_is(scene: Set) -> None:
    s = await scene(None, OTHER)
    await s.start()
    turn = await s.agent.turn()
    s.house.disk.gate.clear()
    turn.fail()
    await s.house.tick(50)
    assert s.other.given.empty()
    s.house.disk.gate.set()
    (await s.other.turn()).settle()
    assert "activity" in s.kinds


async def test_a_turn_that_waits_at_another_agent_can_be_cancelled_and_wants_no_place_any_more(scene: Set) -> None:
    other = FakeAgent(capacity=0)
    s = await scene(OTHER, None, other=other)
    turn_id = await s.start()
    await s.house.settle()
    assert s.says.asked[-1].tried == ("other",)
    await s.cancel(turn_id)
    assert (await s.ending())["outcome"] == "cancelled"
    other.capacity = 1
    await s.house.settle()
    assert other.given.empty()


async def test_a_turn_whose_agent_is_not_there_at_all_goes_elsewhere_at_once(scene: Set) -> None:
    s = await scene(None, OTHER, agent=FakeAgent(capacity=0))
    await s.start()
    (await s.other.turn()).settle()
    assert (await s.ending())["outcome"] == "completed"
    assert s.says.asked[1].tried == ("fake",)
    assert s.records("activity")[0]["error"]["message"] == "There is no agent to take the turn."
    s.agent.capacity = 1
    await s.house.settle()
    assert s.agent.given.empty()
    await s.start()
    (await s.agent.turn()).settle()


async def test_a_turn_whose_agent_comes_back_is_given_to_it(scene: Set) -> None:
    s = await scene(None, HandTo("fake", 1), agent=FakeAgent(capacity=0))
    await s.start()
    await s.house.settle()
    s.house.clock.advance(1)
    await s.house.settle()
    assert [attempt.tried for attempt in s.says.asked] == [(), ("fake",), ("fake", "fake")]
    s.agent.capacity = 1
    (await s.agent.turn()).settle()
    assert (await s.ending())["outcome"] == "completed"


async def test_a_turn_whose_agent_is_not_there_may_be_answered_and_wants_no_place(scene: Set) -> None:
    s = await scene(None, Degraded("Nobody."), None, agent=FakeAgent(capacity=0))
    await s.start()
    assert (await s.ending())["degraded"] is True
    s.agent.capacity = 1
    await s.start()
    (await s.agent.turn()).settle()
    await s.house.settle()
    assert len(s.records("turn.ended")) == 2


async def test_who_says_nothing_lets_a_turn_wait_for_an_agent_that_is_not_there(scene: Set) -> None:
    s = await scene(agent=FakeAgent(capacity=0))
    await s.start()
    await s.house.settle()
    assert [attempt.tried for attempt in s.says.asked] == [(), ("fake",)]
    s.agent.capacity = 1
    (await s.agent.turn()).settle()
    assert (await s.ending())["outcome"] == "completed"


# -- whatever happens ----------------------------------------------------------------------------------------


class Chance:
    """Answers by chance; a seed makes it the same again."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def __call__(self, attempt: Attempt) -> Decision:
        agent, after = self.dice.choice(["fake", "other"]), self.dice.choice([0.0, 0.0, 0.5, 20.0])
        return self.dice.choice([None, HandTo(agent, after), HandTo(agent, after), Degraded("Sorry.")])


class Life:
    """Agents, people and time that do anything."""

    def __init__(self, s: Scene, dice: random.Random) -> None:
        self.s, self.dice = s, dice
        self.given: list[Any] = []
        self.turns: list[str] = []

    async def begin(self) -> None:
        self.turns.append(await self.s.start(if_busy=self.dice.choice(["queue", "interrupt"])))

    async def speak(self) -> None:
        for agent in (self.s.agent, self.s.other):
            while not agent.given.empty():
                self.given.append(agent.given.get_nowait())
        if self.given:
            turn = self.dice.choice(self.given[-3:])
            self.dice.choice([turn.fail, turn.fail, turn.take, turn.settle, turn.die, lambda: turn.say("a")])()

    async def cancel(self) -> None:
        if self.turns:
            await self.s.cancel(self.dice.choice(self.turns))

    async def wait(self) -> None:
        self.s.house.clock.advance(self.dice.choice([0.5, 5.0, 20.0]))

    async def come_or_go(self) -> None:
        if self.s.other.capacity is not None:
            self.s.other.capacity = self.dice.choice([0, 1])

    async def live(self, steps: int) -> None:
        """Do so many things, and have what is left then stopped."""
        acts = [self.begin, self.begin, *[self.speak] * 3, self.cancel, self.wait, self.s.house.settle, self.come_or_go]
        for _ in range(steps):
            await self.dice.choice(acts)()
            await self.s.house.tick(self.dice.randrange(4))
        for turn_id in self.turns:
            await self.s.cancel(turn_id)
        await self.s.house.pass_time(24, step=1.0)


@pytest.mark.parametrize("seed", range(40))
async def test_every_turn_ends_once_whatever_happens_on_its_way_and_none_is_handed_on_that_was_taken(
    make_house: Callable[..., Any], seed: int
) -> None:
    dice = random.Random(seed)
    fake, other = (FakeAgent(dice.choice([None, 1])) for _ in range(2))
    house = make_house(
        agent=fake,
        others={"other": other},
        on_dispatch=Chance(dice),
        deadlines=Deadlines(start=30, idle=60),
        queued_turns=100,
    )
    s = Scene(house, await house.create(owner="ann"), Says(), other)
    await Life(s, dice).live(60)
    held = [record for record in house.disk.records(f"session:{s.session_id}") if record.turn_id is not None]
    accepted = [record.turn_id for record in held if record.kind == "user.message"]
    assert accepted
    for turn_id in accepted:
        kinds = [record.kind for record in held if record.turn_id == turn_id]
        assert kinds.count("turn.ended") == 1
        output = [place for place, kind in enumerate(kinds) if kind.startswith("message.")]
        handed = [place for place, kind in enumerate(kinds) if kind == "activity"]
        assert not (output and handed) or max(handed) < min(output)
    assert sorted(turn_id for _, turn_id, *_ in house.ended) == sorted(accepted)
    for options in house.sessions.agents.values():
        slots = options.bridge.actor._slots
        assert (slots._taken, slots._waiting) == ({}, {})
