"""Where the answers to a client's requests go."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from broker.actors.connection import Connection
from broker.actors.following import FollowAnswer
from broker.actors.ref import LoopRef
from broker.protocol.outgoing import Failure, RequestId, Response

__all__ = ["SocketReply"]


class SocketReply:
    """Where the answer to a client's request goes: back to its connection, under its id.

    Args:
        connection: the client's connection.
        request_id: comes back with the answer; None if the client wants no response, but errors all the same.
        encode: turns what the actor answered into the response's `data`.
        refuse: turns an exception into the failure to be sent, and counts it.
    """

    __slots__ = ("_began", "_connection", "_encode", "_refuse", "_request_id")

    def __init__(
        self,
        connection: LoopRef[Connection],
        request_id: RequestId | None,
        encode: Callable[[Any], bytes],
        refuse: Callable[[RequestId | None, BaseException, str | None], Failure],
    ) -> None:
        self._connection = connection
        self._request_id = request_id
        self._encode = encode
        self._refuse = refuse
        self._began = monotonic()

    def set(self, value: Any = None, /) -> None:
        """Send the response; one that changes what the connection follows lets it know first."""
        actor = self._connection.actor
        if actor is None:
            return
        actor.took.observe(monotonic() - self._began)
        if type(value) is FollowAnswer:
            self._connection.tell(value.note, urgent=True)
            value = value.data
        if self._request_id is not None:
            self._connection.tell(Response(self._request_id, self._encode(value)), urgent=True)

    def set_exception(self, exc_info: Any = None, /) -> None:
        """Send the error."""
        error = exc_info[1] if exc_info else RuntimeError("no answer")
        actor = self._connection.actor
        if actor is not None:
            actor.took.observe(monotonic() - self._began)
            self._connection.tell(self._refuse(self._request_id, error, actor.peer.connection_id), urgent=True)
