"""The newest records of a log, kept in memory so that most who come back need not ask the disk."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from broker.messages import Record

__all__ = ["Tail"]

RECORDS: Final = 256
"""Records that are kept of each log ..."""
BYTES: Final = 1 << 20
"""... and bytes of data in them: there are as many logs in memory as clients care to name (PROTOCOL P7)."""


class Tail:
    """The newest records of one log, as many as fit; none, if the newest alone is larger than that."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many records it holds."""
        return len(self._records)

    @property
    def bytes(self) -> int:
        """Bytes of data in the records."""
        return self._bytes

    def extend(self, records: Iterable[Record]) -> None:
        """Add the records that come next in the log, and let go of the oldest that do not fit any more."""
        kept = self._records
        for record in records:
            kept.append(record)
            self._bytes += len(record.data)
        while len(kept) > RECORDS or self._bytes > BYTES:
            self._bytes -= len(kept.popleft().data)

    def clear(self) -> None:
        """Let go of everything."""
        self._records.clear()
        self._bytes = 0

    def reaches(self, after: int) -> bool:
        """Tell whether it holds the record after number `after`, and all that follow."""
        return bool(self._records) and self._records[0].seq <= after + 1

    def page(self, after: int, *, limit: int, max_bytes: int) -> list[Record]:
        """Return a page of the records above `after`, oldest first, as `broker.store.port.Reader.records_after`."""
        records = self._records
        page: list[Record] = []
        start = after + 1 - records[0].seq if records else 0
        for i in range(start, len(records)):
            record = records[i]
            max_bytes -= len(record.data)
            if page and (max_bytes < 0 or len(page) == limit):
                break
            page.append(record)
        return page
