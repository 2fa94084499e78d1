"""`envelope.v1.json`: each text comes to one end, in time, and what was said before can be told again."""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError
from broker.messages import Record
from broker.protocol.dialect import Later, Reaction
from broker.protocol.envelope import EnvelopeFormat
from broker.protocol.envelope.cancels import MOST as CANCELS
from broker.protocol.envelope.dialect import EnvelopeDialect
from broker.protocol.envelope.openings import MOST as OPENING
from broker.protocol.envelope.sessions import WAITING
from broker.protocol.envelope.texts import MOST, TICKS
from broker.protocol.outgoing import (
    Broadcast,
    CaughtUp,
    Direct,
    Due,
    Entered,
    Failure,
    Request,
    Response,
    Restarting,
    RoomEvent,
    RoomLeft,
    SessionDetached,
    SessionRecord,
    SessionReset,
    Welcome,
)
from broker.protocol.refusals import TRIES

AT = 1_700_000_000_123
PONG = b'{"at":"2026-11-21T09:44:32.123Z"}'
Message = dict[str, Any]


def make() -> EnvelopeDialect:
    return EnvelopeFormat(8.0, lambda: AT).dialect({})


class Talk:
    """A dialect, with the broker's side of the talk played by the test."""

    def __init__(self) -> None:
        self.dialect = make()
        self.asked: list[Request] = []
        self.later: list[Later] = []
        self.seq = 0
        self.take(self.dialect.tell(Entered()))

    def take(self, reactions: Iterable[Reaction]) -> list[Message]:
        """Sort what a dialect wants; return what it says."""
        said = []
        for reaction in reactions:
            match reaction:
                case bytes():
                    said.append(json.loads(reaction))
                case Request():
                    self.asked.append(reaction)
                case Later():
                    self.later.append(reaction)
        return said

    def say(self, **message: Any) -> Request:
        """Have the client say something; return what is asked for with it."""
        request = self.dialect.decode(json.dumps(message).encode())
        self.asked.append(request)
        return request

    def text(self, text_id: str, words: str = "hi", session: str = "s", **more: Any) -> Request:
        """Have the client say a text that the gates let pass; return what offers it to a handler."""
        held = self.say(type="text", id=text_id, sessionId=session, content={"text": words}, **more)
        assert (held.action, held.kind, held.held) == ("turn.start", "text", True)
        self.take(self.dialect.tell(Response(self.asked.pop().id, b"{}")))
        assert self.asked[-1].text
        return self.asked[-1]

    def next(self, action: str) -> Request:
        """Return what was asked for first."""
        request = self.asked.pop(0)
        assert request.action == action, request
        return request

    def done(self, action: str, **data: Any) -> list[Message]:
        """Answer what was asked for first; return what is said then."""
        request = self.next(action)
        return self.take(self.dialect.tell(Response(request.id, PONG if action == "ping" else encoded(data))))

    def refused(self, action: str, code: str, **error: Any) -> list[Message]:
        request = self.next(action)
        return self.take(self.dialect.tell(Failure(request.id, BrokerError(code, **error))))

    def opened(self, *, head: int = 0, floor: int = 1, recovered: bool = True, **view: Any) -> list[Message]:
        """Answer `session.open`."""
        payload = json.loads(self.asked[0].payload)
        known = {"session_id": payload["session_id"], "epoch": "e", "head": head, "floor": floor, "state": "open"}
        rest: Message = {"turn": None, "queue": [], "approvals": [], "variables": {}, "recovered": recovered}
        return self.done("session.open", **{**known, **rest, **view})

    def attached(self) -> list[Message]:
        return self.done("session.attach", session_id="s", epoch="e", head=9)

    def accepted(self, turn_id: str, seq: int, status: str = "running", *, duplicate: bool = False) -> list[Message]:
        """Answer `turn.start`."""
        known = {"turn_id": turn_id, "seq": seq, "status": status, "duplicate": duplicate, "durable": True}
        return self.done("turn.start", **known)

    def record(self, seq: int, kind: str, turn_id: str | None = None, **data: Any) -> list[Message]:
        record = Record(seq, AT, kind, encoded(data), turn_id)
        return self.take(self.dialect.tell(SessionRecord("s", record)))

    def user_message(self, seq: int, turn_id: str, text_id: str) -> list[Message]:
        known = {"message_id": turn_id, "role": "user", "content": "hi", "client_msg_id": text_id, "author": None}
        return self.record(seq, "user.message", turn_id, **known)

    def reply(self, seq: int, turn_id: str, words: str = "yes") -> list[Message]:
        known = {"message_id": f"m{seq}", "role": "assistant", "content": words}
        return self.record(seq, "message.completed", turn_id, **known)

    def ended(self, seq: int, turn_id: str, outcome: str = "completed", **more: Any) -> list[Message]:
        return self.record(seq, "turn.ended", turn_id, outcome=outcome, partial=True, **more)

    def caught_up(self) -> list[Message]:
        return self.take(self.dialect.tell(CaughtUp("s", 9)))

    def begin(self, text_id: str = "a", turn_id: str = "t", seq: int = 1) -> None:
        """Bring a text so far that its turn runs."""
        self.text(text_id)
        self.done("ping")
        if self.asked[0].action == "session.open":
            self.opened()
        self.accepted(turn_id, seq)
        self.user_message(seq, turn_id, text_id)

    def tick(self) -> list[Message]:
        """Let the next time come that the dialect wants to be told of."""
        return self.take(self.dialect.tell(Due(self.later.pop(0).token)))


