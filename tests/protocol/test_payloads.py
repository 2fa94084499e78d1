"""What each action takes, and which field is named when it does not fit."""

from typing import Any

import msgspec
import pytest

from broker.errors import BrokerError
from broker.protocol import payloads
from broker.protocol.checks import MAX_BLOCKS, check_content, check_metadata, check_name
from broker.protocol.payloads import decode

GOOD: list[tuple[type, bytes, dict[str, Any]]] = [
    (payloads.Create, b"{}", {"workspace_dir": None, "variables": {}, "session_id": None}),
    (payloads.Create, b'{"session_id":"my-session_1.~","variables":{"a":[1]}}', {"variables": {"a": [1]}}),
    (payloads.Attach, b'{"session_id":"s"}', {"after_seq": 0, "epoch": None}),
    (payloads.Attach, b'{"session_id":"s","after_seq":-1}', {"after_seq": -1}),
    (payloads.Named, b'{"session_id":"s","more":1}', {"session_id": "s"}),
    (payloads.Listing, b"{}", {"limit": 50, "cursor": None}),
    (payloads.History, b'{"session_id":"s","kind":"messages"}', {"kind": "messages", "limit": 100}),
    (payloads.Update, b'{"session_id":"s","variables":{"a":null}}', {"variables": {"a": None}, "title": None}),
    (payloads.Start, b'{"session_id":"s","client_msg_id":"m","content":"hi"}', {"if_busy": "queue"}),
    (payloads.Start, b'{"session_id":"s","client_msg_id":"m","content":"hi","retry_of":"t"}', {"retry_of": "t"}),
    (payloads.Edit, b'{"session_id":"s","turn_id":"t","content":["hi"]}', {"content": msgspec.Raw(b'["hi"]')}),
    (payloads.Drop, b'{"session_id":"s","turn_id":"t"}', {"turn_id": "t"}),
    (payloads.Share, b'{"session_id":"s","user":"bob","role":"viewer"}', {"user": "bob", "role": "viewer"}),
    (payloads.Share, b'{"session_id":"s","user":"bob","role":null}', {"role": None}),
    (payloads.Configure, b'{"session_id":"s","mode":"plan"}', {"mode": "plan", "options": {}}),
    (payloads.Configure, b'{"session_id":"s","options":{"a":[1]}}', {"mode": None, "options": {"a": [1]}}),
    (payloads.Cancel, b'{"session_id":"s","turn_id":"t"}', {"turn_id": "t"}),
    (payloads.Answer, b'{"session_id":"s","approval_id":"a","option_id":"o"}', {"option_id": "o"}),
    (payloads.Join, b'{"room":"project:4711 \xc3\xa9"}', {"room": "project:4711 é", "after_seq": None}),
    (payloads.RoomNamed, b'{"room":"r"}', {"room": "r"}),
    (payloads.Publish, b'{"room":"r"}', {"event": "message", "data": msgspec.Raw(b"null")}),
    (payloads.RoomHistory, b'{"room":"r","before_seq":1,"limit":1000}', {"limit": 1000}),
    (payloads.Feedback, b'{"project":"p","data":[1]}', {"data": msgspec.Raw(b"[1]"), "feedback_id": None}),
    (payloads.Send, b'{"to":{"users":["ann"]},"data":1}', {"to": payloads.To([], ["ann"])}),
]


@pytest.mark.parametrize(("cls", "payload", "values"), GOOD)
def test_good_payloads_are_read_with_their_defaults(cls: type, payload: bytes, values: dict[str, Any]) -> None:
    decoded: Any = decode(cls, payload)
    assert {key: getattr(decoded, key) for key in values} == values


