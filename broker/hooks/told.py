"""What hooks are given, and what a gate may answer: values.

Those that are made for every message are msgspec's, which it makes in a fifth of the time.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
import msgspec
from attrs.validators import and_, ge, instance_of, le, max_len, min_len

from broker.errors import BrokerError
from broker.messages import Principal

__all__ = [
    "Answered",
    "Attempt",
    "Auth",
    "Content",
    "Control",
    "Degraded",
    "Failure",
    "HandTo",
    "Handshake",
    "Inbound",
    "Peer",
    "Permission",
    "TurnEnded",
    "TurnRequest",
    "Undeclared",
]


def _encodable(_: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    """Refuse text that has no UTF-8: half a character, as `json.loads` makes of half an escape."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{attribute.name} has half a character (a lone surrogate), which cannot be sent") from None


_SAID: Final = and_(instance_of(str), min_len(1), _encodable)


@attrs.frozen
class Peer:
    """One connection, or who sends a request over HTTP.

    Attributes:
        connection_id: its id, as in `welcome`; empty for a request.
        principal: who it is.
        address: the client's IP address, past the trusted proxies.
        protocol: its wire format, such as `broker.v1.json`; `http` for a request.
    """

    connection_id: str
    principal: Principal
    address: str
    protocol: str


@attrs.frozen
class Handshake:
    """A client that asks to be let in, by a socket or by a request; nothing was answered yet.

    Attributes:
        path: the path it asks for, such as `/ws`.
        headers: its headers, case-insensitive; left out of `repr`, because tokens travel in them.
        query: its query parameters; left out of `repr` likewise.
        remote: the client's IP address, past the trusted proxies.
        origin: its Origin header, None if it sent none.
        protocol: the wire format that was agreed on; `http` for a request of the HTTP API.
        known: who it is already known to be, by a ticket or a pass of ours; None if that is still to be found out.
    """

    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    query: Mapping[str, str] = attrs.field(repr=False)
    remote: str
    origin: str | None
    protocol: str
    known: Principal | None = None


@attrs.frozen
class Undeclared:
    """A handshake gate's answer: let it in to say who it is.

    Until then it is nobody and can do nothing: its first message has to be `auth`, within `seconds`.
    """

    seconds: float


@attrs.frozen
class Auth:
    """A token that was shown with the action `auth`: the first message of one let in `Undeclared`, or a refresh.

    Attributes:
        peer: who shows it; its principal is the one so far.
        token: the token; left out of `repr`.
        known: who a ticket or a pass of ours says it is; None if that is still to be found out. Who is known may be
            refused all the same, but is nobody else.
    """

    peer: Peer
    token: str = attrs.field(repr=False)
    known: Principal | None = None


class Inbound(msgspec.Struct, frozen=True, gc=False):
    """One message of a client, before anything is done about it.

    Attributes:
        peer: whose; a request of the HTTP API has no connection.
        action: what it asks for, whatever its format calls that; empty for one that cannot be read.
        size: its length in bytes, of a request its body's.
        kind: what its own format calls it, such as `user_feedback`; natively and over HTTP the action.
        payload: JSON of what the action is given; empty for one that cannot be read. Tokens travel in it.
        text: the whole message as it came, of a request its body; left out of `repr` likewise.
        id: the client's own id of it is its `str`; None for a message without one, and for a request.
        derived: whether the client's format asks for it by itself, for a message that was looked at before; it has
            no text and no size then.
    """

    peer: Peer
    action: str
    size: int
    kind: str = ""
    payload: bytes = b""
    text: bytes = b""
    id: Any = None
    derived: bool = False

    def __repr__(self) -> str:
        """Return all but what it says."""
        return f"Inbound(peer={self.peer!r}, action={self.action!r}, size={self.size}, kind={self.kind!r})"


class Answered(msgspec.Struct, frozen=True):
    """What became of a client's request: it was answered, or refused.

    Attributes:
        peer: whose it was; of a request over HTTP that was not let in nobody's.
        action: what it asked for, as in `Inbound`; empty where that is not known.
        kind: what its own format calls it.
        id: the client's own id of it is its `str`; None for one without.
        size: its length in bytes.
        seconds: from its coming to its answer.
        error: what it was refused with; None if it was done.
    """

    peer: Peer
    action: str
    kind: str
    id: Any
    size: int
    seconds: float
    error: BrokerError | None = None