def encoded(data: Any) -> bytes:
    return json.dumps(data).encode()


def events(messages: list[Message]) -> list[str]:
    return [message["content"].get("event", message["type"]) for message in messages]


def finals(messages: list[Message]) -> list[str]:
    return [message["metadata"]["replyTo"] for message in messages if message["metadata"].get("final")]


def code_of(messages: list[Message]) -> str:
    (message,) = messages
    assert message["content"]["event"] == "error"
    return str(message["content"]["data"]["code"])


# -- the way of a text ---------------------------------------------------------------------------------


def test_a_text_opens_its_session_from_now_on_and_starts_a_turn_under_its_own_id() -> None:
    talk = Talk()
    request = talk.text("a")
    assert (request.kind, str(request.id)) == ("text", "a")
    assert talk.done("ping") == []
    assert json.loads(talk.asked[0].payload) == {"session_id": "s", "after_seq": -1}
    assert talk.opened(head=5) == []
    assert json.loads(talk.asked[0].payload) == {"session_id": "s", "client_msg_id": "a", "content": "hi"}
    (accepted,) = talk.accepted("t", 6)
    assert accepted["content"]["event"] == "accepted"
    assert "final" not in accepted["metadata"]
    assert talk.user_message(6, "t", "a") == []
    (reply,) = talk.reply(7, "t")
    assert (reply["content"], reply["metadata"]) == ({"text": "yes"}, {"replyTo": "a", "seq": 7, "turnId": "t"})
    (end,) = talk.ended(8, "t")
    assert finals([end]) == ["a"]


def test_a_text_in_an_open_session_waits_for_nothing() -> None:
    talk = Talk()
    talk.begin()
    talk.text("b")
    talk.done("ping")
    assert talk.asked[0].action == "turn.start"


def test_metadata_goes_on_with_the_text_and_says_what_to_do_if_the_agent_is_busy() -> None:
    talk = Talk()
    talk.text("a", metadata={"ifBusy": "interrupt", "x": 1})
    talk.done("ping")
    talk.opened()
    start = json.loads(talk.asked[0].payload)
    assert (start["if_busy"], start["metadata"]) == ("interrupt", {"ifBusy": "interrupt", "x": 1})


def test_texts_wait_for_their_session_in_order_and_it_is_opened_once() -> None:
    talk = Talk()
    for text_id in "abc":
        talk.text(text_id)
    for _ in range(3):
        request = talk.asked[0]
        talk.done("ping")
        assert request.kind == "text"
    assert [request.action for request in talk.asked] == ["session.open"]
    talk.opened()
    assert [json.loads(request.payload)["client_msg_id"] for request in talk.asked] == ["a", "b", "c"]


def test_texts_behind_an_init_wait_for_it() -> None:
    talk = Talk()
    talk.say(type="init", id="i", sessionId="s", metadata={"afterSeq": 4})
    talk.text("a")
    opening = talk.asked.pop(0)
    assert json.loads(opening.payload) == {"session_id": "s", "after_seq": 4}
    talk.done("ping")
    assert talk.asked == []
    talk.asked.append(opening)
    assert [message["type"] for message in talk.opened(head=4)] == ["init"]
    assert [request.action for request in talk.asked] == ["turn.start"]


