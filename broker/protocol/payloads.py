"""The payloads of PROTOCOL 2a as classes: what each action takes, checked while it is decoded.

Ids have 1 to 128 characters, an id that a client chooses for a session only letters, digits and `._~-`; users'
names have 1 to 256, rooms' 1 to 255, titles at most 500; pages have 1 to 1000 entries. The JSON of a payload
is as large as `limits.message_bytes` allows. Keys that a class does not name are passed over.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import attrs
import msgspec

from broker.projects import MAX_GUID, room_of
from broker.protocol.edge import invalid

__all__ = [
    "NO_OBJECT",
    "Answer",
    "Attach",
    "Auth",
    "Cancel",
    "Configure",
    "Create",
    "Drop",
    "Edit",
    "Feedback",
    "History",
    "Join",
    "Listing",
    "Named",
    "NewSession",
    "Open",
    "Publish",
    "RoomHistory",
    "RoomNamed",
    "Send",
    "Share",
    "Start",
    "Tap",
    "Trace",
    "Update",
    "convert",
    "decode",
]

T = TypeVar("T")
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
User = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Token = Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
OwnId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._~-]{1,128}$(?!\n)")]
RoomName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Guid = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_GUID)]
EventName = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Title = Annotated[str, msgspec.Meta(max_length=500)]
Seq = Annotated[int, msgspec.Meta(ge=1)]
After = Annotated[int, msgspec.Meta(ge=-1)]
Options = Annotated[dict[Id, Any], msgspec.Meta(max_length=64)]
Content = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        extra_json_schema={
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1000,
                    "items": {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]},
                },
            ]
        }
    ),
]
"""Kept as it came; what it has to be is looked at by `broker.protocol.checks`."""
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Metadata = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
"""Kept as it came too; looked at by `broker.protocol.checks`."""
Tapping = Literal["message", "record", "event", "connection"]
"""What can be watched that goes through a broker."""
_NULL: Final = msgspec.Raw(b"null")
NO_OBJECT: Final = msgspec.Raw(b"{}")


@attrs.define
class NewSession:
    """What a session is made with, whoever makes it."""

    workspace_dir: str | None = None
    agent: str | None = None
    title: Title | None = None
    variables: dict[str, Any] = attrs.Factory(dict)
    session_id: OwnId | None = None


@attrs.define
class Create(NewSession):
    """`session.create`; one that is `ephemeral` is closed when the connection ends that made it."""

    ephemeral: bool = False


@attrs.define
class Open:
    """`session.open`: attach to a session, made with the rest of this if there is none of that id yet."""

    session_id: OwnId
    after_seq: After = 0
    epoch: str | None = None
    workspace_dir: str | None = None
    agent: str | None = None
    title: Title | None = None
    variables: dict[str, Any] = attrs.Factory(dict)

    @property
    def creation(self) -> NewSession:
        """What it is made with."""
        return NewSession(self.workspace_dir, self.agent, self.title, self.variables, self.session_id)


@attrs.define
class Attach:
    """`session.attach`; `after_seq` 0 for all there is, -1 for what comes from now on."""

    session_id: Id
    after_seq: After = 0
    epoch: str | None = None


@attrs.define
class Auth:
    """`auth`; the token is left out of `repr`."""

    token: Token = attrs.field(repr=False)


@attrs.define
class Trace:
    """`trace`: of a turn, a message, an internal error, or a session's newest message, by its id."""

    id: Id


@attrs.define
class Named:
    """`session.detach`, `session.close`, `session.delete`."""

    session_id: Id


@attrs.define
class Listing:
    """`session.list` and `get_connections`; over HTTP every list."""

    limit: Limit = 50
    cursor: str | None = None


@attrs.define
class History:
    """`session.history`."""

    session_id: Id
    before_seq: Seq | None = None
    limit: Limit = 100
    kind: Literal["records", "messages"] = "records"


@attrs.define
class Update:
    """`session.update`; a variable set to null is removed."""

    session_id: Id
    title: Title | None = None
    variables: dict[str, Any] | None = None


@attrs.define
class Share:
    """`session.share`; role null ends it."""

    session_id: Id
    user: User
    role: Literal["member", "viewer"] | None


