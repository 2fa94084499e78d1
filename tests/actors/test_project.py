"""A project: what its agent is told, what comes of feedback, and what the agent publishes (seed 002)."""

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest

from broker.actors.feedback import EACH, OPEN, WAITING
from broker.actors.lifecycle import Sweep
from broker.actors.options import ProjectOptions
from broker.actors.project_bridge import AT_ONCE, start_project_bridge
from broker.actors.project_mail import Asleep, EndFeedback, FeedbackAnswered, TellAgent
from broker.actors.requests import ToRoom
from broker.agents.port import AgentSaid, Answered, News, Say, UserFeedback
from broker.errors import BrokerError
from broker.messages import ANONYMOUS, Principal
from broker.operations import Feedback, RoomHistory
from broker.testing import until

ROOM = "project:p1"
PATIENCE = 30.0
ANN = Principal("ann", frozenset())


class Agents:
    """What serves projects, from the broker's side: it remembers all, and answers when a test does.

    Attributes:
        told: the events.
        asked: the feedback that was not forgotten, with what its answer is to be told to.
        fault: raised by whatever is asked of it next.
    """

    def __init__(self) -> None:
        self.told: list[News] = []
        self.asked: list[tuple[UserFeedback, Answered]] = []
        self.fault: Exception | None = None
        self.say: Say
        self.arrived: Callable[[], None]

    def open_projects(self, say: Say, arrived: Callable[[], None]) -> "Agents":
        self.say, self.arrived = say, arrived
        return self

    def tell(self, news: News) -> None:
        self._fail()
        self.told.append(news)

    def ask(self, feedback: UserFeedback, answered: Answered) -> None:
        self._fail()
        self.asked.append((feedback, answered))

    def forget(self, project: str, feedback_id: str) -> None:
        name = (project, feedback_id)
        self.asked = [(one, told) for one, told in self.asked if (one.project, one.feedback_id) != name]

    def _fail(self) -> None:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    def answer(self, data: bytes | BrokerError) -> None:
        """Answer the oldest feedback."""
        _, answered = self.asked.pop(0)
        answered(data)

    def news(self) -> list[tuple[str, int | None]]:
        """Return the events that it was told since the last time, with their numbers."""
        told, self.told = self.told, []
        return [(news.event, news.seq) for news in told]


@pytest.fixture
def agents() -> Agents:
    return Agents()


def serve(house: Any, agents: Agents) -> Any:
    """Have `agents` serve the projects of a house."""

    def registry(message: ToRoom, reply_to: Any) -> None:
        house.registry.request(message, reply_to)

    bridge = start_project_bridge(house.supervisor, "planner", agents, registry)
    house.rooms = attrs.evolve(house.rooms, projects=ProjectOptions(agent="planner", bridge=bridge, feedback=PATIENCE))
    return house


@pytest.fixture
async def served(house: Any, agents: Agents) -> Any:
    """A house whose projects are served."""
    return serve(house, agents)


def feedback(client: Any, data: Any = "good", feedback_id: str = "u1") -> Feedback:
    return Feedback(client.by, b'{"user":"ann"}', client.ref, feedback_id, msgspec.json.encode(data))


async def over_http(house: Any, data: str = "good", by: Principal = ANN) -> Any:
    """Ask as a request over HTTP does, which has no connection."""
    operation = Feedback(by, b"{}", None, "u1", msgspec.json.encode(data))
    return await house.registry.ask(ToRoom(ROOM, operation), timeout=10)


async def asked(agents: Agents, times: int = 1) -> UserFeedback:
    """Return the feedback that the agent was brought last, once it was brought so many."""
    await until(lambda: len(agents.asked) == times)
    return agents.asked[-1][0]


async def refusal(client: Any, request_id: str) -> str:
    """Return the code of the error that a request is answered with."""
    return str((await client.socket.message(id=request_id, type="error"))["data"]["code"])


# -- what the agent is told ------------------------------------------------------------------------------


