"""Errors as a client of `chat.v1.json` is told them: what, where, and what to do about it (seed 004)."""

from typing import Any, Final

from broker.errors import BrokerError
from broker.protocol.chat.wire import Tag

__all__ = ["error_content"]

_PAYLOAD: Final = "$.payload."
_PLACES: Final = {
    "session_id": "$.sessionId",
    "client_msg_id": "$.messageId",
    "content": "$.content",
    "metadata": "$.metadata",
    "if_busy": "$.metadata.ifBusy",
    "retry_of": "$.metadata.retryOf",
    "after_seq": "$.metadata.afterSeq",
    "epoch": "$.metadata.epoch",
    "agent": "$.metadata.agent",
    "title": "$.metadata.title",
    "variables": "$.metadata.variables",
    "workspace_dir": "$.metadata.workspaceDir",
}
"""Where in a message of this format stands what the broker's own actions have in their payload."""


def error_content(error: BrokerError, about: Tag, recovery: str | None = None) -> dict[str, Any]:
    """Return the content of an error message: what, where, and what to do about it (seed 004, "error handling").

    Args:
        error: what went wrong.
        about: the message it is about.
        recovery: what to do, where something better can be said than the table of errors does.
    """
    content: dict[str, Any] = {
        "code": error.code,
        "category": error.category,
        "message": error.message,
        "place": {
            "sessionId": about.session_id,
            "messageId": about.message_id,
            "actionId": about.action_id,
            "field": _place(error.field, about.kind),
        },
        "recovery": recovery or error.recovery,
        "retryable": error.retryable,
    }
    if error.retry_after is not None:
        content["retryAfter"] = error.retry_after
    if error.hint is not None:
        content["hint"] = error.hint
    return content


def _place(field: str | None, kind: str) -> str | None:
    """Return where a field is that the broker's own actions have in their payload."""
    if field is None or not field.startswith(_PAYLOAD):
        return field
    name = field.removeprefix(_PAYLOAD).partition(".")[0].partition("[")[0]
    rest = field.removeprefix(_PAYLOAD + name)
    if kind == "variables" and name == "variables":
        return "$.content.set" + rest
    head, *words = name.split("_")
    return _PLACES.get(name, "$.content." + head + "".join(map(str.capitalize, words))) + rest
