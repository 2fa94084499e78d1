"""The one table: every code of PROTOCOL 2b and 2c, and what a client does by the number alone."""

import json
from typing import get_args

import msgspec
import pytest

from broker.errors import CLOSE_REASONS, ERRORS, BrokerError, Category, CloseCode, may_reconnect

CODES = (
    *("invalid_json", "invalid_message", "unknown_action", "unauthenticated", "token_expired", "forbidden"),
    *("not_found", "conflict", "busy", "queue_full", "too_large", "rate_limited", "agent_unavailable"),
    *("already_ended", "already_resolved", "workspace_not_found", "session_exists", "overloaded", "timeout"),
    *("unavailable", "internal"),
)


def test_the_table_has_the_codes_of_the_contract_in_its_order() -> None:
    assert tuple(ERRORS) == CODES
    assert all(code == row.code for code, row in ERRORS.items())


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_sentence_for_a_person_and_a_status_of_failure(code: str) -> None:
    row = ERRORS[code]
    assert row.sentence.endswith(".")
    assert row.sentence[0].isupper()
    assert 400 <= row.status <= 599
    if row.retryable:
        assert row.status in {409, 429, 503, 504}, "what may be sent again is no mistake of the client"


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_where_the_cause_lies_and_what_to_do(code: str) -> None:
    row, error = ERRORS[code], BrokerError(code)
    assert row.category in get_args(Category)
    assert row.recovery.endswith(".")
    assert row.recovery[0].isupper()
    assert row.recovery != row.sentence
    assert (error.category, error.recovery) == (row.category, row.recovery)
    if row.category in {"request", "identity", "permission"}:
        assert 400 <= row.status < 500
        assert not row.retryable


def test_an_error_says_what_the_table_says_and_only_what_helps() -> None:
    assert BrokerError("busy").as_data() == {
        "code": "busy",
        "message": "A turn is already running.",
        "retryable": True,
    }
    full = BrokerError("forbidden", "Not yours.", retry_after=0.0, field="$.a", hint="ask them")
    assert full.as_data() == {
        "code": "forbidden",
        "message": "Not yours.",
        "retryable": False,
        "retry_after": 0.0,
        "field": "$.a",
        "hint": "ask them",
    }
    assert str(full) == "Not yours."
    assert full.status == 403


def test_a_code_that_is_not_in_the_table_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        BrokerError("no_such_code")


OWN = {
    "HEARTBEAT_MISSED": 4000,
    "TOKEN_EXPIRED": 4001,
    "TOO_SLOW": 4002,
    "MOVED": 4003,
    "BAD_TOKEN": 4500,
    "PROTOCOL_ABUSE": 4501,
    "FORBIDDEN": 4503,
    "LIMIT_REACHED": 4504,
    "REPLACED": 4509,
    "DISCONNECTED_BY_OPERATOR": 4510,
}


def test_our_own_close_codes_are_those_of_the_contract() -> None:
    assert {code.name: code.value for code in CloseCode if code >= 4000} == OWN
    standard = {1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013}
    assert standard < {code.value for code in CloseCode}


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_has_a_reason_that_fits_and_says_whether_to_come_back(code: CloseCode) -> None:
    assert 0 < len(CLOSE_REASONS[code].encode()) <= 123
    assert may_reconnect(code) is (code < 4500)
    if "reconnect" in CLOSE_REASONS[code]:
        assert may_reconnect(code)


@pytest.mark.parametrize(("code", "again"), [(1000, True), (4499, True), (4500, False), (4999, False)])
def test_the_number_alone_decides(code: int, again: bool) -> None:
    assert may_reconnect(code) is again


def test_what_an_error_says_can_be_encoded_whatever_it_is_about() -> None:
    half = "no file caf\udce9.txt"
    error = BrokerError("not_found", half, hint=half, field=half)
    data = json.loads(msgspec.json.encode(error.as_data()))
    assert {data[key] for key in ("message", "hint", "field")} == {"no file caf?.txt"} == {str(error)}
    assert BrokerError("not_found", "café").message == "café"
