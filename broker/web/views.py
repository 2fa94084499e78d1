"""How records, events and sessions look in an answer, over the socket and over HTTP alike."""

import base64
from typing import Any, Final

import msgspec

from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.messages import Record, SessionRow
from broker.sessions import messages_of, session_data
from broker.web.services import to_json

__all__ = [
    "before_of",
    "encode_events",
    "encode_messages",
    "encode_records",
    "event_data",
    "record_data",
    "sessions_page",
]


_LAST: Final = (1 << 63) - 1
"""The latest time that a store can be asked for."""


def record_data(record: Record) -> dict[str, Any]:
    """Return a session's record with the names that its notification has."""
    data: dict[str, Any] = {"event": record.kind, "seq": record.seq}
    if record.turn_id is not None:
        data["turn_id"] = record.turn_id
    return {**data, "at": rfc3339(record.at), "data": msgspec.Raw(record.data)}


def event_data(record: Record) -> dict[str, Any]:
    """Return a room's event with the names that its notification has."""
    return {
        "seq": record.seq,
        "from": msgspec.Raw(record.author or b"null"),
        "at": rfc3339(record.at),
        "data": {"event": record.kind, "data": msgspec.Raw(record.data)},
    }


def encode_records(records: list[Record]) -> bytes:
    """Return the answer to `session.history` for records."""
    return to_json({"records": [record_data(record) for record in records]})


def encode_messages(records: list[Record]) -> bytes:
    """Return the answer to `session.history` for messages."""
    return to_json({"messages": messages_of(records)})


def encode_events(records: list[Record]) -> bytes:
    """Return the answer to `room.history`."""
    return to_json({"events": [event_data(record) for record in records]})


def sessions_page(rows: list[SessionRow], limit: int) -> dict[str, Any]:
    """Return a page of sessions, with the cursor of the next one if there is a row more than fits on this one."""
    page: dict[str, Any] = {"sessions": [session_data(row) for row in rows[:limit]]}
    if len(rows) > limit:
        last = rows[limit - 1]
        page["cursor"] = base64.urlsafe_b64encode(f"{last.created_at} {last.session_id}".encode()).decode()
    return page


def before_of(cursor: str | None) -> tuple[int, str] | None:
    """Return what a cursor stands for.

    Raises:
        BrokerError: `invalid_message`: it is none of ours.
    """
    if cursor is None:
        return None
    try:
        at, _, session_id = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode().partition(" ")
        return min(int(at), _LAST), session_id
    except ValueError:
        raise BrokerError("invalid_message", "That cursor was not made here.", field="$.payload.cursor") from None