def test_a_session_that_cannot_be_opened_is_an_error_for_all_that_waits_for_it() -> None:
    talk = Talk()
    talk.text("a")
    talk.text("b")
    talk.done("ping")
    talk.done("ping")
    messages = talk.refused("session.open", "forbidden")
    assert finals(messages) == ["a", "b"]
    talk.text("c")
    talk.done("ping")
    assert talk.asked[0].action == "session.open"


def test_a_handler_that_answers_a_text_leaves_nothing_behind() -> None:
    talk = Talk()
    request = talk.text("a")
    (answer,) = talk.take(
        talk.dialect.tell(Response(request.id, b'{"type":"response","content":{"n":1}}', handled=True))
    )
    assert (answer["type"], answer["from"], answer["content"]) == ("response", "ai", {"n": 1})
    assert finals([answer]) == ["a"]
    assert talk.asked == [request]
    assert talk.tick() == []
    assert not talk.later


def test_a_handler_that_answers_an_init_opens_nothing_and_a_text_that_waits_has_its_session_opened() -> None:
    talk = Talk()
    talk.say(type="init", id="i", sessionId="s")
    talk.text("a")
    opening = talk.asked.pop(0)
    talk.done("ping")
    (answer,) = talk.take(talk.dialect.tell(Response(opening.id, b'{"hello":1}', handled=True)))
    assert (answer["type"], answer["content"]) == ("init", {"hello": 1})
    assert [request.action for request in talk.asked] == ["session.open"]


# -- the end of it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["cancelled", "failed", "timed_out", "lost"])
def test_a_bad_end_is_an_error_also_after_a_reply(outcome: str) -> None:
    talk = Talk()
    talk.begin()
    talk.reply(2, "t")
    end = talk.ended(3, "t", outcome, reason="so it is")
    assert (code_of(end), finals(end)) == (outcome, ["a"])
    assert end[0]["content"]["data"]["reason"] == "so it is"
    assert end[0]["metadata"]["seq"] == 3


def test_an_end_without_a_reply_is_an_error() -> None:
    talk = Talk()
    talk.begin()
    assert code_of(talk.ended(2, "t")) == "empty"


def test_beyond_its_time_a_text_is_told_so_once_and_its_reply_is_late() -> None:
    talk = Talk()
    talk.begin()
    assert [later.seconds for later in talk.later] == [8.0 / TICKS]
    for _ in range(TICKS - 1):
        assert talk.tick() == []
        assert len(talk.later) == 1
    message = talk.tick()
    assert (code_of(message), finals(message)) == ("timeout", [])
    assert not talk.later
    (reply,) = talk.reply(2, "t")
    (end,) = talk.ended(3, "t")
    assert (reply["metadata"]["late"], end["metadata"]["late"], finals([end])) == (True, True, ["a"])


def test_a_text_that_nobody_has_answered_yet_is_told_so_too_and_its_end_still_comes() -> None:
    talk = Talk()
    talk.begin("a")
    talk.text("b")
    talk.done("ping")
    told = [message for _ in range(TICKS) for message in talk.tick()]
    assert [message["metadata"]["replyTo"] for message in told] == ["a", "b"]
    assert finals(talk.refused("turn.start", "unavailable")) == ["b"]


def test_a_text_that_is_sent_while_time_runs_has_no_more_than_its_time() -> None:
    talk = Talk()
    talk.begin("a")
    talk.tick()
    talk.begin("b", "u", 2)
    told = [message for _ in range(TICKS) for message in talk.tick()]
    assert [message["metadata"]["replyTo"] for message in told] == ["a", "b"]


def test_a_session_that_is_not_shown_any_more_ends_its_texts() -> None:
    talk = Talk()
    talk.begin()
    messages = talk.take(talk.dialect.tell(SessionDetached("s")))
    assert (events(messages), finals(messages)) == (["session.detached", "error"], ["a"])
    assert talk.reply(2, "t") == []


def test_a_session_that_is_gone_ends_its_texts_and_the_next_one_opens_it_anew() -> None:
    talk = Talk()
    talk.begin()
    talk.text("b")
    talk.done("ping")
    assert finals(talk.refused("turn.start", "not_found", field="$.payload.session_id")) == ["a", "b"]
    talk.text("c")
    talk.done("ping")
    assert talk.asked[0].action == "session.open"


