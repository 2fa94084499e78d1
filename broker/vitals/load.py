"""Whether new work is welcome: not while memory is short, the store is behind, or the broker is about to stop.

Work in hand goes on in any case (PROTOCOL P8): what ends something, such as cancelling, is never refused.
"""

from collections.abc import Callable
from typing import Final

from broker.errors import BrokerError

__all__ = ["GUARDED", "Load"]

STARTS: Final = frozenset({"session.create", "session.open", "turn.start"})
"""What a broker that is about to stop does not begin."""
GROWS: Final = STARTS | {"connect", "project.feedback", "room.join", "session.attach"}
"""What takes memory for as long as it is there."""
WRITES: Final = STARTS | {
    *("room.publish", "session.configure", "session.share", "session.update"),
    *("turn.drop", "turn.edit"),
}
"""What waits in memory until the store has taken it."""
RETRY_SECONDS: Final = 2.0


GUARDED: Final = GROWS | WRITES
"""All that may be refused."""


def _no() -> bool:
    return False


def _none(_: str) -> bool:
    return False


class Load:
    """Refuses what there is no room for.

    Args:
        memory_short: tells whether the process has more memory than it may.
        store_behind: tells whether more waits for the store than may.
        is_live: tells of a session's id whether it is in memory already, so that one more viewer takes nothing.

    Attributes:
        stopping: whether the broker is about to stop.
    """

    def __init__(
        self,
        memory_short: Callable[[], bool] = _no,
        store_behind: Callable[[], bool] = _no,
        is_live: Callable[[str], bool] = _none,
    ) -> None:
        self.memory_short = memory_short
        self.store_behind = store_behind
        self.stopping = False
        self._is_live = is_live

    def check(self, operation: str, resource: str | None = None) -> None:
        """Refuse an operation that there is no room for.

        Args:
            operation: a name of PROTOCOL 2a, or `connect` for a new connection.
            resource: what it is about.

        Raises:
            BrokerError: `unavailable` if the broker stops, otherwise `overloaded`.
        """
        looks = self._is_only_looking(operation, resource)
        if self.stopping and operation in STARTS and not looks:
            raise BrokerError("unavailable", "The broker is about to restart.", retry_after=RETRY_SECONDS)
        if operation in GROWS and self.memory_short() and not looks:
            raise BrokerError("overloaded", "The broker is short of memory.", retry_after=RETRY_SECONDS)
        if operation in WRITES and self.store_behind() and not looks:
            raise BrokerError("overloaded", "The store is behind.", retry_after=RETRY_SECONDS)

    def _is_only_looking(self, operation: str, resource: str | None) -> bool:
        return operation in {"session.attach", "session.open"} and resource is not None and self._is_live(resource)

    def trouble(self) -> str | None:
        """Return why new work is not welcome; None if it is."""
        if self.memory_short():
            return "The broker is short of memory."
        return "The store is behind." if self.store_behind() else None
