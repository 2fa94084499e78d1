"""`chat.v1.json`: what its messages ask for, what is told of records, and what waits for what (seed 004)."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError
from broker.messages import Record
from broker.protocol.chat import waiting
from broker.protocol.chat.dialect import ChatDialect, ChatFormat
from broker.protocol.dialect import Later, Reaction
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

KEYS = ["messageId", "sessionId", "role", "content", "actionId", "metadata", "timestamp"]
AT = 1_780_000_000_000
FORMAT = ChatFormat(lambda: AT)


def view(head: int = 1, **more: Any) -> bytes:
    """Return what a session says of itself to who attaches."""
    standing: dict[str, Any] = {"turn": None, "queue": [], "approvals": [], "variables": {"mood": "calm"}}
    return json.dumps({"session_id": "s", "epoch": "e", "head": head, "state": "open", **standing, **more}).encode()


class Line:
    """A connection's end, and the core behind it as far as it matters: what is asked for is answered by hand."""

    def __init__(self, **query: str) -> None:
        self.dialect = ChatDialect(query, lambda: AT)
        self.asked: list[Request] = []
        self.said: list[dict[str, Any]] = []
        self.later: list[Later] = []

    def say(self, **message: Any) -> Request:
        """Have the client say something, which passes the gates."""
        said = {"messageId": "m", "sessionId": "s", "role": "user", "content": "hi", "actionId": None, **message}
        request = self.dialect.decode(json.dumps(said).encode())
        if request.held:
            self.tell(Response(request.id, b"{}"))
        else:
            self.asked.append(request)
        return request

    def tell(self, value: Any) -> list[dict[str, Any]]:
        """Tell the end something, and return what it says to that."""
        return self._take(self.dialect.tell(value))

    def _take(self, reactions: Iterable[Reaction]) -> list[dict[str, Any]]:
        said = []
        for reaction in reactions:
            match reaction:
                case bytes():
                    said.append(json.loads(reaction))
                    assert list(said[-1]) == KEYS
                case Request():
                    self.asked.append(reaction)
                case Later():
                    self.later.append(reaction)
        self.said += said
        return said

    @property
    def actions(self) -> list[str]:
        return [request.action for request in self.asked]

    def open(self, **more: Any) -> "Line":
        """Subscribe to the session `s`."""
        self.say(role="system", content=None, metadata={"kind": "subscribe", **more.pop("metadata", {})})
        self.tell(Response(self.asked.pop().id, view(**more)))
        return self

    def happen(self, seq: int, kind: str, turn_id: str | None = "t", **data: Any) -> list[dict[str, Any]]:
        """Have something happen in the session `s`."""
        return self.tell(SessionRecord("s", Record(seq, AT, kind, json.dumps(data).encode(), turn_id)))

    def ask(self, seq: int = 2, **metadata: Any) -> None:
        """Have somebody ask something there."""
        said = {"message_id": "t", "role": "user", "content": "why?", "client_msg_id": "m1", "author": "ann"}
        self.happen(seq, "user.message", **said, metadata=metadata)


def payload(request: Request) -> Any:
    return json.loads(request.payload)


def place(error: dict[str, Any]) -> Any:
    assert error["metadata"]["kind"] == "error"
    return error["content"]["place"]


# -- what is asked for ---------------------------------------------------------------------------------


def test_what_a_person_says_starts_a_turn() -> None:
    line = Line().open()
    request = line.say(messageId="m7", content=[{"type": "text"}], actionId="a1", metadata={"x": 1, "ifBusy": "reject"})
    assert (request.action, request.kind, str(request.id)) == ("turn.start", "user", "m7")
    assert payload(request) == {
        "session_id": "s",
        "client_msg_id": "m7",
        "content": [{"type": "text"}],
        "metadata": {"x": 1, "ifBusy": "reject", "actionId": "a1"},
        "if_busy": "reject",
    }


