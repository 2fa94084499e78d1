"""`session.v1.json`: one connection, one session, which ends with it.

The design is seed 001 (PROTOCOL section 6). Messages are tagged from outside, `{"NewSession": {"workspace_dir": ...}}`,
or from inside, `{"type": "NewSession", "workspace_dir": ...}`, and are answered in the spelling they came in. A message
that cannot be read, or of a type that nobody knows, is told so and ends the connection; whatever else is refused
leaves it open.

The design says that more types will come. Those there are by now (`Prompt`, `Cancel`, `Answer`, `Auth`) are additions:
a client that uses none of them is told nothing that the design does not name. The first of them makes the session's
records come too, as `Update`.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final
from uuid import uuid4

import attrs
import msgspec

from broker.clock import rfc3339
from broker.errors import BrokerError, CloseCode
from broker.ids import new_id
from broker.protocol.dialect import Part, Reaction
from broker.protocol.edge import UNREADABLE, check_depth, unreadable
from broker.protocol.outgoing import (
    Broadcast,
    Direct,
    Due,
    Entered,
    Failure,
    Outgoing,
    Request,
    Response,
    SessionDetached,
    SessionRecord,
)
from broker.protocol.payloads import Content, Id, Title, Token

__all__ = ["SessionDialect", "SessionFormat", "Tag"]

_ERROR: Final = "Error"
_TYPE: Final = "type"
_SECOND: Final = "This connection has its session already."
_NO_LONGER: Final = BrokerError("forbidden", "You may not see this session any more.")
_NULL: Final = msgspec.Raw(b"null")
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_type: Final = msgspec.json.Decoder(Annotated[str, msgspec.Meta(min_length=1, max_length=128)]).decode


class _NewSession(msgspec.Struct):
    workspace_dir: str
    agent: str | None = None
    title: Title | None = None
    variables: dict[str, Any] = {}


class _Prompt(msgspec.Struct):
    content: Content
    client_msg_id: Id | None = None


class _Cancel(msgspec.Struct):
    turn_id: Id


class _Answer(msgspec.Struct):
    approval_id: Id
    option_id: Id


class _Auth(msgspec.Struct):
    token: Token

    def __repr__(self) -> str:
        return "_Auth()"


@attrs.frozen
class Tag:
    """What it takes to word the answer to a message.

    Attributes:
        type: the message's.
        inside: whether its type stood inside of it.
    """

    type: str
    inside: bool

    def __str__(self) -> str:
        return self.type


class SessionFormat:
    """The format, as one shared object: what it can say without knowing the connection."""

    name = "session.v1.json"

    def decode(self, text: bytes) -> Request:
        """Read one message, as the first of a connection; raises as `SessionDialect.decode`."""
        return SessionDialect().decode(text)

    def salvage_id(self, text: bytes) -> Tag | None:
        """Return in which spelling a message was refused; None if that cannot be told."""
        try:
            return Tag("", _TYPE in _decode(text))
        except UNREADABLE:
            return None

    def encode(self, value: Outgoing) -> bytes:
        """Return the value as one text message; empty for what this design has no word for."""
        return _word(value, inside=False)

    def dialect(self, query: Mapping[str, str]) -> "SessionDialect":
        """Return the end of a new connection."""
        return SessionDialect()


FORMAT: Final = SessionFormat()


class SessionDialect:
    """One connection's end: it knows which session is this connection's, and whether its client wants to hear of it.

    The session's id is chosen with the connection, so that a second one is refused by the broker itself, also
    while the first is still being made.
    """

    def __init__(self) -> None:
        self._session_id = str(uuid4())
        self._listening = False
        self._inside = False  # how its client last spelt a message

    def decode(self, text: bytes) -> Request:
        """Read one message.

        A type that the format does not know is asked for by that alone: a handler may be registered for it.

        Raises:
            BrokerError: `invalid_json` or `invalid_message`; it ends the connection, as the design has it.
        """
        try:
            fields = _decode(text)
            check_depth(text)
            tag, body = _opened(fields, text)
            self._inside = tag.inside
            return self._request(tag, body, text)
        except UNREADABLE as e:
            raise _fatal(unreadable(e, "message")) from None
        except BrokerError as e:
            raise _fatal(e) from None

    def _request(self, tag: Tag, body: bytes, text: bytes) -> Request:
        kind = _KINDS.get(tag.type)
        if kind is None:
            return Request("", body, tag, tag.type)
        message: Any = msgspec.json.decode(body, type=kind[0])
        action, own = kind[1], dict[str, Any]()
        if action != "auth":
            own["session_id"] = self._session_id
        if isinstance(message, _NewSession):
            own["ephemeral"] = True
        else:
            self._listening = True
        if isinstance(message, _Prompt) and message.client_msg_id is None:
            message = msgspec.structs.replace(message, client_msg_id=new_id())
        payload = {**msgspec.structs.asdict(message), **own}
        return Request(action, _encode(payload), tag, tag.type)

    def salvage_id(self, text: bytes) -> Tag | None:
        """Return in which spelling a message was refused; None if that cannot be told."""
        return FORMAT.salvage_id(text)

    def tell(self, value: Outgoing | Entered | Due) -> Iterator[Reaction]:
        """Say what this client has a word for; end the connection with a type that nobody knows."""
        if isinstance(value, Entered | Due):
            return
        if isinstance(value, SessionRecord | Broadcast) and not self._listening:
            return
        if text := _word(value, inside=self._inside):
            yield text
        if isinstance(value, Failure) and value.error.code == "unknown_action":
            yield Part(CloseCode.POLICY_VIOLATION)


_KINDS: Final[dict[str, tuple[type, str]]] = {
    "NewSession": (_NewSession, "session.create"),
    "Prompt": (_Prompt, "turn.start"),
    "Cancel": (_Cancel, "turn.cancel"),
    "Answer": (_Answer, "approval.answer"),
    "Auth": (_Auth, "auth"),
}
"""By type: what it carries, and what is asked for with it."""


def _opened(fields: dict[str, msgspec.Raw], text: bytes) -> tuple[Tag, bytes]:
    """Return a message's tag and what it carries.

    Raises:
        BrokerError: `invalid_message`: it has no tag.
    """
    if _TYPE in fields:
        return Tag(_decode_type(fields[_TYPE]), inside=True), text
    if len(fields) != 1:
        hint = 'such as {"NewSession": {"workspace_dir": "/work"}}'
        raise BrokerError("invalid_message", "A message is an object with one key, its type.", hint=hint)
    ((name, body),) = fields.items()
    return Tag(_decode_type(_encode(name)), inside=False), bytes(body)


def _fatal(error: BrokerError) -> BrokerError:
    """Return the error as one that ends the connection."""
    error.close = CloseCode.POLICY_VIOLATION
    return error


def _word(value: Outgoing, *, inside: bool) -> bytes:
    """Return the value as one text message, empty if there is none; what answers nothing is spelt as `inside` says."""
    text = b""
    match value:
        case Response(tag, data):
            text = _tagged(tag.type, data, inside=tag.inside)
        case Failure(tag, error):
            text = _error(error, inside=inside if tag is None else tag.inside)
        case SessionRecord():
            text = _tagged("Update", _update(value), inside=inside)
        case SessionDetached():
            text = _error(_NO_LONGER, inside=inside)
        case Direct(sender, data):
            text = _tagged("Message", b'{"from":%b,"data":%b}' % (sender, data), inside=inside)
        case Broadcast(sender, data):
            text = _tagged("Broadcast", b'{"from":%b,"data":%b}' % (sender, data), inside=inside)
    return text


def _tagged(name: str, data: bytes, *, inside: bool) -> bytes:
    """Return a message of type `name` that carries `data`, JSON; its type stands inside of that, or around it."""
    if not inside:
        return b"{%b:%b}" % (_encode(name), data)
    if not data.startswith(b"{"):
        data = b'{"data":%b}' % data
    rest = data[1:].lstrip()
    return b'{"type":%b%b%b' % (_encode(name), b"" if rest.startswith(b"}") else b",", rest)


def _error(error: BrokerError, *, inside: bool) -> bytes:
    message = _SECOND if error.code == "session_exists" else error.message
    data = {key: value for key, value in error.as_data().items() if key != "field"}
    return _tagged(_ERROR, _encode({**data, "message": message}), inside=inside)


def _update(value: SessionRecord) -> bytes:
    """Return what an `Update` carries."""
    record = value.record
    update: dict[str, Any] = {"session_id": value.session_id, "seq": record.seq, "kind": record.kind}
    if record.turn_id is not None:
        update["turn_id"] = record.turn_id
    return _encode({**update, "at": rfc3339(record.at), "data": msgspec.Raw(record.data)})
