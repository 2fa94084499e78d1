"""`envelope.v1.json` as the broker writes it: wording what is said to a client.

What is said about a conversation, rather than in it, is of type `system` with `content: {event, data}`; so are errors.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import msgspec

from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.ids import new_id
from broker.messages import Record
from broker.protocol.envelope.wire import NULL, RESERVED, Name, Party, Wire
from broker.protocol.payloads import Id

__all__ = ["Voice"]

_NOTHING: Final[dict[str, Any]] = {}
_NAMES: Final = {"client_msg_id": "id", "session_id": "sessionId", "content": "content", "metadata": "metadata"}
"""Where in an envelope stands what a payload of PROTOCOL 2a calls so; anything else stands in its `content`."""
_PAYLOAD: Final = "$.payload."
_OURS: Final = frozenset({"init", "system"})
"""Types of messages that persons do not send to each other."""
_encode: Final = msgspec.json.Encoder().encode

Content = Mapping[str, Any] | msgspec.Raw
Metadata = Mapping[str, Any]


class Envelope(msgspec.Struct, rename={"sender": "from", "session_id": "sessionId"}):
    """An envelope as it is said."""

    id: str
    type: str
    sender: str
    to: str
    content: Any
    session_id: str | None
    timestamp: str
    metadata: dict[str, Any]


class _Given(msgspec.Struct, rename={"sender": "from", "session_id": "sessionId"}):
    """What a program gives to be said, as far as it is an envelope."""

    content: msgspec.Raw = NULL
    type: Name | None = None
    id: Id | None = None
    sender: Party | None = None
    session_id: str | None = None
    metadata: dict[str, Any] = {}


class _Sender(msgspec.Struct):
    connection_id: str | None = None


_decode_given: Final = msgspec.json.Decoder(_Given).decode
_read_sender: Final = msgspec.json.Decoder(_Sender).decode


def _given(data: bytes) -> _Given:
    """Return what is to be said: an object with `type` or `content` is an envelope, all else the content of one."""
    whole = _Given(content=msgspec.Raw(data))
    if not data.lstrip().startswith(b"{"):
        return whole
    try:
        given = _decode_given(data)
    except msgspec.ValidationError:
        return whole
    return whole if given.type is None and given.content == NULL else given


@attrs.frozen
class Voice:
    """Words what the broker says.

    Attributes:
        now: returns milliseconds since the epoch.
    """

    now: Callable[[], int]

    def say(
        self,
        content: Content,
        metadata: Metadata = _NOTHING,
        *,
        kind: str = "system",
        sender: str = "system",
        to: str = "user",
        session_id: str | None = None,
        message_id: str | None = None,
        at: str | None = None,
    ) -> bytes:
        """Return an envelope; what is None does not stand in its metadata, and what else is None is filled in."""
        known = {key: value for key, value in metadata.items() if value is not None}
        when = at or rfc3339(self.now())
        return _encode(Envelope(message_id or new_id(), kind, sender, to, content, session_id, when, known))

    def event(self, event: str, data: Any, metadata: Metadata = _NOTHING, *, session_id: str | None = None) -> bytes:
        """Say that something is so."""
        return self.say({"event": event, "data": data}, metadata, session_id=session_id)

    def error(self, error: BrokerError, metadata: Metadata = _NOTHING, *, session_id: str | None = None) -> bytes:
        """Say what was refused, and why."""
        data = {_camel(key): value for key, value in error.as_data().items()}
        if error.field is not None:
            data["field"] = _field(error.field)
        return self.event("error", data, metadata, session_id=session_id)

    def answer(self, wire: Wire, data: bytes, *, final: bool) -> bytes:
        """Say what a handler has answered to a message: an envelope that is filled in, else the content of one.

        Args:
            wire: the message.
            data: JSON.
            final: whether that is the end of it.
        """
        given = _given(data)
        marks = {**given.metadata, "replyTo": wire.id, "final": True if final else None}
        return self.say(
            given.content,
            marks,
            kind=given.type or wire.type,
            sender=given.sender or wire.to or "system",
            session_id=given.session_id or wire.session_id,
            message_id=given.id,
        )

    def pass_on(self, sender: bytes, data: bytes) -> bytes:
        """Say what somebody sends to this connection, or to everybody: an envelope, or the content of one.

        What a person sends is from `user` and of a type that is no conversation with the broker.
        """
        given = _given(data)
        if _read_sender(sender).connection_id is not None:
            given.type, given.sender = given.type if given.type not in _OURS else None, "user"
            given.metadata = {key: value for key, value in given.metadata.items() if key not in RESERVED}
        return self.say(
            given.content,
            {**given.metadata, "sender": msgspec.Raw(sender)},
            kind=given.type or "text",
            sender=given.sender or "system",
            session_id=given.session_id,
            message_id=given.id,
        )

    def of_log(
        self,
        session_id: str,
        record: Record,
        content: Content,
        metadata: Metadata = _NOTHING,
        *,
        message_id: str | None = None,
        kind: str = "system",
        sender: str = "system",
        to: str = "user",
    ) -> bytes:
        """Say something in the place where it stands in a log, under an id that it has each time it is told."""
        return self.say(
            content,
            {**metadata, "seq": record.seq, "turnId": record.turn_id},
            kind=kind,
            sender=sender,
            to=to,
            session_id=session_id,
            message_id=message_id or f"{session_id}:{record.seq}",
            at=rfc3339(record.at),
        )

    def record(self, session_id: str, record: Record, metadata: Metadata = _NOTHING) -> bytes:
        """Say what stands in a log, word for word."""
        return self.of_log(session_id, record, {"event": record.kind, "data": msgspec.Raw(record.data)}, metadata)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _field(field: str) -> str:
    """Return where in an envelope stands what an action has in its payload."""
    if not field.startswith(_PAYLOAD):
        return field.replace("$.payload", "$.content")
    name = field.removeprefix(_PAYLOAD)
    for theirs, ours in _NAMES.items():
        if name == theirs or name.startswith((f"{theirs}.", f"{theirs}[")):
            return f"$.{ours}{name.removeprefix(theirs)}"
    return f"$.content.{_camel(name)}"