def test_a_turn_of_a_session_that_is_not_shown_any_more_is_an_error() -> None:
    talk = Talk()
    talk.begin("a")
    talk.text("b")
    talk.done("ping")
    talk.take(talk.dialect.tell(SessionDetached("s")))
    messages = talk.accepted("u", 2)
    assert (events(messages), finals(messages)) == (["accepted", "error"], ["b"])
    assert code_of(messages[1:]) == "forbidden"


def test_what_has_come_to_its_end_is_forgotten() -> None:
    talk = Talk()
    for number in range(2 * MOST):
        talk.begin(f"a{number}", f"t{number}", 3 * number + 1)
        talk.reply(3 * number + 2, f"t{number}")
        talk.ended(3 * number + 3, f"t{number}")
    assert talk.tick() == []
    assert not talk.later


# -- the same id again ---------------------------------------------------------------------------------


def test_sent_again_while_its_turn_runs_it_has_one_end() -> None:
    talk = Talk()
    talk.begin()
    talk.reply(2, "t")
    talk.text("a")
    talk.done("ping")
    (accepted,) = talk.accepted("t", 1, duplicate=True)
    assert accepted["content"]["data"]["duplicate"] is True
    assert talk.asked == []
    assert finals(talk.ended(3, "t")) == ["a"]


def test_sent_again_after_its_end_it_is_answered_from_the_log_and_nothing_else_comes_twice() -> None:
    talk = Talk()
    talk.begin()
    first = talk.reply(2, "t") + talk.ended(3, "t")
    talk.begin("b", "u", 4)
    talk.text("a")
    talk.done("ping")
    talk.accepted("t", 1, "ended", duplicate=True)
    assert json.loads(talk.asked[0].payload) == {"session_id": "s", "after_seq": 0, "epoch": "e"}
    assert talk.attached() == []
    again = talk.user_message(1, "t", "a") + talk.reply(2, "t") + talk.ended(3, "t")
    assert again == first
    assert talk.user_message(4, "u", "b") + talk.caught_up() == []
    assert len(talk.reply(5, "u")) == 1
    assert finals(talk.ended(6, "u")) == ["b"]


def test_sent_again_over_another_connection_while_its_turn_runs_nothing_of_it_is_missed_or_out_of_order() -> None:
    talk = Talk()
    talk.text("a")
    talk.done("ping")
    talk.opened(head=2, turn={"turn_id": "t", "client_msg_id": "a", "state": "running", "user": None})
    talk.accepted("t", 1, duplicate=True)
    assert talk.reply(3, "t", "second") == []
    assert talk.ended(4, "t") == []
    talk.attached()
    told = [talk.user_message(1, "t", "a"), talk.reply(2, "t", "first"), talk.reply(3, "t", "second")]
    assert [message["content"]["text"] for messages in told for message in messages] == ["first", "second"]
    assert finals(talk.ended(4, "t")) == ["a"]
    assert talk.caught_up() == []


def test_a_reply_that_is_not_kept_any_more_is_an_error() -> None:
    talk = Talk()
    talk.text("a")
    talk.done("ping")
    talk.opened(head=9, floor=8)
    talk.accepted("t", 1, "ended", duplicate=True)
    talk.attached()
    assert talk.take(talk.dialect.tell(SessionReset("s", "e", 9, 8))) == []
    assert code_of(talk.caught_up()) == "not_found"


def test_if_the_log_cannot_be_read_again_that_is_an_error() -> None:
    talk = Talk()
    talk.text("a")
    talk.done("ping")
    talk.opened(head=9)
    talk.accepted("t", 1, "ended", duplicate=True)
    message = talk.refused("session.attach", "unavailable")
    assert (code_of(message), finals(message)) == ("unavailable", ["a"])


def test_two_that_are_asked_for_anew_are_told_from_the_first_of_them_on() -> None:
    talk = Talk()
    talk.text("a")
    talk.text("b")
    talk.done("ping")
    talk.done("ping")
    talk.opened(head=6)
    talk.accepted("t", 4, "ended", duplicate=True)
    talk.accepted("u", 1, "ended", duplicate=True)
    assert [json.loads(request.payload)["after_seq"] for request in talk.asked] == [3]  # one after the other
    talk.attached()
    told = talk.user_message(4, "t", "a") + talk.reply(5, "t") + talk.ended(6, "t") + talk.caught_up()
    assert [json.loads(request.payload)["after_seq"] for request in talk.asked] == [0]
    talk.attached()
    told += talk.user_message(1, "u", "b") + talk.reply(2, "u") + talk.ended(3, "u") + talk.reply(5, "t")
    assert finals(told) == ["a", "b"]
    assert talk.ended(6, "t") + talk.caught_up() == []
    assert talk.asked == []


