"""`project.v1.json`: what its clients say becomes rooms and feedback, and rooms come back as projects."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError
from broker.messages import Record
from broker.projects import EVENTS, MAX_GUID
from broker.protocol.outgoing import (
    Broadcast,
    CaughtUp,
    Direct,
    Failure,
    FeedbackAnswer,
    Outgoing,
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
from broker.protocol.parcel import Parcel
from broker.protocol.project import ProjectFormat
from broker.protocol.project_asked import Tag

AT = 1_700_000_000_123
SAID_AT = "2023-11-14T22:13:20.123Z"
NOW = 1_700_000_001_000
NOW_SAID = "2023-11-14T22:13:21.000Z"
PROJECT = ProjectFormat(lambda: NOW)


def text(type_: Any, **fields: Any) -> bytes:
    """Return a client's message as the design has it, with what else is given in its place."""
    whole = {"projectGuid": "p1", "data": {}, "timestamp": "2025-01-01T00:00:00Z", "id": "m1"}
    return msgspec.json.encode({"type": type_, **whole, **fields})


def read(message: bytes) -> tuple[str, Any]:
    request = PROJECT.decode(message)
    return request.action, msgspec.json.decode(request.payload)


def said(value: Outgoing) -> Any:
    return msgspec.json.decode(PROJECT.encode(value))


# -- what clients say ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "action", "payload"),
    [
        (text("join_project"), "room.join", {"room": "project:p1"}),
        (text("join_project", data=None), "room.join", {"room": "project:p1"}),
        (
            text("join_project", data={"events": ["agent_message"], "after_seq": 7, "epoch": "e1", "more": 1}),
            "room.join",
            {"room": "project:p1", "events": ["agent_message"], "after_seq": 7, "epoch": "e1"},
        ),
        (text("join_project", data={"after_seq": 0}), "room.join", {"room": "project:p1", "after_seq": 0}),
        (text("join_project", projectGuid="ü/ü 5"), "room.join", {"room": "project:ü/ü 5"}),
        (text("leave_project"), "room.leave", {"room": "project:p1"}),
        (
            text("user_feedback", data={"a": [1]}),
            "project.feedback",
            {"project": "p1", "data": {"a": [1]}, "feedback_id": "m1"},
        ),
        (text("user_feedback", data="yes", id=None), "project.feedback", {"project": "p1", "data": "yes"}),
        (text("user_feedback", data=False, id=""), "project.feedback", {"project": "p1", "data": False}),
        (text("ping"), "ping", {}),
        (text("ping", projectGuid=None, data=None, timestamp=None, id=None), "ping", {}),
        (b'{"type":"ping"}', "ping", {}),
        (text("auth", data={"token": "t"}), "auth", {"token": "t"}),
    ],
)
def test_what_clients_say_is_what_rooms_and_projects_are_asked(message: bytes, action: str, payload: Any) -> None:
    assert read(message) == (action, payload)


def test_every_message_has_an_answer_and_a_kind_by_its_own_type() -> None:
    assert PROJECT.decode(text("join_project")).id == Tag("join_project", "p1", "m1")
    assert PROJECT.decode(b'{"type":"ping"}').id == Tag("ping")
    assert [PROJECT.decode(text(kind)).kind for kind in ("ping", "deploy")] == ["ping", "deploy"]
    assert (str(Tag("ping", "p1", "m1")), str(Tag("ping", "p1"))) == ("m1", "")


@pytest.mark.parametrize("name", ["deploy", "room.publish", "broadcast", "session.create", "project.feedback", "Ping"])
def test_a_type_of_no_design_reaches_no_action_of_the_broker(name: str) -> None:
    """Only a handler that is registered for it, by its kind."""
    assert read(text(name, data={"room": "secret"})) == ("", {"room": "secret"})


def test_feedback_passes_byte_for_byte() -> None:
    request = PROJECT.decode(b'{"type":"user_feedback","projectGuid":"p1","data":{ "a" : 1.0e+2 }}')
    assert b'{ "a" : 1.0e+2 }' in request.payload


def test_a_token_is_in_no_repr() -> None:
    assert "xyzzy" not in repr(PROJECT.decode(text("auth", data={"token": "xyzzy"})))


