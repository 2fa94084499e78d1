"""The order of what one client asks about one thing, while plugins have to be waited for."""

from collections import deque
from collections.abc import Callable

import attrs

__all__ = ["Lanes"]


@attrs.define(eq=False)
class _Lane:
    held: int = 0
    behind: deque[Callable[[], None]] = attrs.Factory(deque)


class Lanes:
    """What waits behind a request that is being looked at by a gate, or is under way itself: one lane for each thing.

    Without them a message whose gate has to ask somebody would be overtaken by the next, whose gate knows the answer.
    """

    __slots__ = ("_lanes",)

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    def busy(self, about: str) -> bool:
        """Tell whether something is under way about this."""
        return about in self._lanes

    def queue(self, about: str, go_on: Callable[[], None]) -> None:
        """Have `go_on` wait behind what is under way about this."""
        self._lanes[about].behind.append(go_on)

    def hold(self, about: str) -> None:
        """Have what comes about this wait, until `release`."""
        self._lanes.setdefault(about, _Lane()).held += 1

    def release(self, about: str) -> None:
        """Let what waited go on, one after the other, until one of them holds the lane again."""
        lane = self._lanes[about]
        lane.held -= 1
        while not lane.held and lane.behind:
            lane.behind.popleft()()
        if not lane.held:
            del self._lanes[about]
