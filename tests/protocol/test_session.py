"""`session.v1.json`: two spellings, one session, and errors that end the connection or do not."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError, CloseCode
from broker.messages import Record
from broker.protocol.dialect import Part, Reaction
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
from broker.protocol.session import SessionDialect, SessionFormat, Tag

RECORD = SessionRecord("s1", Record(3, 1_700_000_000_123, "message.delta", b'{"text":"hi"}', "t1"))
VALUES: list[Any] = [
    Welcome("c1", None, "session.v1.json", "actor-broker/1", "n", 30.0, 1024),
    Entered(),
    Due("late"),
    Response(Tag("NewSession", inside=False), b'{"session_id":"s1"}'),
    Response(Tag("Mine", inside=True), b"[1]"),
    Failure(None, BrokerError("invalid_json")),
    Failure(Tag("Prompt", inside=True), BrokerError("timeout")),
    RECORD,
    CaughtUp("s1", 3),
    SessionReset("s1", "e", 3, 1),
    SessionDetached("s1"),
    RoomEvent("r", 1, "tide", b"null", b"1", 0),
    RoomLeft("r"),
    Restarting(1.0),
    Broadcast(b"null", b"1"),
    Direct(b"null", b"1"),
]


@pytest.fixture
def dialect() -> SessionDialect:
    return SessionDialect()


def ask(dialect: SessionDialect, message: Any) -> tuple[Request, Any]:
    request = dialect.decode(msgspec.json.encode(message))
    return request, msgspec.json.decode(request.payload or b"null")


def said(reactions: Iterable[Reaction]) -> list[Any]:
    return [msgspec.json.decode(each) if isinstance(each, bytes) else each for each in reactions]


@pytest.mark.parametrize(
    "message", [{"NewSession": {"workspace_dir": "/w"}}, {"type": "NewSession", "workspace_dir": "/w"}]
)
def test_a_session_is_asked_for_that_ends_with_the_connection(dialect: SessionDialect, message: Any) -> None:
    request, payload = ask(dialect, message)
    assert (request.action, request.kind) == ("session.create", "NewSession")
    assert (payload["workspace_dir"], payload["ephemeral"]) == ("/w", True)
    assert len(payload["session_id"]) == 36
    assert ask(dialect, message)[1]["session_id"] == payload["session_id"]  # so that the broker refuses a second one


def test_answers_and_errors_are_spelt_as_the_message_was(dialect: SessionDialect) -> None:
    outside, inside = Tag("NewSession", inside=False), Tag("NewSession", inside=True)
    data = b'{"session_id":"s1"}'
    assert said(dialect.tell(Response(outside, data))) == [{"NewSession": {"session_id": "s1"}}]
    assert said(dialect.tell(Response(inside, data))) == [{"type": "NewSession", "session_id": "s1"}]
    assert said(dialect.tell(Response(inside, b"{}"))) == [{"type": "NewSession"}]
    assert said(dialect.tell(Response(inside, b"1"))) == [{"type": "NewSession", "data": 1}]
    refused = BrokerError("workspace_not_found", field="$.payload.workspace_dir")
    expected = {"code": "workspace_not_found", "message": "The workspace directory does not exist.", "retryable": False}
    assert said(dialect.tell(Failure(outside, refused))) == [{"Error": expected}]
    assert said(dialect.tell(Failure(inside, refused))) == [{"type": "Error", **expected}]


def test_a_second_session_is_refused_in_words_that_fit(dialect: SessionDialect) -> None:
    ((error,),) = [said(dialect.tell(Failure(Tag("NewSession", inside=False), BrokerError("session_exists"))))]
    assert error["Error"]["message"] == "This connection has its session already."


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"{", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b"[]", "invalid_message"),
        (b"{}", "invalid_message"),
        (b'{"NewSession":{},"More":{}}', "invalid_message"),
        (b'{"NewSession":{}}', "invalid_message"),
        (b'{"NewSession":{"workspace_dir":1}}', "invalid_message"),
        (b'{"NewSession":"/w"}', "invalid_message"),
        (b'{"type":1}', "invalid_message"),
        (b'{"":{}}', "invalid_message"),
        (b'{"Prompt":' + b"[" * 70 + b"]" * 70 + b"}", "invalid_message"),
    ],
)
def test_what_cannot_be_read_ends_the_connection(dialect: SessionDialect, text: bytes, code: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        dialect.decode(text)
    assert (refusal.value.code, refusal.value.close) == (code, CloseCode.POLICY_VIOLATION)


def test_a_type_that_nobody_knows_ends_the_connection_after_it_was_said(dialect: SessionDialect) -> None:
    request, _ = ask(dialect, {"Teleport": {"to": "x"}})
    assert (request.action, request.kind) == ("", "Teleport")
    error, end = said(dialect.tell(Failure(request.id, BrokerError("unknown_action", "unknown action: Teleport"))))
    assert error["Error"]["message"] == "unknown action: Teleport"
    assert end == Part(CloseCode.POLICY_VIOLATION)


def test_a_client_of_the_plain_design_hears_of_nothing_else(dialect: SessionDialect) -> None:
    ask(dialect, {"NewSession": {"workspace_dir": "/w"}})
    for value in (VALUES[0], Entered(), RECORD, CaughtUp("s1", 1), Broadcast(b"null", b"1"), Restarting(1.0)):
        assert said(dialect.tell(value)) == []
    assert said(dialect.tell(Direct(b"null", b"1"))) == [{"Message": {"from": None, "data": 1}}]


@pytest.mark.parametrize(
    ("message", "action", "payload"),
    [
        ({"Prompt": {"content": "hi", "client_msg_id": "m"}}, "turn.start", {"content": "hi", "client_msg_id": "m"}),
        ({"Cancel": {"turn_id": "t"}}, "turn.cancel", {"turn_id": "t"}),
        ({"Answer": {"approval_id": "a", "option_id": "o"}}, "approval.answer", {"approval_id": "a", "option_id": "o"}),
    ],
)
def test_who_talks_is_told_what_happens(dialect: SessionDialect, message: Any, action: str, payload: Any) -> None:
    request, asked = ask(dialect, message)
    assert request.action == action
    assert asked == {**payload, "session_id": asked["session_id"]}
    (update,) = said(dialect.tell(RECORD))
    assert update == {
        "Update": {
            "session_id": "s1",
            "seq": 3,
            "kind": "message.delta",
            "turn_id": "t1",
            "at": "2023-11-14T22:13:20.123Z",
            "data": {"text": "hi"},
        }
    }


def test_a_prompt_without_an_id_is_given_one_and_a_token_is_not_shown(dialect: SessionDialect) -> None:
    ids = [ask(dialect, {"type": "Prompt", "content": "hi"})[1]["client_msg_id"] for _ in range(2)]
    assert ids[0] != ids[1]
    request, payload = ask(dialect, {"Auth": {"token": "s3cret"}})
    assert (request.action, payload) == ("auth", {"token": "s3cret"})
    assert "s3cret" not in repr(request)


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.text(max_size=5) | st.sampled_from(["NewSession", "Prompt"]),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "NewSession", "Prompt", "content", "x"]), each, max_size=3)
        ),
    ).map(msgspec.json.encode)
)
def test_whatever_comes_is_read_or_refused(text: bytes) -> None:
    dialect = SessionDialect()
    dialect.salvage_id(text)
    with suppress(BrokerError):
        assert isinstance(dialect.decode(text), Request)


@given(st.lists(st.sampled_from(VALUES), max_size=20))
def test_whatever_it_is_told_is_said_in_json_or_not_at_all(values: list[Any]) -> None:
    for dialect in (SessionDialect(), SessionDialect()):
        for value in values:
            said(dialect.tell(value))
            text = SessionFormat().encode(value) if not isinstance(value, Entered | Due) else b""
            assert not text or msgspec.json.decode(text)