def test_one_that_is_asked_for_while_another_is_being_told_makes_nothing_come_twice() -> None:
    talk = Talk()
    talk.text("a")
    talk.done("ping")
    talk.opened(head=6)
    talk.accepted("t", 4, "ended", duplicate=True)
    talk.attached()
    talk.user_message(4, "t", "a")
    assert len(talk.reply(5, "t")) == 1
    talk.text("b")
    talk.done("ping")
    talk.accepted("u", 1, "ended", duplicate=True)
    assert talk.asked == []
    assert finals(talk.ended(6, "t")) == ["a"]
    assert talk.caught_up() == []
    talk.attached()
    assert len(talk.reply(2, "u") + talk.ended(3, "u")) == 2
    assert talk.user_message(4, "t", "a") + talk.reply(5, "t") + talk.ended(6, "t") == []


# -- what is passed over -------------------------------------------------------------------------------


def test_the_end_of_a_text_comes_also_if_an_init_passes_it_over() -> None:
    talk = Talk()
    talk.begin()
    talk.say(type="init", id="i", sessionId="s", content={"afterSeq": -1})
    talk.opened(head=3)
    assert json.loads(talk.asked[0].payload) == {"session_id": "s", "after_seq": 0, "epoch": "e"}
    assert talk.caught_up() == []
    talk.attached()
    told = talk.user_message(1, "t", "a") + talk.reply(2, "t") + talk.ended(3, "t")
    assert (len(told), finals(told)) == (2, ["a"])
    assert events(talk.caught_up()) == ["session.caught_up"]


def test_a_text_whose_start_was_passed_over_before_it_was_accepted_has_its_end() -> None:
    talk = Talk()
    talk.begin("b", "u")
    talk.text("a")
    talk.done("ping")
    start = talk.asked.pop()
    talk.say(type="init", id="i", sessionId="s", content={"afterSeq": -1})
    talk.opened(head=9)
    talk.asked.insert(0, start)
    talk.accepted("t", 4)
    talk.asked.reverse()
    for _ in range(2):
        if talk.asked:
            talk.attached()
            told = talk.user_message(4, "t", "a") + talk.reply(5, "t") + talk.ended(6, "t")
            told += talk.ended(8, "u") + talk.caught_up()
    assert set(finals(told)) <= {"a", "b"}
    assert "a" in finals(told)


def test_an_init_that_overtakes_what_is_being_told_anew_ends_no_turn_that_runs() -> None:
    talk = Talk()
    running = {"turn_id": "t", "client_msg_id": "a", "state": "running", "user": None}
    talk.text("a")
    talk.done("ping")
    talk.opened(head=2, turn=running)
    talk.accepted("t", 1, duplicate=True)
    talk.attached()
    talk.say(type="init", id="i", sessionId="s", content={"afterSeq": -1})
    assert talk.user_message(1, "t", "a") == []
    talk.opened(head=2, turn=running)
    assert talk.caught_up() == []
    talk.attached()
    assert talk.user_message(1, "t", "a") + talk.reply(2, "t") + talk.caught_up() != []
    assert finals(talk.ended(3, "t")) == ["a"]


def test_an_init_that_is_refused_holds_up_nothing_that_is_being_told_anew() -> None:
    talk = Talk()
    talk.text("a")
    talk.done("ping")
    talk.opened(head=6)
    talk.accepted("t", 4, "ended", duplicate=True)
    talk.attached()
    talk.say(type="init", id="i", sessionId="s")
    assert talk.user_message(4, "t", "a") + talk.reply(5, "t") + talk.ended(6, "t") == []
    assert finals(talk.refused("session.open", "forbidden")) == ["i"]
    talk.attached()
    assert finals(talk.user_message(4, "t", "a") + talk.reply(5, "t") + talk.ended(6, "t")) == ["a"]


# -- cancelling ------------------------------------------------------------------------------------------


def cancel(talk: Talk, text_id: str) -> None:
    """Have the client cancel a text of the session `s`, and the gates let that pass."""
    held = talk.say(type="system", id="c", sessionId="s", content={"action": "cancel", "id": text_id})
    assert (held.action, held.held) == ("turn.cancel", True)
    talk.asked.pop()
    talk.take(talk.dialect.tell(Response(held.id, b"{}")))


