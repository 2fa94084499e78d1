"""What a plugin brings, and what it may ask of the broker."""

from asyncio import Task
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Literal, Protocol

import attrs

from broker.errors import CloseCode
from broker.hooks.told import Peer
from broker.stats import Stats

__all__ = ["ActionHandler", "Broker", "Context", "Event", "MessageHandler", "Route"]

ActionHandler = Callable[[Peer, Any], Any]
"""Answers an action: takes who asked and the payload, returns the answer or an awaitable of it.

The annotation of the second parameter decides what the payload comes as: without one, plain Python values;
`bytes`, the JSON itself; any class msgspec knows (attrs classes too), checked and converted, and a payload that
does not fit is refused as `invalid_message`. The answer is anything msgspec can encode, or JSON as `bytes`.
"""

MessageHandler = Callable[[dict[str, Any], "Context"], Any]
"""Answers a client's message: takes the message and its `Context`, returns the answer or an awaitable of it.

The message is what the client has sent, whole, as plain values, and so as its format has it: natively `id`, `type`,
`action` and `payload`. What is not given as an object is refused as `invalid_message`. The answer is anything msgspec
can encode, or JSON as `bytes`.
"""

Event = Literal["connection", "disconnection", "message", "turn", "error"]
"""What can be listened to with `Broker.on`."""


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

    async def send(self, to: str | Sequence[str], data: Any) -> int:
        """Send notification `message` to a connection, or to several, by id; return how many of them there were."""

    async def send_to_user(self, to: str | Sequence[str], data: Any) -> int:
        """Send notification `message` to all connections of a user, or of several; return how many there were."""

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

    def register_handler(
        self, kind: str, handler: MessageHandler, *, timeout: float | None = None, replace: bool = False
    ) -> None:
        """Have `handler` answer the clients' messages of a kind, from now on.

        Who asks passes the gates first, those for permissions with the kind as the operation. Whatever the handler
        raises is an answer: `BrokerError` as it is, anything else as `internal`, and `timeout` if it takes too long.

        Args:
            kind: what clients call it: natively the action, in another format its own type of message.
            handler: plain or async.
            timeout: seconds that it may take; `limits.message_timeout` if left out.
            replace: whether it may take another one's place.

        Raises:
            ValueError: the broker itself has an action of that name, or somebody else a handler and `replace` is not
                set; or the timeout is none.
            TypeError: it does not take a message and a context.
        """

    def on(self, event: Event, listener: Callable[..., Any]) -> Callable[[], None]:
        """Have `listener` called for each event of a kind, from now on; return what ends that.

        It is never felt: what it raises is logged and counted. A plain one is called at once, so it must be quick;
        async ones begin in order and run by themselves.

        Args:
            event: `connection`, with the `Peer`; `disconnection`, with the `Peer` and the close code; `message`, with
                an `Inbound`, for each that the gates before it let in; `turn`, with a `TurnEnded`; `error`, with a
                `Failure`.
            listener: plain or async.

        Raises:
            ValueError: there is no such event.
            TypeError: the listener does not take what it is to be given.
        """

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> Task[Any]:
        """Run `work` in the background: named, its failure logged, cancelled when the broker stops.

        Raises:
            BrokerError: `overloaded`: a thousand tasks that run the same code have not ended yet.
        """


@attrs.frozen
class Context:
    """Who has sent a message that a handler is to answer.

    Attributes:
        peer: who: `connection_id`, `principal`, `address` and `protocol`.
        broker: what the handler may ask of the broker.
    """

    peer: Peer
    broker: Broker = attrs.field(repr=False)

    async def send(self, data: Any) -> bool:
        """Send notification `message` to the sender, beside the answer; tell whether it is still connected."""
        return await self.broker.send(self.peer.connection_id, data) > 0
