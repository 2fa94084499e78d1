"""What became of a client's requests, for plugins that want to see it (`answered`)."""

from time import monotonic
from typing import Any, Final

from broker.extensions.dispatch import Hooks
from broker.hooks import Answered, Peer
from broker.protocol.outgoing import Failure, Outgoing, Request, Response

__all__ = ["Watch"]

UNDER_WAY: Final = 1000
"""Requests of one connection that are remembered until they are answered; beyond that the oldest are forgotten."""


class Watch:
    """The requests of one connection that are under way; there is none where no plugin wants to see them.

    Args:
        hooks: the plugins.
    """

    __slots__ = ("_asked", "_hooks")

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        # By what comes back with the answer, which is the same object: what it is made of is its format's affair.
        self._asked: dict[int, tuple[Any, str, str, int, float]] = {}

    def asked(self, request: Request) -> None:
        """Take note of a request that has come."""
        if request.id is None:
            return
        if len(self._asked) >= UNDER_WAY:
            del self._asked[next(iter(self._asked))]
        action = request.action
        self._asked[id(request.id)] = (request.id, action, request.kind or action, len(request.text), monotonic())

    def told(self, peer: Peer, value: Outgoing) -> None:
        """Tell the plugins of an answer that is on its way to the client; called by its connection."""
        if not isinstance(value, Response | Failure):
            return
        error = value.error if isinstance(value, Failure) else None
        found = self._asked.pop(id(value.id), None)
        if found is not None:
            known, action, kind, size, began = found
            answer = Answered(peer, action, kind, known, size, monotonic() - began, error)
        elif error is not None:  # of what had no id, or could not be read
            answer = Answered(peer, "", "", value.id, 0, 0.0, error)
        else:
            return
        self._hooks.observe(self._hooks.answered, answer)