def cancelled(talk: Talk) -> Any:
    return json.loads(talk.next("turn.cancel").payload)["turn_id"]


def test_a_cancel_waits_until_its_text_has_become_a_turn() -> None:
    talk = Talk()
    talk.text("a")
    cancel(talk, "a")
    talk.done("ping")
    talk.opened()
    assert [request.action for request in talk.asked] == ["turn.start"]
    talk.accepted("t", 1)
    assert cancelled(talk) == "t"


def test_a_cancel_of_a_text_that_is_refused_names_no_turn() -> None:
    talk = Talk()
    talk.text("a")
    talk.done("ping")
    cancel(talk, "a")
    talk.opened()
    assert finals(talk.refused("turn.start", "queue_full")) == ["a"]
    (refused,) = talk.refused("turn.cancel", "not_found", field="$.payload.turn_id")
    data = refused["content"]["data"]
    assert (data["code"], data["field"], "turnId" in data["hint"]) == ("not_found", "$.content.id", True)
    assert finals([refused]) == ["c"]


def test_a_cancel_over_another_connection_looks_the_session_up_and_makes_none() -> None:
    talk = Talk()
    cancel(talk, "a")
    opening = talk.next("session.attach")
    assert json.loads(opening.payload) == {"session_id": "s", "after_seq": -1}
    seen = {"turn_id": "t", "client_msg_id": "a", "state": "running", "user": None}
    view = {**NOBODY, "session_id": "s", "epoch": "e", "head": 3, "floor": 1, "state": "open", "turn": seen}
    talk.take(talk.dialect.tell(Response(opening.id, encoded(view))))
    assert cancelled(talk) == "t"
    talk = Talk()
    cancel(talk, "a")
    attach = talk.asked.pop()
    talk.text("b")
    talk.done("ping")
    talk.asked.append(attach)
    assert finals(talk.refused("session.attach", "not_found", field="$.payload.session_id")) == ["c"]
    assert [request.action for request in talk.asked] == ["session.open"]  # for the text


def test_a_cancel_reaches_no_turn_of_another_users_text_of_the_same_id() -> None:
    talk = Talk()
    talk.take(talk.dialect.tell(Welcome("c", "ann", "envelope.v1.json", "x", "n", 30.0, 1024)))
    known = {"message_id": "m", "role": "user", "content": "hi", "client_msg_id": "a"}
    talk.begin("z", "y")
    talk.record(2, "user.message", "t", **known, author="bob")
    cancel(talk, "a")
    assert cancelled(talk) == "a"  # which no turn is called
    talk.record(3, "user.message", "u", **known, author="ann")
    cancel(talk, "a")
    assert cancelled(talk) == "u"
    (reply,) = talk.reply(4, "t")
    assert (reply["metadata"]["replyTo"], reply["metadata"]["author"]) == ("a", "bob")
    (reply,) = talk.reply(5, "u")
    assert "author" not in reply["metadata"]


def test_only_so_many_cancels_wait() -> None:
    talk = Talk()
    talk.text("a")
    for _ in range(CANCELS):
        cancel(talk, "a")
    held = talk.say(type="system", id="more", sessionId="s", content={"action": "cancel", "id": "a"})
    assert code_of(talk.take(talk.dialect.tell(Response(held.id, b"{}")))) == "overloaded"


# -- for a moment ----------------------------------------------------------------------------------------


def test_a_session_that_cannot_be_opened_for_a_moment_is_asked_for_again() -> None:
    for kind, action in (("text", "session.open"), ("init", "session.open")):
        talk = Talk()
        if kind == "text":
            talk.text("a")
            talk.done("ping")
        else:
            talk.say(type="init", id="a", sessionId="s")
        talk.later.clear()
        for _ in range(TRIES):
            assert talk.refused(action, "unavailable", retry_after=0.1) == []
            assert talk.later[-1].seconds == 0.1
            talk.take(talk.dialect.tell(Due(talk.later.pop().token)))
        assert finals(talk.refused(action, "unavailable", retry_after=0.1)) == ["a"]


def test_the_time_of_a_text_runs_while_gates_look_at_it() -> None:
    talk = Talk()
    held = talk.say(type="text", id="a", sessionId="s", content="hi")
    talk.take(talk.dialect.tell(Due(held.id)))
    told = [message for _ in range(TICKS) for message in talk.tick()]
    assert code_of(told) == "timeout"