async def test_the_agent_is_told_what_members_and_backends_publish(served: Any, agents: Agents) -> None:
    ann = served.connect("ann")
    for event in ("project_stage_update", "project_message", "project_status_change", "agent_message", "other"):
        await ann.publish(ROOM, {"n": 1}, event=event)
    await served.settle()
    (first, *_) = agents.told
    assert first == News(
        "p1",
        "project_stage_update",
        1,
        msgspec.json.encode(ann.peer.connection_id),
        b'{"n":1}',
        served.disk.records(f"room:{ROOM}")[0].at,
    )
    assert agents.news() == [("project_stage_update", 1), ("project_message", 2), ("project_status_change", 3)]


async def test_the_agent_is_told_nothing_before_it_is_durable(served: Any, agents: Agents) -> None:
    ann = served.connect("ann")
    served.disk.gate.clear()
    publishing = asyncio.ensure_future(ann.publish(ROOM, 1, event="project_message"))
    await until(lambda: served.disk.batches)
    await served.tick(5)
    assert agents.told == []
    served.disk.gate.set()
    await publishing
    await until(lambda: agents.told)


async def test_without_a_log_the_agent_is_told_all_the_same(make_house: Callable[..., Any], agents: Agents) -> None:
    house = serve(make_house(room_history=0), agents)
    ann = house.connect("ann")
    await ann.publish(ROOM, 1, event="project_message")
    await house.settle()
    assert agents.news() == [("project_message", None)]


async def test_other_rooms_are_none_of_the_agents_business(served: Any, agents: Agents) -> None:
    ann = served.connect("ann")
    for room in ("lobby", "project:", "projects:p1"):
        await ann.publish(room, 1, event="project_message")
    await served.settle()
    assert agents.told == []


async def test_an_agent_that_arrives_is_told_the_status_of_all_projects_that_are_awake(
    served: Any, agents: Agents
) -> None:
    ann = served.connect("ann")
    for room, status in (("project:a", 1), ("project:b", 2), ("project:b", 3), ("project:c", 4)):
        await ann.publish(room, status, event="project_status_change")
    await ann.publish("project:d", 5, event="project_stage_update")
    await served.settle()
    place = served.place("room:project:c")
    place.tell(Sweep(0.0))
    await until(lambda: served.place("room:project:c") is None)
    await served.settle()
    agents.told.clear()
    agents.arrived()
    await until(lambda: agents.told)
    assert {(news.project, news.data) for news in agents.told} == {("a", b"1"), ("b", b"3")}
    assert {news.event for news in agents.told} == {"project_status_change"}


async def test_a_project_that_wakes_tells_its_status(
    served: Any, agents: Agents, make_house: Callable[..., Any]
) -> None:
    ann = served.connect("ann")
    for event in ("project_status_change", "project_status_change", "project_message"):
        await ann.publish(ROOM, 1, event=event)
    await served.settle()
    await served.stop()
    agents.told.clear()
    again = serve(make_house(), agents)
    await again.connect("bob").join(ROOM)
    await until(lambda: agents.told)
    assert agents.news() == [("project_status_change", 2)]


# -- what the agent says ---------------------------------------------------------------------------------


async def test_what_the_agent_publishes_is_told_to_members_under_its_name_and_not_to_itself(
    served: Any, agents: Agents
) -> None:
    ann = served.connect("ann")
    await ann.join(ROOM)
    taken: list[BrokerError | None] = []
    agents.say(AgentSaid("p1", "agent_message", b'{"a" : 1.50}'), taken.append)
    agents.say(AgentSaid("p1", "project_stage_update", b"2"), taken.append)
    agents.say(AgentSaid("p1", "project_status_change", b"3"), taken.append)
    last = await ann.socket.message(event="room.event", seq=3)
    assert last["from"] == {"connection_id": None, "user": None, "agent": "planner"}
    assert last["data"] == {"event": "project_status_change", "data": 3}
    await served.settle()
    assert (taken, agents.told) == ([None, None, None], [])
    assert served.disk.records(f"room:{ROOM}")[0].data == b'{"a" : 1.50}'
    agents.arrived()  # it is the status all the same
    await until(lambda: agents.told)
    assert agents.news() == [("project_status_change", 3)]


