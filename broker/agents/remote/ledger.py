"""What a pool knows of turns by their ids: those under way, and for a while those that are over."""

from collections import OrderedDict
from typing import Final

from broker.agents.remote.job import Job

__all__ = ["PAST", "Ledger"]

PAST: Final = 1000
"""Turns that are over and remembered, so that what their agents still say of them is known as late."""


class Ledger:
    """The turns that a pool was given."""

    def __init__(self) -> None:
        self._open: dict[str, Job] = {}
        self._past: OrderedDict[str, Job] = OrderedDict()

    def find(self, turn_id: str) -> Job | None:
        """Return the turn of this id, under way or over."""
        return self._open.get(turn_id) or self._past.get(turn_id)

    def add(self, job: Job) -> None:
        """Know of a turn from now on."""
        self._open[job.turn_id] = job

    def strike(self, job: Job) -> None:
        """End a turn and forget it: no agent knows of it."""
        job.end()
        if self._open.get(job.turn_id) is job:
            del self._open[job.turn_id]

    def file(self, job: Job) -> None:
        """End a turn and remember it for a while, unless the pool was never given it."""
        self.strike(job)
        if job.session_id:
            self._past[job.turn_id] = job
        if len(self._past) > PAST:
            self._past.popitem(last=False)