BAD = [
    (payloads.Create, b"[]", "$.payload"),
    (payloads.Create, b"null", "$.payload"),
    (payloads.Create, b'{"session_id":"not an id"}', "$.payload.session_id"),
    (payloads.Create, b'{"session_id":""}', "$.payload.session_id"),
    (payloads.Create, b'{"session_id":"trailing\\n"}', "$.payload.session_id"),
    (payloads.Create, b'{"session_id":"%b"}' % (b"x" * 129), "$.payload.session_id"),
    (payloads.Create, b'{"variables":[]}', "$.payload.variables"),
    (payloads.Create, b'{"title":"%b"}' % (b"x" * 501), "$.payload.title"),
    (payloads.Create, b'{"workspace_dir":1}', "$.payload.workspace_dir"),
    (payloads.Attach, b"{}", "$.payload"),
    (payloads.Attach, b'{"session_id":"s","after_seq":-2}', "$.payload.after_seq"),
    (payloads.Attach, b'{"session_id":"s","after_seq":"1"}', "$.payload.after_seq"),
    (payloads.Attach, b'{"session_id":"s","after_seq":1.5}', "$.payload.after_seq"),
    (payloads.Listing, b'{"limit":0}', "$.payload.limit"),
    (payloads.Listing, b'{"limit":1001}', "$.payload.limit"),
    (payloads.History, b'{"session_id":"s","kind":"all"}', "$.payload.kind"),
    (payloads.History, b'{"session_id":"s","before_seq":0}', "$.payload.before_seq"),
    (payloads.Start, b'{"session_id":"s","client_msg_id":"m"}', "$.payload"),
    (payloads.Start, b'{"session_id":"s","client_msg_id":"","content":"hi"}', "$.payload.client_msg_id"),
    (payloads.Start, b'{"session_id":"s","client_msg_id":"m","content":"hi","if_busy":"wait"}', "$.payload.if_busy"),
    (payloads.Start, b'{"session_id":"s","client_msg_id":"m","content":"hi","retry_of":""}', "$.payload.retry_of"),
    (payloads.Edit, b'{"session_id":"s","turn_id":"t"}', "$.payload"),
    (payloads.Edit, b'{"session_id":"s","turn_id":"","content":"x"}', "$.payload.turn_id"),
    (payloads.Drop, b'{"session_id":"s"}', "$.payload"),
    (payloads.Share, b'{"session_id":"s","user":"bob"}', "$.payload"),
    (payloads.Share, b'{"session_id":"s","user":"bob","role":"owner"}', "$.payload.role"),
    (payloads.Share, b'{"session_id":"s","user":"%b","role":null}' % (b"u" * 257), "$.payload.user"),
    (payloads.Configure, b'{"session_id":"s","mode":1}', "$.payload.mode"),
    (payloads.Configure, b'{"session_id":"s","options":[]}', "$.payload.options"),
    (
        payloads.Configure,
        b'{"session_id":"s","options":%b}' % msgspec.json.encode({str(n): n for n in range(65)}),
        "$.payload.options",
    ),
    (payloads.Join, b'{"room":""}', "$.payload.room"),
    (payloads.Join, b'{"room":"%b"}' % (b"x" * 256), "$.payload.room"),
    (payloads.Send, b"{}", "$.payload"),
    (payloads.Send, b'{"to":{"users":["ann",1]}}', "$.payload.to.users[1]"),
    (payloads.Send, b'{"to":{"users":%b}}' % msgspec.json.encode(["u"] * 1001), "$.payload.to.users"),
]


@pytest.mark.parametrize(("cls", "payload", "field"), BAD)
def test_bad_payloads_are_refused_and_the_field_is_named(cls: type, payload: bytes, field: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        decode(cls, payload)
    assert (refusal.value.code, refusal.value.field) == ("invalid_message", field)


@pytest.mark.parametrize("name", ["a\0b", "a\n", "\x07", "\u2028", "\u202e", "\x7f"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        check_name(name, "$.payload.room")
    assert (refusal.value.code, refusal.value.field) == ("invalid_message", "$.payload.room")
    check_name("project:4711 é 💥", "$.payload.room")


@pytest.mark.parametrize("content", [b'"hi"', b'[{"type":"text","text":"hi"}]', b'[{"type":"image","data":"x"}]'])
def test_content_is_text_or_blocks(content: bytes) -> None:
    check_content(content)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b'""', "$.payload.content"),
        (b"[]", "$.payload.content"),
        (b"null", "$.payload.content"),
        (b"1", "$.payload.content"),
        (b'{"type":"text"}', "$.payload.content"),
        (b'[{"text":"hi"}]', "$.payload.content[0]"),
        (b'[{"type":"text"},"hi"]', "$.payload.content[1]"),
    ],
)
def test_other_content_is_refused_and_so_is_what_says_nothing(content: bytes, field: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        check_content(content)
    assert (refusal.value.code, refusal.value.field) == ("invalid_message", field)


def test_content_has_only_so_many_blocks() -> None:
    def blocks(count: int) -> bytes:
        return b"[" + b",".join([b'{"type":"text","text":"hi"}'] * count) + b"]"

    check_content(blocks(MAX_BLOCKS))
    with pytest.raises(BrokerError, match="1000 blocks") as refusal:
        check_content(blocks(MAX_BLOCKS + 1))
    assert (refusal.value.code, refusal.value.field) == ("too_large", "$.payload.content")


@pytest.mark.parametrize("number", [b"1e999", b"-1e400", b"1" * 5000])
def test_a_number_out_of_range_is_refused_since_nobody_could_read_what_is_kept(number: bytes) -> None:
    with pytest.raises(BrokerError, match="out of range") as refusal:
        check_content(b'[{"type":"text","text":"hi","n":{"deep":[%s]}}]' % number)
    assert refusal.value.code == "invalid_message"
    assert str(refusal.value.field).startswith("$.payload.content[0]")
    with pytest.raises(BrokerError, match="out of range") as refusal:
        check_metadata(b'{"n":%s}' % number)
    assert refusal.value.code == "invalid_message"
    assert str(refusal.value.field).startswith("$.payload.metadata")


def test_numbers_that_can_be_read_and_what_only_looks_like_others_pass() -> None:
    for value in (b"1e308", b"-1e-999", b"18446744073709551616", b'"1e999"'):
        check_content(b'[{"type":"text","n":%s}]' % value)
        check_metadata(b'{"n":%s}' % value)
    check_content(b'"1e999"')