BAD = [
    (b"", "invalid_json", None),
    (b"hello", "invalid_json", None),
    (b'{"type":"ping"', "invalid_json", None),
    (b'{"type":"ping","data":NaN}', "invalid_json", None),
    (b'{"type":"ping","data":"\\ud800"}', "invalid_json", None),
    (b'{"type":"p\xff"}', "invalid_json", None),
    (b"[]", "invalid_message", "$"),
    (b"{}", "invalid_message", "$"),
    (text(1), "invalid_message", "$.type"),
    (text(None), "invalid_message", "$.type"),
    (text(""), "invalid_message", "$.type"),
    (text("x" * 129), "invalid_message", "$.type"),
    (text("ping", id=1), "invalid_message", "$.id"),
    (text("ping", id="x" * 129), "invalid_message", "$.id"),
    (text("ping", timestamp=1_700_000_000), "invalid_message", "$.timestamp"),
    (text("ping", projectGuid=5), "invalid_message", "$.projectGuid"),
    (text("ping", projectGuid=""), "invalid_message", "$.projectGuid"),
    (text("ping", projectGuid="x" * (MAX_GUID + 1)), "invalid_message", "$.projectGuid"),
    (text("join_project", projectGuid=None), "invalid_message", "$.projectGuid"),
    (text("leave_project", projectGuid=None), "invalid_message", "$.projectGuid"),
    (text("user_feedback", projectGuid=None), "invalid_message", "$.projectGuid"),
    (text("join_project", projectGuid="a\nb"), "invalid_message", "$.projectGuid"),
    (text("join_project", data=[]), "invalid_message", "$.data"),
    (text("join_project", data={"events": []}), "invalid_message", "$.data.events"),
    (text("join_project", data={"events": "agent_message"}), "invalid_message", "$.data.events"),
    (text("join_project", data={"events": ["e"] * 65}), "invalid_message", "$.data.events"),
    (text("join_project", data={"events": [1]}), "invalid_message", "$.data.events[0]"),
    (text("join_project", data={"events": [""]}), "invalid_message", "$.data.events[0]"),
    (text("join_project", data={"after_seq": "7"}), "invalid_message", "$.data.after_seq"),
    (text("join_project", data={"after_seq": -2}), "invalid_message", "$.data.after_seq"),
    (text("join_project", data={"epoch": 1}), "invalid_message", "$.data.epoch"),
    (text("user_feedback", data=None), "invalid_message", "$.data"),
    (text("auth"), "invalid_message", "$.data"),
    (text("auth", data=None), "invalid_message", "$.data"),
    (text("auth", data={"token": 1}), "invalid_message", "$.data.token"),
    (b'{"type":"ping","data":%b%b}' % (b"[" * 64, b"]" * 64), "invalid_message", None),
    (b'{"type":"ping","data":%b%b}' % (b"[" * 100_000, b"]" * 100_000), "invalid_message", None),
]


@pytest.mark.parametrize(("message", "code", "field"), BAD)
def test_bad_messages_are_refused_with_their_code_and_the_field_that_is_wrong(
    message: bytes, code: str, field: str | None
) -> None:
    with pytest.raises(BrokerError) as refusal:
        PROJECT.decode(message)
    assert (refusal.value.code, refusal.value.field, refusal.value.close) == (code, field, None)


def test_the_longest_guid_makes_a_name_that_rooms_may_have() -> None:
    _, payload = read(text("join_project", projectGuid="x" * MAX_GUID))
    assert len(payload["room"]) == 255


@pytest.mark.parametrize(
    ("message", "tag"),
    [
        (text(7), Tag(guid="p1", id="m1")),
        (text(7, id=1), Tag(guid="p1")),
        (text(7, projectGuid={}), Tag(id="m1")),
        (text(7, projectGuid="x" * 300, id="y" * 300), Tag()),
        (b'{"type":"ping"', None),
        (b"[1]", None),
        (b'{"id":"\xff"}', None),
        (b'{"id":' * 100_000, None),
    ],
)
def test_what_can_be_read_of_a_refused_message_names_it(message: bytes, tag: Tag | None) -> None:
    assert PROJECT.salvage_id(message) == tag


# -- what is said to clients --------------------------------------------------------------------------


