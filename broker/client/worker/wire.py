"""`agents.v1.json` as a worker sees it: what the broker says, and how a frame is made (PROTOCOL section 4)."""

import time
from typing import Annotated, Any, Final

import msgspec

from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.ids import new_id
from broker.protocol.edge import check_depth

__all__ = [
    "FRAME_LIMIT",
    "SUBPROTOCOL",
    "ApprovalAnswer",
    "Fault",
    "Ping",
    "ProjectFeedback",
    "ProjectUpdate",
    "Said",
    "TurnCancel",
    "TurnResume",
    "TurnStart",
    "Welcome",
    "frame",
    "read",
]

SUBPROTOCOL: Final = "agents.v1.json"
FRAME_LIMIT: Final = 16 << 20
"""Bytes of one frame, either way."""


class TurnStart(msgspec.Struct, frozen=True):
    """A turn is ours. What the session holds is taken as it is; only its ids have to be right."""

    turn_id: str
    session_id: str
    content: Any = ""
    messages: Any = None
    variables: Any = None
    workspace_dir: Any = None


class TurnCancel(msgspec.Struct, frozen=True):
    """Somebody does not want the rest of a turn."""

    turn_id: str


class TurnResume(msgspec.Struct, frozen=True):
    """A turn goes on over this link; the broker has its frames up to `seq`."""

    turn_id: str
    seq: Annotated[int, msgspec.Meta(ge=0)] = 0


class ApprovalAnswer(msgspec.Struct, frozen=True):
    """A person chose; `option_id` is None if nobody will."""

    turn_id: str
    approval_id: str
    option_id: str | None = None


class Ping(msgspec.Struct, frozen=True):
    """Are you there."""


class Welcome(msgspec.Struct, frozen=True):
    """Our hello was taken."""


class Fault(msgspec.Struct, frozen=True):
    """The broker could not use a frame of ours."""

    code: str = "unknown"
    message: str = ""


class _From(msgspec.Struct, frozen=True):
    """Who said something."""

    user: str | None = None


class ProjectFeedback(msgspec.Struct, frozen=True):
    """A user says something of a project."""

    project: str
    feedback_id: str
    user: str | None
    data: Any


class ProjectUpdate(msgspec.Struct, frozen=True):
    """Something has happened in a project, or this is its status."""

    project: str
    event: str
    seq: int | None
    user: str | None
    data: Any


class _Published(msgspec.Struct, frozen=True):
    event: str
    data: Any = None
    seq: int | None = None
    sender: _From | None = msgspec.field(default=None, name="from")


Said = TurnStart | TurnCancel | TurnResume | ApprovalAnswer | Ping | Welcome | Fault | ProjectFeedback | ProjectUpdate

_KINDS: Final[dict[str, type[Said]]] = {
    "turn_start": TurnStart,
    "turn_cancel": TurnCancel,
    "turn_resume": TurnResume,
    "approval_answer": ApprovalAnswer,
    "ping": Ping,
    "welcome": Welcome,
    "error": Fault,
}


_UPDATES: Final = frozenset({"project_update", "project_status_sync"})


class _Envelope(msgspec.Struct, frozen=True):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _OfProject(msgspec.Struct, frozen=True):
    """What else is read of a frame about a project."""

    project: str = msgspec.field(name="projectGuid")
    id: str
    sender: _From | None = msgspec.field(default=None, name="from")


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_OF_PROJECT: Final = msgspec.json.Decoder(_OfProject)
_ANY: Final = msgspec.json.Decoder(Any)
_PUBLISHED: Final = msgspec.json.Decoder(_Published)
_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in _KINDS.items()}


def read(text: bytes) -> Said | None:
    """Return what the broker says; None for a type that this version does not know.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        check_depth(text)
        envelope = _ENVELOPE.decode(text)
        if envelope.type == "user_feedback":
            return _feedback(envelope, _OF_PROJECT.decode(text))
        if envelope.type in _UPDATES:
            return _update(envelope, _OF_PROJECT.decode(text))
        decoder = _DECODERS.get(envelope.type)
        return None if decoder is None else decoder.decode(envelope.data)
    except (msgspec.MsgspecError, BrokerError, RecursionError) as e:
        raise ValueError(f"a frame that cannot be read: {e}") from None


def _feedback(envelope: _Envelope, about: _OfProject) -> ProjectFeedback:
    user = None if about.sender is None else about.sender.user
    return ProjectFeedback(about.project, about.id, user, _ANY.decode(envelope.data))


def _update(envelope: _Envelope, about: _OfProject) -> ProjectUpdate:
    told = _PUBLISHED.decode(envelope.data)
    return ProjectUpdate(
        about.project, told.event, told.seq, None if told.sender is None else told.sender.user, told.data
    )


def frame(kind: str, data: Any, *, project: str | None = None, frame_id: str | None = None) -> bytes:
    """Return one frame, about a project if one is named, under a name of its own if it has none.

    Raises:
        TypeError, ValueError: `data` is no JSON, or more than the broker takes.
    """
    now = rfc3339(time.time_ns() // 1_000_000)
    about = {} if project is None else {"projectGuid": project}
    text = msgspec.json.encode({"type": kind, "id": frame_id or new_id(), **about, "data": data, "timestamp": now})
    if len(text) > FRAME_LIMIT:
        raise ValueError(f"{kind} has {len(text)} bytes; a frame has at most {FRAME_LIMIT}")
    try:
        check_depth(text)
    except BrokerError as e:
        raise ValueError(f"{kind}: {e.message}") from None
    return text
