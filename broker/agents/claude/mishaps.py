"""What the Messages API's refusals mean for a turn, and when it is worth asking again."""

import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import attrs

__all__ = ["LONGEST_WAIT", "MishapError", "broken", "mishap_of", "pause_before", "unreachable"]

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 8.0
"""Seconds: pauses double from the first to the longest."""

LONGEST_WAIT: Final = 30.0
"""Seconds that the API may ask us to wait; for longer ones a person decides."""


_NUMBER: Final = re.compile(r"\s*[0-9]{1,9}(\.[0-9]+)?\s*", re.ASCII)


class MishapError(Exception):
    """A reply of the API that did not come, or not whole.

    Args:
        code: a code of `broker.errors.ERRORS`.
        message: one sentence for a person; never holds the key.
        retryable: whether the person's trying again makes sense.
        again: whether asking again at once may help, as long as nothing has been said.
        after: seconds that the API wants us to wait before that.
    """

    def __init__(
        self, code: str, message: str, *, retryable: bool = True, again: bool = False, after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.again = again
        self.after = after


@attrs.frozen
class _Kind:
    """What one of the API's error types means.

    Attributes:
        code: a code of `broker.errors.ERRORS`.
        sentence: what a person reads, without its full stop.
        told: whether the API's own words are shown too; not where they might quote the key.
        retryable: whether the person's trying again makes sense.
        again: whether ours does.
    """

    code: str
    sentence: str
    told: bool = True
    retryable: bool = False
    again: bool = False


_KINDS: Final = {
    "authentication_error": _Kind("agent_unavailable", "The Messages API refuses this agent's key", told=False),
    "permission_error": _Kind(
        "agent_unavailable", "The Messages API does not let this agent's key do that", told=False
    ),
    "billing_error": _Kind("agent_unavailable", "The Messages API wants this agent's account to pay first"),
    "not_found_error": _Kind("agent_unavailable", "The Messages API does not know this agent's model"),
    "invalid_request_error": _Kind("invalid_message", "The Messages API refuses the prompt"),
    "request_too_large": _Kind("too_large", "The conversation is larger than the Messages API allows"),
    "rate_limit_error": _Kind("rate_limited", "The Messages API limits this agent's rate", retryable=True, again=True),
    "overloaded_error": _Kind("overloaded", "The Messages API is overloaded", retryable=True, again=True),
    "api_error": _Kind("agent_unavailable", "The Messages API failed", retryable=True, again=True),
    "timeout_error": _Kind("agent_unavailable", "The Messages API took too long", retryable=True, again=True),
}
"""By the error types of https://docs.anthropic.com/en/api/errors."""

_STATUSES: Final = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.PAYMENT_REQUIRED: "billing_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_TIMEOUT: "timeout_error",
    HTTPStatus.CONFLICT: "api_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout_error",
    529: "overloaded_error",
}
"""For answers that name no type: proxies give such."""


def mishap_of(kind: str | None, status: int, words: str | None, headers: Mapping[str, str]) -> MishapError:
    """Return what an error answer means.

    Args:
        kind: the error's type, if the answer names one.
        status: the HTTP status; 200 for an error within a stream.
        words: the API's own sentence.
        headers: of the answer.
    """
    if kind not in _KINDS:
        client = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        kind = _STATUSES.get(status, "invalid_request_error" if client else "api_error")
    row = _KINDS[kind]
    after = _asked_pause(headers)
    message = row.sentence + (f": {words[:300].rstrip('.')}." if row.told and words else ".")
    if after is not None and after > LONGEST_WAIT:
        message += f" It may be asked again in {after:.0f} s."
    again = row.again and headers.get("x-should-retry") != "false" and (after or 0) <= LONGEST_WAIT
    return MishapError(row.code, message, retryable=row.retryable, again=again, after=after)


def _asked_pause(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the API wants us to wait (RFC 9110 section 10.2.3, and its own finer header)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if found := _NUMBER.fullmatch(headers.get(name, "")):
            return float(found[0]) * unit
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def pause_before(tried: int, asked: float | None) -> float:
    """Return the seconds to wait after `tried` tries: doubling, up to a quarter less by chance, as asked at least."""
    pause = min(FIRST_PAUSE * 2.0 ** min(tried - 1, 8), LONGEST_PAUSE) * random.uniform(0.75, 1.0)  # noqa: S311 - jitter
    return max(pause, asked or 0.0)


def unreachable() -> MishapError:
    """Return what it means that there is no connection to be had, or that it broke before an answer began."""
    return MishapError("agent_unavailable", "The Messages API cannot be reached.", again=True)


def broken() -> MishapError:
    """Return what it means that a reply ended before it was whole.

    No turn is `lost` by that: a reply without tools has no effects of which one could be unsure.
    """
    return MishapError("agent_unavailable", "The Messages API broke off in the middle of its reply.", again=True)
