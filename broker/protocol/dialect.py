"""What a wire format is: bytes to requests, values to bytes; and what one connection's end of it may remember.

A format without memory is one shared object, and what it says to many is encoded once. One with a memory makes a
`Dialect` for each connection: a small machine without a loop, which is told everything that the client would be
told, and reacts with what to say, what to ask for next, and what to be reminded of.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import attrs

from broker.errors import CloseCode
from broker.protocol.outgoing import Due, Entered, Outgoing, Request, RequestId

__all__ = ["Dialect", "Ear", "Format", "Later", "Part", "Reaction"]


class Ear(Protocol):
    """What reads a client's messages."""

    def decode(self, text: bytes) -> Request:
        """Read a client's message.

        Raises:
            BrokerError: `invalid_json`, `invalid_message`, or what the format's own rules refuse.
        """

    def salvage_id(self, text: bytes) -> RequestId | None:
        """Return the id of a message that was refused, if one can be read, so that the error can name it."""


@attrs.frozen
class Later:
    """Be told `Due(token)` after so many seconds."""

    seconds: float
    token: Any


@attrs.frozen
class Part:
    """Close the connection, after all that was said before."""

    code: CloseCode
    reason: str | None = None


Reaction = bytes | Request | Later | Part
"""A text message to send, something to ask for in the client's name, a time to be told of, or the end."""


class Dialect(Ear, Protocol):
    """One connection's end of a format that has to remember something; it knows no loop, actor or socket.

    Whatever it remembers is bounded, since a client decides how much there is to remember (PROTOCOL P7).
    """

    def tell(self, value: Outgoing | Entered | Due) -> Iterable[Reaction]:
        """Take what the client would be told, and return what comes of it, in order."""


class Format(Ear, Protocol):
    """One wire format; pure, shared by all connections that speak it.

    Attributes:
        name: its subprotocol.
    """

    name: str

    def encode(self, value: Outgoing) -> bytes:
        """Return the value as one text message; empty if clients of this format are not told it."""

    def dialect(self, query: Mapping[str, str]) -> Dialect | None:
        """Return the end of a new connection; None if there is nothing to remember, and the format itself will do.

        Args:
            query: parameters of the URL that the client has connected to.
        """
