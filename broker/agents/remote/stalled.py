"""Turns whose agent is not there for the moment: each waits a while for it to come back."""

from collections.abc import Callable, Iterator
from functools import partial

from broker.agents.remote.job import Job
from broker.clock import Clock, Timer
from broker.messages import LinkStalled

__all__ = ["Stalled"]


class Stalled:
    """The turns of a pool that wait for their agents.

    Args:
        seconds: how long each of them waits (`reattach` of PROTOCOL section 4).
        clock: time.
        lost: told of a turn that has waited in vain, and why it is lost.
    """

    def __init__(self, seconds: float, clock: Clock, lost: Callable[[Job, str], None]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lost = lost
        self._jobs: dict[str, tuple[Job, Timer]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter([job for job, _ in self._jobs.values()])

    def __contains__(self, job: Job) -> bool:
        return self.find(job.turn_id) is job

    def find(self, turn_id: str) -> Job | None:
        """Return the turn of this id, if it waits here."""
        found = self._jobs.get(turn_id)
        return None if found is None else found[0]

    def put(self, job: Job, reason: str) -> None:
        """Have a turn wait, since the link to its agent broke for this reason."""
        late = f"{reason}, and did not come back within {self._seconds:g} s"
        timer = self._clock.call_later(self._seconds, partial(self._give_up, job, late))
        self._jobs[job.turn_id] = (job, timer)
        job.emit(LinkStalled(job.turn_id, reason))

    def remove(self, job: Job) -> bool:
        """Wait no more for this one; tell whether it did."""
        if job not in self:
            return False
        _, timer = self._jobs.pop(job.turn_id)
        timer.cancel()
        return True

    def _give_up(self, job: Job, reason: str) -> None:
        if self.remove(job):
            self._lost(job, reason)
