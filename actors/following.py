"""What logs and those who follow them tell each other (see `log.py`)."""

from typing import Any

import attrs

from broker.actors.ref import LoopRef
from broker.messages import Principal, Record
from broker.protocol.outgoing import Outgoing
from broker.protocol.parcel import Parcel

__all__ = [
    "Follow",
    "FollowAnswer",
    "Following",
    "LogFailed",
    "LogUnreadable",
    "Page",
    "PageRead",
    "Passing",
    "Pause",
    "Pull",
    "Unfollow",
    "Unfollowing",
]


@attrs.define
class Pull:
    """A follower has room for the records after `after`."""

    follower: LoopRef[Any]
    after: int


@attrs.define
class Pause:
    """A follower fell behind; it will pull when it has room again."""

    follower: LoopRef[Any]


@attrs.define
class Follow:
    """A follower of an earlier incarnation of this log goes on after `after`.

    Attributes:
        follower: the connection.
        after: where it stands.
        newcomer: whether it has still to be told that it has caught up.
        by: whose connection it is.
        connection_id: which one it is, for a room.
    """

    follower: LoopRef[Any]
    after: int
    newcomer: bool
    by: Principal
    connection_id: str


@attrs.define(eq=False)
class PageRead:
    """The log's actor tells itself what it has read for a follower.

    It counts only as long as it is the follower's newest: one that left, or attached anew, gets no stale page.

    Attributes:
        follower: the connection.
        after: where it stands.
        first: what it is told before.
        records: what was read; None if it could not be.
    """

    follower: LoopRef[Any]
    after: int
    first: tuple[Outgoing, ...]
    records: list[Record] | None = None


@attrs.define
class Unfollow:
    """A follower leaves."""

    follower: LoopRef[Any]


@attrs.define
class Page:
    """Records for a follower, live or replayed.

    Attributes:
        log: the log's name.
        parcel: the records, and what else has to be said at this point.
        first: the first record's number; 0 for none.
        last: the last record's number; where the follower stands afterwards.
        live: whether what follows comes by itself; otherwise the follower pulls.
        pushed: whether it comes by itself; otherwise the follower asked for it.
    """

    log: str
    parcel: Parcel
    first: int
    last: int
    live: bool
    pushed: bool = False


@attrs.frozen
class LogFailed:
    """The log's actor failed and starts anew from what is durable; followers ask again from where they are.

    Attributes:
        log: the log's name.
        newcomer: whether this follower has still to be told that it has caught up.
    """

    log: str
    newcomer: bool


@attrs.frozen
class LogUnreadable:
    """The log cannot be read now, so that its follower has to come back later."""

    log: str


@attrs.define
class Following:
    """The connection now follows a log from `after` on; of a room only these events, None for all."""

    log: str
    ref: LoopRef[Any]
    after: int
    events: frozenset[str] | None = None


@attrs.define
class Passing:
    """Something of a log that keeps nothing: it is told now or never."""

    log: str
    parcel: Parcel


@attrs.define
class Unfollowing:
    """The connection no longer follows a log."""

    log: str


@attrs.define
class FollowAnswer:
    """An answer that changes what the asking connection follows.

    Attributes:
        data: what the client is told.
        note: what the connection is told, just before.
    """

    data: dict[str, Any]
    note: Following | Unfollowing
