"""`broker.v1.json`, the native format (PROTOCOL section 2)."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import attrs
import msgspec

from broker.clock import rfc3339
from broker.projects import FEEDBACK_RESPONSE
from broker.protocol.edge import UNREADABLE, check_depth, unreadable
from broker.protocol.outgoing import (
    Broadcast,
    CaughtUp,
    Direct,
    Failure,
    FeedbackAnswer,
    Outgoing,
    Request,
    Response,
    Restarting,
    RoomEvent,
    RoomLeft,
    SessionDetached,
    SessionRecord,
    SessionReset,
    Tapped,
    Welcome,
)

__all__ = ["NATIVE", "NativeFormat"]

MAX_ID: Final = 128
"""Characters a client's request id may have (PROTOCOL section 2)."""
_NO_LONGER: Final = {"code": "forbidden", "message": "You may not see this any more."}
_EMPTY: Final = msgspec.Raw(b"{}")
_encode: Final = msgspec.json.Encoder().encode


@attrs.define
class _Wire:
    type: Literal["request"]
    action: str
    id: Annotated[str, msgspec.Meta(max_length=MAX_ID)] | None = None
    payload: msgspec.Raw = _EMPTY


@attrs.define
class _OnlyId:
    id: Annotated[str, msgspec.Meta(max_length=MAX_ID)] | None = None


_decode: Final = msgspec.json.Decoder(_Wire).decode
_decode_id: Final = msgspec.json.Decoder(_OnlyId).decode


class NativeFormat:
    """The native format, as one shared object."""

    name = "broker.v1.json"

    def decode(self, text: bytes) -> Request:
        """Read one message; the payload stays bytes.

        Raises:
            BrokerError: `invalid_json`, or `invalid_message` with the field that is wrong.
        """
        try:
            wire = _decode(text)
        except UNREADABLE as e:
            raise unreadable(e, "message") from None
        check_depth(text)
        return Request(wire.action, bytes(wire.payload), wire.id)

    def salvage_id(self, text: bytes) -> str | None:
        """Return the id of a refused message, if it has a good one."""
        try:
            return _decode_id(text).id
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def encode(self, value: Outgoing) -> bytes:
        """Return the value as one text message."""
        return _ENCODERS[type(value)](value)

    def dialect(self, query: Mapping[str, str]) -> None:
        """Remember nothing of a connection."""


def _response(value: Response) -> bytes:
    return b'{"id":%b,"type":"response","data":%b}' % (_encode(value.id), value.data)


def _failure(value: Failure) -> bytes:
    data = _encode(value.error.as_data())
    if value.id is None:
        return b'{"type":"error","data":%b}' % data
    return b'{"id":%b,"type":"error","data":%b}' % (_encode(value.id), data)


def _session_record(value: SessionRecord) -> bytes:
    record = value.record
    turn = b"" if record.turn_id is None else b'"turn_id":%b,' % _encode(record.turn_id)
    return b'{"type":"notification","event":%b,"session_id":%b,"seq":%d,%b"at":"%b","data":%b}' % (
        _encode(record.kind),
        _encode(value.session_id),
        record.seq,
        turn,
        rfc3339(record.at).encode(),
        record.data,
    )


def _room_event(value: RoomEvent) -> bytes:
    seq = b"" if value.seq is None else b'"seq":%d,' % value.seq
    return (
        b'{"type":"notification","event":"room.event","room":%b,%b"from":%b,"at":"%b","data":{"event":%b,"data":%b}}'
        % (
            _encode(value.room),
            seq,
            value.sender,
            rfc3339(value.at).encode(),
            _encode(value.event),
            value.data,
        )
    )


def _feedback_answer(value: FeedbackAnswer) -> bytes:
    """Say it as an event without a number; a member may publish one of that name, but `from` is the broker's word."""
    data = b'{"feedback_id":%b,"data":%b}' % (_encode(value.feedback_id), value.data)
    return _room_event(RoomEvent(value.room, None, FEEDBACK_RESPONSE, value.sender, data, value.at))


def _broadcast(value: Broadcast) -> bytes:
    return b'{"type":"notification","event":"broadcast","from":%b,"data":%b}' % (value.sender, value.data)


def _direct(value: Direct) -> bytes:
    return b'{"type":"notification","event":"message","from":%b,"data":%b}' % (value.sender, value.data)


def _welcome(value: Welcome) -> bytes:
    return _encode({"type": "notification", "event": "welcome", "data": attrs.asdict(value)})


def _caught_up(value: CaughtUp) -> bytes:
    return _of_session("session.caught_up", value.session_id, {"head": value.head})


def _reset(value: SessionReset) -> bytes:
    data = {"epoch": value.epoch, "head": value.head, "floor": value.floor}
    return _of_session("session.reset", value.session_id, data)


def _detached(value: SessionDetached) -> bytes:
    return _of_session("session.detached", value.session_id, _NO_LONGER)


def _left(value: RoomLeft) -> bytes:
    return _encode({"type": "notification", "event": "room.left", "room": value.room, "data": _NO_LONGER})


def _restarting(value: Restarting) -> bytes:
    return _encode({"type": "notification", "event": "restarting", "data": {"retry_after": value.retry_after}})


def _tapped(value: Tapped) -> bytes:
    return b'{"type":"notification","event":"tap","data":%b}' % value.data


def _of_session(event: str, session_id: str, data: dict[str, Any]) -> bytes:
    return _encode({"type": "notification", "event": event, "session_id": session_id, "data": data})


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    Response: _response,
    Failure: _failure,
    SessionRecord: _session_record,
    RoomEvent: _room_event,
    FeedbackAnswer: _feedback_answer,
    Broadcast: _broadcast,
    Direct: _direct,
    Welcome: _welcome,
    CaughtUp: _caught_up,
    SessionReset: _reset,
    SessionDetached: _detached,
    RoomLeft: _left,
    Restarting: _restarting,
    Tapped: _tapped,
}

NATIVE: Final = NativeFormat()
