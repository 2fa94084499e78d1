"""The same time for everybody: who waits too long is told so, with one timer for all of them."""

from collections import OrderedDict
from typing import Final, Protocol

from aiohttp import web

from broker.clock import Clock, Timer

__all__ = ["UNFINISHED", "Deadlines", "Late"]

GRAIN: Final = 0.1
"""Seconds by which somebody may be told too late, so that a crowd does not set a timer each."""


class Late(Protocol):
    """Something that may have to end."""

    def late(self) -> None:
        """Be told that the time is up."""


class Deadlines:
    """Those that have `seconds` from the moment they are added, in the order in which they came.

    Args:
        seconds: how long each has.
        clock: time.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._due: OrderedDict[Late, float] = OrderedDict()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, one: Late) -> bool:
        return one in self._due

    def add(self, one: Late) -> None:
        """Tell this one when its time is up, counted from now."""
        self._due[one] = self._clock.monotonic() + self._seconds
        self._due.move_to_end(one)
        self._arm()

    def discard(self, one: Late) -> None:
        """Let this one be: it has come, or is gone."""
        self._due.pop(one, None)

    def pop(self) -> Late | None:
        """Take out the one whose time is up next; None if there is nobody."""
        return self._due.popitem(last=False)[0] if self._due else None

    def stop(self) -> None:
        """Tell nobody any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is None and self._due:
            wait = next(iter(self._due.values())) - self._clock.monotonic()
            self._timer = self._clock.call_later(max(wait, GRAIN), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        while self._due:
            one, due = next(iter(self._due.items()))
            if due > now:
                break
            del self._due[one]
            one.late()
        self._arm()


UNFINISHED: Final = web.AppKey("unfinished", Deadlines)
"""Those that read a message of which the rest has not come."""
