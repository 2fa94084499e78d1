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
        tasks: background tasks, by the code that they run.
        spawned: how many of each.
    """

    registered: Registered
    registry: LoopRef[Registry] | None = None
    tasks: dict[Task[Any], CodeType | None] = attrs.Factory(dict)
    spawned: Counter[CodeType | None] = attrs.Factory(Counter)


class Facade:
    """One broker, as those see it who ask it for something. Made before the actors are, and given them later.

    Args:
        stats: the broker's counters.
        clock: time.
        reserved: names that no handler may have.
    """

    def __init__(self, stats: Stats, clock: Clock, *, reserved: Collection[str] = ()) -> None:
        self._stats = stats
        self._clock = clock
        self._owner = APPLICATION
        self._behind = _Behind(Registered(reserved))

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

    def connect(self, registry: LoopRef[Registry]) -> None:
        """Give the facade the actor behind it."""
        self._behind.registry = registry

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
        """Publish an event to a room; return its number in the room's log, None for a room without one."""
        answer = await self._ask(ToRoom(room, Publish(ANONYMOUS, SENDER, event, to_json(data))))
        return cast("int | None", answer.get("seq"))

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
            BrokerError: `overloaded`: a thousand of this kind are under way; whoever starts them forgets to end them.
        """
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
        """Cancel what was spawned and still runs."""
        for task in list(self._behind.tasks):
            task.cancel()

    async def _ask(self, message: Any) -> Any:
        registry = self._behind.registry
        if registry is None:
            raise RuntimeError("the broker can be asked once it starts: a plugin from its start() on")
        if not registry.is_alive():
            raise BrokerError("unavailable", "The broker has stopped.")
        return await registry.ask(message, timeout=ASK_SECONDS)


def _several(to: str | Sequence[str]) -> tuple[str, ...]:
    return (to,) if isinstance(to, str) else tuple(to)