@pytest.mark.parametrize(
    ("kind", "content", "action", "asked"),
    [
        ("cancel", {"turnId": "t"}, "turn.cancel", {"turn_id": "t", "session_id": "s"}),
        (
            *("approval", {"approvalId": "a", "optionId": "o"}, "approval.answer"),
            {"approval_id": "a", "option_id": "o", "session_id": "s"},
        ),
        ("variables", {"set": {"a": None}}, "session.update", {"variables": {"a": None}, "session_id": "s"}),
        ("unsubscribe", None, "session.detach", {"session_id": "s"}),
        ("auth", {"token": "x"}, "auth", {"token": "x"}),
        ("ping", 5, "ping", 5),
        ("of.a.plugin", {"a": 1}, "", {"a": 1}),
        ("session.delete", {"session_id": "s"}, "", {"session_id": "s"}),
    ],
)
def test_system_messages_ask_for_what_their_kind_says(kind: str, content: Any, action: str, asked: Any) -> None:
    request = Line().open().say(role="system", content=content, metadata={"kind": kind})
    assert (request.action, request.kind, payload(request)) == (action, kind, asked)


def test_a_subscription_says_where_to_go_on_and_what_to_make() -> None:
    wanted = {"afterSeq": 7, "epoch": "e", "agent": "echo", "title": "T", "workspaceDir": "/w", "variables": {"a": 1}}
    request = Line().say(role="system", content=None, metadata={"kind": "subscribe", **wanted})
    assert request.action == "session.open"
    assert payload(request) == {
        "session_id": "s",
        "after_seq": 7,
        "epoch": "e",
        "agent": "echo",
        "title": "T",
        "workspace_dir": "/w",
        "variables": {"a": 1},
    }


def test_the_session_of_the_url_is_opened_once_it_is_known_who_it_is() -> None:
    line = Line(sessionId="s", after_seq="3", epoch="e", stream="true")
    line.tell(Welcome("c", None, "chat.v1.json", "x", "n", 30.0, 1))
    assert line.asked == []
    line.tell(Entered())
    assert [payload(request) for request in line.asked] == [{"session_id": "s", "after_seq": 3, "epoch": "e"}]
    line.tell(Response(line.asked[0].id, view()))
    assert line.happen(2, "message.delta", message_id="a", role="assistant", text="wo")[0]["content"] == "wo"


def test_what_is_wrong_with_the_url_is_told_as_of_any_message() -> None:
    line = Line(sessionId="s", afterSeq="many")
    line.tell(Entered())
    assert payload(line.asked[0])["after_seq"] == "many"
    refused = BrokerError("invalid_message", "Expected `int`.", field="$.payload.after_seq")
    (said,) = line.tell(Failure(line.asked[0].id, refused))
    assert place(said) == {"sessionId": "s", "messageId": None, "actionId": None, "field": "$.metadata.afterSeq"}


def test_what_names_no_session_is_about_the_first() -> None:
    line = Line().open()
    request = line.say(sessionId=None)
    assert payload(request)["session_id"] == "s"
    with pytest.raises(BrokerError, match="which session") as caught:
        Line().say(sessionId=None)
    assert caught.value.field == "$.sessionId"


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        (b"{", "invalid_json", None),
        (b"[]", "invalid_message", "$"),
        (b'{"role":"user"}', "invalid_message", "$"),
        (b'{"messageId":"","role":"user"}', "invalid_message", "$.messageId"),
        (b'{"messageId":"m","role":"assistant"}', "invalid_message", "$.role"),
        (b'{"messageId":"m","role":"user","sessionId":1}', "invalid_message", "$.sessionId"),
        (b'{"messageId":"m","role":"user","metadata":[]}', "invalid_message", "$.metadata"),
        (
            b'{"messageId":"m","role":"user","metadata":{"afterSeq":"x"}}',
            *("invalid_message", "$.metadata.afterSeq"),
        ),
        (b'{"messageId":"m","role":"system","sessionId":"s"}', "invalid_message", "$.metadata.kind"),
        (b'{"messageId":"m","role":"system","metadata":{"kind":"user"}}', "invalid_message", "$.metadata.kind"),
        (
            b'{"messageId":"m","role":"system","sessionId":"s","content":{},"metadata":{"kind":"cancel"}}',
            *("invalid_message", "$.content"),
        ),
        (
            b'{"messageId":"m","role":"user","content":' + b"[" * 70 + b"]" * 70 + b"}",
            *("invalid_message", None),
        ),
        (b'{"messageId":"m","role":"user","content":"\\ud800"}', "invalid_json", None),
        (b'{"messageId":"m","role":"user","content":NaN}', "invalid_json", None),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_field(text: bytes, code: str, field: str | None) -> None:
    with pytest.raises(BrokerError) as caught:
        FORMAT.decode(text)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_a_token_is_in_no_repr() -> None:
    line = Line()
    request = line.say(role="system", content={"token": "hunter2"}, metadata={"kind": "auth"})
    assert "hunter2" not in repr(request) + repr(request.id)


