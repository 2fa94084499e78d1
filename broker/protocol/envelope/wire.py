"""`envelope.v1.json` as clients write it: reading an envelope, and what stands in it.

Every message, both ways, is `{id, type, from, to, content, sessionId, timestamp, metadata}` (seed 003).
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from broker.errors import BrokerError
from broker.ids import new_id
from broker.protocol import edge
from broker.protocol.payloads import Id, OwnId

__all__ = ["NULL", "RESERVED", "Name", "Party", "Wire", "block_of", "content_of", "read", "salvage"]

RESERVED: Final = frozenset({"seq", "turnId", "replyTo", "final", "late", "partial", "author", "sender"})
"""Keys of `metadata` that are the broker's: what a person puts there is not passed on as if the broker had said it."""
NULL: Final = msgspec.Raw(b"null")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Party = Literal["user", "ai", "system"]


class Wire(msgspec.Struct, rename={"sender": "from", "session_id": "sessionId"}):
    """A client's envelope; what is left out, or null, is filled in by `read`."""

    type: Name
    id: Id | None = None
    sender: Literal["user"] | None = None
    to: Party | None = None
    content: msgspec.Raw = NULL
    session_id: OwnId | None = None
    timestamp: datetime | None = None
    metadata: msgspec.Raw = NULL


class _OnlyId(msgspec.Struct):
    id: Any = None


class _Blocks(msgspec.Struct):
    text: msgspec.Raw = NULL
    blocks: msgspec.Raw = NULL


_decode: Final = msgspec.json.Decoder(Wire).decode
_decode_id: Final = msgspec.json.Decoder(_OnlyId).decode
_decode_blocks: Final = msgspec.json.Decoder(_Blocks).decode


def read(text: bytes) -> Wire:
    """Read an envelope, and give it an id if it has none; its content is looked at by whom it is for.

    Raises:
        BrokerError: `invalid_json`, or `invalid_message` with the field that is wrong.
    """
    wire = edge.read(_decode, text)
    wire.id = wire.id or new_id()
    wire.to = wire.to or ("ai" if wire.type == "text" else "system")
    return wire


def salvage(text: bytes) -> str | None:
    """Return the id of a message that cannot be read, if that can be."""
    try:
        found = _decode_id(text).id
    except edge.UNREADABLE:
        return None
    return found if isinstance(found, str) and 0 < len(found) <= 128 else None  # noqa: PLR2004 - as in payloads.Id


def content_of(content: msgspec.Raw) -> msgspec.Raw:
    """Return what a text says to an agent: JSON text, or content blocks.

    It may stand in the content as it is, or as its `text` or its `blocks`.

    Raises:
        BrokerError: `invalid_message`.
    """
    if not bytes(content).startswith(b"{"):
        said = content
    else:
        held = edge.fitting(_decode_blocks, content, "$.content")
        said = held.blocks if held.text == NULL else held.text
    if not bytes(said).startswith((b'"', b"[")):
        hint = 'such as {"text": "Hello"}, or {"blocks": […]}'
        raise BrokerError("invalid_message", "The content of a text has its text.", field="$.content", hint=hint)
    return said


def block_of(said: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the content of an envelope that says this: the other way round."""
    return {"text" if bytes(said).startswith(b'"') else "blocks": said}
