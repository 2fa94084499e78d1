"""How records, events and sessions look in an answer, over the socket and over HTTP alike."""

import base64
from operator import itemgetter
from typing import Any, Final

import msgspec

from broker.actors.requests import Connections
from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.hooks import Permission
from broker.messages import Principal, Record, SessionRow
from broker.protocol.parcel import withheld
from broker.protocol.payloads import Listing
from broker.sessions import messages_of, session_data
from broker.web.api.paging import paged, place
from broker.web.services import Services, to_json

__all__ = [
    "ask_for_connections",
    "encode_events",
    "encode_messages",
    "encode_records",
    "event_data",
    "list_sessions",
    "page_of_connections",
    "record_data",
]


_LAST: Final = (1 << 63) - 1
"""The latest time that a store holds."""


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


def encode_records(records: list[Record], by: Principal) -> bytes:
    """Return the answer to `session.history` for records; of what only scope `debug` sees, just that it is there."""
    shown = records if "debug" in by.scopes else map(withheld, records)
    return _page("records", [record_data(record) for record in shown], records)


def encode_messages(records: list[Record]) -> bytes:
    """Return the answer to `session.history` for messages."""
    return _page("messages", messages_of(records), records)


def encode_events(records: list[Record]) -> bytes:
    """Return the answer to `room.history`."""
    return _page("events", [event_data(record) for record in records], records)


def _page(key: str, shown: list[dict[str, Any]], records: list[Record]) -> bytes:
    """Return a page of a log as JSON, with the `before_seq` that asks for the page before if there may be one."""
    page: dict[str, Any] = {key: shown}
    if records and records[0].seq > 1:
        page["before_seq"] = records[0].seq
    return to_json(page)


def ask_for_connections(by: Principal, listing: Listing, user: str | None = None) -> Connections:
    """Return what the registry is asked for `get_connections`: who is told of each, and not only how many, is admin.

    Args:
        by: who asks.
        listing: which page.
        user: whose connections; None for everybody's.

    Raises:
        BrokerError: `invalid_message`: the cursor is none of ours.
    """
    return Connections("admin" in by.scopes, place(listing.cursor), listing.limit + 1, user)


def page_of_connections(found: dict[str, Any], listing: Listing) -> dict[str, Any]:
    """Return the answer to `get_connections`, with the cursor of the next page if there is one."""
    if "connections" not in found:
        return found
    return {**found, **paged("connections", found["connections"], listing.limit, itemgetter("connection_id"))}


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
        page["cursor"] = _cursor_of(last.created_at, last.session_id)
    return page


def _cursor_of(at: int, session_id: str) -> str:
    return base64.urlsafe_b64encode(f"{at} {session_id}".encode()).decode()


def _before_of(cursor: str | None) -> tuple[int, str] | None:
    """Return what a cursor stands for.

    Raises:
        BrokerError: `invalid_message`: it is none of ours.
    """
    if cursor is None:
        return None
    try:
        at, _, session_id = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode().partition(" ")
        before = int(at), session_id
    except ValueError:
        before = -1, ""
    if not 0 <= before[0] <= _LAST or _cursor_of(*before) != cursor:
        raise BrokerError("invalid_message", "That cursor was not made here.", field="$.payload.cursor")
    return before
