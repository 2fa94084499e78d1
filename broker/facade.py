"""What plugins may ask of the broker, and a program that it is embedded in: by way of the actors."""

from asyncio import Task
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from types import CodeType
from typing import Any, Final, cast

import attrs

from broker import __version__
from broker.actors.ref import LoopRef
from broker.actors.registry import Registry
from broker.actors.requests import HangSome, Peers, SendTo, ToAll, ToRoom
from broker.clock import Clock
from broker.errors import BrokerError, CloseCode
from broker.extensions.dispatch import Hooks
from broker.extensions.fence import contained, discard
from broker.extensions.offers import to_json
from broker.extensions.registered import Registered, handling
from broker.hooks import Event, MessageHandler, Peer
from broker.logs import limited
from broker.messages import ANONYMOUS
from broker.operations import Publish
from broker.protocol import payloads
from broker.protocol.checks import check_name
from broker.protocol.edge import check_depth
from broker.stats import Stats
from broker.tasks import spawn

__all__ = ["APPLICATION", "Facade"]

APPLICATION: Final = "application"
"""Whose it is what no plugin has registered."""
SENDER: Final = b'{"connection_id":null,"user":null}'
ASK_SECONDS: Final = 10.0
SPAWNED: Final = 1000
"""Background tasks that run the same code, and so are one plugin's; more are a leak (PROTOCOL P7)."""


@attrs.define(eq=False)
class _Behind:
    """What is behind a broker's facades, all the same for each of them.

    Attributes:
        registered: handlers and listeners.
        registry: the actor that is asked; None before there are any.
        largest: bytes of an event that is published; None for no limit.
        asleep: whether nothing is to run in the background: not yet, or not any more.
        tasks: background tasks, by the code that they run.
        spawned: how many of each.
    """

    registered: Registered
    registry: LoopRef[Registry] | None = None
    largest: int | None = None
    asleep: bool = False
    tasks: dict[Task[Any], CodeType | None] = attrs.Factory(dict)
    spawned: Counter[CodeType | None] = attrs.Factory(Counter)


