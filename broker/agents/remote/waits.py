"""Turns that wait for their agent, to come back or to let go of them: each so long and no longer."""

from collections.abc import Callable, Iterator
from functools import partial

from broker.agents.remote.job import Job
from broker.clock import Clock, Timer

__all__ = ["Waits"]


class Waits:
    """Turns that wait, in the order in which they began to.

    Args:
        seconds: how long each of them waits.
        clock: time.
        late: told of a turn that has waited in vain.
    """

    def __init__(self, seconds: float, clock: Clock, late: Callable[[Job], None]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._late = late
        self._timers: dict[Job, Timer] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._timers))

    def __contains__(self, job: Job) -> bool:
        return job in self._timers

    def put(self, job: Job) -> None:
        """Have a turn wait; one that does already goes on as it was."""
        if job not in self._timers:
            self._timers[job] = self._clock.call_later(self._seconds, partial(self._give_up, job))

    def remove(self, job: Job) -> bool:
        """Wait no more for this one; tell whether it did."""
        timer = self._timers.pop(job, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def _give_up(self, job: Job) -> None:
        if self.remove(job):
            self._late(job)
