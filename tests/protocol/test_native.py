"""`broker.v1.json`: every kind of bad message has its code and its field, and payloads pass byte for byte."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ERRORS, BrokerError
from broker.messages import Record
from broker.protocol.native import MAX_ID, NATIVE
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
    Tapped,
    Welcome,
)
from broker.protocol.parcel import Parcel

AT = 1_700_000_000_123


def fields(request: Request) -> tuple[str, bytes, str | None]:
    return request.action, request.payload, request.id


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        (b'{"type":"request","action":"ping"}', Request("ping", b"{}", None)),
        (b'{"type":"request","action":"ping","id":"c1"}', Request("ping", b"{}", "c1")),
        (b'{"type":"request","action":"ping","id":null}', Request("ping", b"{}", None)),
        (b' {"id":"","payload":[1, 2],"action":"a","type":"request"} ', Request("a", b"[1, 2]", "")),
        (b'{"type":"request","action":"a","payload":null,"more":1}', Request("a", b"null", None)),
        (b'{"type":"request","action":"\\u00e9","payload":"x"}', Request("é", b'"x"', None)),
    ],
)
def test_good_messages_are_read(text: bytes, request_: Request) -> None:
    assert fields(NATIVE.decode(text)) == fields(request_)


REQUEST = b'{"type":"request","action":"a","payload":%b}'
BAD = [
    (b"", "invalid_json", None),
    (b"hello", "invalid_json", None),
    (b"{", "invalid_json", None),
    (b'{"type":"request","action":"a"}}', "invalid_json", None),
    (b'{"type":"request","action":"a"} {}', "invalid_json", None),
    (b"{'type':'request'}", "invalid_json", None),
    (b'{"type":"request","action":"a",}', "invalid_json", None),
    (REQUEST % b"NaN", "invalid_json", None),
    (REQUEST % b"Infinity", "invalid_json", None),
    (REQUEST % b"-Infinity", "invalid_json", None),
    (REQUEST % b"01", "invalid_json", None),
    (REQUEST % b'"\x01"', "invalid_json", None),
    (REQUEST % b'"\\x"', "invalid_json", None),
    (REQUEST % b'"\\ud800"', "invalid_json", None),
    (REQUEST % b'{"\\udc00":1}', "invalid_json", None),
    (REQUEST % b"", "invalid_json", None),
    (b'\xef\xbb\xbf{"type":"request","action":"a"}', "invalid_json", None),
    (b'{"type":"request","action":"\xff"}', "invalid_json", None),
    (b"[]", "invalid_message", "$"),
    (b'"request"', "invalid_message", "$"),
    (b"null", "invalid_message", "$"),
    (b"{}", "invalid_message", "$"),
    (b'{"action":"a"}', "invalid_message", "$"),
    (b'{"type":"request"}', "invalid_message", "$"),
    (b'{"type":"response","action":"a"}', "invalid_message", "$.type"),
    (b'{"type":1,"action":"a"}', "invalid_message", "$.type"),
    (b'{"type":"request","action":1}', "invalid_message", "$.action"),
    (b'{"type":"request","action":null}', "invalid_message", "$.action"),
    (b'{"type":"request","action":"a","id":1}', "invalid_message", "$.id"),
    (b'{"type":"request","action":"a","id":"%b"}' % (b"x" * (MAX_ID + 1)), "invalid_message", "$.id"),
    (REQUEST % (b"[" * 64 + b"]" * 64), "invalid_message", None),
    (REQUEST % (b"[" * 100_000 + b"]" * 100_000), "invalid_message", None),
]


@pytest.mark.parametrize(("text", "code", "field"), BAD)
def test_bad_messages_are_refused_with_their_code_and_the_field_that_is_wrong(
    text: bytes, code: str, field: str | None
) -> None:
    with pytest.raises(BrokerError) as refusal:
        NATIVE.decode(text)
    assert (refusal.value.code, refusal.value.field) == (code, field)
    assert refusal.value.message
    assert not refusal.value.retryable


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        (b'{"type":"nonsense","id":"c1"}', "c1"),
        (b'{"id":"c1","action":1}', "c1"),
        (REQUEST.replace(b"}", b',"id":"c1"}') % (b"[" * 65 + b"]" * 65), "c1"),
        (b'{"id":1}', None),
        (b'{"id":"%b"}' % (b"x" * 129), None),
        (b"not json", None),
        (b"[1]", None),
        (b'{"id":"\xff"}', None),
        (b'{"a":' * 100_000, None),
    ],
)
def test_the_id_of_a_refused_message_is_salvaged_where_it_has_a_good_one(text: bytes, id_: str | None) -> None:
    assert NATIVE.salvage_id(text) == id_


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(JSON, st.text(max_size=MAX_ID), st.text())
def test_what_is_said_is_what_is_read(payload: Any, id_: str, action: str) -> None:
    body = msgspec.json.encode(payload)
    text = msgspec.json.encode({"type": "request", "action": action, "id": id_, "payload": msgspec.Raw(body)})
    assert fields(NATIVE.decode(text)) == (action, body, id_)


SPELLINGS = [
    b'{ "a" :\t1.0e+2 , "b":[ ] }',
    b'"\\u00e9\\/\\ud83d\\udca5"',
    b"1E400",
    b"-0.0",
    b'{"a":1,"a":2}',
    b"123456789012345678901",
]


@pytest.mark.parametrize("payload", SPELLINGS)
def test_payloads_pass_byte_for_byte_both_ways(payload: bytes) -> None:
    request = NATIVE.decode(REQUEST % payload)
    assert request.payload == payload
    for value in (
        Response("c1", request.payload),
        Broadcast(b"null", request.payload),
        Direct(b"null", request.payload),
        RoomEvent("r", 1, "e", b"null", request.payload, AT),
        SessionRecord("s", Record(1, AT, "k", request.payload)),
    ):
        assert payload in NATIVE.encode(value)


NO_LONGER = {"code": "forbidden", "message": "You may not see this any more."}
SAID: list[tuple[Outgoing, dict[str, Any]]] = [
    (Response("c1", b'{"a":1}'), {"id": "c1", "type": "response", "data": {"a": 1}}),
    (
        Failure("c1", BrokerError("busy")),
        {"id": "c1", "type": "error", "data": {"code": "busy", "message": ERRORS["busy"].sentence, "retryable": True}},
    ),
    (
        Failure(None, BrokerError("queue_full", "Full.", retry_after=1.5, field="$.x", hint="wait")),
        {
            "type": "error",
            "data": {
                "code": "queue_full",
                "message": "Full.",
                "retryable": True,
                "retry_after": 1.5,
                "field": "$.x",
                "hint": "wait",
            },
        },
    ),
    (
        Welcome("c1", None, "broker.v1.json", "actor-broker/1", "n1", 30.0, 1024),
        {
            "type": "notification",
            "event": "welcome",
            "data": {
                "connection_id": "c1",
                "user": None,
                "protocol": "broker.v1.json",
                "server": "actor-broker/1",
                "node": "n1",
                "heartbeat": 30.0,
                "max_message_bytes": 1024,
            },
        },
    ),
    (
        SessionRecord("s1", Record(12, AT, "message.delta", b'{"text":"hi"}', "t1")),
        {
            "type": "notification",
            "event": "message.delta",
            "session_id": "s1",
            "seq": 12,
            "turn_id": "t1",
            "at": "2023-11-14T22:13:20.123Z",
            "data": {"text": "hi"},
        },
    ),
    (
        SessionRecord("s1", Record(1, AT, "session.opened", b"{}")),
        {
            "type": "notification",
            "event": "session.opened",
            "session_id": "s1",
            "seq": 1,
            "at": "2023-11-14T22:13:20.123Z",
            "data": {},
        },
    ),
    (
        CaughtUp("s1", 12),
        {"type": "notification", "event": "session.caught_up", "session_id": "s1", "data": {"head": 12}},
    ),
    (
        SessionReset("s1", "e1", 12, 3),
        {
            "type": "notification",
            "event": "session.reset",
            "session_id": "s1",
            "data": {"epoch": "e1", "head": 12, "floor": 3},
        },
    ),
    (
        FeedbackAnswer("project:p1", "f1", b'{"agent":"planner"}', b"[1]", AT),
        {
            "type": "notification",
            "event": "room.event",
            "room": "project:p1",
            "from": {"agent": "planner"},
            "at": "2023-11-14T22:13:20.123Z",
            "data": {"event": "user_feedback_response", "data": {"feedback_id": "f1", "data": [1]}},
        },
    ),
    (
        RoomEvent("lobby", 3, "message", b'{"user":"ann"}', b"1", AT),
        {
            "type": "notification",
            "event": "room.event",
            "room": "lobby",
            "seq": 3,
            "from": {"user": "ann"},
            "at": "2023-11-14T22:13:20.123Z",
            "data": {"event": "message", "data": 1},
        },
    ),
    (
        Broadcast(b'{"user":null}', b"[1]"),
        {"type": "notification", "event": "broadcast", "from": {"user": None}, "data": [1]},
    ),
    (Direct(b"{}", b"1"), {"type": "notification", "event": "message", "from": {}, "data": 1}),
    (Tapped(b'{"what":"message"}'), {"type": "notification", "event": "tap", "data": {"what": "message"}}),
    (
        Restarting(2.5),
        {"type": "notification", "event": "restarting", "data": {"retry_after": 2.5}},
    ),
    (
        SessionDetached("s1"),
        {"type": "notification", "event": "session.detached", "session_id": "s1", "data": NO_LONGER},
    ),
    (
        RoomLeft("lobby"),
        {"type": "notification", "event": "room.left", "room": "lobby", "data": NO_LONGER},
    ),
]


@pytest.mark.parametrize(("value", "message"), SAID)
def test_what_is_said_is_as_the_contract_has_it(value: Outgoing, message: dict[str, Any]) -> None:
    assert msgspec.json.decode(NATIVE.encode(value)) == message


def test_every_kind_of_outgoing_value_is_covered_here() -> None:
    assert {type(value) for value, _ in SAID} == set(Outgoing.__args__)


def test_a_room_event_without_history_has_no_number() -> None:
    text = NATIVE.encode(RoomEvent("r", None, "e", b"null", b"1", AT))
    assert "seq" not in msgspec.json.decode(text)


@given(st.text(), st.text(), st.text())
def test_names_and_ids_with_quotes_and_controls_do_not_break_the_message(a: str, b: str, c: str) -> None:
    record = msgspec.json.decode(NATIVE.encode(SessionRecord(a, Record(1, AT, b, b"{}", c))))
    assert (record["session_id"], record["event"], record["turn_id"]) == (a, b, c)
    event = msgspec.json.decode(NATIVE.encode(RoomEvent(a, 1, b, b"null", b"{}", AT)))
    assert (event["room"], event["data"]["event"]) == (a, b)
    assert msgspec.json.decode(NATIVE.encode(Response(a, b"1")))["id"] == a
    assert msgspec.json.decode(NATIVE.encode(Failure(a, BrokerError("busy", b, field=c))))["data"]["field"] == c


def test_a_parcel_is_encoded_once_per_format_and_compression_and_shared() -> None:
    encoded: list[Outgoing] = []

    class Counting:
        name = "counting"

        def encode(self, value: Outgoing) -> bytes:
            encoded.append(value)
            return NATIVE.encode(value)

    parcel = Parcel((Direct(b"null", b"1"), Direct(b"null", b"2")))
    wire: Any = Counting()
    frames = parcel.frames(wire, 0)
    assert parcel.frames(wire, 0) is frames
    assert len(encoded) == 2
    assert parcel.frames(wire, 15) is not frames
    assert len(encoded) == 4
