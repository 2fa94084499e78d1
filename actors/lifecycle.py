"""How sessions and rooms come to leave memory: what the registry and they tell each other."""

from typing import Any

import attrs

from broker.actors.ref import LoopRef

__all__ = ["Abandoned", "Bound", "Gone", "MayStop", "StopSession", "Sweep", "Unbound"]


@attrs.frozen
class Sweep:
    """Look whether the session can leave memory; sent now and then by the registry."""

    idle_after: float


@attrs.frozen
class Gone:
    """A session or a room tells the registry that it may be let go: nothing needs it in memory."""

    log: str
    ref: LoopRef[Any]


@attrs.frozen
class MayStop:
    """Return whether nothing needs the actor in memory; what comes for it meanwhile is held by the registry."""


@attrs.frozen
class Bound:
    """An ephemeral session tells the connection that made it to say when it ends: by `Abandoned`."""

    log: str
    ref: LoopRef[Any]


@attrs.frozen
class Unbound:
    """An ephemeral session has been closed or deleted, so that the end of its connection is nothing to it any more."""

    log: str


@attrs.frozen
class Abandoned:
    """The connection has ended that an ephemeral session was made for."""


@attrs.frozen
class StopSession:
    """The broker stops: nothing more is started, and a turn that still runs ends. Answered when that is durable.

    Attributes:
        at_once: whether it ends now; otherwise it may go on, and is left alone.
    """

    at_once: bool = True
