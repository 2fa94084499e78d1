"""What clients of `envelope.v1.json` ask for, in the words of the broker's own actions (PROTOCOL 2a)."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import attrs
import msgspec

from broker.errors import BrokerError
from broker.protocol.edge import fitting
from broker.protocol.envelope.wire import NULL, RESERVED, Wire, content_of
from broker.protocol.payloads import After, Id, Seq, Title, Token, User

__all__ = [
    "COMMANDS",
    "Command",
    "Opening",
    "command_of",
    "command_payload",
    "open_payload",
    "opening_of",
    "send_payload",
    "start_payload",
]

_encode: Final = msgspec.json.Encoder().encode

Names = Annotated[list[Id], msgspec.Meta(max_length=1000)]
Users = Annotated[list[User], msgspec.Meta(max_length=1000)]


class Options(msgspec.Struct, rename="camel"):
    """What a message's metadata may say to the broker; all of it goes on with the message."""

    after_seq: After | None = None
    epoch: str | None = None
    if_busy: Literal["queue", "reject", "interrupt"] | None = None
    users: Users | None = None
    connections: Names | None = None


class Opening(msgspec.Struct, rename="camel"):
    """The content of an `init`."""

    agent: str | None = None
    title: Title | None = None
    workspace_dir: str | None = None
    variables: dict[str, Any] | None = None
    after_seq: After | None = None
    epoch: str | None = None
    stream: bool = False


class Command(msgspec.Struct, rename="camel"):
    """The content of a message to `system`; which of its fields are needed is the action's affair."""

    action: Annotated[str, msgspec.Meta(max_length=128)]
    id: Id | None = None
    turn_id: Id | None = None
    approval_id: Id | None = None
    option_id: Id | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    before_seq: Seq | None = None
    token: Token | None = None

    def __repr__(self) -> str:
        return f"Command({self.action!r})"


@attrs.frozen
class Known:
    """A command that there is.

    Attributes:
        action: the broker's own action that it stands for.
        event: what answers it.
        needs: what cannot be left out.
        of_session: whether it is about a session.
    """

    action: str
    event: str
    needs: tuple[str, ...] = ()
    of_session: bool = False


COMMANDS: Final = {
    "ping": Known("ping", "pong"),
    "auth": Known("auth", "authenticated", ("token",)),
    "trace": Known("trace", "trace", ("id",)),
    "history": Known("session.history", "history", of_session=True),
    "cancel": Known("turn.cancel", "cancel", ("turn_id",), of_session=True),
    "approve": Known("approval.answer", "approve", ("approval_id", "option_id"), of_session=True),
}

_options: Final = msgspec.json.Decoder(Options).decode
_opening: Final = msgspec.json.Decoder(Opening).decode
_command: Final[Callable[[bytes], Command | str]] = msgspec.json.Decoder(Command | str).decode


def options_of(wire: Wire) -> Options:
    """Return what a message's metadata says to the broker.

    Raises:
        BrokerError: `invalid_message`.
    """
    return Options() if wire.metadata == NULL else fitting(_options, wire.metadata, "$.metadata")


def opening_of(wire: Wire) -> Opening:
    """Return how an `init` wants its session opened; where to go on from may stand in its metadata too.

    Raises:
        BrokerError: `invalid_message`.
    """
    options = options_of(wire)
    opening = Opening() if wire.content == NULL else fitting(_opening, wire.content, "$.content")
    if opening.after_seq is None:
        opening.after_seq = options.after_seq
    if opening.epoch is None:
        opening.epoch = options.epoch
    return opening


def open_payload(session_id: str, opening: Opening) -> bytes:
    """Return the payload of `session.open`."""
    wanted = msgspec.structs.asdict(opening)
    del wanted["stream"]
    return _encode({"session_id": session_id, **{key: value for key, value in wanted.items() if value is not None}})


def start_payload(wire: Wire, session_id: str) -> bytes:
    """Return the payload of `turn.start`.

    Raises:
        BrokerError: `invalid_message`.
    """
    options = options_of(wire)
    start: dict[str, Any] = {"session_id": session_id, "client_msg_id": wire.id, "content": content_of(wire.content)}
    if wire.metadata != NULL:
        start["metadata"] = wire.metadata
    if options.if_busy is not None:
        start["if_busy"] = options.if_busy
    return _encode(start)


def send_payload(wire: Wire) -> bytes:
    """Return the payload of `send`: who gets it finds the message's own id, type and content in it.

    Raises:
        BrokerError: `invalid_message`.
    """
    options = options_of(wire)
    if not options.users and not options.connections:
        hint = 'such as {"users": ["ann"]}'
        raise BrokerError("invalid_message", "Say which user it is for.", field="$.metadata.users", hint=hint)
    metadata = {} if wire.metadata == NULL else msgspec.json.decode(wire.metadata, type=dict[str, msgspec.Raw])
    theirs = {key: value for key, value in metadata.items() if key not in {*RESERVED, "users", "connections"}}
    message = {"id": wire.id, "type": wire.type, "content": wire.content, "metadata": theirs}
    to = {"users": options.users or [], "connections": options.connections or []}
    return _encode({"to": to, "data": message})


def command_of(wire: Wire) -> Command:
    """Return what a message to `system` asks for: an object with its `action`, or that word alone.

    What is to be cancelled is a turn, or the text that it has come of.

    Raises:
        BrokerError: `invalid_message`: also where something is left out that the action needs.
    """
    found = fitting(_command, wire.content, "$.content")
    command = Command(found) if isinstance(found, str) else found
    known = COMMANDS.get(command.action)
    for name in () if known is None else known.needs:
        by_text = name == "turn_id" and command.id is not None
        if getattr(command, name) is None and not by_text:
            place = "$.content.id" if name == "turn_id" else f"$.content.{_FIELDS[name]}"
            raise BrokerError("invalid_message", f"The action {command.action} needs more than that.", field=place)
    return command


def command_payload(command: Command, session_id: str | None) -> bytes:
    """Return the payload of the action that a command stands for."""
    match command.action:
        case "auth":
            payload: dict[str, Any] = {"token": command.token}
        case "trace":
            payload = {"id": command.id}
        case "history":
            payload = {"kind": "messages", "limit": command.limit or 100, "before_seq": command.before_seq}
        case "cancel":
            payload = {"turn_id": command.turn_id or command.id}
        case "approve":
            payload = {"approval_id": command.approval_id, "option_id": command.option_id}
        case _:
            payload = {}
    return _encode(payload if session_id is None else {"session_id": session_id, **payload})


_FIELDS: Final = dict(zip(Command.__struct_fields__, Command.__struct_encode_fields__, strict=True))
