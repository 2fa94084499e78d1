"""Values for many connections, encoded once for each format and framed once (PROTOCOL P7, ARCHITECTURE section 4)."""

from operator import is_
from typing import Final

import attrs

from broker.messages import Record
from broker.protocol.dialect import Format
from broker.protocol.frames import text_frame
from broker.protocol.outgoing import Outgoing, RoomEvent, SessionRecord

__all__ = ["Parcel", "View", "withheld"]

DEBUG: Final = "debug"
"""The kind of records that only who has the scope of that name is shown."""
WITHHELD: Final = "withheld"


@attrs.frozen
class View:
    """Which part of a log its follower is shown.

    Attributes:
        events: the names of a room's events; None for all.
        debug: whether a session's debug records are shown, or only that there is one.
    """

    events: frozenset[str] | None = None
    debug: bool = False


def withheld(record: Record) -> Record:
    """Return what stands in for a debug record where it must not be seen: its number, so that there is no hole."""
    if record.kind != DEBUG:
        return record
    return attrs.evolve(record, kind=WITHHELD, data=b"{}")


class Parcel:
    """Values for many connections."""

    __slots__ = ("_bits", "_frames", "_others", "_views", "_wire", "items")

    def __init__(self, items: tuple[Outgoing, ...]) -> None:
        self.items = items
        self._wire: Format | None = None  # what was asked for last, which is nearly always what is asked for next
        self._bits = 0
        self._frames = b""
        self._others: dict[tuple[str, int], bytes] = {}
        self._views: dict[View, Parcel | None] | None = None  # None for itself, which would be a circle

    @property
    def turns(self) -> set[str]:
        """The turns that it tells of."""
        records = [item.record for item in self.items if isinstance(item, SessionRecord)]
        return {record.turn_id for record in records if record.turn_id is not None}

    def seen(self, view: View) -> "Parcel":
        """Return as much of it as is seen with this view; itself, if that is all."""
        if self._views is None:
            self._views = {}
        if view not in self._views:
            shown = [_shown(item, view) for item in self.items]
            items = tuple([item for item in shown if item is not None])
            same = len(items) == len(self.items) and all(map(is_, items, self.items))
            self._views[view] = None if same else Parcel(items)
        return self._views[view] or self

    def frames(self, wire: Format, window_bits: int) -> bytes:
        """Return the parcel's messages as WebSocket frames, one after the other."""
        if wire is self._wire and window_bits == self._bits:
            return self._frames
        key = (wire.name, window_bits)
        frames = self._others.get(key)
        if frames is None:
            texts = map(wire.encode, self.items)
            frames = b"".join([text_frame(text, window_bits) for text in texts if text])
            self._others[key] = frames
        self._wire, self._bits, self._frames = wire, window_bits, frames
        return frames


def _shown(item: Outgoing, view: View) -> Outgoing | None:
    if isinstance(item, RoomEvent):
        return item if view.events is None or item.event in view.events else None
    if isinstance(item, SessionRecord) and item.record.kind == DEBUG and not view.debug:
        return attrs.evolve(item, record=withheld(item.record))
    return item
