"""The one table of error codes and close codes: what a peer is told, and what it should do next.

Everything a peer can be refused with is a row here; the wire formats, the HTTP API and the
documentation are made from these rows (PROTOCOL sections 2b and 2c).
"""

from enum import IntEnum
from http import HTTPStatus
from typing import Final, Literal

import attrs

__all__ = ["CLOSE_REASONS", "ERRORS", "BrokerError", "Category", "CloseCode", "ErrorKind", "may_reconnect"]

Category = Literal["request", "identity", "permission", "conflict", "limit", "agent", "broker"]
"""Where the cause lies: in what was sent, who sent it, what that one may do, what was there already, how much there is,
the agent, or the broker."""


@attrs.frozen
class ErrorKind:
    """One row of the error table.

    Attributes:
        code: the stable word clients decide by.
        category: where the cause lies.
        retryable: whether sending the same request id again makes sense.
        status: the HTTP status of the same refusal.
        sentence: what a person reads when nothing more precise is known.
        recovery: what to do about it, in a sentence.
    """

    code: str
    category: Category
    retryable: bool
    status: HTTPStatus
    sentence: str
    recovery: str


_ROWS: Final = (
    ErrorKind(
        *("invalid_json", "request", False, HTTPStatus.BAD_REQUEST),
        "The message is not JSON.",
        "Send one JSON value, in UTF-8.",
    ),
    ErrorKind(
        *("invalid_message", "request", False, HTTPStatus.BAD_REQUEST),
        "The message does not have the expected shape.",
        "Correct the field that is named, and send it again.",
    ),
    ErrorKind(
        *("unknown_action", "request", False, HTTPStatus.NOT_FOUND),
        "There is no such action.",
        "Compare the name with the reference, or load the plugin that brings it.",
    ),
    ErrorKind(
        *("unauthenticated", "identity", False, HTTPStatus.UNAUTHORIZED),
        "Say who you are first.",
        "Show a valid token, key or ticket.",
    ),
    ErrorKind(
        *("token_expired", "identity", False, HTTPStatus.UNAUTHORIZED),
        "The token has expired; get a new one.",
        "Get a new token, and connect or ask with it.",
    ),
    ErrorKind(
        *("forbidden", "permission", False, HTTPStatus.FORBIDDEN),
        "You may not do that.",
        "Ask whoever owns it, or runs the broker, to let you.",
    ),
    ErrorKind(
        *("not_found", "request", False, HTTPStatus.NOT_FOUND),
        "There is no such thing here.",
        "Check the id; if it is right, the thing is gone and has to be made anew.",
    ),
    ErrorKind(
        *("conflict", "conflict", False, HTTPStatus.CONFLICT),
        "The same id was used before with other content.",
        "Send new content under a new id.",
    ),
    ErrorKind(
        *("busy", "conflict", True, HTTPStatus.CONFLICT),
        "A turn is already running.",
        "Wait until it has ended, queue behind it, or cancel it.",
    ),
    ErrorKind(
        *("queue_full", "limit", True, HTTPStatus.TOO_MANY_REQUESTS),
        "The session's queue of turns is full.",
        "Wait until a turn has ended, then send it again.",
    ),
    ErrorKind(
        *("too_large", "limit", False, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        "That is larger than allowed.",
        "Send less at a time, or go on in a new session.",
    ),
    ErrorKind(
        *("rate_limited", "limit", True, HTTPStatus.TOO_MANY_REQUESTS),
        "Too many messages; slow down.",
        "Wait as long as is said, then send it again, more slowly.",
    ),
    ErrorKind(
        *("agent_unavailable", "agent", True, HTTPStatus.SERVICE_UNAVAILABLE),
        "The agent cannot take this turn.",
        "Try again in a moment; if that does not help, whoever runs the agent has to look.",
    ),
    ErrorKind(
        *("already_ended", "conflict", False, HTTPStatus.CONFLICT),
        "That has already ended.",
        "Start a new turn, or go on in a new session.",
    ),
    ErrorKind(
        *("already_resolved", "conflict", False, HTTPStatus.CONFLICT),
        "That has already been answered.",
        "Nothing is left to do; the answer that counts is in the log.",
    ),
    ErrorKind(
        *("workspace_not_found", "request", False, HTTPStatus.NOT_FOUND),
        "The workspace directory does not exist.",
        "Name a directory that exists on the broker's machine.",
    ),
    ErrorKind(
        *("session_exists", "conflict", False, HTTPStatus.CONFLICT),
        "A session with that id exists already.",
        "Attach to it, or choose another id.",
    ),
    ErrorKind(
        *("overloaded", "limit", True, HTTPStatus.SERVICE_UNAVAILABLE),
        "The broker is busy; try again in a moment.",
        "Wait a moment, then send it again.",
    ),
    ErrorKind(
        *("timeout", "broker", True, HTTPStatus.GATEWAY_TIMEOUT),
        "No answer came in time.",
        "Look whether it was done after all, then send it again under the same id.",
    ),
    ErrorKind(
        *("unavailable", "broker", True, HTTPStatus.SERVICE_UNAVAILABLE),
        "That cannot be done right now; try again.",
        "Wait a moment, then send it again.",
    ),
    ErrorKind(
        *("internal", "broker", False, HTTPStatus.INTERNAL_SERVER_ERROR),
        "Something went wrong inside the broker.",
        "Give the trace id to whoever runs the broker.",
    ),
)

ERRORS: Final = {row.code: row for row in _ROWS}


class BrokerError(Exception):
    """A typed refusal: it reaches the peer that asked, and nobody else. Its texts can be encoded, whatever they were.

    Args:
        code: a code of `ERRORS`.
        message: one sentence for a person; the table's sentence if left out.
        retry_after: seconds after which the same request may succeed.
        field: JSON path of the part that is wrong, such as `$.payload.session_id`.
        hint: what helps this time, such as the names there are; `recovery` is what always does.
        close: the code to close the connection with once it was told; None to leave it open.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        retry_after: float | None = None,
        field: str | None = None,
        hint: str | None = None,
        close: "CloseCode | None" = None,
    ) -> None:
        kind = ERRORS[code]
        self.code = code
        self.message = _encodable(message or kind.sentence)
        super().__init__(self.message)
        self.category = kind.category
        self.recovery = kind.recovery
        self.retryable = kind.retryable
        self.status = kind.status
        self.retry_after = retry_after
        self.field = None if field is None else _encodable(field)
        self.hint = None if hint is None else _encodable(hint)
        self.close = close

    def as_data(self) -> dict[str, object]:
        """Return the `data` of an error answer; optional keys only where they help."""
        data: dict[str, object] = {"code": self.code, "message": self.message, "retryable": self.retryable}
        for key in ("retry_after", "field", "hint"):
            value = getattr(self, key)
            if value is not None:
                data[key] = value
        return data


def _encodable(text: str) -> str:
    """Return text that UTF-8 can express: half a surrogate pair, as in the name of a file, becomes a question mark."""
    return text if text.isascii() else text.encode(errors="replace").decode()


class CloseCode(IntEnum):
    """WebSocket close codes the broker sends; 4000-4499 mean reconnect and resume, 4500-4999 mean do not."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    HEARTBEAT_MISSED = 4000
    TOKEN_EXPIRED = 4001
    TOO_SLOW = 4002
    MOVED = 4003
    BAD_TOKEN = 4500
    PROTOCOL_ABUSE = 4501
    FORBIDDEN = 4503
    LIMIT_REACHED = 4504
    REPLACED = 4509
    DISCONNECTED_BY_OPERATOR = 4510


CLOSE_REASONS: Final = {
    CloseCode.NORMAL: "bye",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "the frames break the WebSocket protocol",
    CloseCode.UNSUPPORTED_DATA: "binary data where text is due",
    CloseCode.INVALID_TEXT: "the text is not UTF-8",
    CloseCode.POLICY_VIOLATION: "not allowed here",
    CloseCode.MESSAGE_TOO_BIG: "the message is larger than allowed",
    CloseCode.INTERNAL_ERROR: "something went wrong inside the broker",
    CloseCode.SERVICE_RESTART: "the broker restarts; reconnect with jitter",
    CloseCode.TRY_AGAIN_LATER: "overloaded; reconnect later",
    CloseCode.HEARTBEAT_MISSED: "no answer to our pings; reconnect and resume",
    CloseCode.TOKEN_EXPIRED: "the token has expired; reconnect with a new one",
    CloseCode.TOO_SLOW: "too slow to keep up; reconnect and resume",
    CloseCode.MOVED: "moved to another node; reconnect",
    CloseCode.BAD_TOKEN: "bad or missing token",
    CloseCode.PROTOCOL_ABUSE: "too many errors",
    CloseCode.FORBIDDEN: "forbidden",
    CloseCode.LIMIT_REACHED: "a limit is reached",
    CloseCode.REPLACED: "replaced by another connection",
    CloseCode.DISCONNECTED_BY_OPERATOR: "disconnected by an operator",
}


def may_reconnect(code: int) -> bool:
    """Tell whether a client that was closed with `code` should come back, by the number alone."""
    return not 4500 <= code <= 4999  # noqa: PLR2004 - the range is the rule of PROTOCOL 2c
