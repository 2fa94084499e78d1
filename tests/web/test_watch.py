"""Which requests of a connection are remembered until they are answered, and what plugins are told of them."""

from typing import Any

import pytest

from broker.errors import BrokerError
from broker.extensions.dispatch import Hooks
from broker.hooks import Answered, Peer, Plugin
from broker.messages import Principal
from broker.protocol.outgoing import Failure, Request, Response, Welcome
from broker.web.watch import UNDER_WAY, Watch

PEER = Peer("c1", Principal("ann"), "127.0.0.1", "broker.v1.json")


class Ear(Plugin):
    """Hears what becomes of requests."""

    name = "ear"

    def answered(self, answer: Answered) -> None:
        """Keep it."""
        heard.append(answer)


heard: list[Answered] = []


@pytest.fixture
def watch() -> Watch:
    heard.clear()
    return Watch(Hooks([Ear(None, None)]))  # type: ignore[arg-type]


def ask(watch: Watch, action: str, request_id: Any, **more: Any) -> Request:
    request = Request(action, b"", request_id, text=b"12345", **more)
    watch.asked(request)
    return request


def test_an_answer_is_told_with_what_it_answers(watch: Watch) -> None:
    request = ask(watch, "turn.start", "r1", kind="user_feedback")
    watch.told(PEER, Response(request.id, b"{}"))
    (answer,) = heard
    assert (answer.peer, answer.action, answer.kind, answer.id) == (PEER, "turn.start", "user_feedback", "r1")
    assert (answer.size, answer.error, answer.seconds >= 0) == (5, None, True)


def test_it_is_told_once_and_what_answers_nothing_is_not(watch: Watch) -> None:
    request = ask(watch, "echo", "r1")
    watch.told(PEER, Welcome("c1", None, "broker.v1.json", "", "", 30.0, 1))
    for _ in range(2):
        watch.told(PEER, Response(request.id, b"{}"))
    assert len(heard) == 1


def test_a_refusal_is_told_also_of_what_had_no_id(watch: Watch) -> None:
    ask(watch, "echo", None)
    error = BrokerError("invalid_json")
    watch.told(PEER, Failure(None, error))
    assert [(answer.action, answer.error) for answer in heard] == [("", error)]


def test_ids_may_be_anything_that_a_format_makes_of_them(watch: Watch) -> None:
    one, other = ask(watch, "one", ["not", "hashable"]), ask(watch, "other", ["not", "hashable"])
    watch.told(PEER, Response(other.id, b""))
    watch.told(PEER, Response(one.id, b""))
    assert [answer.action for answer in heard] == ["other", "one"]


def test_requests_that_are_never_answered_are_forgotten(watch: Watch) -> None:
    requests = [ask(watch, str(number), f"r{number}") for number in range(UNDER_WAY + 10)]
    assert len(watch._asked) == UNDER_WAY
    watch.told(PEER, Response(requests[9].id, b""))
    watch.told(PEER, Response(requests[10].id, b""))
    assert [answer.action for answer in heard] == ["10"]


class Id:
    """What a format makes of a client's id: one object for each step, whose `str` is that id."""

    def __init__(self, own: str) -> None:
        self.own = own

    def __str__(self) -> str:
        return self.own


def test_a_message_that_waits_has_one_answer_with_the_time_from_its_coming(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("broker.web.watch.monotonic", lambda: now)
    held = ask(watch, "turn.start", Id("m1"), kind="user", held=True)
    watch.told(PEER, Response(held.id, b"{}"))
    now = 107.0
    opening, said = Request("session.open", b"", Id("m1")), Request("turn.start", b"", Id("m1"))
    for errand in (opening, said):
        watch.asked(errand, derived=True)
        watch.told(PEER, Response(errand.id, b"{}"))
    (answer,) = heard
    assert (answer.action, answer.kind, str(answer.id), answer.size) == ("turn.start", "user", "m1", 5)
    assert answer.seconds == 7.0
    assert not watch._waiting


def test_what_a_format_asks_for_by_itself_is_told_of_if_it_is_refused(watch: Watch) -> None:
    error = BrokerError("not_found")
    for value in (Response, Failure):
        errand = Request("session.open", b"", Id("m1"))
        watch.asked(errand, derived=True)
        watch.told(PEER, value(errand.id, b"{}" if value is Response else error))  # type: ignore[arg-type]
    assert [(answer.action, answer.error) for answer in heard] == [("session.open", error)]


def test_a_message_that_is_refused_while_it_waits_is_told_of(watch: Watch) -> None:
    held = ask(watch, "turn.start", Id("m1"), held=True)
    watch.told(PEER, Failure(held.id, BrokerError("forbidden")))
    assert [(answer.action, answer.error and answer.error.code) for answer in heard] == [("turn.start", "forbidden")]


def test_what_waits_and_is_never_asked_for_is_forgotten(watch: Watch) -> None:
    for number in range(UNDER_WAY + 10):
        watch.told(PEER, Response(ask(watch, "turn.start", Id(str(number)), held=True).id, b"{}"))
    assert len(watch._waiting) == UNDER_WAY
