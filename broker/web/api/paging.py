"""Pages of what is ordered by name: a cursor is the last name of the page before it."""

import base64
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from broker.errors import BrokerError

__all__ = ["mark", "paged", "place"]

T = TypeVar("T")


def mark(name: str) -> str:
    """Return the cursor that stands for a place."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def place(cursor: str | None) -> str:
    """Return what a cursor stands for; the empty name without one.

    Raises:
        BrokerError: `invalid_message`: it is none of ours.
    """
    if cursor is None:
        return ""
    try:
        name = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        name = ""
    if not name or mark(name) != cursor:
        raise BrokerError("invalid_message", "That cursor was not made here.", field="$.payload.cursor")
    return name


def paged(key: str, items: Sequence[T], limit: int, name_of: Callable[[T], str]) -> dict[str, Any]:
    """Return a page under its key, of items of which there is one more than fits if there is a further page."""
    page: dict[str, Any] = {key: list(items[:limit])}
    if len(items) > limit:
        page["cursor"] = mark(name_of(items[limit - 1]))
    return page
