"""What the registry is told and asked: values."""

from collections.abc import Callable
from typing import Any

import attrs

from broker.actors.connection import Connection
from broker.actors.ref import LoopRef
from broker.errors import CloseCode
from broker.hooks import Peer
from broker.messages import Principal, SessionRow
from broker.operations import Open

__all__ = [
    "Aside",
    "Connected",
    "Connections",
    "CreateSession",
    "Disconnected",
    "Everybody",
    "HangSome",
    "Live",
    "OpenSession",
    "Peers",
    "Renewed",
    "SendTo",
    "ToAll",
    "ToRoom",
    "ToSession",
    "Wake",
]


@attrs.frozen
class Connected:
    """A connection is open."""

    ref: LoopRef[Connection]
    peer: Peer
    at: int


@attrs.frozen
class Renewed:
    """A connection has shown a new token: it is the same user, who may do other things."""

    peer: Peer


@attrs.frozen
class Disconnected:
    """A connection is gone."""

    peer: Peer


@attrs.frozen
class Aside:
    """Somebody is at the door who is told and counted nothing, but can be sent away.

    Attributes:
        peer: who: a client that has not said yet who it is, or an agent.
        hang: sends it away, with a code and a reason.
    """

    peer: Peer
    hang: Callable[[CloseCode, str | None], object]


@attrs.frozen
class ToSession:
    """Hand an operation to a session, taking it up from the store if need be."""

    session_id: str
    operation: Any


@attrs.frozen
class CreateSession:
    """Make a session of this row.

    Attributes:
        row: what it begins with.
        chosen: whether the client chose its id.
        by: who makes it.
        maker: the connection that asks; None if none does.
        attach: whether the maker is shown the session.
    """

    row: SessionRow
    chosen: bool
    by: Principal
    maker: LoopRef[Any] | None
    attach: bool = True


@attrs.frozen
class OpenSession:
    """Hand `opening` to a session, which is made of this row if there is none of its id yet."""

    row: SessionRow
    opening: Open


@attrs.frozen
class ToRoom:
    """Hand an operation to a room."""

    room: str
    operation: Any


@attrs.frozen
class ToAll:
    """Broadcast; `sender` and `data` are JSON. Answered with the number of receivers."""

    sender: bytes
    data: bytes


@attrs.frozen
class SendTo:
    """Send to connections and users; `sender` and `data` are JSON. Answered with the number of receivers."""

    connections: tuple[str, ...]
    users: tuple[str, ...]
    sender: bytes
    data: bytes


@attrs.frozen
class Connections:
    """Return how many connections there are, and if `detailed` which.

    Attributes:
        detailed: whether to tell each.
        user: only those of this user.
        after: only those whose ids come after this one.
        limit: at most so many of them, in the order of their ids.
    """

    detailed: bool
    after: str = ""
    limit: int = 1000
    user: str | None = None


@attrs.frozen
class Peers:
    """Return the peers that are connected."""


@attrs.frozen
class Live:
    """Return the actors of the live sessions and rooms, by the name of their log."""


@attrs.frozen
class Everybody:
    """Return the connections of all clients, and those who stand aside: for the end of the run."""


@attrs.frozen
class HangSome:
    """Close the connections that `whom` picks; answered with how many there were."""

    whom: Callable[[Peer], bool]
    code: CloseCode
    reason: str | None = None


@attrs.frozen
class Wake:
    """Take up a session from the store: it has turns that have to go on or to end."""

    session_id: str
