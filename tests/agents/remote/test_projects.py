"""Projects, as the agents of a pool hear of them and speak in them (seed 002; PROTOCOL section 4)."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from broker.agents.bounds import RECORD_LIMIT
from broker.agents.port import AgentSaid, News, Taken, UserFeedback
from broker.agents.remote.member import ERRORS_PER_MINUTE
from broker.agents.remote.projects import OPEN, OVER, REPORTS
from broker.client import Worker
from broker.config import load
from broker.errors import BrokerError

PAGE = Path(__file__).parents[3] / "docs" / "projects.md"
AT = 1_700_000_000_000
DEEP = "[" * 65 + "]" * 65
ANN = b'{"connection_id":"c1","user":"ann"}'


@attrs.define
class Broker:
    """The broker's end of a pool's projects, and all that it hears."""

    said: list[AgentSaid] = attrs.Factory(list)
    takens: list[Taken] = attrs.Factory(list)
    arrivals: int = 0
    answers: list[bytes | BrokerError] = attrs.Factory(list)
    link: Any = None

    def say(self, said: AgentSaid, taken: Taken) -> None:
        self.said.append(said)
        self.takens.append(taken)

    def arrived(self) -> None:
        self.arrivals += 1

    def ask(self, project: str = "p1", feedback_id: str = "u1", data: bytes = b'{"like" : 1.50}') -> UserFeedback:
        feedback = UserFeedback(project, feedback_id, ANN, data, AT)
        self.link.ask(feedback, self.answers.append)
        return feedback

    def refused(self) -> tuple[str, bool]:
        """Return the code of the one error that was answered, and whether to try again."""
        (error,) = self.answers
        assert isinstance(error, BrokerError)
        return error.code, error.retryable


@pytest.fixture
def broker(floor: Any) -> Broker:
    broker = Broker()
    broker.link = floor.pool.open_projects(broker.say, broker.arrived)
    return broker


def news(project: str = "p1", event: str = "project_stage_update", seq: int | None = 7) -> News:
    return News(project, event, seq, ANN, b'{"stage":"build"}', AT)


# -- what agents are told --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("project_stage_update", "project_update"),
        ("project_message", "project_update"),
        ("project_status_change", "project_status_sync"),
    ],
)
def test_an_event_is_told_in_the_envelope_of_the_design(floor: Any, broker: Broker, event: str, kind: str) -> None:
    far = floor.agent()
    far.told.clear()
    broker.link.tell(news(event=event))
    assert far.told == [
        {
            "type": kind,
            "id": "p1:7",
            "projectGuid": "p1",
            "data": {"event": event, "seq": 7, "from": json.loads(ANN), "data": {"stage": "build"}},
            "timestamp": "2023-11-14T22:13:20.000Z",
        }
    ]


def test_an_event_of_a_room_without_a_log_has_no_number(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    far.told.clear()
    broker.link.tell(news(seq=None))
    (frame,) = far.told
    assert "seq" not in frame["data"]
    assert frame["id"]


def test_without_an_agent_news_are_lost_and_whoever_comes_is_told_how_things_stand(floor: Any, broker: Broker) -> None:
    broker.link.tell(news())
    far = floor.agent()
    assert (far.heard(), broker.arrivals) == ([], 1)


def test_an_agent_that_does_not_read_misses_updates_and_is_told_the_last_statuses_as_soon_as_it_does(
    floor: Any, broker: Broker
) -> None:
    far = floor.agent()
    far.told.clear()
    far.full = True
    for seq, project in enumerate(("p1", "p2", "p1"), 1):
        broker.link.tell(news(project, "project_status_change", seq))
        broker.link.tell(news(project))
    assert far.told == []
    far.full = False
    far.on_room()
    assert [(frame["type"], frame["id"]) for frame in far.told] == [
        ("project_status_sync", "p1:3"),
        ("project_status_sync", "p2:2"),
    ]
    far.on_room()
    broker.link.tell(news())
    assert (len(far.told), broker.arrivals) == (3, 1)


def test_a_status_that_was_missed_is_told_before_what_comes_next(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    far.told.clear()
    far.full = True
    broker.link.tell(news(event="project_status_change", seq=1))
    far.full = False
    broker.link.tell(news(event="project_status_change", seq=2))
    far.on_room()
    assert [frame["id"] for frame in far.told] == ["p1:1", "p1:2"]


def test_as_many_statuses_as_an_agent_takes_are_told_at_a_time(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    frames: list[str] = []

    def send(frame: bytes) -> None:
        frames.append(json.loads(frame)["projectGuid"])
        far.full = len(frames) % 2 == 0

    far.send = send
    for number in range(5):
        broker.link.tell(news(f"p{number}", "project_status_change"))
    for told in (2, 4, 5):
        assert len(frames) == told
        far.full = False
        far.on_room()
    assert sorted(frames) == [f"p{number}" for number in range(5)]


def test_each_project_has_one_of_several_agents_always_the_same(floor: Any, broker: Broker) -> None:
    fars = [floor.agent(instance=f"i{number}") for number in range(4)]
    for far in fars:
        far.told.clear()
    for _ in range(2):
        for number in range(200):
            broker.link.tell(news(f"p{number}"))
    shares = [{frame["projectGuid"] for frame in far.told} for far in fars]
    assert sum(map(len, shares)) == 200
    assert all(20 < len(share) < 80 for share in shares)


def test_who_leaves_leaves_its_projects_to_the_others_alone(floor: Any, broker: Broker) -> None:
    fars = [floor.agent(instance=f"i{number}") for number in range(3)]
    projects = [f"p{number}" for number in range(60)]

    def shares() -> list[set[str]]:
        for far in fars:
            far.told.clear()
        for project in projects:
            broker.link.tell(news(project))
        return [{frame["projectGuid"] for frame in far.told} for far in fars]

    before = shares()
    arrivals = broker.arrivals
    floor.drop(fars[0])
    after = shares()
    assert after[0] == set()
    assert after[1] >= before[1]
    assert after[2] >= before[2]
    assert broker.arrivals == arrivals + 1  # what they have now is told again


def test_an_agent_that_is_about_to_leave_gets_no_projects(floor: Any, broker: Broker) -> None:
    old, new = floor.agent(instance="old"), floor.agent(instance="new")
    arrivals = broker.arrivals
    old.say("drain")
    assert broker.arrivals == arrivals + 1  # whoever has its projects now is told how they stand
    old.told.clear()
    for number in range(20):
        broker.link.tell(news(f"p{number}"))
    assert (len(old.heard()), len(new.heard())) == (0, 20)


# -- feedback --------------------------------------------------------------------------------------------


def test_feedback_goes_to_the_agent_byte_for_byte_with_its_id(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    frames: list[bytes] = []
    far.send = frames.append
    broker.ask()
    (frame,) = frames
    assert b'"data":{"like" : 1.50}' in frame
    assert {key: value for key, value in json.loads(frame).items() if key != "data"} == {
        "type": "user_feedback",
        "id": "u1",
        "projectGuid": "p1",
        "from": json.loads(ANN),
        "timestamp": "2023-11-14T22:13:20.000Z",
    }


@pytest.mark.parametrize(
    ("frame_id", "data"),
    [
        ("u1", '{"ok" : true}'),
        ("u1", '"any JSON"'),
        ("m77", '{"feedback_id":"u1", "ok":true}'),
        (None, '{"id":"u1"}'),
        ({"any": ["thing"]}, '{"id":"u1"}'),
    ],
)
def test_an_answer_is_known_by_any_of_the_names_that_an_agents_server_would_use(
    floor: Any, broker: Broker, frame_id: Any, data: str
) -> None:
    far = floor.agent()
    broker.ask()
    far.heard()
    far.says("user_feedback_response", "p1", data, frame_id)
    assert (broker.answers, far.heard()) == ([data.encode()], [])


def test_an_answer_that_quotes_what_a_user_wrote_answers_that_user_alone(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    heard: dict[str, list[Any]] = {"u1": [], "u2": []}
    for name, answers in heard.items():
        broker.link.ask(UserFeedback("p1", name, ANN, b"1", AT), answers.append)
    quoting = '{"feedback_id":"u1","id":"u1"}'
    far.heard()
    far.says("user_feedback_response", "p1", quoting, "u2")
    assert heard == {"u1": [], "u2": [quoting.encode()]}
    far.says("user_feedback_response", "p1", quoting, "u2")  # it is over, and still means no other
    assert (far.refused(), heard["u1"]) == ("not_found", [])
    broker.link.ask(UserFeedback("p1", "u2", ANN, b"1", AT), heard["u2"].append)  # the name is used again
    far.says("user_feedback_response", "p1", quoting, "u2")
    assert (heard["u1"], len(heard["u2"])) == ([], 2)


def test_only_so_many_answers_are_known_to_be_late(floor: Any, broker: Broker) -> None:
    floor.agent()
    for number in range(OVER + 1):
        broker.ask(feedback_id=str(number))
        broker.link.forget("p1", str(number))
    assert len(broker.link._over) == OVER


@pytest.mark.parametrize(("project", "frame_id"), [("p2", "u1"), ("p1", "u2"), ("p1", None), ("p1", "u" * 5000)])
def test_an_answer_to_nothing_is_refused_and_no_offence(
    floor: Any, broker: Broker, project: str, frame_id: str | None
) -> None:
    far = floor.agent()
    broker.ask()
    far.heard()
    for _ in range(ERRORS_PER_MINUTE + 1):
        far.says("user_feedback_response", project, "{}", frame_id)
    assert {data["code"] for _, data in far.heard()} == {"not_found"}
    assert (broker.answers, far.closed) == ([], None)


def test_an_answer_counts_once_and_only_from_the_agent_that_was_asked(floor: Any, broker: Broker) -> None:
    one, two = floor.agent(instance="one"), floor.agent(instance="two")
    broker.ask()
    asked, other = (one, two) if one.heard() else (two, one)
    asked.told.clear()
    other.told.clear()
    other.says("user_feedback_response", "p1", "{}", "u1")
    assert (other.refused(), broker.answers) == ("not_found", [])
    asked.says("user_feedback_response", "p1", "{}", "u1")
    asked.says("user_feedback_response", "p1", "{}", "u1")
    assert (asked.refused(), broker.answers) == ("not_found", [b"{}"])


@pytest.mark.parametrize(("code", "told"), [("forbidden", "forbidden"), ("tired", "agent_unavailable")])
def test_an_agent_may_refuse_feedback(floor: Any, broker: Broker, code: str, told: str) -> None:
    far = floor.agent()
    broker.ask()
    far.heard()
    error = {"refers_to": "u1", "code": code, "message": "Not now."}
    far.says("error", "p2", json.dumps(error))
    assert broker.answers == []
    far.says("error", "p1", json.dumps(error))
    ((answer),) = broker.answers
    assert isinstance(answer, BrokerError)
    assert (answer.code, answer.message, far.heard()) == (told, "Not now.", [])


@pytest.mark.parametrize("data", ["{}", "[]", '{"refers_to":5}', '{"refers_to":"u2"}'])
def test_other_errors_of_an_agent_are_passed_over_without_a_word(floor: Any, broker: Broker, data: str) -> None:
    far = floor.agent()
    broker.ask()
    far.heard()
    far.says("error", "p1", data)
    far.says("error", None, data)
    assert (broker.answers, far.heard()) == ([], [])


def test_feedback_that_nobody_waits_for_any_more_is_not_answered(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    feedback = broker.ask()
    broker.link.forget(feedback.project, feedback.feedback_id)
    far.heard()
    far.says("user_feedback_response", "p1", "{}", "u1")
    assert (far.refused(), broker.answers) == ("not_found", [])


def test_without_an_agent_feedback_is_refused_at_once(floor: Any, broker: Broker) -> None:
    broker.ask()
    assert broker.refused() == ("agent_unavailable", True)


def test_feedback_whose_agent_goes_is_refused_then(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    broker.ask()
    floor.drop(far)
    assert broker.refused() == ("agent_unavailable", True)


def test_an_agent_that_does_not_read_gets_no_feedback(floor: Any, broker: Broker) -> None:
    floor.agent().full = True
    broker.ask()
    assert broker.refused() == ("overloaded", True)


def test_only_so_much_feedback_is_open(floor: Any, broker: Broker) -> None:
    floor.agent()
    for number in range(OPEN):
        broker.ask(feedback_id=str(number))
    assert broker.answers == []
    broker.ask()
    assert broker.refused() == ("overloaded", True)


# -- what agents say -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["agent_message", "project_stage_update", "project_status_change", "project_message"])
def test_an_agent_publishes_byte_for_byte(floor: Any, broker: Broker, kind: str) -> None:
    far = floor.agent()
    far.heard()
    far.says(kind, "p1", '{"a" : [1.50]}')
    assert (broker.said, far.heard()) == ([AgentSaid("p1", kind, b'{"a" : [1.50]}')], [])


@pytest.mark.parametrize("project", [None, "", 5, "p" * 248, "p\n", {"a": 1}])
def test_a_frame_without_a_project_is_refused_and_its_agent_told(floor: Any, broker: Broker, project: Any) -> None:
    far = floor.agent()
    far.heard()
    far.says("agent_message", project)
    ((kind, data),) = far.heard()
    assert (kind, data["code"], data["field"], data["refers_to"]) == ("error", "invalid_message", "$.projectGuid", "f1")
    assert broker.said == []


def test_more_than_an_event_may_be_is_refused(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    far.heard()
    far.says("agent_message", "p1", json.dumps("x" * (RECORD_LIMIT - 2)))
    assert far.heard() == []
    far.says("agent_message", "p1", json.dumps("x" * (RECORD_LIMIT - 1)))
    assert (far.refused(), len(broker.said)) == ("too_large", 1)


@pytest.mark.parametrize(
    ("data", "code"), [(DEEP, "invalid_message"), ('"\\ud800"', "invalid_json"), ("1e400", "invalid_message")]
)
def test_what_no_client_could_read_is_refused(floor: Any, broker: Broker, data: str, code: str) -> None:
    far = floor.agent()
    far.heard()
    far.says("agent_message", "p1", data)
    assert (far.refused(), broker.said) == (code, [])


def test_depth_is_looked_at_in_a_frame_that_is_large_for_other_reasons(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    far.heard()
    far.says("agent_message", "p1", DEEP, "x" * RECORD_LIMIT)
    assert (far.refused(), broker.said) == ("invalid_message", [])


def test_what_could_not_be_published_is_told_to_the_agent(floor: Any, broker: Broker) -> None:
    far = floor.agent()
    far.heard()
    far.says("agent_message", "p1")
    broker.takens[0](BrokerError("overloaded"))
    assert far.refused() == "overloaded"


def test_an_agent_that_floods_is_read_no_faster_than_the_log_takes_it(floor: Any, broker: Broker) -> None:
    far, other = floor.agent(instance="one"), floor.agent(instance="two")
    for _ in range(REPORTS - 1):
        far.says("agent_message", "p1")
    assert not far.paused
    far.says("agent_message", "p1")
    assert (far.paused, other.paused) == (True, False)
    broker.takens[0](None)
    assert not far.paused


def test_a_turn_whose_session_is_behind_keeps_the_agent_waiting_beside_that(floor: Any, broker: Broker) -> None:
    far, session = floor.started()
    session.line.pause()
    far.says("agent_message", "p1")
    broker.takens[0](None)
    assert far.paused
    session.line.resume()
    assert not far.paused


def test_an_agent_of_a_profile_that_serves_no_projects_is_told_so_and_goes_on(floor: Any) -> None:
    far = floor.agent()
    far.heard()
    for _ in range(ERRORS_PER_MINUTE + 1):
        far.says("agent_message", "p1")
    assert {data["code"] for _, data in far.heard()} == {"forbidden"}
    assert far.closed is None


# -- docs/projects.md ------------------------------------------------------------------------------------


def on_the_page(language: str) -> list[str]:
    """Return what stands on the page in this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def documents(text: str) -> list[Any]:
    """Return the JSON documents that follow each other in a text."""
    found: list[Any] = []
    while text := text.strip():
        value, end = json.JSONDecoder().raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def test_the_settings_on_the_page_are_right(tmp_path: Path) -> None:
    (text,) = on_the_page("yaml")
    (tmp_path / "config.yaml").write_text(text)
    assert load(tmp_path / "config.yaml", {}, {}).settings.projects.agent == "planner"


