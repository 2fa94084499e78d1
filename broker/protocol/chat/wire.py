"""The messages of `chat.v1.json`: how a client's are read, and how ours are written (seed 004, "message format").

Both ways a message is `{messageId, sessionId, role, content, actionId, metadata, timestamp}`.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
import msgspec

from broker.clock import rfc3339
from broker.protocol import edge
from broker.protocol.payloads import After, Id, Title, Token

__all__ = [
    "CONTENTS",
    "RESERVED",
    "Options",
    "Said",
    "Tag",
    "options_of",
    "payload_of",
    "read",
    "salvage",
    "write",
]

RESERVED: Final = frozenset(
    {"actionId", "author", "edited", "from", "inReplyTo", "kind", "of", "outcome", "replaced", "seq", "turnId"}
)
"""Keys of `metadata` that are the broker's: what a person puts there is not passed on as if the broker had said it."""
_NULL: Final = msgspec.Raw(b"null")


class Said(msgspec.Struct, rename="camel"):
    """A client's message; of `role` assistant there are none, since agents speak for themselves."""

    message_id: Id
    role: Literal["user", "system"]
    session_id: str | None = None
    content: msgspec.Raw = _NULL
    action_id: Id | None = None
    metadata: dict[str, msgspec.Raw] | None = None
    timestamp: str | None = None


class Options(msgspec.Struct, rename="camel"):
    """What a client's `metadata` may say to the broker; whatever else stands there is kept with the message."""

    kind: Id | None = None
    after_seq: After | None = None
    epoch: str | None = None
    agent: str | None = None
    title: Title | None = None
    workspace_dir: str | None = None
    variables: dict[str, Any] | None = None
    stream: bool = False
    if_busy: Literal["queue", "reject", "interrupt"] | None = None
    retry_of: Id | None = None


class _Cancel(msgspec.Struct, rename="camel"):
    turn_id: Id


class _Approval(msgspec.Struct, rename="camel"):
    approval_id: Id
    option_id: Id


class _Variables(msgspec.Struct, rename={"variables": "set"}):
    variables: dict[str, Any]


class _Auth(msgspec.Struct):
    token: Token

    def __repr__(self) -> str:
        return "_Auth()"


CONTENTS: Final[dict[str, tuple[str, type]]] = {
    "cancel": ("turn.cancel", _Cancel),
    "approval": ("approval.answer", _Approval),
    "variables": ("session.update", _Variables),
    "auth": ("auth", _Auth),
}
"""By `metadata.kind` of a system message: what is asked for with it, and what its content is."""


class _Names(msgspec.Struct, rename="camel"):
    """What is looked for in a message that was refused."""

    message_id: Any = None
    session_id: Any = None
    action_id: Any = None


@attrs.frozen
class Tag:
    """What it takes to word the answer to a message.

    Attributes:
        kind: what it is: `user`, or the `metadata.kind` of a system message.
        message_id: the client's own id of it.
        session_id: the session it is about.
        action_id: its `actionId`.
    """

    kind: str = ""
    message_id: str | None = None
    session_id: str | None = None
    action_id: str | None = None

    def __str__(self) -> str:
        return self.message_id or ""


_decode: Final = msgspec.json.Decoder(Said).decode
_decode_options: Final = msgspec.json.Decoder(Options).decode
_decode_names: Final = msgspec.json.Decoder(_Names).decode
_encode: Final = msgspec.json.Encoder().encode


def read(text: bytes) -> Said:
    """Read a client's message.

    Raises:
        BrokerError: `invalid_json`, or `invalid_message` with the field that is wrong.
    """
    return edge.read(_decode, text)


def options_of(said: Said) -> Options:
    """Return what a message's metadata say to the broker.

    Raises:
        BrokerError: `invalid_message` with the field that is wrong.
    """
    return edge.fitting(_decode_options, _encode(said.metadata or {}), "$.metadata")


def payload_of(said: Said, cls: type) -> dict[str, Any]:
    """Return what a system message asks for, by the names of the broker's own actions.

    Raises:
        BrokerError: `invalid_message` with the field that is wrong.
    """
    return msgspec.structs.asdict(edge.fitting(msgspec.json.Decoder(cls).decode, said.content, "$.content"))


def salvage(text: bytes) -> Tag | None:
    """Return which message was refused, as far as that can be read."""
    try:
        names = _decode_names(text)
    except edge.UNREADABLE:
        return None
    return Tag("", _good(names.message_id), _good(names.session_id), _good(names.action_id))


def _good(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 128 else None  # noqa: PLR2004 - as `payloads.Id`


def write(
    role: str,
    kind: str,
    content: Any,
    *,
    message_id: str,
    at: int,
    session_id: str | None = None,
    action_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a message as JSON.

    Args:
        role: `user`, `assistant` or `system`.
        kind: what it is; becomes `metadata.kind`.
        content: anything that can be written as JSON, or `msgspec.Raw`.
        message_id: its id.
        at: when, in milliseconds since the epoch.
        session_id: the session it is about, if any.
        action_id: that of the message it is, or answers.
        metadata: what else there is to say.
    """
    return _encode(
        {
            "messageId": message_id,
            "sessionId": session_id,
            "role": role,
            "content": content,
            "actionId": action_id,
            "metadata": {**(metadata or {}), "kind": kind},
            "timestamp": rfc3339(at),
        }
    )