class Control(msgspec.Struct, frozen=True, gc=False):
    """A frame of a client that is no message: a ping, a pong, or a piece of a message that is not its last.

    Attributes:
        peer: whose.
        kind: which of them.
        size: bytes of its payload; a piece may well have none.
    """

    peer: Peer
    kind: Literal["ping", "pong", "piece"]
    size: int


class Permission(msgspec.Struct, frozen=True, gc=False):
    """Somebody is about to do something to something.

    Attributes:
        principal: who.
        operation: what, an action of PROTOCOL 2a such as `room.join`, also when it is asked for over HTTP.
        resource: to which session, room or user, by id or name; None where there is none.
    """

    principal: Principal
    operation: str
    resource: str | None = None


@attrs.frozen
class Content:
    """What somebody is about to say to an agent, a session, a room or other clients.

    Attributes:
        principal: who.
        operation: how, an action of PROTOCOL 2a such as `turn.start`, also when it is asked for over HTTP.
        resource: to which session, room or project, by id or name; None where there is none.
        data: JSON, as the gates before left it; of a turn's content a string or an array of content blocks.
        part: which part of what is said, since each is asked about by itself: `content` and `metadata` of a turn,
            `title` and `variables` of a session, `data` of most others; empty where there is nothing else.
    """

    principal: Principal
    operation: str
    resource: str | None
    data: bytes = attrs.field(repr=False)
    part: str = ""


@attrs.frozen
class TurnRequest:
    """A turn that would be accepted next; `content` is JSON, a string or an array of content blocks."""

    session_id: str
    principal: Principal
    content: bytes = attrs.field(repr=False)


@attrs.frozen
class Attempt:
    """A turn that an agent is to be given next, or that one has just refused before it took it up.

    Attributes:
        session_id: its session.
        turn_id: its id.
        agent: the session's agent profile.
        tried: the profiles that could not take it so far, in order; one that was asked twice stands there twice.
        code: why the last of them could not, one of PROTOCOL 2b; None if none was asked yet.
        message: the same for a person.
        seconds: since the turn was dispatched first; 0 while it waits.
        last: whether it was refused so often that no agent is asked any more: only `Degraded` is followed now.
    """

    session_id: str
    turn_id: str
    agent: str
    tried: tuple[str, ...] = ()
    code: str | None = None
    message: str | None = None
    seconds: float = 0.0
    last: bool = False


@attrs.frozen
class HandTo:
    """An answer to an `Attempt`: give the turn to this agent profile, the same again or another.

    Attributes:
        agent: its name.
        after: seconds until then, at most an hour; the turn's `start` deadline goes on meanwhile.
    """

    agent: str = attrs.field(validator=_SAID)
    after: float = attrs.field(default=0.0, validator=and_(ge(0), le(3600)))


@attrs.frozen
class Degraded:
    """An answer to an `Attempt`: no agent gets the turn, the broker answers it with this text and says so.

    Attributes:
        text: what people read; 1 to 16384 characters.
    """

    text: str = attrs.field(validator=and_(_SAID, max_len(16384)))


@attrs.frozen
class TurnEnded:
    """A turn that has ended, after the record of it became durable.

    Attributes:
        session_id: its session.
        turn_id: its id.
        agent: the profile that had it, or was to have it.
        outcome: one of PROTOCOL section 3.
        seconds: from its acceptance to its end.
        dispatched: whether an agent was given it since the broker's start; what ended in the queue, or was answered by
            the broker itself, says nothing of any.
    """

    session_id: str
    turn_id: str
    agent: str
    outcome: str
    seconds: float
    dispatched: bool = True


@attrs.frozen
class Failure:
    """Something broke inside the broker.

    Attributes:
        where: the part that broke, in words.
        error: what it raised.
        trace_id: the id under which the client was told and the log has it, if a client was waiting.
    """

    where: str
    error: BaseException
    trace_id: str | None = None