# -- what waits ----------------------------------------------------------------------------------------


def test_what_is_said_before_its_session_is_open_waits_in_its_order() -> None:
    line = Line()
    first = line.say(messageId="1")
    assert (first.held, first.action, first.kind, json.loads(first.text)["messageId"]) == (
        True,
        "turn.start",
        "user",
        "1",
    )
    line.say(messageId="2")
    line.say(messageId="3", role="system", content={"set": {}}, metadata={"kind": "variables"})
    assert line.actions == ["session.open"]
    line.tell(Response(line.asked[0].id, view()))
    assert line.actions == ["session.open", "turn.start", "turn.start", "session.update"]
    assert [str(request.id) for request in line.asked[1:]] == ["1", "2", "3"]
    assert line.say(messageId="4").held is False


def test_what_is_still_at_the_gates_is_not_overtaken() -> None:
    line = Line().open()
    line.tell(SessionDetached("s"))
    text = b'{"messageId":"%d","sessionId":"s","role":"user","content":"hi"}'
    slow = line.dialect.decode(text % 1)
    line.open()
    quick = line.dialect.decode(text % 2)
    assert slow.held
    assert quick.held
    line.tell(Response(slow.id, b"{}"))
    line.tell(Response(quick.id, b"{}"))
    assert [str(request.id) for request in line.asked] == ["1", "2"]
    assert line.dialect.decode(text % 3).held is False


def test_a_session_that_cannot_be_opened_is_told_to_everybody_who_waits() -> None:
    line = Line()
    line.say(messageId="1", actionId="a1")
    line.say(messageId="2")
    said = line.tell(Failure(line.asked[0].id, BrokerError("forbidden", "Not yours.")))
    assert [place(one)["messageId"] for one in said] == ["1", "2"]
    assert said[0]["actionId"] == place(said[0])["actionId"] == "a1"
    assert said[0]["content"]["category"] == "permission"
    assert line.happen(2, "message.completed", message_id="a", role="assistant", content="secret") == []
    line.say(messageId="3")
    assert line.actions == ["session.open", "session.open"]


def test_a_session_that_cannot_be_opened_now_is_asked_for_again() -> None:
    line = Line(sessionId="s")
    line.tell(Entered())
    for tries in range(1, TRIES + 1):
        assert line.tell(Failure(line.asked[-1].id, BrokerError("unavailable", retry_after=0.1))) == []
        assert line.later[-1].seconds == 0.1
        line.tell(Due(line.later[-1].token))
        assert len(line.asked) == 1 + tries
    (said,) = line.tell(Failure(line.asked[-1].id, BrokerError("unavailable", retry_after=0.1)))
    assert (said["content"]["retryable"], said["content"]["retryAfter"]) == (True, 0.1)


def test_what_a_gate_refuses_waits_no_more() -> None:
    line = Line()
    request = line.dialect.decode(b'{"messageId":"m","sessionId":"s","role":"user","content":"hi"}')
    (said,) = line.tell(Failure(request.id, BrokerError("rate_limited", retry_after=2.0)))
    assert (said["metadata"]["inReplyTo"], said["content"]["retryAfter"]) == ("m", 2.0)
    assert line.actions == []


def test_what_waits_is_bounded_in_number_and_bytes() -> None:
    line = Line(sessionId="s")
    text = b'{"messageId":"m","sessionId":"s%d","role":"user","content":"%b"}'
    for number in range(waiting.HELD):
        line.dialect.decode(text % (number, b""))
    with pytest.raises(BrokerError) as caught:
        line.dialect.decode(text % (0, b""))
    assert caught.value.code == "overloaded"
    large = b"x" * (waiting.HELD_BYTES + 1)
    line = Line()
    line.dialect.decode(text % (0, large))
    with pytest.raises(BrokerError):
        line.dialect.decode(text % (0, b""))


