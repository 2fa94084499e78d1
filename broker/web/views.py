"""How records, events and sessions look in an answer, over the socket and over HTTP alike."""

import base64
from typing import Any, Final

import msgspec

from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.hooks import Permission
from broker.messages import Principal, Record, SessionRow
from broker.protocol.payloads import Listing
from broker.sessions import messages_of, session_data
from broker.web.services import Services, to_json

__all__ = [
    "encode_events",
    "encode_messages",
    "encode_records",
    "event_data",
    "list_sessions",
    "record_data",
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


async def list_sessions(
    services: Services, by: Principal, listing: Listing, *, everyone: bool = False
) -> dict[str, Any]:
    """Return the answer to `session.list`, with the cursor of the next page if there is one.

    Sessions that one may not attach to are left out, so a page may have fewer than `limit`.

    Args:
        services: the broker's parts.
        by: who asks.
        listing: which page.
        everyone: whether others' sessions are listed too.

    Raises:
        BrokerError: `invalid_message`: the cursor is none of ours.
    """
    limit, hooks = listing.limit, services.hooks
    rows: list[SessionRow] = await services.store.read(
        "sessions", by.user, everyone=everyone, limit=limit + 1, before=_before_of(listing.cursor)
    )
    seen = [row for row in rows[:limit] if await hooks.permits(Permission(by, "session.attach", row.session_id))]
    page: dict[str, Any] = {"sessions": [session_data(row) for row in seen]}
    if len(rows) > limit:
        last = rows[limit - 1]
        page["cursor"] = base64.urlsafe_b64encode(f"{last.created_at} {last.session_id}".encode()).decode()
    return page


def _before_of(cursor: str | None) -> tuple[int, str] | None:
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