@attrs.define
class Configure:
    """`session.configure`: the agent's mode, its options (at most 64), or both."""

    session_id: Id
    mode: Id | None = None
    options: Options = attrs.Factory(dict)


@attrs.define
class Start:
    """`turn.start`; the content is text, or an array of content blocks, and not empty.

    The metadata is an object of at most 16 KiB, kept word for word with the message for all who see it.
    """

    session_id: Id
    client_msg_id: Id
    content: Content
    if_busy: Literal["queue", "reject", "interrupt"] = "queue"
    retry_of: Id | None = None
    metadata: Metadata = NO_OBJECT


@attrs.define
class Edit:
    """`turn.edit`; the content is as in `turn.start`."""

    session_id: Id
    turn_id: Id
    content: Content


@attrs.define
class Drop:
    """`turn.drop`."""

    session_id: Id
    turn_id: Id


@attrs.define
class Cancel:
    """`turn.cancel`."""

    session_id: Id
    turn_id: Id


@attrs.define
class Answer:
    """`approval.answer`."""

    session_id: Id
    approval_id: Id
    option_id: Id


@attrs.define
class Join:
    """`room.join`; with `events` only those of these names are told."""

    room: RoomName
    after_seq: After | None = None
    epoch: str | None = None
    events: Annotated[list[EventName], msgspec.Meta(min_length=1, max_length=64)] | None = None


@attrs.define
class RoomNamed:
    """`room.leave`, `room.presence`."""

    room: RoomName


@attrs.define
class Publish:
    """`room.publish`."""

    room: RoomName
    data: msgspec.Raw = _NULL
    event: EventName = "message"


@attrs.define
class Feedback:
    """`project.feedback`: what somebody says of a project, to its agent; `data` is any JSON, as it comes.

    The same `feedback_id` again, while no answer has come, asks for the same answer.
    """

    project: Guid
    data: msgspec.Raw
    feedback_id: Id | None = None

    @property
    def room(self) -> str:
        """The name of the project's room, which is what the permission gates are asked about."""
        return room_of(self.project)


@attrs.define
class RoomHistory:
    """`room.history`."""

    room: RoomName
    before_seq: Seq | None = None
    limit: Limit = 100


@attrs.define
class To:
    """Whom `send` is for: connections, users, or both."""

    connections: Annotated[list[Id], msgspec.Meta(max_length=1000)] = attrs.Factory(list)
    users: Annotated[list[User], msgspec.Meta(max_length=1000)] = attrs.Factory(list)


@attrs.define
class Send:
    """`send`."""

    to: To
    data: msgspec.Raw = _NULL


@attrs.define
class Tap:
    """`tap`: what is to be shown, of which names, sessions and rooms; `*` and `?` stand for anything."""

    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] = "*"
    what: Annotated[list[Tapping], msgspec.Meta(min_length=1, max_length=4)] = attrs.Factory(
        lambda: ["message", "record", "event", "connection"]
    )


_DECODERS: Final[dict[type, msgspec.json.Decoder[Any]]] = {
    cls: msgspec.json.Decoder(cls)
    for cls in (
        *(Auth, Trace, Create, Open, Attach, Named, Listing, History, Update, Share, Configure),
        *(Start, Edit, Drop, Cancel, Answer),
        *(Join, RoomNamed, Publish, RoomHistory, Send, Feedback, Tap),
    )
}


def convert(cls: type[T], payload: Mapping[str, Any]) -> T:
    """Take a payload that is no JSON, but a program's own values.

    Raises:
        BrokerError: `invalid_message`, naming the field.
    """
    try:
        return msgspec.convert(payload, cls)
    except msgspec.ValidationError as e:
        raise invalid(e, "$.payload") from None


def decode(cls: type[T], payload: bytes) -> T:
    """Read a payload.

    Raises:
        BrokerError: `invalid_message`, naming the field.
    """
    try:
        return _DECODERS[cls].decode(payload)  # type: ignore[no-any-return]
    except msgspec.ValidationError as e:
        raise invalid(e, "$.payload") from None