@pytest.mark.parametrize(("most", "title"), [(waiting.HELD, 0), (2, waiting.HELD_BYTES // 2 - 100)])
def test_sessions_that_are_being_opened_are_bounded_in_number_and_bytes_until_they_are(most: int, title: int) -> None:
    line = Line()

    def subscribe(number: int) -> None:
        metadata = {"kind": "subscribe", "variables": {"x": "x" * title}}
        line.say(sessionId=f"s{number}", role="system", content=None, metadata=metadata)

    for number in range(most):
        subscribe(number)
    for answer in (Response(line.asked[0].id, view()), Failure(line.asked[1].id, BrokerError("forbidden"))):
        with pytest.raises(BrokerError) as caught:
            subscribe(most)
        assert caught.value.code == "overloaded"
        line.tell(answer)
        subscribe(most)
    line.tell(Failure(line.asked[-1].id, BrokerError("unavailable", retry_after=0.1)))
    with pytest.raises(BrokerError):  # it is asked for again
        subscribe(most)


# -- what is told --------------------------------------------------------------------------------------


def test_an_open_session_says_where_it_stands_and_its_variables() -> None:
    line = Line()
    turn = {"turn_id": "t", "state": "running", "user": "ann", "client_msg_id": "m1"}
    line.open(head=9, turn=turn, approvals=[{"approval_id": "a"}])
    state, variables = line.said
    assert (state["role"], state["metadata"]) == ("system", {"seq": 9, "kind": "state"})
    assert {key: state["content"][key] for key in ("event", "state", "turnId", "messageId")} == {
        "event": "session.open",
        "state": "awaiting_approval",
        "turnId": "t",
        "messageId": "m1",
    }
    assert state["content"]["data"]["epoch"] == "e"
    assert "variables" not in state["content"]["data"]
    assert variables["content"] == {"set": {"mood": "calm"}, "variables": {"mood": "calm"}}


def test_the_past_is_told_as_messages_and_what_follows_with_variables_and_state() -> None:
    line = Line().open(head=6)
    line.said.clear()
    line.happen(1, "session.opened", None, title=None)
    line.ask(actionId="a1", mood="blue")
    line.happen(3, "turn.started", agent="echo")
    line.happen(4, "variables.changed", set={"a": 1}, variables={"a": 1}, by=None)
    line.happen(5, "message.completed", message_id="r", role="assistant", content="because")
    line.happen(6, "turn.ended", outcome="completed", partial=True)
    line.tell(CaughtUp("s", 6))
    assert [one["role"] for one in line.said] == ["user", "assistant", "system"]
    asked, answered, caught_up = line.said
    assert (asked["messageId"], asked["actionId"], asked["content"]) == ("m1", "a1", "why?")
    assert asked["metadata"] == {"mood": "blue", "author": "ann", "seq": 2, "turnId": "t", "kind": "message"}
    assert (answered["messageId"], answered["actionId"], answered["content"]) == ("r", "a1", "because")
    assert answered["timestamp"] == "2026-05-28T20:26:40.000Z"
    assert caught_up["content"]["event"] == "session.caught_up"
    (changed,) = line.happen(7, "variables.changed", set={"a": 2}, variables={"a": 2}, by=None)
    assert (changed["metadata"]["kind"], changed["content"]["variables"]) == ("variables", {"a": 2})


@pytest.mark.parametrize(
    ("records", "states"),
    [
        ([("turn.queued", {"ahead": 1})], ["queued"]),
        ([("turn.started", {}), ("turn.stalled", {"silent": 45}), ("tool.started", {"x": 1})], ["running"] * 3),
        (
            [
                *(("turn.started", {}), ("approval.requested", {"approval_id": "a"})),
                *(("approval.resolved", {"approval_id": "a"}), ("turn.cancelling", {})),
                ("turn.ended", {"outcome": "cancelled"}),
            ],
            ["running", "awaiting_approval", "running", "cancelling", "idle"],
        ),
    ],
)
def test_the_state_goes_with_the_turns(records: list[tuple[str, Any]], states: list[str]) -> None:
    line = Line().open()
    line.ask()
    line.said.clear()
    for seq, (kind, data) in enumerate(records, 3):
        (said,) = line.happen(seq, kind, **data)
        assert (said["content"]["event"], said["content"]["data"]) == (kind, data)
        assert said["content"]["messageId"] == "m1"
    assert [said["content"]["state"] for said in line.said] == states


def test_answers_are_told_while_they_are_written_only_to_who_wants_that() -> None:
    for stream, kinds in ((False, []), (True, ["delta", "thought"])):
        line = Line().open(metadata={"stream": stream})
        line.said.clear()
        line.happen(2, "message.delta", message_id="r", role="assistant", text="be")
        line.happen(3, "thought.delta", message_id="q", role="assistant", text="hm")
        assert [said["metadata"]["kind"] for said in line.said] == kinds


def test_what_is_changed_keeps_its_id() -> None:
    line = Line().open()
    line.ask(actionId="a1")
    said = {"message_id": "t", "role": "user", "content": "how?", "client_msg_id": "m1", "author": "ann"}
    (edited,) = line.happen(3, "turn.edited", **said)
    assert (edited["messageId"], edited["actionId"], edited["metadata"]["edited"]) == ("m1", "a1", True)
    (replaced,) = line.happen(4, "message.replaced", message_id="r", role="assistant", thought=False, content="so")
    assert (replaced["messageId"], replaced["metadata"]["replaced"]) == ("r", True)
    assert line.happen(5, "message.replaced", message_id="q", role="assistant", thought=True, content="hm") == []


def test_debug_records_are_told_and_withheld_ones_are_not() -> None:
    line = Line().open()
    (said,) = line.happen(2, "debug", prompt="…")
    assert (said["metadata"]["kind"], said["content"]) == ("debug", {"prompt": "…"})
    assert line.happen(3, "withheld") == []


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        ({"outcome": "completed", "empty": True}, "agent_unavailable", "The agent ended without an answer."),
        ({"outcome": "completed", "partial": True}, "agent_unavailable", "The agent ended without an answer."),
        ({"outcome": "failed", "error": {"code": "rate_limited", "message": "slow"}}, "rate_limited", "slow"),
        ({"outcome": "failed", "error": {"code": "strange", "message": "odd"}}, "agent_unavailable", "odd"),
        ({"outcome": "timed_out", "reason": "the agent said nothing for 5 min"}, "timeout", None),
        ({"outcome": "lost"}, "agent_unavailable", "The agent was lost."),
    ],
)
def test_a_turn_without_an_answer_ends_with_an_error_that_says_what_to_do(
    end: dict[str, Any], code: str, message: str | None
) -> None:
    line = Line().open()
    line.ask(actionId="a1")
    state, error = line.happen(9, "turn.ended", **end)
    assert state["content"]["event"] == "turn.ended"
    assert (error["content"]["code"], error["content"]["message"]) == (code, message or end["reason"])
    assert place(error) == {"sessionId": "s", "messageId": "m1", "actionId": "a1", "field": None}
    assert "new messageId" in error["content"]["recovery"]


@pytest.mark.parametrize("known", [True, False])
def test_a_turn_with_an_answer_and_one_that_was_cancelled_end_without_an_error(known: bool) -> None:
    ends: list[dict[str, Any]] = [{"outcome": "completed", "partial": True}, {"outcome": "cancelled"}]
    for end in ends:
        line = Line().open()
        if known:
            line.ask()
            line.happen(4, "message.completed", message_id="r", role="assistant", content="because")
        assert [said["metadata"]["kind"] for said in line.happen(9, "turn.ended", **end)] == ["state"]


def test_answers_to_system_messages_name_what_they_answer() -> None:
    line = Line().open()
    request = line.say(messageId="p", role="system", actionId="a1", content=None, metadata={"kind": "ping"})
    (pong,) = line.tell(Response(request.id, b'{"at":"now"}'))
    assert (pong["metadata"], pong["content"]) == ({"inReplyTo": "p", "of": "ping", "kind": "pong"}, {"at": "now"})
    assert (pong["sessionId"], pong["actionId"]) == ("s", "a1")


def test_a_message_is_answered_by_itself_unless_there_is_more_to_say() -> None:
    line = Line().open()
    request = line.say()
    accepted = {"turn_id": "t", "seq": 2, "status": "running", "duplicate": False, "durable": True}
    assert line.tell(Response(request.id, json.dumps(accepted).encode())) == []
    for more in ({"duplicate": True}, {"durable": False}):
        (said,) = line.tell(Response(request.id, json.dumps({**accepted, **more}).encode()))
        assert said["metadata"]["kind"] == "done"
    for answer in (b'"what a handler has answered"', json.dumps(accepted).encode()):
        (said,) = line.tell(Response(request.id, answer, handled=True))
        assert said["content"] == json.loads(answer)


def test_a_handler_may_take_subscriptions_over() -> None:
    line = Line()
    line.say(role="system", content=None, metadata={"kind": "subscribe"})
    (said,) = line.tell(Response(line.asked[0].id, b'{"no":"session"}', handled=True))
    assert said["content"] == {"no": "session"}
    assert line.say(messageId="2").held


def test_a_handler_that_takes_a_subscription_over_ends_none_and_leaves_nothing_waiting() -> None:
    line = Line().open()
    line.say(role="system", content=None, metadata={"kind": "subscribe"})
    (said,) = line.tell(Response(line.asked.pop().id, view(), handled=True))
    assert said["metadata"]["kind"] == "done"
    assert len(line.happen(5, "debug", a=1)) == 1
    line = Line()
    line.say(role="system", content=None, metadata={"kind": "subscribe"})
    line.say(messageId="2")
    line.tell(Response(line.asked.pop().id, b"{}", handled=True))
    assert line.actions == ["session.open"]


def test_what_is_said_right_after_leaving_opens_the_session_anew() -> None:
    line = Line().open()
    leaving = line.say(role="system", content=None, metadata={"kind": "unsubscribe"})
    line.say(messageId="2")
    assert line.actions == ["session.detach", "session.open"]
    assert line.happen(5, "debug", a=1) == []
    assert [said["metadata"]["kind"] for said in line.tell(Response(leaving.id, b"{}"))] == ["done"]
    line.tell(Response(line.asked[-1].id, view()))
    assert line.actions[2:] == ["turn.start"]
    assert len(line.happen(6, "debug", a=1)) == 1


def test_leaving_waits_its_turn_and_what_is_said_behind_it_opens_the_session_anew() -> None:
    line = Line()
    line.say(messageId="1")
    line.say(messageId="2", role="system", content=None, metadata={"kind": "unsubscribe"})
    line.say(messageId="3")
    line.tell(Response(line.asked[0].id, view()))
    assert line.actions == ["session.open", "turn.start", "session.detach", "session.open"]
    accepted = {"turn_id": "t", "seq": 2, "status": "running", "duplicate": False, "durable": True}
    (said,) = line.tell(Response(line.asked[1].id, json.dumps(accepted).encode()))  # nobody would tell it otherwise
    assert (said["metadata"]["kind"], said["metadata"]["inReplyTo"]) == ("done", "1")


def test_who_may_not_leave_stays() -> None:
    line = Line().open()
    request = line.say(role="system", content=None, metadata={"kind": "unsubscribe"})
    (said,) = line.tell(Failure(request.id, BrokerError("forbidden")))
    assert place(said)["messageId"] == "m"
    assert len(line.happen(5, "debug", a=1)) == 1


@pytest.mark.parametrize("kind", ["user", "variables", "subscribe"])
def test_a_session_that_is_gone_is_opened_anew_by_what_is_said_next(kind: str) -> None:
    line = Line().open()
    role = "user" if kind == "user" else "system"
    request = line.say(role=role, content={"set": {}}, metadata={} if kind == "user" else {"kind": kind})
    (said,) = line.tell(Failure(request.id, BrokerError("not_found", field="$.payload.session_id")))
    assert said["content"]["code"] == "not_found"
    line.say(messageId="2")
    assert line.actions[1:] == ["session.open"]


def test_a_turn_that_is_not_there_is_no_reason_to_forget_the_session() -> None:
    line = Line().open()
    request = line.say(role="system", content={"turnId": "t"}, metadata={"kind": "cancel"})
    line.tell(Failure(request.id, BrokerError("not_found", field="$.payload.turn_id")))
    assert len(line.happen(5, "debug", a=1)) == 1


def test_a_person_cannot_speak_as_the_broker() -> None:
    line = Line().open()
    forged: dict[str, Any] = dict.fromkeys(
        ["edited", "replaced", "outcome", "inReplyTo", "kind", "turnId", "of", "from"], "x"
    )
    line.said.clear()
    line.ask(mood="blue", **forged)
    (said,) = line.said
    assert said["metadata"] == {"mood": "blue", "author": "ann", "seq": 2, "turnId": "t", "kind": "message"}


def test_what_was_passed_over_is_not_held_against_a_turn() -> None:
    line = Line().open()
    line.ask()
    turn = {"turn_id": "t", "state": "running", "user": "ann", "client_msg_id": "m1"}
    line.open(head=8, turn=turn, metadata={"afterSeq": -1})
    assert [said["metadata"]["kind"] for said in line.happen(9, "turn.ended", outcome="completed")] == ["state"]
    line.ask(10)
    line.open(head=20, metadata={"afterSeq": -1})
    (state,) = line.happen(21, "turn.ended", outcome="completed")  # of a turn that is not remembered any more
    assert state["content"]["messageId"] is None


def test_who_leaves_or_may_see_no_more_is_told_nothing_more() -> None:
    line = Line().open()
    request = line.say(role="system", content=None, metadata={"kind": "unsubscribe"})
    line.tell(Response(request.id, b"{}"))
    assert line.happen(5, "debug", a=1) == []
    (said,) = line.open().tell(SessionDetached("s"))
    assert said["content"]["code"] == "forbidden"
    assert line.happen(6, "debug", a=1) == []


def test_what_concerns_everybody_is_told() -> None:
    line = Line()
    (welcome,) = line.tell(Welcome("c", "ann", "chat.v1.json", "x", "n", 30.0, 1 << 20))
    assert (welcome["metadata"]["kind"], welcome["content"]["connectionId"]) == ("welcome", "c")
    (restarting,) = line.tell(Restarting(2.5))
    assert (restarting["metadata"]["kind"], restarting["content"]) == ("restarting", {"retryAfter": 2.5})
    for value, kind in ((Broadcast(b"{}", b"1"), "broadcast"), (Direct(b"{}", b"1"), "direct")):
        (said,) = line.tell(value)
        assert (said["metadata"], said["content"]) == ({"from": {}, "kind": kind}, 1)


def test_a_reset_says_that_the_past_counts_no_more() -> None:
    (said,) = Line().open().tell(SessionReset("s", "e2", 9, 4))
    assert (said["content"]["event"], said["content"]["data"]) == (
        "session.reset",
        {"epoch": "e2", "head": 9, "floor": 4},
    )


def test_an_error_of_what_could_not_be_read_names_what_can_be_told_of_it() -> None:
    line = Line()
    tag = line.dialect.salvage_id(b'{"messageId":"m","sessionId":"s","actionId":5,"role":"x"}')
    (said,) = line.tell(Failure(tag, BrokerError("invalid_message", field="$.role", hint="user, system")))
    assert place(said) == {"sessionId": "s", "messageId": "m", "actionId": None, "field": "$.role"}
    assert said["content"]["hint"] == "user, system"
    assert line.dialect.salvage_id(b"{") is None
    (said,) = line.tell(Failure(None, BrokerError("invalid_json")))
    assert said["metadata"] == {"kind": "error"}


@pytest.mark.parametrize(
    ("kind", "field", "there"),
    [
        ("user", "$.payload.session_id", "$.sessionId"),
        ("user", "$.payload.client_msg_id", "$.messageId"),
        ("user", "$.payload.content[0].type", "$.content[0].type"),
        ("user", "$.payload.metadata", "$.metadata"),
        ("cancel", "$.payload.turn_id", "$.content.turnId"),
        ("approval", "$.payload.option_id", "$.content.optionId"),
        ("variables", "$.payload.variables", "$.content.set"),
        ("subscribe", "$.payload.agent", "$.metadata.agent"),
    ],
)
def test_a_place_is_named_as_it_is_called_here(kind: str, field: str, there: str) -> None:
    line = Line().open()
    role = "user" if kind == "user" else "system"
    contents = {
        "cancel": {"turnId": "t"},
        "approval": {"approvalId": "a", "optionId": "o"},
        "variables": {"set": {}},
    }
    request = line.say(role=role, content=contents.get(kind), metadata={"kind": kind})
    (said,) = line.tell(Failure(request.id, BrokerError("invalid_message", field=field)))
    assert place(said)["field"] == there


# -- whatever comes ------------------------------------------------------------------------------------

WORDS = st.sampled_from(["s", "s2", "m", "t", "user", "system", "subscribe", "cancel", "variables", "ping", ""])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(), inner, max_size=3),
    max_leaves=5,
)
METADATA = st.fixed_dictionaries({}, optional={"kind": WORDS, "afterSeq": JSON, "stream": JSON, "x": JSON})
MESSAGES = st.fixed_dictionaries(
    {"messageId": WORDS, "role": WORDS | JSON},
    optional={"sessionId": WORDS, "content": JSON, "actionId": JSON, "metadata": METADATA | JSON, "timestamp": JSON},
)


