"""Where a reply went: for each recent turn, what was done with it, by whom and when.

A ring in memory, fed by every actor on the way. It holds ids, times and reasons, never what was said.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["Step", "Trace", "Traces"]

TRACES: Final = 10_000
"""Turns and failed requests that are remembered; the oldest is forgotten first."""
STEPS: Final = 200
"""Steps kept of one of them; the first half and the newest, since both its beginning and its end matter."""


@attrs.define
class Step:
    """Something that was done.

    Attributes:
        at: when, in milliseconds since the epoch.
        where: who did it: `socket`, `session`, `store`, `bridge`, `agent`, ...
        what: a word for it, such as `accepted`.
        reason: why, in words, where it did not simply go on.
    """

    at: int
    where: str
    what: str
    reason: str | None = None


@attrs.define
class Trace:
    """All that is remembered of one turn, or of one request that failed.

    Attributes:
        ids: what it is known by: `turn_id`, `client_msg_id`, `session_id`, `trace_id`, ...
        steps: in the order in which they happened.
    """

    ids: dict[str, str]
    steps: list[Step] = attrs.Factory(list)


class Traces:
    """The traces of one broker.

    Args:
        now: the wall clock, milliseconds since the epoch.
        most: traces that are kept.
    """

    def __init__(self, now: Callable[[], int], most: int = TRACES) -> None:
        self._now = now
        self._most = most
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._known_as: dict[str, str] = {}

    def begin(self, trace_id: str, **ids: str | None) -> None:
        """Begin the trace `trace_id` (a turn's id, or one of its own); it is found by each of `ids` as well."""
        if trace_id not in self._traces:
            self._traces[trace_id] = Trace({})
            if len(self._traces) > self._most:
                self._forget()
        trace = self._traces[trace_id]
        for name, value in ids.items():
            if value is not None:
                trace.ids[name] = value
                if name != "session_id":
                    self._known_as[value] = trace_id

    def note(self, trace_id: str, where: str, what: str, reason: str | None = None) -> None:
        """Add a step to a trace; one that is not remembered any more is left alone."""
        trace = self._traces.get(trace_id)
        if trace is None:
            return
        if len(trace.steps) >= STEPS:
            del trace.steps[STEPS // 2]
        trace.steps.append(Step(self._now(), where, what, reason))

    def find(self, some_id: str) -> Trace | None:
        """Return the trace of a turn, a message or a request that failed; None if none is remembered."""
        return self._traces.get(some_id) or self._traces.get(self._known_as.get(some_id, ""))

    def _forget(self) -> None:
        oldest, trace = self._traces.popitem(last=False)
        for value in trace.ids.values():
            if self._known_as.get(value) == oldest:
                del self._known_as[value]
