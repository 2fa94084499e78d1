"""What a plugin brings, and what it may ask of the broker."""

from asyncio import Task
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

import attrs

from broker.errors import CloseCode
from broker.hooks.told import Peer
from broker.stats import Stats

__all__ = ["ActionHandler", "Broker", "Route"]

ActionHandler = Callable[[Peer, Any], Any]
"""Answers an action: takes who asked and the payload, returns the answer or an awaitable of it.

The annotation of the second parameter decides what the payload comes as: without one, plain Python values;
`bytes`, the JSON itself; any class msgspec knows (attrs classes too), checked and converted, and a payload that
does not fit is refused as `invalid_message`. The answer is anything msgspec can encode, or JSON as `bytes`.
"""


@attrs.frozen
class Route:
    """An HTTP route of a plugin.

    Attributes:
        method: such as `GET`.
        path: in aiohttp's syntax, such as `/hello/{name}`.
        handler: takes an `aiohttp.web.Request`, returns an `aiohttp.web.StreamResponse`.
        scope: what one must have to ask, such as `api`; the handler finds who asks, a `Principal`, under
            `request["principal"]`. None opens the route to everybody who reaches the port, and nobody is told apart.
    """

    method: str
    path: str
    handler: Callable[[Any], Awaitable[Any]]
    scope: str | None = None


class Broker(Protocol):
    """What a plugin may ask of the broker. `data` is anything msgspec can encode, or JSON as `bytes`."""

    @property
    def version(self) -> str:
        """The broker's version."""

    @property
    def stats(self) -> Stats:
        """The broker's counters."""

    def now(self) -> int:
        """Return the wall clock's milliseconds since the epoch; for times that people and tokens name."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards; for durations."""

    async def connections(self) -> Sequence[Peer]:
        """Return who is connected now."""

    async def send(self, connection_ids: Sequence[str], data: Any) -> int:
        """Send notification `message` to these connections; return how many of them there were."""

    async def broadcast(self, data: Any) -> int:
        """Send notification `broadcast` to every connection; return how many there were."""

    async def publish(self, room: str, event: str, data: Any) -> int | None:
        """Publish an event to a room; return its number in the room's log, None for a room without one."""

    async def disconnect(
        self,
        whom: Callable[[Peer], bool],
        code: CloseCode = CloseCode.DISCONNECTED_BY_OPERATOR,
        reason: str | None = None,
    ) -> int:
        """Close the connections, agents' too, that `whom` picks; return how many there were.

        Args:
            whom: tells of each whether it is meant; plain and quick, since everybody is looked at.
            code: says whether to come back (PROTOCOL 2c).
            reason: at most 123 bytes for a person; the code's own sentence if left out.
        """

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> Task[Any]:
        """Run `work` in the background: named, its failure logged, cancelled when the broker stops.

        Raises:
            BrokerError: `overloaded`: a thousand tasks that run the same code have not ended yet.
        """