@given(st.binary() | MESSAGES.map(lambda message: json.dumps(message).encode()))
def test_whatever_is_sent_is_read_or_refused(text: bytes) -> None:
    dialect = ChatDialect({}, lambda: AT)
    try:
        request = dialect.decode(text)
    except BrokerError:
        request = Request("", b"", dialect.salvage_id(text))
    json.loads(request.payload or b"null")
    str(request.id)


RECORDS = (
    ("session.opened", {"title": None, "agent": "echo", "owner": None, "variables": {}}),
    ("session.changed", {"title": "x", "by": None}),
    ("variables.changed", {"set": {}, "variables": {}, "by": None}),
    ("user.message", {"message_id": "t", "role": "user", "content": "?", "client_msg_id": "m", "author": None}),
    ("turn.edited", {"message_id": "t", "role": "user", "content": [], "client_msg_id": "m", "author": None}),
    *((kind, {}) for kind in ("turn.queued", "turn.started", "turn.cancelling", "debug", "withheld", "activity")),
    *(("turn.ended", {"outcome": outcome}) for outcome in ("completed", "cancelled", "failed", "timed_out", "lost")),
    *((f"{kind}.delta", {"message_id": "r", "role": "assistant", "text": "x"}) for kind in ("message", "thought")),
    ("message.completed", {"message_id": "r", "role": "assistant", "content": "x"}),
    ("message.replaced", {"message_id": "r", "role": "assistant", "thought": False, "content": ""}),
    *((f"approval.{kind}", {"approval_id": "a"}) for kind in ("requested", "resolved")),
    ("vendor.odd", {"content": 5, "approval_id": [], "metadata": 1}),
)


