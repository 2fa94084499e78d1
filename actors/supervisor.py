"""Who starts actors, replaces those that fail, and stops all of them in the end."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

import pykka
from loguru import logger

from broker.actors.loop import LoopActor
from broker.actors.ref import LoopRef
from broker.clock import Clock, Deadline

__all__ = ["Supervisor"]

A = TypeVar("A", bound=LoopActor)

RESTARTS: Final = 5
"""Failures of one actor that are forgiven ..."""
WITHIN: Final = 60.0
"""... within so many seconds; one more and it stays dead, so that a broken one cannot spin."""
DELAYS: Final = (0.0, 0.1, 0.4, 1.6)
"""Seconds before the first, second ... of them is made good, and every later one: what broke it may need a moment."""
STOP_SECONDS: Final = 2.0
"""How long one actor may take to stop before the next is stopped all the same."""


class _Child:
    __slots__ = ("failures", "make", "on_death")

    def __init__(self, make: Callable[[], LoopActor], on_death: Callable[[], None] | None) -> None:
        self.make = make
        self.on_death = on_death
        self.failures: deque[float] = deque(maxlen=RESTARTS + 1)


class Supervisor:
    """Starts actors and keeps them going; one per broker.

    Args:
        clock: time.
        failures: where those of its actors are counted, by class.
    """

    def __init__(self, clock: Clock, failures: Counter[str] | None = None) -> None:
        self._clock = clock
        self._failures = Counter() if failures is None else failures
        self._children: dict[LoopRef[Any], _Child] = {}

    def start(self, make: Callable[[], A], *, on_death: Callable[[], None] | None = None) -> LoopRef[A]:
        """Start an actor made by `make`, which is called again for each replacement.

        Args:
            make: returns a fresh actor in its first state.
            on_death: told when the actor has failed too often and stays dead.
        """
        actor = make()
        ref: LoopRef[A] = actor.actor_ref
        self._children[ref] = _Child(make, on_death)
        actor.supervised_by(self._failed)
        actor.begin()
        return ref

    def forget(self, ref: LoopRef[Any]) -> None:
        """Let go of an actor that stops by itself."""
        self._children.pop(ref, None)

    def mailboxes(self) -> Iterator[tuple[str, int]]:
        """Yield each actor's class and how many messages wait for it; may be walked while actors come and go."""
        for ref in list(self._children):
            yield _kind(ref), len(ref.actor_inbox)

    async def stop(self, deadline: Deadline | None = None) -> None:
        """Stop all actors, the youngest first, each after the mail it already has, by the deadline at the latest."""
        by = deadline or Deadline(self._clock, math.inf)
        while self._children:
            ref, _ = self._children.popitem()
            seconds = by.share(STOP_SECONDS)
            try:
                if not await ref.stop(timeout=seconds):
                    ref.give_up()  # it failed, and waited to be started again
            except pykka.Timeout:
                logger.warning("{} did not stop within {:.2g} s", ref, seconds)

    def _failed(self, ref: LoopRef[Any], error: BaseException) -> None:
        child = self._children.get(ref)
        if child is None:
            ref.give_up()
            return
        self._failures[_kind(ref)] += 1
        now = self._clock.monotonic()
        child.failures.append(now)
        if len(child.failures) > RESTARTS and now - child.failures[0] < WITHIN:
            logger.error("{} failed {} times within {:g} s and stays stopped: {!r}", ref, RESTARTS + 1, WITHIN, error)
            del self._children[ref]
            ref.give_up()
            if child.on_death is not None:
                child.on_death()
            return
        recent = sum(now - failure < WITHIN for failure in child.failures)
        delay = DELAYS[min(recent, len(DELAYS)) - 1]
        if not delay:
            logger.warning("{} is started again after {!r}", ref, error)
            self._restart(ref)
            return
        logger.warning("{} is started again in {:g} s after {!r}", ref, delay, error)
        self._clock.call_later(delay, partial(self._restart, ref))

    def _restart(self, ref: LoopRef[Any]) -> None:
        """Put a fresh actor behind a reference, unless it was let go of meanwhile."""
        child = self._children.get(ref)
        if child is None:
            ref.give_up()
            return
        actor = child.make()
        ref.replace(actor)
        actor.supervised_by(self._failed)
        actor.begin()


def _kind(ref: LoopRef[Any]) -> str:
    return ref.actor_class.__name__.lower()