async def test_an_agent_hears_why_something_was_not_published(served: Any, agents: Agents) -> None:
    served.disk.fault = "full"
    taken: list[BrokerError | None] = []
    agents.say(AgentSaid("p1", "agent_message", b"1"), taken.append)
    await until(lambda: taken)
    (error,) = taken
    assert error is not None
    assert error.code == "unavailable"
    served.disk.fault = None


# -- feedback --------------------------------------------------------------------------------------------


async def test_feedback_is_answered_to_its_sender_alone(served: Any, agents: Agents) -> None:
    ann, bob = served.connect("ann"), served.connect("bob")
    await bob.join(ROOM)
    request_id = ann.send_to_room(ROOM, feedback(ann, {"like": 1}))
    got = await asked(agents)
    assert attrs.asdict(got) | {"at": 0} == {
        "project": "p1",
        "feedback_id": "u1",
        "sender": b'{"user":"ann"}',
        "data": b'{"like":1}',
        "at": 0,
    }
    before = len(bob.socket.messages)
    agents.answer(b'{"ok" : 1.50}')
    answer = await ann.socket.message(id=request_id)
    assert answer["data"] == {"project": "p1", "feedback_id": "u1", "data": {"ok": 1.5}}
    assert b'"data":{"ok" : 1.50}' in ann.socket.frames[-1].payload
    await served.settle()
    assert len(bob.socket.messages) == before
    assert await bob.room(ROOM, RoomHistory(bob.by, None, 10)) == []


async def test_feedback_that_no_agent_serves_is_refused_at_once(house: Any) -> None:
    ann = house.connect("ann")
    with pytest.raises(BrokerError) as refused:
        await ann.room(ROOM, feedback(ann))
    assert refused.value.code == "agent_unavailable"


async def test_an_agent_that_is_not_there_says_so(served: Any, agents: Agents) -> None:
    ann = served.connect("ann")
    request_id = ann.send_to_room(ROOM, feedback(ann))
    await asked(agents)
    agents.answer(BrokerError("agent_unavailable"))
    assert await refusal(ann, request_id) == "agent_unavailable"


async def test_an_answer_that_does_not_come_in_time_is_an_error_and_is_not_waited_for(
    served: Any, agents: Agents
) -> None:
    ann = served.connect("ann")
    request_id = ann.send_to_room(ROOM, feedback(ann))
    await asked(agents)
    await served.settle()
    served.clock.advance(PATIENCE - 0.1)
    await served.settle()
    assert len(agents.asked) == 1
    served.clock.advance(0.2)
    assert await refusal(ann, request_id) == "timeout"
    await until(lambda: not agents.asked)


async def test_the_same_feedback_again_is_brought_once_and_answered_twice(served: Any, agents: Agents) -> None:
    ann, again = served.connect("ann"), served.connect("ann")
    ids = [client.send_to_room(ROOM, feedback(client)) for client in (ann, again)]
    asking = asyncio.ensure_future(over_http(served))
    await served.settle()
    await asked(agents)
    agents.answer(b"1")
    answers = [(await client.socket.message(id=name))["data"] for client, name in zip((ann, again), ids, strict=True)]
    assert answers == [{"project": "p1", "feedback_id": "u1", "data": 1}] * 2
    assert (await asking)["data"] == msgspec.Raw(b"1")
    ann.send_to_room(ROOM, feedback(ann))  # it is not open any more
    await asked(agents)


async def test_other_feedback_under_the_same_id_is_a_conflict(served: Any, agents: Agents) -> None:
    ann = served.connect("ann")
    ann.send_to_room(ROOM, feedback(ann))
    assert await refusal(ann, ann.send_to_room(ROOM, feedback(ann, "bad"))) == "conflict"
    assert len(agents.asked) == 1


