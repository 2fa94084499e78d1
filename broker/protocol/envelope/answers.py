"""What the broker answers to the requests of `envelope.v1.json`, and what becomes of an answer."""

from collections.abc import Callable, Iterable
from typing import Final

import attrs
import msgspec

from broker.errors import BrokerError
from broker.protocol.dialect import Reaction

__all__ = ["ACCEPTED", "DELIVERED", "HISTORY", "OPENED", "Asked", "Message", "Opened", "Page"]


@attrs.frozen(eq=False)
class Asked:
    """A request that is on its way, as its answer finds it.

    Attributes:
        id: the client's id of the message.
        then: takes the answer.
        refused: takes the refusal.
        handled: takes the answer of a handler that has answered in the broker's place; None where there is none.
    """

    id: str | None
    then: Callable[[bytes], Iterable[Reaction]] = attrs.field(repr=False)
    refused: Callable[[BrokerError], Iterable[Reaction]] = attrs.field(repr=False)
    handled: Callable[[bytes], Iterable[Reaction]] | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        return self.id or ""


class _Accepted(msgspec.Struct):
    """What `turn.start` answers."""

    turn_id: str
    seq: int
    status: str
    duplicate: bool
    durable: bool


class _Delivered(msgspec.Struct):
    """What `send` answers."""

    delivered: int


class Seen(msgspec.Struct):
    """A turn that has not ended, as one who attaches is told of it."""

    turn_id: str
    client_msg_id: str
    state: str
    user: str | None = None


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


ACCEPTED: Final = msgspec.json.Decoder(_Accepted)
DELIVERED: Final = msgspec.json.Decoder(_Delivered)
OPENED: Final = msgspec.json.Decoder(Opened)
HISTORY: Final = msgspec.json.Decoder(Page)
