"""What plugins may ask of the broker: `broker.hooks.Broker`, by way of the actors."""

from asyncio import Task
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from types import CodeType
from typing import Any, Final, cast

from broker import __version__
from broker.actors.ref import LoopRef
from broker.actors.registry import Registry
from broker.actors.requests import HangSome, Peers, SendTo, ToAll, ToRoom
from broker.clock import Clock
from broker.errors import BrokerError, CloseCode
from broker.extensions.fence import contained, discard
from broker.extensions.offers import to_json
from broker.hooks import Peer
from broker.logs import limited
from broker.messages import ANONYMOUS
from broker.operations import Publish
from broker.stats import Stats
from broker.tasks import spawn

__all__ = ["Facade"]

SENDER: Final = b'{"connection_id":null,"user":null}'
ASK_SECONDS: Final = 10.0
SPAWNED: Final = 1000
"""Background tasks that run the same code, and so are one plugin's; more are a leak (PROTOCOL P7)."""


class Facade:
    """One broker, as its plugins see it. Made before the actors are; given them with `connect`."""

    def __init__(self, stats: Stats, clock: Clock) -> None:
        self._stats = stats
        self._clock = clock
        self._registry: LoopRef[Registry] | None = None
        self._tasks: dict[Task[Any], CodeType | None] = {}
        self._spawned: Counter[CodeType | None] = Counter()

    def connect(self, registry: LoopRef[Registry]) -> None:
        """Give the facade the actor behind it."""
        self._registry = registry

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

    async def send(self, connection_ids: Sequence[str], data: Any) -> int:
        """Send notification `message` to these connections; return how many of them there were."""
        return cast("int", await self._ask(SendTo(tuple(connection_ids), (), SENDER, to_json(data))))

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

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> Task[Any]:
        """Run `work` in the background: named, its failure logged, cancelled when the broker stops.

        Raises:
            BrokerError: `overloaded`: a thousand of this kind are under way; whoever starts them forgets to end them.
        """
        kind = getattr(work, "cr_code", None)
        if self._spawned[kind] >= SPAWNED:
            work.close()
            limited(("spawn", kind)).error("a plugin has {} tasks like {!r} under way and gets no more", SPAWNED, name)
            raise BrokerError("overloaded", "Too much is under way in the background already.", retry_after=1.0)
        task = spawn(contained(work), name=name)
        task.add_done_callback(lambda _: discard(work))
        self._spawned[kind] += 1
        self._tasks[task] = kind
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: Task[Any]) -> None:
        kind = self._tasks.pop(task)
        self._spawned[kind] -= 1
        if not self._spawned[kind]:
            del self._spawned[kind]

    def stop(self) -> None:
        """Cancel what plugins left running."""
        for task in list(self._tasks):
            task.cancel()

    async def _ask(self, message: Any) -> Any:
        if self._registry is None:
            raise RuntimeError("a plugin may ask the broker from its start() on, not while it is being made")
        return await self._registry.ask(message, timeout=ASK_SECONDS)
