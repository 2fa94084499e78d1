"""The places of one agent profile: which session's turn has one, and who waits, in the order of asking.

A broker's agents may be few (PROTOCOL section 4: workers share load by capacity). Then a turn asks for a
place before it is dispatched, and is told what became of that, again each time it changes. A session has
at most one turn that runs or asks, so places are counted by session.
"""

from collections.abc import Callable
from typing import Any, Literal

import attrs
import pykka

from broker.actors.ref import LoopRef
from broker.messages import SlotAnswer

__all__ = ["Slots"]


@attrs.frozen
class _Waiting:
    """A turn that wants a place, and the number of its ask."""

    session: LoopRef[Any]
    turn_id: str
    number: int


class Slots:
    """Shared by all incarnations of a profile's bridge, so that no place and nobody who waits is forgotten.

    Args:
        capacity: returns how many turns may be under way, as of now; None for no limit, 0 for no agent at all.
        note: told (turn id, state) of each answer, for the trace of the turn.
    """

    def __init__(self, capacity: Callable[[], int | None], note: Callable[[str, str], None]) -> None:
        self._capacity = capacity
        self._note = note
        self._taken: dict[str, str] = {}  # session id -> turn id
        self._waiting: dict[str, _Waiting] = {}  # session id -> its turn; in the order of asking
        self._served = True  # whether those who wait were told that there is somebody to wait for

    def want(self, session: LoopRef[Any], session_id: str, turn_id: str, number: int) -> None:
        """Ask for a place; a session that asks for another turn wants it in the place, or the rank, of the one before.

        That one is not under way any more, or never was.
        """
        waiting = _Waiting(session, turn_id, number)
        if session_id in self._taken:
            self._taken[session_id] = turn_id
            self._tell(waiting, "granted")
            return
        served = self._served
        self._waiting[session_id] = waiting
        self.assign()
        if session_id in self._waiting and self._served == served:  # otherwise all who wait have just been told
            self._make_wait(waiting)

    def release(self, session_id: str, turn_id: str | None = None) -> None:
        """Give back a place, or no longer want one: that of this turn, or whatever the session has."""
        waiting = self._waiting.get(session_id)
        if waiting is not None and turn_id in {None, waiting.turn_id}:
            del self._waiting[session_id]
        taken = self._taken.get(session_id)
        if taken is not None and turn_id in {None, taken}:
            del self._taken[session_id]
            self.assign()

    def assign(self) -> None:
        """Give the free places to those who asked first; to be called as well when the capacity has changed."""
        capacity = self._capacity()
        while self._waiting and (capacity is None or len(self._taken) < capacity):
            session_id = next(iter(self._waiting))
            waiting = self._waiting.pop(session_id)
            if self._tell(waiting, "granted"):
                self._taken[session_id] = waiting.turn_id
        if self._served != (capacity != 0):
            self._served = capacity != 0
            for waiting in self._waiting.values():
                self._make_wait(waiting)

    def abandon(self) -> None:
        """Let everybody go on, since no bridge will come any more: each then learns for itself why it fails."""
        waiting, self._waiting = self._waiting, {}
        for turn in waiting.values():
            self._tell(turn, "granted")

    def _make_wait(self, waiting: _Waiting) -> None:
        state: Literal["waiting", "unserved"] = "waiting" if self._served else "unserved"
        self._tell(waiting, state)

    def _tell(self, waiting: _Waiting, state: Literal["granted", "waiting", "unserved"]) -> bool:
        """Tell the session; return whether there still is one."""
        self._note(waiting.turn_id, state)
        try:
            waiting.session.tell(SlotAnswer(waiting.turn_id, state, waiting.number), urgent=True)
        except pykka.ActorDeadError:
            return False
        return True