class Facade:
    """One broker, as those see it who ask it for something. Made before the actors are, and given them later.

    Args:
        stats: the broker's counters.
        clock: time.
        reserved: names that no handler may have.
        asleep: whether nothing may run in the background before there is an actor behind it.
    """

    def __init__(self, stats: Stats, clock: Clock, *, reserved: Collection[str] = (), asleep: bool = False) -> None:
        self._stats = stats
        self._clock = clock
        self._owner = APPLICATION
        self._behind = _Behind(Registered(reserved), asleep=asleep)

    def of(self, plugin: str) -> "Facade":
        """Return the same broker as one plugin sees it, whose name is on what it registers."""
        view = Facade(self._stats, self._clock)
        view._owner, view._behind = plugin, self._behind
        return view

    def connect_hooks(self, hooks: Hooks) -> None:
        """Put among the hooks what was registered, and what will be.

        Raises:
            PluginRefused: a handler has the name of a plugin's action.
        """
        self._behind.registered.connect(hooks)

    def connect(self, registry: LoopRef[Registry], *, largest: int | None = None) -> None:
        """Give the facade the actor behind it, and say how many bytes an event may have that is published."""
        self._behind.registry = registry
        self._behind.largest = largest
        self._behind.asleep = False

    @property
    def version(self) -> str:
        """The broker's version."""
        return __version__

    @property
    def stats(self) -> Stats:
        """The broker's counters."""
        return self._stats

    def now(self) -> int:
        """Return the wall clock's milliseconds since the epoch."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self._clock.monotonic()

    async def connections(self) -> Sequence[Peer]:
        """Return who is connected now."""
        return cast("list[Peer]", await self._ask(Peers()))

    async def send(self, to: str | Sequence[str], data: Any) -> int:
        """Send notification `message` to a connection, or to several, by id; return how many of them there were."""
        return cast("int", await self._ask(SendTo(_several(to), (), SENDER, to_json(data))))

    async def send_to_user(self, to: str | Sequence[str], data: Any) -> int:
        """Send notification `message` to all connections of a user, or of several; return how many there were."""
        return cast("int", await self._ask(SendTo((), _several(to), SENDER, to_json(data))))

    async def broadcast(self, data: Any) -> int:
        """Send notification `broadcast` to every connection; return how many there were."""
        return cast("int", await self._ask(ToAll(SENDER, to_json(data))))

    async def publish(self, room: str, event: str, data: Any) -> int | None:
        """Publish an event to a room; return its number in the room's log, None for a room without one.

        Raises:
            BrokerError: `invalid_message` for a name that rooms or events cannot have, `too_large` for more than a
                client may send.
        """
        published = self._checked(room, event, to_json(data))
        answer = await self._ask(ToRoom(room, published))
        return cast("int | None", answer.get("seq"))

    def _checked(self, room: str, event: str, data: bytes) -> Publish:
        """Return what is to be published, looked at as if a client published it: members and the store have to bear it.

        Raises:
            BrokerError: `invalid_message`, `too_large`.
        """
        wanted = payloads.convert(payloads.Publish, {"room": room, "event": event})
        check_name(wanted.room, "$.payload.room")
        check_name(wanted.event, "$.payload.event")
        most = self._behind.largest
        if most is not None and len(data) > most:
            raise BrokerError("too_large", f"An event has at most {most} bytes.", field="$.payload.data")
        check_depth(data)
        return Publish(ANONYMOUS, SENDER, event, data)

    async def disconnect(
        self,
        whom: Callable[[Peer], bool],
        code: CloseCode = CloseCode.DISCONNECTED_BY_OPERATOR,
        reason: str | None = None,
    ) -> int:
        """Close the connections that `whom` picks; return how many there were."""
        return cast("int", await self._ask(HangSome(whom, code, reason)))

    def register_handler(
        self, kind: str, handler: MessageHandler, *, timeout: float | None = None, replace: bool = False
    ) -> None:
        """Have `handler` answer the clients' messages of a kind; see `broker.hooks.Broker.register_handler`."""
        action = handling(self._owner, kind, handler, self, timeout)
        self._behind.registered.handle(action, replace=replace)

    def on(self, event: Event, listener: Callable[..., Any]) -> Callable[[], None]:
        """Have `listener` called for each event of a kind; see `broker.hooks.Broker.on`."""
        return self._behind.registered.listen(self._owner, event, listener)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> Task[Any]:
        """Run `work` in the background: named, its failure logged, cancelled when the broker stops.

        Raises:
            RuntimeError: a program's broker has not started yet.
            BrokerError: `unavailable`: it has stopped; `overloaded`: a thousand of this kind are under way; whoever
                starts them forgets to end them.
        """
        if self._behind.asleep:
            work.close()
            raise self._absent()
        kind = getattr(work, "cr_code", None)
        if self._behind.spawned[kind] >= SPAWNED:
            work.close()
            limited(("spawn", kind)).error("a plugin has {} tasks like {!r} under way and gets no more", SPAWNED, name)
            raise BrokerError("overloaded", "Too much is under way in the background already.", retry_after=1.0)
        task = spawn(contained(work), name=name)
        task.add_done_callback(lambda _: discard(work))
        self._behind.spawned[kind] += 1
        self._behind.tasks[task] = kind
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: Task[Any]) -> None:
        kind = self._behind.tasks.pop(task)
        self._behind.spawned[kind] -= 1
        if not self._behind.spawned[kind]:
            del self._behind.spawned[kind]

    def cancel_spawned(self) -> None:
        """Cancel what was spawned and still runs, and take no more."""
        self._behind.asleep = True
        for task in list(self._behind.tasks):
            task.cancel()

    async def _ask(self, message: Any) -> Any:
        registry = self._behind.registry
        if registry is None or not registry.is_alive():
            raise self._absent()
        return await registry.ask(message, timeout=ASK_SECONDS)

    def _absent(self) -> Exception:
        """Return why there is nobody to ask."""
        if self._behind.registry is None:
            return RuntimeError("the broker can be asked once it starts: a plugin from its start() on")
        return BrokerError("unavailable", "The broker has stopped.")


def _several(to: str | Sequence[str]) -> tuple[str, ...]:
    return (to,) if isinstance(to, str) else tuple(to)
