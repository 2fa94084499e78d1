"""What one report of an agent's may be at most, whatever it speaks, and what is kept of a larger one.

A report is cut before it is read: its largest fields are never more than bytes here, however many objects
they would become.
"""

import re
from itertools import count
from typing import Final

import msgspec

from broker.errors import BrokerError
from broker.messages import AgentRecord
from broker.protocol.edge import MAX_DEPTH, check_depth

__all__ = [
    "DEPTH_LIMIT",
    "RECORD_LIMIT",
    "TEXT_LIMIT",
    "Fields",
    "bounded",
    "checked",
    "fields_in",
    "kept",
    "vendor_record",
]

DEPTH_LIMIT: Final = MAX_DEPTH
"""Nesting beyond which JSON is refused (PROTOCOL section 2)."""
RECORD_LIMIT: Final = 256 * 1024
"""Bytes of one record's data; a larger report loses its largest fields, or no viewer could ever take it."""
TEXT_LIMIT: Final = 32 * 1024
"""Characters of one delta."""
FIELDS_LIMIT: Final = 32 * 1024
"""Fields of a report that is too large for a record; one with more of them is refused."""

_NAMES_LIMIT: Final = 20
_NAME_LIMIT: Final = 64
_NAMES_ROOM: Final = _NAMES_LIMIT * (_NAME_LIMIT * 6 + 3) + 20
"""Bytes that the names of what is gone take at most: JSON spells a character in up to six."""
_VENDOR: Final = re.compile(r"[A-Za-z0-9_$./-]{1,64}")

Fields = dict[str, msgspec.Raw]
"""A JSON object whose values stay as they came."""

_FIELDS: Final = msgspec.json.Decoder(Fields)
_NAMES: Final = msgspec.json.Decoder(list[str])


class _Name(str):
    """A field's name that is counted as it is read."""

    __slots__ = ()


def vendor_record(kind: str, raw: msgspec.Raw, turn_id: str | None) -> AgentRecord:
    """Keep a report that we have no word for as it is, under `vendor.<kind>`.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON object, or nests too deep.
    """
    word = kind if _VENDOR.fullmatch(kind) else "unknown"
    data = bytes(raw)
    if len(data) > RECORD_LIMIT:
        data = bounded(kept(fields_in(raw)))
    else:
        checked(raw)
        if not data.startswith(b"{"):
            raise ValueError("a report that is no JSON object")
    return AgentRecord(turn_id, f"vendor.{word}", data)


def fields_in(raw: msgspec.Raw) -> Fields:
    """Return the fields of an object, none of them read.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON object, or has too many fields.
    """
    if len(bytes(raw)) <= RECORD_LIMIT:
        return _FIELDS.decode(raw)
    numbers = count(1)

    def name(_: type, word: str) -> _Name:
        if next(numbers) > FIELDS_LIMIT:
            raise ValueError("too many fields")
        return _Name(word)

    named = msgspec.json.decode(raw, type=dict[_Name, msgspec.Raw], dec_hook=name)
    return {str(word): value for word, value in named.items()}


def kept(fields: Fields) -> Fields:
    """Return what a record may hold of `fields`, read once (`checked`); `truncated` then names the others.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: what is kept is no JSON, or nests too deep.
    """
    fields = _trimmed(fields)
    checked(msgspec.Raw(msgspec.json.encode(fields)))
    return fields


def bounded(fields: Fields) -> bytes:
    """Encode `fields`, without the largest of them where they are too much; `truncated` then names those."""
    return msgspec.json.encode(_trimmed(fields))


def _trimmed(fields: Fields) -> Fields:
    sizes = {name: len(msgspec.json.encode(name)) + len(bytes(value)) + 2 for name, value in fields.items()}
    excess = sum(sizes.values()) + 2 - RECORD_LIMIT
    if excess <= 0:
        return fields
    excess += _NAMES_ROOM
    dropped = _truncated(fields)
    gone = {"truncated"}
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if excess <= 0:
            break
        excess -= sizes[name]
        if name not in gone:
            dropped.append(name)
            gone.add(name)
    left = {name: value for name, value in fields.items() if name not in gone}
    names = [name[:_NAME_LIMIT] for name in dropped[:_NAMES_LIMIT]]
    return left | {"truncated": msgspec.Raw(msgspec.json.encode(names))}


def _truncated(fields: Fields) -> list[str]:
    """Return what fell to an earlier cut."""
    said = fields.get("truncated", msgspec.Raw(b"[]"))
    try:
        return _NAMES.decode(said) if len(bytes(said)) <= _NAMES_ROOM else []
    except (msgspec.MsgspecError, ValueError):
        return []


def checked(raw: msgspec.Raw) -> None:
    """Read all of it once: what is only carried along must still be JSON for whoever reads the log.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON, nests too deep, or is more than a
            record may hold: so much is not read at all.
    """
    data = bytes(raw)
    if len(data) > RECORD_LIMIT:
        raise ValueError("more than a record may hold")
    msgspec.json.decode(data)
    try:
        check_depth(data)
    except BrokerError:
        raise ValueError("nested too deep") from None