async def test_the_same_id_of_somebody_else_is_something_else(served: Any, agents: Agents) -> None:
    people = [served.connect("ann"), served.connect("bob"), served.connect(), served.connect()]
    ids = [client.send_to_room(ROOM, feedback(client)) for client in people]
    await asked(agents, 4)
    names = [one.feedback_id for one, _ in agents.asked]
    assert (names[0], len(set(names))) == ("u1", 4)
    for number in range(4):
        agents.answer(b"%d" % number)
    answers = [(await client.socket.message(id=name))["data"] for client, name in zip(people, ids, strict=True)]
    assert answers == [{"project": "p1", "feedback_id": "u1", "data": number} for number in range(4)]


async def test_only_so_much_feedback_of_one_person_waits(served: Any, agents: Agents) -> None:
    ann, bob = served.connect("ann"), served.connect("bob")
    for number in range(EACH):
        ann.send_to_room(ROOM, feedback(ann, feedback_id=f"u{number}"))
    assert await refusal(ann, ann.send_to_room(ROOM, feedback(ann, feedback_id="more"))) == "overloaded"
    for _ in range(WAITING - 1):
        ann.send_to_room(ROOM, feedback(ann))
    assert await refusal(ann, ann.send_to_room(ROOM, feedback(ann))) == "overloaded"
    bob.send_to_room(ROOM, feedback(bob))
    await asked(agents, EACH + 1)


async def test_only_so_much_feedback_of_one_project_waits(served: Any, agents: Agents) -> None:
    client = served.connect()
    for number in range(OPEN):
        by = Principal(f"user{number}", frozenset())
        client.send_to_room(ROOM, attrs.evolve(feedback(client), by=by))
    assert await refusal(client, client.send_to_room(ROOM, feedback(client))) == "overloaded"
    assert len(agents.asked) == OPEN


async def test_an_answer_whose_asker_is_gone_goes_to_the_other_members_that_are_the_same_user(
    served: Any, agents: Agents
) -> None:
    ann, other, bob, outside = (served.connect(name) for name in ("ann", "ann", "bob", "ann"))
    for client in (other, bob):
        await client.join(ROOM)
    ann.send_to_room(ROOM, feedback(ann))
    await asked(agents)
    await ann.hang_up()
    agents.answer(b'{"ok":1}')
    told = await other.socket.message(event="room.event")
    assert "seq" not in told
    assert told["from"] == {"connection_id": None, "user": None, "agent": "planner"}
    assert told["data"] == {
        "event": "user_feedback_response",
        "data": {"feedback_id": "u1", "data": {"ok": 1}},
    }
    await served.settle()
    assert [message for client in (bob, outside) for message in client.socket.messages if "event" in message] == []
    assert served.stats.dropped["feedback"] == 0


async def test_an_answer_that_nobody_waits_for_any_more_is_dropped_and_counted(served: Any, agents: Agents) -> None:
    for user in ("ann", None):
        client, bystander = served.connect(user), served.connect()
        await bystander.join(ROOM)
        client.send_to_room(ROOM, feedback(client))
        await asked(agents)
        await client.hang_up()
        agents.answer(b"1")
        await served.settle()
    assert served.stats.dropped["feedback"] == 2


async def test_a_project_stays_in_memory_while_feedback_is_open(served: Any, agents: Agents) -> None:
    ann = served.connect("ann")
    ann.send_to_room(ROOM, feedback(ann))
    await asked(agents)
    place = served.place(f"room:{ROOM}")
    place.tell(Sweep(0.0))
    await served.settle()
    assert served.place(f"room:{ROOM}") is place
    agents.answer(b"1")
    await served.settle()
    place.tell(Sweep(0.0))
    await until(lambda: served.place(f"room:{ROOM}") is None)


# -- failures --------------------------------------------------------------------------------------------


