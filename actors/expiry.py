"""The end of what somebody was let in with: one timer for all, however many there are (PROTOCOL 2c, code 4001).

Two clocks are watched, and whichever says so first ends it: the wall clock that passes `expires_at`, and the clock that
never jumps, once the time has passed that was left when it was accepted. So a wall clock that is set back prolongs
nobody's stay, and one that is set forward ends what it says is over.
"""

from typing import Final, Protocol

from broker.clock import Clock, Timer

__all__ = ["TICK_SECONDS", "Expiry", "Guest"]

TICK_SECONDS: Final = 0.5
"""How often the clocks are looked at; what has expired ends within a second, so twice in one."""
_NEVER: Final = float("inf")


class Guest(Protocol):
    """Somebody who was let in for a time."""

    def expire(self) -> None:
        """Leave: the time is over."""


class Expiry:
    """The stays that end.

    They are all looked at only when the one that ends first may be over: a guest costs a row in a table, and one that
    stays or leaves costs its entry or removal. Nothing is set or cancelled for any of them.

    Args:
        clock: time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stays: dict[Guest, tuple[int, float]] = {}  # until when: by the wall clock, and by the steady one
        self._first_wall: float = _NEVER  # no stay ends before these two; they may be too early, never too late
        self._first_steady = _NEVER
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """Return how many are watched."""
        return len(self._stays)

    def watch(self, guest: Guest, expires_at: int | None) -> None:
        """Have a guest leave at its time, instead of at any earlier said one.

        Args:
            guest: who.
            expires_at: milliseconds since the epoch; None for one that may stay.
        """
        self._stays.pop(guest, None)
        if expires_at is None:
            return
        steady = self._clock.monotonic() + (expires_at - self._clock.now()) / 1000
        self._stays[guest] = (expires_at, steady)
        self._first_wall = min(self._first_wall, expires_at)
        self._first_steady = min(self._first_steady, steady)
        if self._timer is None:
            self._timer = self._clock.call_later(TICK_SECONDS, self._look)

    def forget(self, guest: Guest) -> None:
        """Leave a guest alone; nothing happens if it was not watched."""
        self._stays.pop(guest, None)

    def _look(self) -> None:
        wall, steady = self._clock.now(), self._clock.monotonic()
        if wall >= self._first_wall or steady >= self._first_steady:
            self._end(wall, steady)
        self._timer = self._clock.call_later(TICK_SECONDS, self._look) if self._stays else None

    def _end(self, wall: int, steady: float) -> None:
        over = [guest for guest, (at, until) in self._stays.items() if wall >= at or steady >= until]
        for guest in over:
            del self._stays[guest]
        self._first_wall = min((at for at, _ in self._stays.values()), default=_NEVER)
        self._first_steady = min((until for _, until in self._stays.values()), default=_NEVER)
        for guest in over:
            guest.expire()
