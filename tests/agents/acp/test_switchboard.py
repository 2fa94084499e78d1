"""Many sessions over one line: who hears what, and what waits for whom."""

import json
from typing import Any

import msgspec
import pytest

from broker.agents.acp.switchboard import EARLY_LIMIT, Switchboard


class Guest:
    """Somebody with a session, and what he heard."""

    def __init__(self, *keys: str) -> None:
        self.heard: list[str] = []
        self.questions: list[str] = []
        self.keys = set(keys)

    def told(self, method: str, params: msgspec.Raw) -> None:
        self.heard.append(f"{method} {msgspec.json.decode(params)}")

    def asked(self, key: str, method: str, params: msgspec.Raw) -> None:
        self.questions.append(key)

    def withdrawn(self, key: str) -> bool:
        return key in self.keys and not self.keys.remove(key)


class Line:
    """A switchboard whose agent has been greeted."""

    def __init__(self, **capabilities: object) -> None:
        self.written: list[dict[str, Any]] = []
        self.board = Switchboard(1, up=lambda: None, down=print)
        self.board.begin(lambda line: self.written.append(json.loads(line)))
        self.says(id=1, result={"protocolVersion": 1, "agentCapabilities": {"sessionCapabilities": capabilities}})
        self.written.clear()

    def says(self, **frame: object) -> None:
        self.board.feed(json.dumps(frame).encode())

    def updates(self, session_id: str | None, update: object, method: str = "session/update") -> None:
        named = {} if session_id is None else {"sessionId": session_id}
        self.says(method=method, params={**named, "update": update})


@pytest.fixture
def line() -> Line:
    return Line()


def test_each_session_hears_its_own_and_nobody_what_is_anybody_elses(line: Line):
    one, two = Guest(), Guest()
    line.board.place("a1", one)
    line.board.place("a2", two)
    for session_id in ("a1", "a2", "a3", None):
        line.updates(session_id, session_id)
    assert (one.heard, two.heard) == (["session/update a1"], ["session/update a2"])


def test_a_question_taken_back_under_a_name_that_is_no_text_is_passed_over(line: Line):
    one = Guest()
    line.board.place("a1", one)
    line.board.feed(b'{"method":"$/cancel_request","params":{"requestId":"\xff"}}')
    line.updates("a1", "on we go")
    assert one.heard == ["session/update on we go"]


def test_what_names_no_session_is_for_the_only_one_there_is(line: Line):
    one = Guest()
    line.board.place("a1", one)
    line.updates(None, "x")
    assert one.heard == ["session/update x"]


def test_what_is_said_of_a_session_that_is_being_opened_waits_for_it_in_order(line: Line):
    one, two = Guest(), Guest()
    line.board.expect()
    line.board.expect()
    for number in range(3):
        line.updates("a1", number)
    line.updates("a2", "mine")
    line.updates(None, "anybody", method="_auth/status")
    line.board.place("a1", one)
    line.board.expected()
    line.board.place("a2", two)
    assert one.heard == [f"session/update {number}" for number in range(3)] + ["_auth/status {'update': 'anybody'}"]
    assert two.heard == ["session/update mine"]


def test_it_waits_no_longer_than_for_the_last_that_is_being_opened(line: Line):
    one = Guest()
    line.updates("a1", "before")
    line.board.expect()
    line.updates("a1", "meanwhile")
    line.board.expected()
    line.board.place("a1", one)
    assert one.heard == []


@pytest.mark.parametrize("size", [1, 300_000])
def test_what_waits_is_bounded(line: Line, size: int):
    one = Guest()
    line.board.expect()
    for _ in range(EARLY_LIMIT + 5):
        line.updates("a1", "x" * size)
    line.board.place("a1", one)
    assert len(one.heard) == (EARLY_LIMIT if size == 1 else 3)


def test_an_early_word_that_makes_no_sense_costs_the_others_nothing(line: Line):
    class Picky(Guest):
        def told(self, method: str, params: msgspec.Raw) -> None:
            super().told(method, params)
            if len(self.heard) == 1:
                raise ValueError("no sense")

    one = Picky()
    line.board.expect()
    line.updates("a1", 1)
    line.updates("a1", 2)
    line.board.place("a1", one)
    assert one.heard == ["session/update 1", "session/update 2"]


def test_a_question_goes_to_its_session_and_is_cancelled_where_there_is_none(line: Line):
    one = Guest()
    line.board.place("a1", one)
    line.board.place("a2", Guest())
    for number, session_id in enumerate(("a1", "a9")):
        line.says(id=number, method="session/request_permission", params={"sessionId": session_id})
    assert one.questions == ["0"]
    assert [(frame["id"], frame["result"]) for frame in line.written] == [(1, {"outcome": {"outcome": "cancelled"}})]


def test_a_question_is_taken_back_from_whoever_has_it(line: Line):
    one, two = Guest(), Guest('"q"')
    line.board.place("a1", one)
    line.board.place("a2", two)
    line.says(method="$/cancel_request", params={"requestId": "q"})
    line.says(method="$/cancel_request", params={})
    assert two.keys == set()


@pytest.mark.parametrize(
    ("closes", "at_work", "refused", "abandoned"),
    [(False, False, False, False), (False, True, False, True), (True, True, False, False), (True, True, True, True)],
)
def test_a_session_given_up_at_work_is_never_taken_up_again_unless_it_was_closed(
    closes: bool, at_work: bool, refused: bool, abandoned: bool
):
    line = Line(**({"close": {}} if closes else {}))
    line.board.place("a1", Guest())
    line.board.dismiss("a1", at_work=at_work)
    assert [frame["method"] for frame in line.written] == (["session/close"] if closes else [])
    if refused:
        line.says(id=line.written[0]["id"], error={"code": -32601, "message": "no"})
    assert line.board.abandoned("a1") is abandoned


def test_a_session_that_somebody_has_is_not_taken_from_him(line: Line):
    line.board.place("a1", Guest())
    assert line.board.abandoned("a1")
    line.board.displace("a1")
    assert not line.board.abandoned("a1")


def test_after_the_end_nothing_is_said_or_heard(line: Line):
    one = Guest()
    line.board.place("a1", one)
    heard = line.board.heard
    line.board.end()
    line.updates("a1", "x")
    line.board.call("session/new", {}, print)
    line.board.notify("session/cancel", {})
    line.board.answer("0", {})
    line.board.refuse("0", -1, "no")
    assert (one.heard, line.written, line.board.heard) == ([], [], heard)
