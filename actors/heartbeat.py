"""Heartbeats: one timer for all connections, however many there are.

Connections sit in the slots of a wheel. Each tick pings one slot and looks at the one that was
pinged `timeout` before; so a connection costs nothing between its pings, and all of them together
are spread over the interval. Whoever has said nothing for too long is noticed in passing.
"""

from typing import Final

from broker.actors.connection import Connection
from broker.actors.ref import LoopRef
from broker.clock import Clock, Timer

__all__ = ["Heartbeats"]

SLOTS: Final = 60
"""More slots spread the pings finer; the tick is the interval divided by this."""


class Heartbeats:
    """The wheel.

    Args:
        interval: seconds between the pings of one connection.
        timeout: seconds it has to answer one; less than the interval.
        clock: time.
        idle: seconds without a message after which a connection is closed (`Connection.check_idle`); 0 for never.
    """

    def __init__(self, interval: float, timeout: float, clock: Clock, idle: float = 0.0) -> None:
        self._idle = idle
        self._tick_seconds = interval / SLOTS
        self._behind = max(1, min(SLOTS - 1, round(timeout / self._tick_seconds)))
        self._clock = clock
        self._slots: list[set[LoopRef[Connection]]] = [set() for _ in range(SLOTS)]
        self._slot_of: dict[LoopRef[Connection], int] = {}
        self._at = 0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to turn."""
        self._timer = self._clock.call_later(self._tick_seconds, self._turn)

    def stop(self) -> None:
        """Stop turning."""
        if self._timer is not None:
            self._timer.cancel()

    def add(self, ref: LoopRef[Connection]) -> None:
        """Ping a connection from now on; the first time one interval from now."""
        self._slot_of[ref] = self._at
        self._slots[self._at].add(ref)

    def remove(self, ref: LoopRef[Connection]) -> None:
        """Leave a connection alone."""
        slot = self._slot_of.pop(ref, None)
        if slot is not None:
            self._slots[slot].discard(ref)

    def _turn(self) -> None:
        self._timer = self._clock.call_later(self._tick_seconds, self._turn)
        self._at = (self._at + 1) % SLOTS
        for ref in list(self._slots[(self._at - self._behind) % SLOTS]):
            if connection := ref.actor:
                connection.check_pong()
        for ref in list(self._slots[self._at]):
            if connection := ref.actor:
                connection.ping()
                if self._idle:
                    connection.check_idle(self._clock.monotonic(), self._idle)
