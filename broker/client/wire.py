"""`broker.v1.json` as a client sees it: what the broker says, and how a request is made (PROTOCOL section 2)."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["FRAME_LIMIT", "SUBPROTOCOL", "Identity", "Message", "identity_of", "read", "request"]

SUBPROTOCOL: Final = "broker.v1.json"
FRAME_LIMIT: Final = 64 << 20
"""Bytes of the largest message that is taken of a broker; its operator chooses how large those of others may be."""


class Message(msgspec.Struct, frozen=True):
    """Whatever the broker says."""

    type: str
    data: Any = None
    id: str | None = None
    event: str = ""
    session_id: str | None = None
    room: str | None = None
    seq: int | None = None
    turn_id: str | None = None
    at: str = ""
    sender: Any = msgspec.field(default=None, name="from")


class Identity(msgspec.Struct, frozen=True):
    """Who the broker says this connection is: the `data` of its welcome.

    Attributes:
        connection_id: this connection; another one after each reconnect.
        user: as whom it counts; None for nobody in particular.
        server: which broker it is, with its version.
        node: its name.
        heartbeat: seconds between its pings.
        max_message_bytes: the largest message it takes.
    """

    connection_id: str = ""
    user: str | None = None
    protocol: str = SUBPROTOCOL
    server: str = ""
    node: str = ""
    heartbeat: float = 30.0
    max_message_bytes: int = 1 << 20


_MESSAGE: Final = msgspec.json.Decoder(Message)
_encode: Final = msgspec.json.Encoder().encode


def read(text: bytes) -> Message:
    """Return what the broker says.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return _MESSAGE.decode(text)
    except (msgspec.MsgspecError, RecursionError) as e:
        raise ValueError(f"a message that cannot be read: {e}") from None


def identity_of(data: Any) -> Identity:
    """Return who a welcome says one is.

    Raises:
        ValueError: it says nothing of the kind.
    """
    return msgspec.convert(data, Identity)


def request(request_id: str, action: str, payload: Mapping[str, Any] | Any) -> bytes:
    """Return a request.

    Raises:
        TypeError, ValueError: the payload is no JSON.
    """
    return _encode({"id": request_id, "type": "request", "action": action, "payload": payload})
