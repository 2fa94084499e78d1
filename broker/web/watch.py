"""What became of a client's requests, for plugins that want to see it (`answered`)."""

from collections import deque
from time import monotonic
from typing import Any, Final

import attrs

from broker.extensions.dispatch import Hooks
from broker.hooks import Answered, Peer
from broker.protocol.outgoing import Failure, Outgoing, Request, Response

__all__ = ["Watch"]


@attrs.frozen(eq=False)
class _Asked:
    """A request that has not been answered.

    Attributes:
        id: what comes back with the answer; kept, since it is by its identity that it is known again.
        action: what it asks for.
        kind: what its format calls it.
        size: its length in bytes.
        began: when it came, or the message whose errand it is.
        held: whether it only waits, and is asked for afterwards by another request of the same name.
        aside: whether its format asks for it by itself, so that a message is not answered with it.
    """

    id: Any
    action: str
    kind: str
    size: int
    began: float
    held: bool
    aside: bool


UNDER_WAY: Final = 1000
"""Requests of one connection that are remembered until they are answered; beyond that the oldest are forgotten."""


class Watch:
    """The requests of one connection that are under way; there is none where no plugin wants to see them.

    A message that has to wait goes back to its format, and is asked for when that is done: told of is the one answer
    to it, with the time from its coming. What the format asks for besides is told of only if it is refused.

    Args:
        hooks: the plugins.
    """

    __slots__ = ("_asked", "_hooks", "_waiting")

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        # By what comes back with the answer, which is the same object: what it is made of is its format's affair.
        self._asked: dict[int, _Asked] = {}
        self._waiting: deque[_Asked] = deque(maxlen=UNDER_WAY)

    def asked(self, request: Request, *, derived: bool = False) -> None:
        """Take note of a request that has come, or (`derived`) that its format makes for a message that came before."""
        if request.id is None:
            return
        action, kind, size, began = request.action, request.kind or request.action, len(request.text), monotonic()
        waited = self._find(request) if derived else None
        if waited is not None:
            kind, size, began = waited.kind, waited.size, waited.began
        aside = derived and waited is None
        if len(self._asked) >= UNDER_WAY:
            del self._asked[next(iter(self._asked))]
        asked = _Asked(request.id, action, kind, size, began, request.held, aside)
        self._asked[id(request.id)] = asked

    def _find(self, request: Request) -> _Asked | None:
        """Return the message that waited for being asked for now, which is one no more."""
        name = str(request.id)
        for asked in reversed(self._waiting):
            if asked.action == request.action and str(asked.id) == name:
                self._waiting.remove(asked)
                return asked
        return None

    def told(self, peer: Peer, value: Outgoing) -> None:
        """Tell the plugins of an answer that is on its way to the client; called by its connection."""
        if not isinstance(value, Response | Failure):
            return
        error = value.error if isinstance(value, Failure) else None
        found = self._asked.pop(id(value.id), None)
        if found is not None:
            if error is None and found.held:
                self._waiting.append(found)
            if error is None and (found.held or found.aside):
                return
            seconds = monotonic() - found.began
            answer = Answered(peer, found.action, found.kind, found.id, found.size, seconds, error)
        elif error is not None:  # of what had no id, or could not be read
            answer = Answered(peer, "", "", value.id, 0, 0.0, error)
        else:
            return
        self._hooks.observe(self._hooks.answered, answer)
