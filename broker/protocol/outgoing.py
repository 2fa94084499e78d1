"""What connections are told, before any wire format: the values that formats encode."""

from typing import Any

import attrs

from broker.errors import BrokerError
from broker.messages import Record

__all__ = [
    "Broadcast",
    "CaughtUp",
    "Direct",
    "Due",
    "Entered",
    "Failure",
    "FeedbackAnswer",
    "Outgoing",
    "Request",
    "RequestId",
    "Response",
    "Restarting",
    "RoomEvent",
    "RoomLeft",
    "SessionDetached",
    "SessionRecord",
    "SessionReset",
    "Tapped",
    "Welcome",
]


RequestId = Any
"""What a format wants back with the answer: natively the client's id, elsewhere whatever it takes to word the answer.

Its `str` is the client's own id, for the log.
"""


@attrs.define(eq=False)
class Request:
    """What a client asked for, after its format was taken off.

    Attributes:
        action: a name of PROTOCOL 2a, or a plugin's.
        payload: JSON, as it came; left out of `repr`, since a token may stand in it.
        id: comes back with the answer; None if no answer is wanted but an error's.
        kind: what the format itself calls such a message, where that is not the action. A handler registered under
            that name is asked in the action's place.
        text: the whole message; empty for what a format asks for by itself.
        held: whether it passes the gates for messages and then goes back to its format, as the answer to itself: it
            has to wait for something, and is asked for when that is done. Where there are such gates its format is told
            `Due` with its id first, since the time that they take is its client's.
        looked: whether the gates for messages have let it pass before, as what was held.
    """

    action: str
    payload: bytes = attrs.field(repr=False)
    id: RequestId | None = None
    kind: str = ""
    text: bytes = attrs.field(default=b"", repr=False)
    held: bool = False
    looked: bool = False


@attrs.define
class Welcome:
    """The first message on every connection; of one that has still to say who it is, before it has."""

    connection_id: str
    user: str | None
    protocol: str
    server: str
    node: str
    heartbeat: float
    max_message_bytes: int


@attrs.define
class Entered:
    """It is known who is at the other end, and so there is something that it may do."""


@attrs.define
class Due:
    """It is time for what was asked to be told of: by `broker.protocol.dialect.Later`, or by a request that is held."""

    token: Any


@attrs.define(eq=False)
class Response:
    """A request was done; `data` is JSON, `handled` whether a plugin or the host of the broker has answered it."""

    id: RequestId
    data: bytes
    handled: bool = False


@attrs.define
class Failure:
    """A request was refused; `id` is None where it had none, or where none could be read."""

    id: RequestId | None
    error: BrokerError


@attrs.define
class SessionRecord:
    """A record of a session's log, live or replayed."""

    session_id: str
    record: Record


@attrs.define
class CaughtUp:
    """All records up to `head` have been sent; what follows is live."""

    session_id: str
    head: int


@attrs.define
class SessionReset:
    """The log does not reach back to where the client was: forget the past, here is all there is."""

    session_id: str
    epoch: str
    head: int
    floor: int


@attrs.define
class SessionDetached:
    """The session is shown no longer, since whose connection it is may not see it any more."""

    session_id: str


@attrs.define
class RoomLeft:
    """The room is shown no longer, since whose connection it is may not be in it any more."""

    room: str


@attrs.define
class Restarting:
    """The broker is about to stop, and the connection with it: come back after so many seconds, each its own."""

    retry_after: float


@attrs.define
class RoomEvent:
    """An event of a room; `seq` only in a room with history. `sender` and `data` are JSON."""

    room: str
    seq: int | None
    event: str
    sender: bytes
    data: bytes
    at: int


@attrs.define
class FeedbackAnswer:
    """What a project's agent has answered, told where its asker is elsewhere; `sender` and `data` are JSON.

    It is no event of the room, and nobody can publish one: a client may take it for the agent's own word.
    """

    room: str
    feedback_id: str
    sender: bytes
    data: bytes
    at: int


@attrs.define
class Broadcast:
    """To every connection; `sender` and `data` are JSON."""

    sender: bytes
    data: bytes


@attrs.define
class Direct:
    """To chosen connections or users; `sender` and `data` are JSON."""

    sender: bytes
    data: bytes


@attrs.define
class Tapped:
    """Something that went through the broker, for a client that watches it (`tap`); `data` is JSON."""

    data: bytes


Outgoing = (
    Welcome
    | Response
    | Failure
    | SessionRecord
    | CaughtUp
    | SessionReset
    | SessionDetached
    | RoomEvent
    | RoomLeft
    | FeedbackAnswer
    | Restarting
    | Broadcast
    | Direct
    | Tapped
)