def _record(which: tuple[str, Any], seq: int, session_id: str, turn_id: str | None) -> SessionRecord:
    return SessionRecord(session_id, Record(seq, AT, which[0], json.dumps(which[1]).encode(), turn_id))


TOLD = st.one_of(
    st.builds(
        _record, st.sampled_from(RECORDS), st.integers(1, 9), st.sampled_from("sx"), st.sampled_from(["t", None])
    ),
    st.sampled_from(
        [
            *(
                Entered(),
                CaughtUp("s", 3),
                CaughtUp("x", 3),
                SessionReset("s", "e", 3, 1),
                SessionReset("x", "e", 3, 1),
            ),
            *(SessionDetached("s"), Restarting(1.0), Broadcast(b"{}", b"1"), Direct(b"{}", b"1"), RoomLeft("r")),
            *(RoomEvent("r", 1, "e", b"{}", b"1", AT), Failure(None, BrokerError("internal"))),
            Welcome("c", None, "chat.v1.json", "x", "n", 30.0, 1),
        ]
    ),
)
ACCEPTED = b'{"turn_id":"t","seq":2,"status":"x","duplicate":true,"durable":true}'
ANSWERS = st.sampled_from([view(), view(5), b"{}", ACCEPTED, b"null"]) | st.builds(
    BrokerError, st.sampled_from(["forbidden", "not_found", "unavailable"]), retry_after=st.just(0.1)
)


