"""The way to an agent, as those need it who have something to say to it."""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

__all__ = ["Outlet"]


class Outlet(Protocol):
    """The way to an agent. Nothing of it blocks or raises, whatever state the way is in.

    Attributes:
        heartbeat: seconds between two looks whether there is still somebody at its other end.
        on_room: called when it is not full any more.
        errors: those that are sent over it are counted here, by code.
    """

    heartbeat: float
    on_room: Callable[[], None]
    errors: Counter[str]

    @property
    def full(self) -> bool:
        """Return whether so much waits in it that what can wait elsewhere should."""

    def send(self, frame: bytes) -> None:
        """Send a frame, behind those before it."""

    def pause(self) -> None:
        """Read nothing more, until `resume`."""

    def resume(self) -> None:
        """Read again."""

    def close(self, code: int, reason: str) -> None:
        """Say good-bye, behind what was said before; the way ends soon after, answered or not."""