def test_a_session_that_is_lost_while_it_is_opened_once_more_ends_its_texts_once() -> None:
    talk = Talk()
    talk.begin()
    talk.say(type="init", id="i", sessionId="s")
    assert finals(talk.take(talk.dialect.tell(SessionDetached("s")))) == ["a"]
    talk.opened(head=3)
    assert finals(talk.user_message(1, "t", "a") + talk.ended(2, "t")) == []


def test_an_init_tells_all_again_that_it_asks_for() -> None:
    talk = Talk()
    talk.begin()
    talk.reply(2, "t")
    talk.say(type="init", id="i", sessionId="s")
    talk.opened(head=2)
    assert events(talk.record(1, "tool.started", "t")) == ["tool.started"]
    assert len(talk.reply(2, "t")) == 1
    assert events(talk.caught_up()) == ["session.caught_up"]
    assert finals(talk.ended(3, "t")) == ["a"]


def test_a_reset_is_told_and_the_log_goes_on_from_there() -> None:
    talk = Talk()
    talk.say(type="init", id="i", sessionId="s", content={"afterSeq": 50, "epoch": "old"})
    (opened,) = talk.opened(head=9, floor=3, recovered=False)
    assert opened["content"]["recovered"] is False
    (reset,) = talk.take(talk.dialect.tell(SessionReset("s", "e", 9, 3)))
    assert reset["content"] == {"event": "session.reset", "data": {"epoch": "e", "head": 9, "floor": 3}}
    assert len(talk.record(3, "plan.updated")) == 1


# -- what else is said ---------------------------------------------------------------------------------


def test_what_must_not_be_seen_leaves_no_message() -> None:
    talk = Talk()
    talk.begin()
    assert talk.record(2, "withheld") == []


def test_a_person_cannot_speak_as_the_broker() -> None:
    talk = Talk()
    forged = {
        "type": "system",
        "from": "ai",
        "content": {"event": "error"},
        "metadata": {"replyTo": "a", "final": True},
    }
    person, program = b'{"connection_id":"c","user":"eve"}', b'{"connection_id":null,"user":null}'
    (message,) = talk.take(talk.dialect.tell(Direct(person, encoded(forged))))
    assert (message["type"], message["from"]) == ("text", "user")
    assert message["metadata"] == {"sender": {"connection_id": "c", "user": "eve"}}
    (message,) = talk.take(talk.dialect.tell(Broadcast(program, encoded(forged))))
    assert (message["type"], message["from"]) == ("system", "ai")


def test_what_is_no_envelope_is_the_content_of_one() -> None:
    talk = Talk()
    program = b'{"connection_id":null,"user":null}'
    for data in ({"note": 1}, [1], "text", None, {"type": 3}):
        (message,) = talk.take(talk.dialect.tell(Direct(program, encoded(data))))
        assert (message["content"], message["type"], message["from"]) == (data, "text", "system")


def test_a_token_stands_in_no_repr() -> None:
    request = Talk().say(type="system", content={"action": "auth", "token": "very secret"})
    assert "secret" not in repr(request)
    assert json.loads(request.payload) == {"token": "very secret"}


def test_commands_keep_their_own_names_so_that_no_handler_takes_them() -> None:
    talk = Talk()
    assert talk.say(type="system", content="ping").kind == ""
    assert talk.say(type="system", content="dance").kind == "system"
    assert talk.say(type="order", content={}).kind == "order"


# -- bounds ----------------------------------------------------------------------------------------------


def test_only_so_many_texts_may_be_without_their_end() -> None:
    talk = Talk()
    for number in range(MOST):
        talk.text(f"t{number}")
    with pytest.raises(BrokerError) as refused:
        talk.text("more")
    assert (refused.value.code, refused.value.retry_after) == ("overloaded", 1.0)
    talk.text("t0")


def test_only_so_much_may_wait_for_a_session() -> None:
    talk = Talk()
    talk.text("a", "x" * (WAITING + 1))
    talk.text("b")
    talk.done("ping")
    message = talk.done("ping")
    assert (code_of(message), finals(message)) == ("overloaded", ["b"])


def test_only_so_many_sessions_are_opened_at_a_time() -> None:
    talk = Talk()
    for number in range(OPENING):
        talk.say(type="init", sessionId=f"s{number}")
    with pytest.raises(BrokerError) as refused:
        talk.say(type="init", sessionId="more")
    assert refused.value.code == "overloaded"