def _answered(request: Request, data: bytes) -> Response:
    """Return what the broker answers to this, or, with other data, what a handler does."""
    ours = {"session.open": (view(), view(5)), "turn.start": (ACCEPTED,)}.get(request.action, (b"{}",))
    handled = bool(request.kind) and not request.held and data not in ours
    return Response(request.id, b"{}" if request.held else data if handled or data in ours else ours[0], handled)


@given(st.lists(TOLD | MESSAGES | ANSWERS, max_size=30))
def test_whatever_happens_in_whatever_order_breaks_nothing(script: list[Any]) -> None:
    """Messages of the client, answers to what was asked for, and whatever is told, in any order."""
    line = Line(sessionId="s")
    open_requests: list[Request] = []
    for step in script:
        if isinstance(step, dict):
            try:
                open_requests.append(line.dialect.decode(json.dumps(step).encode()))
            except BrokerError as e:
                line.tell(Failure(None, e))
        elif isinstance(step, bytes | BrokerError):
            if open_requests:
                request = open_requests.pop(0)
                if isinstance(step, BrokerError):
                    line.tell(Failure(request.id, step))
                else:
                    line.tell(_answered(request, step))
        else:
            line.tell(step)
        open_requests += line.asked
        line.asked.clear()
        while line.later:
            line.tell(Due(line.later.pop().token))
