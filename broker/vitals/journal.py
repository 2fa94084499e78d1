"""The newest lines of the log, in memory: for who looks at a broker without a way to its machine.

They say what the written log says and no more, so what is kept out of that is kept out of here.
"""

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
from loguru import logger

from broker.logs import component, details, escape, written_at

if TYPE_CHECKING:
    from loguru import Message, Record

__all__ = ["LINES", "SIZE", "UNKEPT", "Journal"]

LINES: Final = 1000
"""Lines that are kept."""
SIZE: Final = 1 << 20
"""Bytes of JSON that they may have together."""
LONGEST: Final = 8192
"""Characters kept of a message, and of a traceback."""
UNKEPT: Final = "unkept"
"""Bound to a line that is written but not kept: that the journal was read, or reading it would never come to an end."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


@attrs.frozen
class _Line:
    """One line: its number, how severe it is, and all of it as JSON."""

    number: int
    severity: int
    text: bytes


class Journal:
    """The newest lines of the log of a process that is one broker's; for within a program it is that one's own affair.

    Args:
        lines: how many are kept.
        size: bytes that they may have together.
    """

    def __init__(self, lines: int = LINES, size: int = SIZE) -> None:
        self._most = lines
        self._room = size
        self._lines: deque[_Line] = deque()
        self._size = 0
        self._last = 0
        self._sink: int | None = None
        self._lock = threading.Lock()  # lines come from every thread

    def open(self, level: str) -> None:
        """Keep what is logged from now on, from this level on; may be called again, with another level."""
        self.close()
        self._sink = logger.add(
            self._take, level=level.upper(), format=_unformatted, filter=_is_kept, colorize=False, diagnose=False
        )

    def close(self) -> None:
        """Keep no more lines; those there are stay."""
        if self._sink is not None:
            with suppress(ValueError):  # whoever set up the log anew has taken it away
                logger.remove(self._sink)
            self._sink = None

    def read(self, after: int | None, level: str, contains: str, limit: int) -> dict[str, Any]:
        """Return lines, oldest first.

        Args:
            after: the number of the last line that is known; None for the newest lines.
            level: the least severe that is wanted.
            contains: what has to stand in its message, its logger or its details, in upper or lower case.
            limit: how many at most: the oldest after that number, or else the newest.

        Returns:
            `lines`; `next`, the number to ask after for what comes then; `left_out`, how many lines after the known one
            are not there any more.
        """
        with self._lock:
            kept, last = list(self._lines), self._last
        if after is not None and after > last:  # a number of an earlier run of the broker: all there is came since
            after = 0
        wanted = _wanting(kept, after or 0, logger.level(level.upper()).no, contains.lower())
        if after is None:
            return {"lines": _shown(wanted[-limit:]), "next": last, "left_out": 0}
        oldest = kept[0].number if kept else last + 1
        reached = wanted[limit - 1].number if len(wanted) > limit else last
        return {"lines": _shown(wanted[:limit]), "next": reached, "left_out": max(0, oldest - after - 1)}

    def _take(self, message: "Message") -> None:
        record = message.record
        extra = {name: value[:LONGEST] if isinstance(value, str) else value for name, value in details(record).items()}
        entry = {
            "at": written_at(record["time"]),
            "level": record["level"].name.lower(),
            "message": escape(record["message"])[:LONGEST],
            "logger": component(record),
            "extra": extra,
        }
        with self._lock:
            self._last += 1
            line = _Line(self._last, record["level"].no, _encode({"n": self._last, **entry}))
            self._lines.append(line)
            self._size += len(line.text)
            while len(self._lines) > self._most or self._size > self._room:
                self._size -= len(self._lines.popleft().text)


def _wanting(lines: list[_Line], after: int, severity: int, part: str) -> list[_Line]:
    """Return the lines that come after a number, are as severe and have this in them."""
    found = [line for line in lines if line.number > after and line.severity >= severity]
    return [line for line in found if part in _words(line)] if part else found


def _words(line: _Line) -> str:
    """Return what a line says, in lower case: not as JSON, whose own words and escapes nobody looks for."""
    said = _decode(line.text)
    return "\n".join(map(str, (said["message"], said["logger"], *said["extra"].values()))).lower()


def _shown(lines: list[_Line]) -> list[msgspec.Raw]:
    return [msgspec.Raw(line.text) for line in lines]


def _is_kept(record: "Record") -> bool:
    return UNKEPT not in record["extra"]


def _unformatted(_: "Record") -> str:
    return ""