def test_the_frames_on_the_page_are_those_that_are_said(floor: Any, broker: Broker) -> None:
    _, told, said = map(documents, on_the_page("json"))
    far = floor.agent()
    far.told.clear()
    update, feedback = told
    at = round(datetime.fromisoformat(update["timestamp"]).timestamp() * 1000)
    event, ann = update["data"], json.dumps(feedback["from"]).encode()
    data = [json.dumps(one["data"]).encode() for one in (event, feedback)]
    broker.link.tell(News("p1", event["event"], event["seq"], json.dumps(event["from"]).encode(), data[0], at))
    broker.link.ask(UserFeedback("p1", "f1", ann, data[1], at + 3000), broker.answers.append)
    assert far.told == told
    far.told.clear()
    for frame in said:
        far.member.feed(json.dumps(frame).encode())
    assert (far.told, broker.answers) == ([], [b'{"thanks": true}'])
    assert [(one.event, json.loads(one.data)) for one in broker.said] == [(said[0]["type"], said[0]["data"])]


def test_the_worker_on_the_page_is_one() -> None:
    (text,) = on_the_page("python")
    names: dict[str, Any] = {}
    exec(text.rpartition("\n\n\n")[0], names)  # the rest would serve for ever
    assert issubclass(names["Planner"], Worker)
    assert {"on_feedback", "on_update"} <= vars(names["Planner"]).keys()
