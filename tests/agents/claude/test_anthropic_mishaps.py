"""What the Messages API's refusals mean."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from broker.agents.claude.mishaps import mishap_of, pause_before
from broker.errors import ERRORS

RETRIED = {"rate_limit_error", "overloaded_error", "api_error", "timeout_error"}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("authentication_error", "agent_unavailable"),
        ("permission_error", "agent_unavailable"),
        ("billing_error", "agent_unavailable"),
        ("not_found_error", "agent_unavailable"),
        ("invalid_request_error", "invalid_message"),
        ("request_too_large", "too_large"),
        ("rate_limit_error", "rate_limited"),
        ("overloaded_error", "overloaded"),
        ("api_error", "agent_unavailable"),
        ("timeout_error", "agent_unavailable"),
    ],
)
def test_an_error_type_says_more_than_the_status(kind: str, code: str):
    mishap = mishap_of(kind, 200, None, {})
    assert (mishap.code, mishap.again, mishap.retryable) == (code, kind in RETRIED, kind in RETRIED)
    assert mishap.code in ERRORS


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        (400, "invalid_message", False),
        (401, "agent_unavailable", False),
        (402, "agent_unavailable", False),
        (403, "agent_unavailable", False),
        (404, "agent_unavailable", False),
        (408, "agent_unavailable", True),
        (413, "too_large", False),
        (422, "invalid_message", False),
        (429, "rate_limited", True),
        (500, "agent_unavailable", True),
        (502, "agent_unavailable", True),
        (504, "agent_unavailable", True),
        (529, "overloaded", True),
        (200, "agent_unavailable", True),
    ],
)
@pytest.mark.parametrize("kind", [None, "error_of_the_future"])
def test_without_a_known_type_the_status_decides(status: int, code: str, again: bool, kind: str | None):
    mishap = mishap_of(kind, status, None, {})
    assert (mishap.code, mishap.again) == (code, again)


def test_the_apis_words_are_shown_shortened():
    mishap = mishap_of("invalid_request_error", 400, "w" * 1000 + ".", {})
    assert mishap.message == f"The Messages API refuses the prompt: {'w' * 300}."


def test_the_api_may_say_that_trying_again_is_no_use():
    assert not mishap_of("rate_limit_error", 429, None, {"x-should-retry": "false"}).again


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "2"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
    ],
)
def test_a_wait_is_read_in_each_of_its_forms(headers: dict[str, str], after: float | None):
    assert mishap_of("rate_limit_error", 429, None, headers).after == after


def test_a_wait_until_a_time_is_read_too():
    then = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    after = mishap_of("rate_limit_error", 429, None, {"retry-after": then}).after
    assert after is not None
    assert 0 < after <= 3600


@pytest.mark.parametrize(("seconds", "again"), [("30", True), ("31", False)])
def test_a_long_wait_is_left_to_the_person(seconds: str, again: bool):
    assert mishap_of("rate_limit_error", 429, None, {"retry-after": seconds}).again is again


@pytest.mark.parametrize(("tried", "most"), [(1, 0.5), (2, 1.0), (5, 8.0), (50, 8.0), (5000, 8.0)])
def test_pauses_double_up_to_a_bound_with_some_chance(tried: int, most: float):
    pauses = {pause_before(tried, None) for _ in range(20)}
    assert all(0.75 * most <= pause <= most for pause in pauses)
    assert len(pauses) > 1


def test_a_pause_is_never_shorter_than_the_api_asked_for():
    assert pause_before(1, 20.0) == 20.0
    assert pause_before(1, 0.0) > 0
