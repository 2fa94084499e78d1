"""What clients of `project.v1.json` say, as what is asked of rooms and projects."""

from collections.abc import Callable
from typing import Annotated, Any, Final

import attrs
import msgspec

from broker.errors import BrokerError
from broker.projects import MAX_GUID, room_of
from broker.protocol import edge
from broker.protocol.outgoing import Request
from broker.protocol.payloads import After, Auth, EventName, Guid

__all__ = ["MAX_ID", "Tag", "read", "salvage"]

MAX_ID: Final = 128
"""Characters of a message's id, and of its type."""
_NULL: Final = msgspec.Raw(b"null")
_encode: Final = msgspec.json.Encoder().encode

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
OwnId = Annotated[str, msgspec.Meta(max_length=MAX_ID)]


class _Wire(msgspec.Struct, rename={"guid": "projectGuid"}):
    type: Name
    guid: Guid | None = None
    data: msgspec.Raw = _NULL
    timestamp: str | None = None
    id: OwnId | None = None


class _Names(msgspec.Struct, rename={"guid": "projectGuid"}):
    """What is looked for in a message that was refused."""

    id: Any = None
    guid: Any = None


class _Joining(msgspec.Struct):
    after_seq: After | None = None
    epoch: str | None = None
    events: Annotated[list[EventName], msgspec.Meta(min_length=1, max_length=64)] | None = None


_decode: Final = msgspec.json.Decoder(_Wire).decode
_decode_names: Final = msgspec.json.Decoder(_Names).decode
_decode_joining: Final = msgspec.json.Decoder(_Joining | None).decode
_decode_auth: Final = msgspec.json.Decoder(Auth).decode


@attrs.frozen
class Tag:
    """What it takes to word the answer to a message.

    Attributes:
        type: the message's; empty where it could not be read.
        guid: the project it is about, if any.
        id: the client's own id of it, if it has one.
    """

    type: str = ""
    guid: str | None = None
    id: str | None = None

    def __str__(self) -> str:
        return self.id or ""


def read(text: bytes) -> Request:
    """Read one message.

    A type that the design does not name is asked for by that alone: a handler may be registered for it, and no action
    of the broker is reached by a client that happens to say its name.

    Raises:
        BrokerError: `invalid_json`, or `invalid_message` with the field that is wrong.
    """
    wire = edge.read(_decode, text)
    action, payload = _READERS.get(wire.type, _read_other)(wire)
    return Request(action, payload, Tag(wire.type, wire.guid, wire.id), wire.type)


def salvage(text: bytes) -> Tag | None:
    """Return which message was refused, and about which project, as far as that can be read."""
    try:
        names = _decode_names(text)
    except edge.UNREADABLE:
        return None
    return Tag(guid=_good(names.guid, MAX_GUID), id=_good(names.id, MAX_ID))


def _read_ping(_: _Wire) -> tuple[str, bytes]:
    return "ping", b"{}"


def _read_auth(wire: _Wire) -> tuple[str, bytes]:
    edge.fitting(_decode_auth, wire.data, "$.data")
    return "auth", bytes(wire.data)


def _read_join(wire: _Wire) -> tuple[str, bytes]:
    room = room_of(_guid(wire))
    joining = edge.fitting(_decode_joining, wire.data, "$.data") or _Joining()
    wanted = {name: value for name, value in msgspec.structs.asdict(joining).items() if value is not None}
    return "room.join", _encode({"room": room, **wanted})


def _read_leave(wire: _Wire) -> tuple[str, bytes]:
    return "room.leave", _encode({"room": room_of(_guid(wire))})


def _read_feedback(wire: _Wire) -> tuple[str, bytes]:
    guid = _guid(wire)
    if wire.data == _NULL:
        raise BrokerError("invalid_message", "Feedback says something.", field="$.data")
    feedback = {"project": guid, "data": wire.data}
    return "project.feedback", _encode({**feedback, "feedback_id": wire.id} if wire.id else feedback)


def _read_other(wire: _Wire) -> tuple[str, bytes]:
    return "", bytes(wire.data)


_READERS: Final[dict[str, Callable[[_Wire], tuple[str, bytes]]]] = {
    "join_project": _read_join,
    "leave_project": _read_leave,
    "user_feedback": _read_feedback,
    "ping": _read_ping,
    "auth": _read_auth,
}


def _guid(wire: _Wire) -> str:
    if wire.guid is None:
        raise BrokerError("invalid_message", f"Say which project {wire.type} is about.", field="$.projectGuid")
    if not wire.guid.isprintable():
        raise BrokerError("invalid_message", "A guid consists of printable characters.", field="$.projectGuid")
    return wire.guid


def _good(value: Any, longest: int) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= longest else None