def message(type_: str, data: Any, **fields: Any) -> dict[str, Any]:
    return {"type": type_, "projectGuid": "p1", "data": data, "timestamp": NOW_SAID, "id": "m1", **fields}


FORBIDDEN = {"code": "forbidden", "message": "You may not see this project any more.", "retryable": False}
BUSY = BrokerError("rate_limited", "Slow.", retry_after=1.5, field="$.x", hint="wait")
BUSY_DATA = {
    "code": "rate_limited",
    "message": "Slow.",
    "retryable": True,
    "retry_after": 1.5,
    "field": "$.x",
    "hint": "wait",
}


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_the_events_of_a_project_are_messages_of_their_own_type(event: str) -> None:
    value = RoomEvent("project:p1", 3, event, b'{"user":"ann"}', b'{ "stage" : "build" }', AT)
    assert said(value) == message(event, {"stage": "build"}, timestamp=SAID_AT, id="p1:3")
    assert b'{ "stage" : "build" }' in PROJECT.encode(value)


def test_an_event_of_another_name_is_a_project_message_that_keeps_it() -> None:
    value = RoomEvent("project:p1", 4, "tide", b'{"user":"ann"}', b"[1]", AT)
    data = {"event": "tide", "from": {"user": "ann"}, "data": [1]}
    assert said(value) == message("project_message", data, timestamp=SAID_AT, id="p1:4")


def test_an_answer_to_feedback_of_another_connection_is_the_answer_that_one_would_have_had() -> None:
    value = FeedbackAnswer("project:p1", "f9", b"null", b'{"ok":true}', AT)
    assert said(value) == message("user_feedback_response", {"ok": True}, timestamp=SAID_AT, id="f9")


@pytest.mark.parametrize(("seq", "data"), [(7, 1), (None, {"feedback_id": "f9", "data": 1}), (None, 1)])
def test_who_publishes_by_that_name_answers_nobody(seq: int | None, data: Any) -> None:
    event = RoomEvent("project:p1", seq, "user_feedback_response", b"null", msgspec.json.encode(data), AT)
    assert said(event)["type"] == "project_message"
    assert said(event)["data"] == {"event": "user_feedback_response", "from": None, "data": data}


def test_an_event_that_is_not_kept_has_an_id_all_the_same() -> None:
    value = RoomEvent("project:p1", None, "agent_message", b"null", b"1", AT)
    ids = {said(value)["id"], said(value)["id"]}
    assert len(ids) == 2
    assert not any(":" in id_ for id_ in ids)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (Response(Tag("ping", "p1", "m1"), b'{"at":1}'), message("pong", {"at": 1})),
        (Response(Tag("join_project", "p1", "m1"), b'{"head":1}'), message("join_project_response", {"head": 1})),
        (Response(Tag("leave_project", "p1", "m1"), b"{}"), message("leave_project_response", {})),
        (
            Response(Tag("user_feedback", "p1", "m1"), b'{"project":"p1","feedback_id":"m1","data":[1]}'),
            message("user_feedback_response", [1]),
        ),
        (
            Response(Tag("user_feedback", "p1", "m1"), b'{"feedback_id":"x","data":1}', handled=True),
            message("user_feedback_response", {"feedback_id": "x", "data": 1}),
        ),
        (Response(Tag("user_feedback", "p1", "m1"), b"null", handled=True), message("user_feedback_response", None)),
        (Response(Tag("deploy", "p1", "m1"), b"7"), message("deploy_response", 7)),
        (Failure(Tag("ping", "p1", "m1"), BUSY), message("error", BUSY_DATA)),
    ],
)
def test_answers_are_about_the_project_and_the_message_that_was_sent(value: Outgoing, answer: Any) -> None:
    assert said(value) == answer


