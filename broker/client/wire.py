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


Said = TurnStart | TurnCancel | TurnResume | ApprovalAnswer | Ping | Welcome | Fault

_KINDS: Final[dict[str, type[Said]]] = {
    "turn_start": TurnStart,
    "turn_cancel": TurnCancel,
    "turn_resume": TurnResume,
    "approval_answer": ApprovalAnswer,
    "ping": Ping,
    "welcome": Welcome,
    "error": Fault,
}


class _Envelope(msgspec.Struct, frozen=True):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in _KINDS.items()}


def read(text: bytes) -> Said | None:
    """Return what the broker says; None for a type that this version does not know.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        check_depth(text)
        envelope = _ENVELOPE.decode(text)
        decoder = _DECODERS.get(envelope.type)
        return None if decoder is None else decoder.decode(envelope.data)
    except (msgspec.MsgspecError, BrokerError, RecursionError) as e:
        raise ValueError(f"a frame that cannot be read: {e}") from None


def frame(kind: str, data: dict[str, Any]) -> bytes:
    """Return one frame.

    Raises:
        TypeError, ValueError: `data` is no JSON, or more than the broker takes.
    """
    now = rfc3339(time.time_ns() // 1_000_000)
    text = msgspec.json.encode({"type": kind, "id": new_id(), "data": data, "timestamp": now})
    if len(text) > FRAME_LIMIT:
        raise ValueError(f"{kind} has {len(text)} bytes; a frame has at most {FRAME_LIMIT}")
    try:
        check_depth(text)
    except BrokerError as e:
        raise ValueError(f"{kind}: {e.message}") from None
    return text
