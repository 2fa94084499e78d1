"""Projects, as a worker hears of them and speaks in them (PROTOCOL section 4, seed 002)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest

from broker.client import Feedback, TurnFailed, Update, Worker
from broker.client.worker.projects import Projects
from broker.client.worker.wire import ProjectUpdate
from broker.testing import until

Served = Callable[..., asyncio.Task[None]]


class Planner(Worker):
    """Answers feedback as it is told, and remembers updates."""

    agent = "planner"

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.feedbacks: list[Feedback] = []
        self.told = asyncio.Event()

    async def on_feedback(self, feedback: Feedback) -> Any:
        self.feedbacks.append(feedback)
        match feedback.data:
            case "fail":
                raise ZeroDivisionError
            case "refuse":
                raise TurnFailed("forbidden", "Not now.")
            case "no JSON":
                return object()
            case "wait":
                await asyncio.Event().wait()
        return {"heard": feedback.data}

    async def on_update(self, update: Update) -> None:
        self.told.set()
        if update.data == "fail":
            raise ZeroDivisionError
        self.updates.append(update)


@pytest.fixture
async def planner(door: Any, serving: Served) -> tuple[Planner, Any]:
    """A worker that serves, and its link."""
    planner = Planner()
    serving(planner, door.url)
    return planner, await door.greet()


async def say(visit: Any, kind: str, data: Any, frame_id: str = "u1", sender: Any = None) -> None:
    about = {"id": frame_id, "projectGuid": "p1", "from": sender}
    await visit.socket.send(json.dumps({"type": kind, **about, "data": data}))


async def test_feedback_is_answered_under_its_id(planner: Any) -> None:
    worker, visit = planner
    await say(visit, "user_feedback", {"like": 1}, sender={"connection_id": "c1", "user": "ann"})
    answer = await visit.frame()
    assert {key: answer[key] for key in ("type", "id", "projectGuid", "data")} == {
        "type": "user_feedback_response",
        "id": "u1",
        "projectGuid": "p1",
        "data": {"heard": {"like": 1}},
    }
    assert worker.feedbacks == [Feedback("p1", "u1", "ann", {"like": 1})]


@pytest.mark.parametrize(
    ("data", "code"), [("fail", "agent_unavailable"), ("refuse", "forbidden"), ("no JSON", "agent_unavailable")]
)
async def test_an_error_is_an_answer(planner: Any, data: str, code: str) -> None:
    _, visit = planner
    await say(visit, "user_feedback", data)
    error = await visit.frame()
    assert (error["type"], error["projectGuid"]) == ("error", "p1")
    assert (error["data"]["refers_to"], error["data"]["code"]) == ("u1", code)


async def test_a_worker_that_answers_no_feedback_says_so(linked: Callable[..., Awaitable[Any]]) -> None:
    async def answer(turn: Any) -> None: ...

    visit = await linked(answer)
    await say(visit, "user_feedback", 1)
    error = await visit.next("error")
    assert (error["code"], error["message"]) == ("agent_unavailable", "This agent answers no feedback.")


async def test_slow_feedback_holds_up_nothing(planner: Any) -> None:
    _, visit = planner
    await say(visit, "user_feedback", "wait")
    await say(visit, "user_feedback", "quick", "u2")
    assert (await visit.frame())["id"] == "u2"


async def test_updates_come_in_their_order_and_one_that_fails_does_not_keep_back_the_next(planner: Any) -> None:
    worker, visit = planner
    ann = {"connection_id": "c1", "user": "ann"}
    published = {"event": "project_stage_update", "seq": 3, "from": ann}
    await say(visit, "project_update", {**published, "data": "fail"})
    await say(visit, "project_update", {**published, "data": 1})
    await say(visit, "project_status_sync", {"event": "project_status_change", "from": None, "data": 2})
    await say(visit, "user_feedback", "barrier")
    await visit.frame()
    assert worker.updates == [
        Update("p1", "project_stage_update", 3, "ann", 1),
        Update("p1", "project_status_change", None, None, 2),
    ]
    assert [update.is_status for update in worker.updates] == [False, True]


async def test_a_worker_publishes(planner: Any) -> None:
    worker, visit = planner
    await worker.publish("p1", "agent_message", {"text": "on it"})
    frame = await visit.frame()
    assert (frame["type"], frame["projectGuid"], frame["data"]) == ("agent_message", "p1", {"text": "on it"})
    with pytest.raises(ValueError, match="no event 'news'"):
        await worker.publish("p1", "news", 1)
    with pytest.raises(TypeError):
        await worker.publish("p1", "agent_message", object())


async def test_what_is_published_while_there_is_no_link_leaves_with_the_next(planner: Any, door: Any) -> None:
    worker, visit = planner
    door.refusal = HTTPStatus.SERVICE_UNAVAILABLE
    visit.drop()
    await until(lambda: len(door.handshakes) > 1)
    await worker.publish("p1", "agent_message", 1)
    door.refusal = None
    again = await door.visit()
    await again.next("hello")
    await again.send("welcome", agent="planner", heartbeat=30)
    assert (await again.frame())["data"] == 1


async def test_a_worker_that_does_not_serve_publishes_nothing() -> None:
    with pytest.raises(RuntimeError):
        await Planner().publish("p1", "agent_message", 1)


async def test_who_publishes_much_waits_for_room() -> None:
    projects = Projects(Planner().on_feedback, Planner().on_update, lambda: None)
    publishing = asyncio.ensure_future(_publish(projects, 101))
    await asyncio.wait({publishing}, timeout=0.01)
    assert not publishing.done()
    assert len(list(projects.unsent())) == 100
    await publishing
    assert len(list(projects.unsent())) == 1


async def _publish(projects: Projects, times: int) -> None:
    for number in range(times):
        await projects.publish("p1", "agent_message", number)


async def test_a_worker_that_is_behind_misses_the_oldest_updates() -> None:
    worker = Planner()
    projects = Projects(worker.on_feedback, worker.on_update, lambda: None)
    for number in range(1002):
        projects.hear(ProjectUpdate("p1", "project_message", number, None, number))
    await worker.told.wait()
    await projects.close()
    assert worker.updates[0].data == 2
