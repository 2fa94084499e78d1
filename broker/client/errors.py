"""What can go wrong between a program and its broker, as exceptions to be caught by kind (PROTOCOL sections 2b, 2c)."""

# ruff: noqa: N818 - `except NotFound` reads as what happened

import errno
import os
from collections.abc import Mapping
from typing import Any, Final

from broker.errors import ERRORS

__all__ = [
    "BrokerError",
    "Busy",
    "Closed",
    "Conflict",
    "Disconnected",
    "Failed",
    "Forbidden",
    "Invalid",
    "LogReset",
    "NotFound",
    "RateLimited",
    "Refused",
    "TimedOut",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "error_of",
    "reason_of",
]


class BrokerError(Exception):
    """The broker, or the way to it, says no; each kind has a class of its own below this one.

    Args:
        code: the word to decide by: a code of PROTOCOL 2b, or one of a newer broker or of a plugin.
        message: one sentence for a person.
        retryable: whether the same again may succeed.
        retry_after: seconds until then, where that is known.
        hint: what helps this time, such as the names there are.
        field: JSON path of what is wrong in what was asked.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        hint: str | None = None,
        field: str | None = None,
    ) -> None:
        known = ERRORS.get(code)
        self.code = code
        self.message = message or (known.sentence if known else code)
        self.retryable = bool(known and known.retryable) if retryable is None else retryable
        self.retry_after = retry_after
        self.hint = hint
        self.field = field
        super().__init__(self.words)

    @property
    def words(self) -> str:
        """What it says, and what helps."""
        return f"{self.message.removesuffix('.')}: {self.hint}" if self.hint else self.message


class Invalid(BrokerError):
    """What was asked makes no sense to the broker (`invalid_json`, `invalid_message`, `unknown_action`)."""


class TooLarge(BrokerError):
    """It is larger than the broker takes (`too_large`)."""


class Unauthenticated(BrokerError):
    """The broker wants to know who asks (`unauthenticated`, `token_expired`)."""


class Forbidden(BrokerError):
    """Who asks may not do that, or may not see it any more (`forbidden`)."""


class NotFound(BrokerError):
    """There is no such thing (`not_found`, `workspace_not_found`)."""


class Conflict(BrokerError):
    """It does not fit what is there (`conflict`, `session_exists`, `already_ended`, `already_resolved`)."""


class Busy(BrokerError):
    """Something runs already, or too much waits (`busy`, `queue_full`)."""


class RateLimited(BrokerError):
    """Too much in too short a time (`rate_limited`); see `retry_after`."""


class Unavailable(BrokerError):
    """It does not work right now (`unavailable`, `overloaded`, `agent_unavailable`)."""


class Failed(BrokerError):
    """Something broke inside the broker (`internal`); the hint is a trace id for who runs it."""


class TimedOut(BrokerError, TimeoutError):
    """No answer came in time (`timeout`): it may have been done, and may be done yet."""


class Disconnected(BrokerError, ConnectionError):
    """There is no link to the broker, or it broke before the answer: then it may have been done (`disconnected`)."""

    def __init__(self, message: str = "There is no connection to the broker.") -> None:
        super().__init__("disconnected", message, retryable=True)


class Closed(BrokerError):
    """This end has closed the connection, or has let go of what was asked for (`closed`)."""

    def __init__(self, message: str = "The connection was closed here.") -> None:
        super().__init__("closed", message, retryable=False)


class LogReset(BrokerError):
    """A log cannot be followed from where one was: something was missed for good (`reset`, PROTOCOL P3).

    Forget what you have of it, and read on: what comes next is all there is, from its beginning.

    Args:
        log: which session or room.
        epoch: the log that there is now.
        floor: the number of its oldest record.
        head: that of its newest.
    """

    def __init__(self, log: str, epoch: str | None, floor: int, head: int) -> None:
        super().__init__("reset", f"What comes next in {log} does not continue what was there.", retryable=True)
        self.epoch = epoch
        self.floor = floor
        self.head = head


class Refused(ConnectionError):
    """The broker will not have this program, and trying again would not change that.

    Args:
        message: why, in the broker's words where it said so.
        code: the close code (4500 to 4999, PROTOCOL 2c) or HTTP status it said so with; 0 for neither.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.reason = message


_CLASSES: Final[Mapping[str, type[BrokerError]]] = {
    "invalid_json": Invalid,
    "invalid_message": Invalid,
    "unknown_action": Invalid,
    "too_large": TooLarge,
    "unauthenticated": Unauthenticated,
    "token_expired": Unauthenticated,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "workspace_not_found": NotFound,
    "conflict": Conflict,
    "session_exists": Conflict,
    "already_ended": Conflict,
    "already_resolved": Conflict,
    "busy": Busy,
    "queue_full": Busy,
    "rate_limited": RateLimited,
    "unavailable": Unavailable,
    "overloaded": Unavailable,
    "agent_unavailable": Unavailable,
    "internal": Failed,
    "timeout": TimedOut,
}


def error_of(data: Any) -> BrokerError:
    """Return the exception for the `data` of an error, or for problem details of the HTTP API, whatever they hold."""
    said = data if isinstance(data, dict) else {}
    code = said.get("code")
    code = code if isinstance(code, str) and code else "internal"
    retry_after = said.get("retry_after")
    retryable = said.get("retryable")
    return _CLASSES.get(code, BrokerError)(
        code,
        _text(said.get("message")),
        retryable=retryable if isinstance(retryable, bool) else None,
        retry_after=retry_after if isinstance(retry_after, int | float) else None,
        hint=_text(said.get("hint")),
        field=_text(said.get("field")),
    )


def reason_of(error: Exception) -> str:
    """Return why nobody answers, in the system's words; not those of an error that may hold headers."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number in errno.errorcode:
        return os.strerror(number)
    if isinstance(error, TimeoutError):
        return "it does not answer"
    said = getattr(error, "strerror", None) or (str(error) if isinstance(error, OSError) else "")
    return said or type(error).__name__


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
