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
