"""What a connection is told beside what its client is, and what all connections share: values."""

import attrs

from broker.clock import Clock
from broker.errors import CloseCode
from broker.stats import Stats
from broker.traces import Traces

__all__ = ["ConnectionOptions", "Followed", "Hang", "Pinged"]


@attrs.frozen
class Hang:
    """Close the connection with this code.

    Attributes:
        code: with which.
        reason: in words; the code's own if left out.
        last: whether nothing is read from the peer any more, not even its close frame; then it finds the end of
            the line after ours.
        within: seconds after which the line is cut; the connection's patience if left out.
    """

    code: CloseCode
    reason: str | None = None
    last: bool = False
    within: float | None = None


@attrs.frozen
class Pinged:
    """The peer sent a ping with this payload."""

    payload: bytes


@attrs.frozen
class Followed:
    """Return the actors of the logs that the connection follows, by the logs' names.

    It is answered after all that was in the inbox before, so that nothing is missing which is on its way there.
    """


@attrs.frozen
class ConnectionOptions:
    """What all connections of a broker share.

    Attributes:
        clock: time.
        outbox_bytes: what may wait for a slow peer.
        patience: seconds a peer may stay behind, or take to answer a ping or a close.
        stats: the broker's counters.
        traces: where it is noted what a peer was not told at once.
    """

    clock: Clock
    outbox_bytes: int
    patience: float
    stats: Stats
    traces: Traces
