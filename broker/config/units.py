"""Durations, sizes and rates as people write them: `1h30m`, `64KiB`, `50/s`.

The classes of `broker.config.settings` hold plain numbers: seconds, bytes, events or bytes per second.
The annotated types here say which, so that the reader knows how to parse a setting, the schema how to
describe it and `check-config --print` how to write it.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Final

import attrs
import msgspec

__all__ = [
    "ByteRate",
    "Count",
    "Duration",
    "Percent",
    "Port",
    "Positive",
    "Rate",
    "Size",
    "Unit",
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_rate",
    "parse_size",
]

_SECONDS: Final = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
_BYTES: Final = {
    "B": 1,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
    "kB": 1000,
}
_MOST: Final = 1 << 52
"""The largest number of seconds or bytes; above it, floats no longer count one by one."""
_NUMBER: Final = r"[0-9]{1,16}(?:\.[0-9]{1,9})?"
_DURATION: Final = re.compile(rf"(?:{_NUMBER}(?:ms|[dhms]))+", re.ASCII)
_PART: Final = re.compile(rf"({_NUMBER})(ms|[dhms])", re.ASCII)
_SIZE: Final = re.compile(rf"({_NUMBER}) ?([KMGTk]?i?B)", re.ASCII)
_RATE: Final = re.compile(rf"({_NUMBER}) ?([KMGTk]?i?B)?/([smhd])", re.ASCII)


def _bounded(number: Decimal) -> Decimal:
    if number > _MOST:
        raise ValueError("too large")
    return number


def parse_duration(value: object) -> float:
    """Return the seconds that `value` says: `30s`, `1h30m`, `200ms`, `7d`, or 0.

    Raises:
        ValueError: it is no duration; a bare number is none, since nobody can see its unit.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value == 0:
            return 0.0
        if value > 0:
            raise ValueError(f"a duration needs a unit; write {value:g}s")
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        if isinstance(value, str) and re.fullmatch(_NUMBER, value, re.ASCII):
            return parse_duration(float(value))
        raise ValueError("expected a duration such as 30s, 1h30m or 200ms")
    parts = _PART.findall(value)
    factors = [_SECONDS[unit] for _, unit in parts]
    if factors != sorted(set(factors), reverse=True):
        raise ValueError("expected each unit once, the largest first, such as 1h30m")
    return float(_bounded(sum((Decimal(number) * _SECONDS[unit] for number, unit in parts), Decimal(0))))


def parse_size(value: object) -> int:
    """Return the bytes that `value` says: a whole number, `64KiB` (1024) or `1MB` (1000).

    Raises:
        ValueError: it is no size, or not a whole number of bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return int(_bounded(Decimal(value)))
    if isinstance(value, str) and re.fullmatch("[0-9]{1,16}", value, re.ASCII):
        return parse_size(int(value))
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _BYTES:
        raise ValueError("expected a size in bytes, such as 1MiB, 64KiB or 4096")
    size = Decimal(match[1]) * _BYTES[match[2]]
    if size != int(size):
        raise ValueError("expected a whole number of bytes")
    return int(_bounded(size))


def parse_rate(value: object) -> float:
    """Return the events per second that `value` says, such as `50/s` or `600/m`.

    Raises:
        ValueError: it is no rate of events.
    """
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2]:
        raise ValueError("expected a rate such as 50/s or 600/m")
    return float(Decimal(match[1]) / _SECONDS[match[3]])


def parse_byte_rate(value: object) -> float:
    """Return the bytes per second that `value` says, such as `1MiB/s`.

    Raises:
        ValueError: it is no rate of bytes.
    """
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in _BYTES:
        raise ValueError("expected a rate of bytes such as 1MiB/s")
    return float(Decimal(match[1]) * _BYTES[match[2]] / _SECONDS[match[3]])


def format_duration(seconds: float) -> str:
    """Write `seconds` so that `parse_duration` gives the same number back."""
    rest, text = Decimal(repr(seconds)), ""
    for unit in "dhm":
        whole, rest = divmod(rest, _SECONDS[unit])
        text += f"{whole:f}{unit}" if whole else ""
    if rest >= 1:
        text += f"{_short(rest)}s"
    elif rest:
        text += f"{_short(rest * 1000)}ms"
    return text or "0"


def _size(number: float) -> str:
    text = format_size(int(number)) if number == int(number) else _short(Decimal(repr(number)))
    return text if text.endswith("B") else f"{text}B"


def _short(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_size(size: int) -> str:
    """Write `size` so that `parse_size` gives the same number back: binary units where they fit."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)


@attrs.frozen
class Unit:
    """Says how a number is written in a file.

    Attributes:
        name: what it measures.
        parse: makes the number; raises ValueError with a sentence.
        write: makes text that `parse` reads.
        pattern: of the text, for the JSON Schema.
        bare: the largest whole number that may stand without a unit, None if none may.
    """

    name: str
    parse: Callable[[object], float]
    write: Callable[[float], str]
    pattern: str
    bare: int | None = None


Duration = Annotated[
    float, Unit("duration", parse_duration, format_duration, rf"^({_NUMBER}(ms|[dhms]))+$|^0$", bare=0)
]
"""Seconds, written such as 30s, 1h30m, 200ms or 0."""

Size = Annotated[
    int, Unit("size", parse_size, lambda size: format_size(int(size)), rf"^{_NUMBER} ?([KMGTk]?i?B)?$", bare=_MOST)
]
"""Bytes, written such as 4096, 64KiB or 1MB."""

Rate = Annotated[
    float, Unit("rate", parse_rate, lambda rate: f"{_short(Decimal(repr(rate)))}/s", rf"^{_NUMBER}/[smhd]$")
]
"""Events per second, written such as 50/s or 600/m."""

ByteRate = Annotated[
    float, Unit("rate of bytes", parse_byte_rate, lambda rate: f"{_size(rate)}/s", rf"^{_NUMBER} ?[KMGTk]?i?B/[smhd]$")
]
"""Bytes per second, written such as 1MiB/s."""

Positive = msgspec.Meta(gt=0)
"""Added to a type above where 0 would mean nothing: `Annotated[Duration, Positive]`."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
"""A TCP port; 0 takes any free one."""

Count = Annotated[int, msgspec.Meta(ge=1)]
"""A whole number of things, at least one."""

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
"""0 to 100."""