# -- whatever comes ----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "init", "system", "other"]) | JSON},
    optional={
        "id": st.sampled_from(["a", "b", "c"]) | JSON,
        "to": st.sampled_from(["ai", "system", "user"]) | JSON,
        "from": st.sampled_from(["user"]) | JSON,
        "sessionId": st.sampled_from(["s", "r"]) | JSON,
        "timestamp": JSON,
        "metadata": st.dictionaries(st.sampled_from(["afterSeq", "users", "ifBusy", "x"]), JSON, max_size=3) | JSON,
        "content": st.fixed_dictionaries(
            {},
            optional={
                "text": JSON,
                "blocks": JSON,
                "action": st.sampled_from(["ping", "cancel", "trace", "auth", "history", "approve"]) | JSON,
                "id": JSON,
                "token": JSON,
            },
        )
        | JSON,
    },
)


@given(st.binary(max_size=64) | FIELDS.map(encoded) | JSON.map(encoded))
def test_a_message_is_read_or_refused_and_nothing_else(text: bytes) -> None:
    dialect = make()
    try:
        dialect.decode(text)
    except BrokerError:
        dialect.salvage_id(text)


def seen(seq: int, kind: str, turn_id: str) -> SessionRecord:
    data = {"message_id": "m", "role": "user", "content": "hi", "client_msg_id": "a", "text": "x", "author": None}
    return SessionRecord("s", Record(seq, AT, kind, encoded({**data, "outcome": "completed"}), turn_id))


KINDS = ["user.message", "message.completed", "turn.ended", "tool.started", "message.delta", "withheld"]
NOBODY: dict[str, Any] = {"turn": None, "queue": [], "approvals": [], "variables": {}, "recovered": True}
OPENED = encoded({"session_id": "s", "epoch": "e", "head": 3, "floor": 1, "state": "open", **NOBODY})
STEPS = st.one_of(
    FIELDS,
    st.sampled_from(["answer", "refuse", "handled"]).flatmap(lambda how: st.tuples(st.just(how), st.integers(0, 5))),
    st.builds(seen, st.integers(1, 9), st.sampled_from(KINDS), st.sampled_from(["t", "u"])),
    st.sampled_from(
        [
            Welcome("c", None, "envelope.v1.json", "actor-broker/1", "n", 30.0, 1024),
            Entered(),
            Due(None),
            CaughtUp("s", 3),
            SessionReset("s", "f", 3, 2),
            SessionDetached("s"),
            RoomEvent("r", None, "e", b"null", b"1", AT),
            RoomLeft("r"),
            Restarting(1.0),
            Failure(None, BrokerError("internal")),
        ]
    ),
)


def answer_to(request: Request, *, duplicate: bool) -> bytes:
    """Return what a broker answers."""
    known = {"turn_id": "t", "seq": 1, "status": "running", "duplicate": duplicate, "durable": True}
    answers = {"ping": PONG, "session.open": OPENED, "session.attach": OPENED, "turn.start": encoded(known)}
    return b"{}" if request.held else {**answers, "session.history": b'{"messages":[]}'}.get(request.action, b"{}")


def told_by(step: Any, asked: list[Request]) -> Any:
    """Return what the dialect is told; None for nothing."""
    if not isinstance(step, tuple):
        return step
    if not asked:
        return None
    how, place = step
    request = asked.pop(min(place, len(asked) - 1))
    if how == "refuse":
        return Failure(request.id, BrokerError("unavailable"))
    mine = how == "handled" and request.kind and not request.held
    return Response(request.id, b'{"mine":1}' if mine else answer_to(request, duplicate=place > 1), handled=bool(mine))


@given(st.lists(STEPS, max_size=30))
def test_whatever_is_said_and_told_in_whatever_order_nothing_breaks_and_no_text_has_two_ends(steps: list[Any]) -> None:
    dialect, asked, said = make(), list[Request](), list[Message]()
    sent = Counter[str]()
    for step in steps:
        if isinstance(step, dict):
            with suppress(BrokerError):
                asked.append(dialect.decode(encoded(step)))
                sent[str(asked[-1].id)] += 1
        elif (value := told_by(step, asked)) is not None:
            for reaction in dialect.tell(value):
                if isinstance(reaction, bytes):
                    said.append(json.loads(reaction))
                elif isinstance(reaction, Request):
                    asked.append(reaction)
    assert not Counter(finals(said)) - sent