@pytest.mark.parametrize(
    ("kind", "field", "place"),
    [
        ("user_feedback", "$.payload.feedback_id", "$.id"),
        ("user_feedback", "$.payload.project", "$.projectGuid"),
        ("user_feedback", "$.payload.data.text", "$.data.text"),
        ("join_project", "$.payload.room", "$.projectGuid"),
        ("join_project", "$.payload.events[0]", "$.data.events[0]"),
        ("deploy", "$.payload.data.x", "$.data.data.x"),
        ("deploy", "$.payload", "$.data"),
        ("deploy", "$.data.x", "$.data.x"),
    ],
)
def test_a_refusal_names_the_field_where_the_client_wrote_it(kind: str, field: str, place: str) -> None:
    failure = Failure(Tag(kind, "p1", "m1"), BrokerError("invalid_message", field=field))
    assert said(failure)["data"]["field"] == place


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (Response(Tag("auth"), b"{}"), {"type": "auth_response", "data": {}}),
        (Failure(None, BUSY), {"type": "error", "data": BUSY_DATA}),
        (Failure(Tag(guid="p1"), BUSY), {"type": "error", "projectGuid": "p1", "data": BUSY_DATA}),
        (RoomLeft("project:p1"), {"type": "error", "projectGuid": "p1", "data": FORBIDDEN}),
        (
            Broadcast(b'{"user":null}', b"1"),
            {"type": "project_message", "data": {"event": "broadcast", "from": {"user": None}, "data": 1}},
        ),
        (
            Direct(b'{"user":"ann"}', b"1"),
            {"type": "project_message", "data": {"event": "message", "from": {"user": "ann"}, "data": 1}},
        ),
    ],
)
def test_what_answers_no_id_is_given_one(value: Outgoing, answer: Any) -> None:
    one, other = said(value), said(value)
    assert one.pop("id") != other.pop("id")
    assert one == {**answer, "timestamp": NOW_SAID}


@pytest.mark.parametrize(
    "value",
    [
        Welcome("c1", None, "project.v1.json", "actor-broker/1", "n1", 30.0, 1024),
        Restarting(2.5),
        SessionRecord("s1", Record(1, AT, "k", b"{}")),
        CaughtUp("s1", 1),
        SessionReset("s1", "e1", 1, 1),
        SessionDetached("s1"),
        RoomEvent("harbour", 1, "agent_message", b"null", b"1", AT),
        RoomEvent("project:", 1, "agent_message", b"null", b"1", AT),
    ],
)
def test_what_the_design_has_no_word_for_is_not_said(value: Outgoing) -> None:
    assert PROJECT.encode(value) == b""


def test_an_event_is_encoded_once_for_all_members() -> None:
    parcel = Parcel((RoomEvent("project:p1", None, "agent_message", b"null", b"1", AT),))
    assert parcel.frames(PROJECT, 0) is parcel.frames(PROJECT, 0)


# -- anything -----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)
TYPES = st.sampled_from(["join_project", "leave_project", "user_feedback", "ping", "auth"])


def anything() -> Iterator[st.SearchStrategy[bytes]]:
    yield st.binary()
    yield JSON.map(msgspec.json.encode)
    message = st.fixed_dictionaries(
        {"type": TYPES | JSON},
        optional={"projectGuid": st.text() | JSON, "data": JSON, "timestamp": st.text() | JSON, "id": st.text() | JSON},
    )
    yield message.map(msgspec.json.encode)


def decoded(data: bytes) -> Request | BrokerError:
    try:
        return PROJECT.decode(data)
    except BrokerError as refusal:
        return refusal


@given(st.one_of(*anything()))
def test_whatever_comes_is_a_request_or_a_typed_refusal(data: bytes) -> None:
    tag = PROJECT.salvage_id(data)
    assert tag is None or isinstance(said(Failure(tag, BrokerError("busy")))["id"], str)
    request = decoded(data)
    if isinstance(request, BrokerError):
        assert request.code in {"invalid_json", "invalid_message"}
    else:
        msgspec.json.decode(request.payload)
        assert said(Response(request.id, b"[1]"))["data"] == [1]


@given(st.text(min_size=1), st.text(), st.integers(min_value=1) | st.none(), JSON)
def test_names_with_quotes_and_controls_do_not_break_the_message(
    guid: str, event: str, seq: int | None, data: Any
) -> None:
    value = RoomEvent(f"project:{guid}", seq, event, b"null", msgspec.json.encode(data), AT)
    heard = said(value)
    assert heard["projectGuid"] == guid
    assert heard["data"] == (data if event in EVENTS else {"event": event, "from": None, "data": data})
    assert seq is None or heard["id"] == f"{guid}:{seq}"
