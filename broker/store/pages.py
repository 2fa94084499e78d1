"""Many rows in one: reads a page of a table in a single step of SQLite.

Python's sqlite3 lets go of the interpreter's lock at every row, and gets it back only when the event
loop, if it is busy, is made to hand it over: up to 5 ms a row. So SQLite itself gathers a page into one
row: the plain columns as JSON, the bytes of all blobs end to end, which also keeps them byte for byte.
"""

import sqlite3
from typing import Any, Final

import attrs
import msgspec

__all__ = ["Page"]

_decode: Final = msgspec.json.Decoder(list[list[Any]]).decode


@attrs.frozen
class Page:
    """How the rows of a table are gathered.

    Attributes:
        plain: columns that hold text, integers or NULL; they come first in a row.
        blobs: columns that hold bytes or NULL; they follow.
    """

    plain: tuple[str, ...]
    blobs: tuple[str, ...]

    @property
    def columns(self) -> str:
        """Name all columns, in the order of a row."""
        return ", ".join((*self.plain, *self.blobs))

    def select(self, source: str) -> str:
        """Return the statement that gathers the rows of `source`, a SELECT of (at least) these columns."""
        cells = ", ".join((*self.plain, *(f"length({blob})" for blob in self.blobs)))
        body = " || ".join(f"CAST(coalesce({blob}, '') AS TEXT)" for blob in self.blobs) or "''"
        return (
            f"SELECT json_group_array(json_array({cells})), CAST(group_concat({body}, '') AS BLOB) "  # noqa: S608
            f"FROM ({source})"
        )

    def read(self, connection: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> list[list[Any]]:
        """Run a statement made by `select` and return its rows, each as a list in the order of `columns`."""
        cells, body = connection.execute(statement, values).fetchone()
        rows = _decode(cells)
        start = 0
        for row in rows:
            for column in range(len(self.plain), len(row)):
                length = row[column]
                if length is not None:
                    row[column] = body[start : start + length]
                    start += length
        return rows