async def test_a_bridge_that_fails_answers_what_is_open_and_goes_on(served: Any, agents: Agents) -> None:
    ann = served.connect("ann")
    await ann.publish(ROOM, 1, event="project_status_change")
    first = ann.send_to_room(ROOM, feedback(ann))
    await asked(agents)
    agents.fault = RuntimeError("a kind that breaks its word")
    second = ann.send_to_room(ROOM, feedback(ann, feedback_id="u2"))
    assert await refusal(ann, first) == "agent_unavailable"
    assert await refusal(ann, second) == "agent_unavailable"
    await served.settle()
    assert agents.asked == []
    agents.told.clear()
    agents.arrived()  # the statuses outlive the bridge
    await until(lambda: agents.told)
    third = ann.send_to_room(ROOM, feedback(ann, feedback_id="u3"))
    await asked(agents)
    agents.answer(b"1")
    assert (await ann.socket.message(id=third))["type"] == "response"


async def test_a_project_that_fails_answers_what_is_open(served: Any, agents: Agents) -> None:
    ann = served.connect("ann")
    request_id = ann.send_to_room(ROOM, feedback(ann))
    await asked(agents)
    served.disk.fault = "full"
    publishing = asyncio.ensure_future(ann.publish(ROOM, 1))
    assert await refusal(ann, request_id) == "unavailable"
    with pytest.raises(BrokerError):
        await publishing
    served.disk.fault = None
    await until(lambda: not agents.asked)  # nobody waits for its answer, and so it takes no place at the agent's


async def test_when_the_broker_is_about_to_stop_nobody_waits_and_nothing_more_is_brought(
    served: Any, agents: Agents
) -> None:
    ann = served.connect("ann")
    waiting = ann.send_to_room(ROOM, feedback(ann))
    await asked(agents)
    await served.rooms.projects.bridge.ask(EndFeedback(), timeout=10)
    assert await refusal(ann, waiting) == "unavailable"
    assert await refusal(ann, ann.send_to_room(ROOM, feedback(ann, feedback_id="u2"))) == "unavailable"
    assert agents.asked == []


async def test_requests_of_people_without_a_name_are_each_somebody_elses(served: Any, agents: Agents) -> None:
    asking = [asyncio.ensure_future(over_http(served, data, ANONYMOUS)) for data in ["a", "b"] + ["c"] * EACH]
    await asked(agents, EACH + 2)
    for number in range(EACH + 2):
        agents.answer(b"%d" % number)
    assert [(await one)["data"] for one in asking] == [msgspec.Raw(b"%d" % number) for number in range(EACH + 2)]


async def test_many_statuses_are_told_a_few_at_a_time_and_each_as_it_is_then(served: Any, agents: Agents) -> None:
    bridge = served.rooms.projects.bridge
    for number in range(2 * AT_ONCE + 1):
        bridge.tell(TellAgent(News(f"p{number}", "project_status_change", 1, b"null", b"1", 0), own=True))
    await served.tick(3)
    agents.arrived()
    agents.arrived()
    await until(lambda: agents.told)
    first = len(agents.told)
    assert first <= 2 * AT_ONCE
    bridge.tell(Asleep(f"p{2 * AT_ONCE}"))
    await served.settle()
    told = [news.project for news in agents.told]
    assert set(told) == {f"p{number}" for number in range(2 * AT_ONCE)}


async def test_when_the_broker_stops_nobody_waits_on(served: Any, agents: Agents) -> None:
    asking = asyncio.ensure_future(over_http(served))
    await asked(agents)
    await served.stop()
    with pytest.raises(BrokerError) as refused:
        await asking
    assert refused.value.code == "unavailable"


async def test_an_answer_to_a_project_that_is_gone_is_nobodys(served: Any, agents: Agents) -> None:
    ann = served.connect("ann")
    await ann.join(ROOM)
    served.place(f"room:{ROOM}").tell(FeedbackAnswered("nothing", b"1"))
    await ann.publish(ROOM, 1)
