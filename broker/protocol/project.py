"""`project.v1.json`: projects, whose members hear of stages, messages, statuses and agents.

The design is seed 002 (PROTOCOL section 6). Every message is `{"type", "projectGuid", "data", "timestamp", "id"}`. A
project is the room `project:<guid>`. There is nothing to remember of a connection, so what is said to a thousand
members is written once. What a client of this design has no word for is not said: the welcome, sessions, and that
the broker is about to restart, for which the close code is enough.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.ids import new_id
from broker.projects import EVENTS, FEEDBACK_RESPONSE, guid_of
from broker.protocol.outgoing import (
    Broadcast,
    Direct,
    Failure,
    FeedbackAnswer,
    Outgoing,
    Request,
    Response,
    RoomEvent,
    RoomLeft,
)
from broker.protocol.project_asked import Tag, read, salvage

__all__ = ["ProjectFormat"]

OTHER: Final = "project_message"
"""The type of what has no type of its own: it keeps its name, and who said it, in its data."""
_PLACES: Final = {
    "$.payload.room": "$.projectGuid",
    "$.payload.project": "$.projectGuid",
    "$.payload.feedback_id": "$.id",
}
_NO_LONGER: Final = BrokerError("forbidden", "You may not see this project any more.")
_encode: Final = msgspec.json.Encoder().encode


class _Answered(msgspec.Struct):
    """What an agent has answered feedback with: the answer of `project.feedback`, as far as this design tells it."""

    data: msgspec.Raw


_decode_answered: Final = msgspec.json.Decoder(_Answered).decode


class ProjectFormat:
    """The format of projects, as one shared object.

    Args:
        now: returns milliseconds since the epoch, for what the broker says by itself.
    """

    name = "project.v1.json"

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now

    def decode(self, text: bytes) -> Request:
        """Read one message; raises as `project_asked.read`."""
        return read(text)

    def salvage_id(self, text: bytes) -> Tag | None:
        """Return which message was refused, and about which project, as far as that can be read."""
        return salvage(text)

    def encode(self, value: Outgoing) -> bytes:
        """Return the value as one text message; empty for what this design has no word for."""
        text = b""
        match value:
            case RoomEvent():
                text = _event(value)
            case FeedbackAnswer(room, feedback_id, _, data, at):
                text = _message(FEEDBACK_RESPONSE, guid_of(room), data, at, feedback_id)
            case Response():
                text = self._response(value)
            case Failure(tag, error):
                text = self._error(error, tag or Tag())
            case RoomLeft(room):
                text = self._error(_NO_LONGER, Tag(guid=guid_of(room)))
            case Broadcast(sender, data):
                text = self._say(OTHER, _wrapped("broadcast", sender, data), Tag())
            case Direct(sender, data):
                text = self._say(OTHER, _wrapped("message", sender, data), Tag())
        return text

    def dialect(self, query: Mapping[str, str]) -> None:
        """Remember nothing of a connection."""

    def _response(self, value: Response) -> bytes:
        """Answer with the type that was asked and `_response`, as the design does; `ping` with `pong`."""
        tag: Tag = value.id
        if tag.type == "ping":
            return self._say("pong", value.data, tag)
        by_agent = tag.type == "user_feedback" and not value.handled
        data = _decode_answered(value.data).data if by_agent else value.data
        return self._say(f"{tag.type}_response", data, tag)

    def _error(self, error: BrokerError, tag: Tag) -> bytes:
        data = error.as_data()
        if error.field is not None:
            data["field"] = _place(error.field, tag.type)
        return self._say("error", _encode(data), tag)

    def _say(self, kind: str, data: bytes | msgspec.Raw, about: Tag) -> bytes:
        """Word what the broker says by itself; what answers nothing that has an id is given one."""
        return _message(kind, about.guid, data, self._now(), about.id or new_id())


def _event(value: RoomEvent) -> bytes:
    guid = guid_of(value.room)
    if guid is None:
        return b""
    kind, data = value.event, value.data
    event_id = new_id() if value.seq is None else f"{guid}:{value.seq}"
    if kind not in EVENTS:
        kind, data = OTHER, _wrapped(kind, value.sender, data)
    return _message(kind, guid, data, value.at, event_id)


def _place(field: str, kind: str) -> str:
    """Return where it stands in a message of this design what is wrong in what was made of it."""
    payload = "$.payload.data" if kind == "user_feedback" else "$.payload"
    if field in _PLACES or not field.startswith(payload):
        return _PLACES.get(field, field)
    return "$.data" + field.removeprefix(payload)


def _wrapped(event: str, sender: bytes, data: bytes) -> bytes:
    """Keep what was said under a name that this design does not have."""
    return b'{"event":%b,"from":%b,"data":%b}' % (_encode(event), sender, data)


def _message(kind: str, guid: str | None, data: bytes | msgspec.Raw, at: int, message_id: str) -> bytes:
    project = b"" if guid is None else b'"projectGuid":%b,' % _encode(guid)
    stamp = rfc3339(at).encode()
    return b'{"type":%b,%b"data":%b,"timestamp":"%b","id":%b}' % (
        _encode(kind),
        project,
        data,
        stamp,
        _encode(message_id),
    )
