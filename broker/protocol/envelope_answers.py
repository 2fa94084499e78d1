"""What the broker answers to the requests of `envelope.v1.json`, and what becomes of an answer.

A handler may have answered in the broker's place: then the answer is not what the broker's own would be.
"""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import attrs
import msgspec

from broker.errors import BrokerError
from broker.protocol.dialect import Reaction

__all__ = ["ACCEPTED", "DELIVERED", "HISTORY", "OPENED", "PONG", "Asked", "Message", "Opened", "Page", "fits"]

T = TypeVar("T")


@attrs.frozen(eq=False)
class Asked:
    """A request that is on its way, as its answer finds it.

    Attributes:
        id: the client's id of the message.
        then: takes the answer.
        refused: takes the refusal.
    """

    id: str | None
    then: Callable[[bytes], Iterable[Reaction]] = attrs.field(repr=False)
    refused: Callable[[BrokerError], Iterable[Reaction]] = attrs.field(repr=False)

    def __str__(self) -> str:
        return self.id or ""


class _Pong(msgspec.Struct, forbid_unknown_fields=True):
    """What `ping` answers."""

    at: str


class _Accepted(msgspec.Struct):
    """What `turn.start` answers."""

    turn_id: str
    seq: int
    status: str
    duplicate: bool
    durable: bool


class _Delivered(msgspec.Struct, forbid_unknown_fields=True):
    """What `send` answers."""

    delivered: int


class Seen(msgspec.Struct):
    """A turn that has not ended, as one who attaches is told of it."""

    turn_id: str
    client_msg_id: str
    state: str


class Opened(msgspec.Struct):
    """What the broker answers to one who opens a session or attaches to it."""

    session_id: str
    epoch: str
    head: int
    floor: int
    state: str
    turn: Seen | None
    queue: list[Seen]
    approvals: msgspec.Raw
    variables: msgspec.Raw
    recovered: bool


class Message(msgspec.Struct):
    """A message of a session's history."""

    message_id: str
    role: str
    content: msgspec.Raw
    at: str
    turn_id: str | None
    metadata: dict[str, msgspec.Raw]


class Page(msgspec.Struct):
    """What `session.history` answers."""

    messages: list[Message]
    before_seq: int | None = None


PONG: Final = msgspec.json.Decoder(_Pong)
ACCEPTED: Final = msgspec.json.Decoder(_Accepted)
DELIVERED: Final = msgspec.json.Decoder(_Delivered)
OPENED: Final = msgspec.json.Decoder(Opened)
HISTORY: Final = msgspec.json.Decoder(Page)


def fits(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """Return what the broker has answered; None if it was a handler that did."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        return None
