"""Where the actors of sessions and rooms live: the registry's book of them, and how they are let go."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
import pykka

from broker.actors.following import FollowAnswer, Unfollowing
from broker.actors.futures import ReplyTo
from broker.actors.lifecycle import Gone, MayStop, Sweep
from broker.actors.log import LogActor
from broker.actors.ref import InboxFull, LoopRef
from broker.actors.supervisor import Supervisor
from broker.errors import BrokerError
from broker.operations import Parting
from broker.stats import Stats
from broker.tasks import spawn

__all__ = ["Places", "Stopped"]

ROOM_IDLE: Final = 60.0
"""Seconds an empty room stays in memory."""


@attrs.frozen
class Stopped:
    """A session or room has left memory (`gone`), or has turned out to be needed."""

    log: str
    gone: bool


@attrs.define(eq=False)
class _Place:
    """Where a log's actor lives; while it is being let go, what comes for it is held."""

    ref: LoopRef[Any]
    held: list[tuple[Callable[[], None], ReplyTo]] | None = None


class Places:
    """The book, by the name of the log; used by the registry alone.

    Args:
        supervisor: starts the actors.
        stats: where they are counted.
        make: returns the actor of a log, to be loaded from the store.
        lost: told of a log whose actor failed too often and stays dead.
        tell: tells the registry something, later.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        stats: Stats,
        make: Callable[[str], LogActor],
        lost: Callable[[str], None],
        tell: Callable[[Any], None],
    ) -> None:
        self._supervisor = supervisor
        self._stats = stats
        self._make = make
        self._lost = lost
        self._tell = tell
        self._places: dict[str, _Place] = {}

    def __contains__(self, log: str) -> bool:
        return log in self._places

    def live(self) -> dict[str, LoopRef[Any]]:
        """Return the actors by the name of their log."""
        return {log: place.ref for log, place in self._places.items()}

    def open(self, log: str, make: Callable[[], LogActor] | None = None) -> None:
        """Start the actor of a log that has none."""
        ref = self._supervisor.start(make or partial(self._make, log), on_death=partial(self._died, log))
        self._places[log] = _Place(ref)
        self._count(log, 1)

    def forward(self, log: str, operation: Any, reply_to: ReplyTo) -> None:
        """Hand an operation to the actor of a log, which is started if need be: not for those who only leave."""
        if self.wait(log, partial(self.forward, log, operation, reply_to), reply_to):
            return
        if log not in self._places:
            if isinstance(operation, Parting):
                reply_to.set(FollowAnswer({}, Unfollowing(log)))
                return
            self.open(log)
        _hand(self._places[log].ref, operation, reply_to)

    def wait(self, log: str, go_on: Callable[[], None], reply_to: ReplyTo) -> bool:
        """Have something wait for an actor that is being let go: until it has left, or has turned out to be needed.

        Args:
            log: whose actor.
            go_on: goes on then, in the order of what waits.
            reply_to: told if the actor fails instead.

        Returns:
            Whether there is such an actor; otherwise nothing waits.
        """
        place = self._places.get(log)
        if place is None or place.held is None:
            return False
        place.held.append((go_on, reply_to))
        return True

    def sweep(self, idle_after: float) -> None:
        """Have every actor look whether it can leave memory; sessions after `idle_after` seconds, rooms sooner."""
        session, room = Sweep(idle_after), Sweep(min(ROOM_IDLE, idle_after))
        for log, place in self._places.items():
            if place.held is None and place.ref.is_alive():
                place.ref.tell(room if log.startswith("room:") else session, urgent=True)

    def let_go(self, message: Gone) -> None:
        """Stop an actor that is not needed; what comes for its log meanwhile is held."""
        place = self._places.get(message.log)
        if place is not None and place.ref is message.ref and place.held is None:
            place.held = []
            spawn(self._ask_to_stop(message), name=f"let go of {message.log}")

    def stopped(self, message: Stopped) -> None:
        """Go on with what was held: with a fresh actor if the old one has stopped."""
        place = self._places.get(message.log)
        if place is None:
            return
        held, place.held = place.held or [], None
        if message.gone:
            self._supervisor.forget(place.ref)
            del self._places[message.log]
            self._count(message.log, -1)
        for go_on, _ in held:
            go_on()

    async def _ask_to_stop(self, message: Gone) -> None:
        try:
            gone = await message.ref.ask(MayStop())
            if gone:
                await message.ref.stop()
        except pykka.ActorDeadError:
            gone = True
        except InboxFull:
            gone = False
        self._tell(Stopped(message.log, gone))

    def _died(self, log: str) -> None:
        place = self._places.pop(log, None)
        if place is None:
            return
        self._count(log, -1)
        error = BrokerError("unavailable", "It failed; try again.", retry_after=1.0)
        for _, reply_to in place.held or ():
            reply_to.set_exception((BrokerError, error, None))
        self._lost(log)

    def _count(self, log: str, change: int) -> None:
        if log.startswith("room:"):
            self._stats.rooms += change
        else:
            self._stats.sessions += change


def _hand(ref: LoopRef[Any], operation: Any, reply_to: ReplyTo) -> None:
    """Hand an operation on; where there is no room, its sender is told (P8)."""
    error: BrokerError
    try:
        ref.request(operation, reply_to)
    except InboxFull:
        error = BrokerError("overloaded", "Too much is waiting there already.", retry_after=1.0)
    except pykka.ActorDeadError:
        error = BrokerError("unavailable", "It is being stopped; try again.", retry_after=1.0)
    else:
        return
    reply_to.set_exception((BrokerError, error, None))
