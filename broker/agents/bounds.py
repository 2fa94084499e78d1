"""What one report of an agent's may be at most, whatever it speaks, and what is kept of a larger one."""

import re
from typing import Any, Final

import msgspec

from broker.messages import AgentRecord

__all__ = ["DEPTH_LIMIT", "RECORD_LIMIT", "TEXT_LIMIT", "Fields", "bounded", "checked", "vendor_record"]

DEPTH_LIMIT: Final = 64
"""Nesting beyond which JSON is refused (PROTOCOL section 2)."""
RECORD_LIMIT: Final = 256 * 1024
"""Bytes of one record's data; a larger report loses its largest fields, or no viewer could ever take it."""
TEXT_LIMIT: Final = 32 * 1024
"""Characters of one delta."""

_NAMES_LIMIT: Final = 20
_NAME_LIMIT: Final = 64
_VENDOR: Final = re.compile(r"[A-Za-z0-9_$./-]{1,64}")

Fields = dict[str, msgspec.Raw]
"""A JSON object whose values stay as they came."""

_FIELDS: Final = msgspec.json.Decoder(Fields)


def vendor_record(kind: str, raw: msgspec.Raw, turn_id: str | None) -> AgentRecord:
    """Keep a report that we have no word for as it is, under `vendor.<kind>`.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON object, or nests too deep.
    """
    checked(raw)
    word = kind if _VENDOR.fullmatch(kind) else "unknown"
    data = bytes(raw)
    if len(data) > RECORD_LIMIT:
        data = bounded(_FIELDS.decode(raw))
    elif not data.startswith(b"{"):
        raise ValueError("a report that is no JSON object")
    return AgentRecord(turn_id, f"vendor.{word}", data)


def bounded(fields: Fields) -> bytes:
    """Encode `fields`, without the largest of them where they are too much; `truncated` then names those."""
    data = msgspec.json.encode(fields)
    if len(data) <= RECORD_LIMIT:
        return data
    sizes = {name: len(name) + len(bytes(value)) for name, value in fields.items()}
    excess = len(data) - RECORD_LIMIT + _NAMES_LIMIT * _NAME_LIMIT
    dropped: list[str] = []
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if excess <= 0:
            break
        excess -= sizes[name]
        dropped.append(name)
    gone = frozenset(dropped)
    kept = {name: value for name, value in fields.items() if name not in gone}
    return msgspec.json.encode(kept | {"truncated": [name[:_NAME_LIMIT] for name in dropped[:_NAMES_LIMIT]]})


def checked(raw: msgspec.Raw) -> None:
    """Read all of it once: what is only carried along must still be JSON for whoever reads the log.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON, or nests too deep.
    """
    if _depth(msgspec.json.decode(raw)) > DEPTH_LIMIT:
        raise ValueError("nested too deep")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
