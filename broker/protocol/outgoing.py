"""What connections are told, before any wire format: the values that formats encode."""

from typing import Protocol

import attrs

from broker.errors import BrokerError
from broker.messages import Record
from broker.protocol.frames import text_frame

__all__ = [
    "Broadcast",
    "CaughtUp",
    "Direct",
    "Failure",
    "Format",
    "Outgoing",
    "Parcel",
    "Request",
    "Response",
    "Restarting",
    "RoomEvent",
    "RoomLeft",
    "SessionDetached",
    "SessionRecord",
    "SessionReset",
    "Welcome",
]


@attrs.define(eq=False)
class Request:
    """What a client asked for, after its format was taken off.

    Attributes:
        action: a name of PROTOCOL 2a, or a plugin's.
        payload: JSON, as it came; left out of `repr`, since a token may stand in it.
        id: the client's own id of the request; None if it wants no response.
    """

    action: str
    payload: bytes = attrs.field(repr=False)
    id: str | None = None


@attrs.define
class Welcome:
    """The first message on every connection."""

    connection_id: str
    user: str | None
    protocol: str
    server: str
    node: str
    heartbeat: float
    max_message_bytes: int


@attrs.define(eq=False)
class Response:
    """A request was done; `data` is JSON."""

    id: str
    data: bytes


@attrs.define
class Failure:
    """A request was refused; `id` is None where it had none, or where none could be read."""

    id: str | None
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
class Broadcast:
    """To every connection; `sender` and `data` are JSON."""

    sender: bytes
    data: bytes


@attrs.define
class Direct:
    """To chosen connections or users; `sender` and `data` are JSON."""

    sender: bytes
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
    | Restarting
    | Broadcast
    | Direct
)


class Format(Protocol):
    """One wire format: bytes to requests, values to bytes. Pure, shared by all connections that speak it."""

    name: str

    def decode(self, text: bytes) -> Request:
        """Read a client's message.

        Raises:
            BrokerError: `invalid_json` or `invalid_message`.
        """

    def salvage_id(self, text: bytes) -> str | None:
        """Return the id of a message that was refused, if one can be read, so that the error can name it."""

    def encode(self, value: Outgoing) -> bytes:
        """Return the value as one text message."""


class Parcel:
    """Values for many connections, encoded once per format and framed once (PROTOCOL P7, ARCHITECTURE section 4)."""

    __slots__ = ("_bits", "_frames", "_others", "_wire", "items")

    def __init__(self, items: tuple[Outgoing, ...]) -> None:
        self.items = items
        self._wire: Format | None = None  # what was asked for last, which is nearly always what is asked for next
        self._bits = 0
        self._frames = b""
        self._others: dict[tuple[str, int], bytes] = {}

    @property
    def turns(self) -> set[str]:
        """The turns that it tells of."""
        records = [item.record for item in self.items if isinstance(item, SessionRecord)]
        return {record.turn_id for record in records if record.turn_id is not None}

    def frames(self, wire: Format, window_bits: int) -> bytes:
        """Return the parcel's messages as WebSocket frames, one after the other."""
        if wire is self._wire and window_bits == self._bits:
            return self._frames
        key = (wire.name, window_bits)
        frames = self._others.get(key)
        if frames is None:
            encode = wire.encode
            frames = b"".join([text_frame(encode(item), window_bits) for item in self.items])
            self._others[key] = frames
        self._wire, self._bits, self._frames = wire, window_bits, frames
        return frames
