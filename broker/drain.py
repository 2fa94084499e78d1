"""The end of a run: clients are told and sent away a few at a time, and running turns may end (PROTOCOL section 7).

All of them closed at once would come back at once, to a broker that has just started. So each is told for itself
when to come back, and the closes are spread as well; who watches a running turn is closed last, having seen its end.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from loguru import logger

from broker.actors.connection import Connection
from broker.actors.connection_mail import Hang
from broker.actors.lifecycle import StopSession
from broker.actors.ref import LoopRef
from broker.actors.registry import Registry
from broker.actors.requests import Aside, Everybody, Live
from broker.agents.remote.frames import SUBPROTOCOL
from broker.clock import Clock, Deadline
from broker.errors import CloseCode
from broker.protocol.outgoing import Restarting
from broker.protocol.parcel import Parcel

__all__ = ["Drain", "window"]

EACH_SECONDS: Final = 0.002
"""Between two closes, as long as the grace allows for it ..."""
PART: Final = 2
"""... which is to have passed by one part in so many when the last idle client is closed."""
SOONEST: Final = 1.0
"""Seconds after which the first may come back: about what a restart takes."""
PER_SECOND: Final = 500
"""Clients that a broker that has just started may have to let in each second."""
LOOK_SECONDS: Final = 0.05
GOOD_BYE_SECONDS: Final = 0.75
"""How long clients may take to answer the last close."""


def window(clients: int, grace: float) -> float:
    """Return the seconds over which so many clients are closed."""
    return min(grace / PART, clients * EACH_SECONDS)


class Drain:
    """Sends everybody away.

    Args:
        registry: knows the connections, and where sessions live.
        clock: time.
        grace: seconds that running turns have.
        end_turns: ends those that still run then, durably.
        choose: returns a random number between two others.
        deadline: when everything is to have stopped, and not only this; none if left out.
    """

    def __init__(
        self,
        registry: LoopRef[Registry],
        clock: Clock,
        grace: float,
        end_turns: Callable[[], Awaitable[object]],
        choose: Callable[[float, float], float] = random.uniform,
        deadline: Deadline | None = None,
    ) -> None:
        self._deadline = deadline or Deadline(clock, math.inf)
        self._registry = registry
        self._clock = clock
        self._grace = grace
        self._end_turns = end_turns
        self._choose = choose
        self._idle: deque[LoopRef[Connection]] = deque()
        self._watching: list[LoopRef[Connection]] = []

    async def run(self) -> None:
        """Return when no turn runs any more and everybody was sent away, by the end of the grace at the latest."""
        began = self._clock.monotonic()
        clients, strangers = await self._registry.ask(Everybody())
        _hang_up(stranger for stranger in strangers if not _is_agent(stranger))
        await self._rest()
        self._warn(clients)
        self._idle.extend(random.sample(clients, len(clients)))
        await self._send_away(began)
        if await self._running():
            logger.warning("some turns were still running after {:g} s; they are ended", self._grace)
            await self._end_turns()
        self._close((*self._idle, *self._watching))
        _, strangers = await self._registry.ask(Everybody())
        _hang_up(strangers)  # agents were needed until now, when the last turn has ended
        await self._see_off(clients)

    async def _rest(self) -> None:
        """Have no session start a turn that waits: it would only be cut off, and goes on after the restart (P5)."""
        places: dict[str, LoopRef[Any]] = await self._registry.ask(Live())
        for log, ref in places.items():
            if log.startswith("session:") and ref.is_alive():
                ref.tell(StopSession(at_once=False), urgent=True)

    def _warn(self, clients: list[LoopRef[Connection]]) -> None:
        latest = SOONEST + len(clients) / PER_SECOND
        for ref in clients:
            if ref.is_alive():
                retry_after = round(self._choose(SOONEST, latest), 3)
                ref.tell(Parcel((Restarting(retry_after),)), urgent=True)

    async def _send_away(self, began: float) -> None:
        """Close the idle ones over the window, and the others as their turns end; give up when the grace is over."""
        total = len(self._idle)
        spread = window(total, self._grace)
        running: frozenset[str] | None = None
        while (passed := self._clock.monotonic() - began) < self._grace:
            now_running = await self._running()
            if now_running != running:
                running = now_running
                self._sort_out(running)
            left = 0 if passed >= spread else round(total * (1 - passed / spread))
            self._close(self._idle.popleft() for _ in range(max(0, len(self._idle) - left)))
            if not running and not self._idle:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _sort_out(self, running: frozenset[str]) -> None:
        """Keep apart who watches a running turn; who does so no more is idle, and next."""
        everybody = [*self._watching, *self._idle]
        self._idle.clear()
        self._watching.clear()
        for ref in everybody:
            if not running.isdisjoint(() if ref.actor is None else ref.actor.followed()):
                self._watching.append(ref)
            else:
                self._idle.append(ref)

    async def _running(self) -> frozenset[str]:
        """Return the logs of the sessions in which an agent is at work, or whose last word is not told yet."""
        places: dict[str, LoopRef[Any]] = await self._registry.ask(Live())
        sessions = ((log, ref.actor) for log, ref in places.items() if log.startswith("session:"))
        return frozenset(log for log, actor in sessions if actor is not None and (actor.running or not actor.settled))

    def _close(self, refs: Iterable[LoopRef[Connection]]) -> None:
        for ref in refs:
            if ref.is_alive():
                ref.tell(Hang(CloseCode.SERVICE_RESTART), urgent=True)

    async def _see_off(self, clients: list[LoopRef[Connection]]) -> None:
        """Wait a moment for the clients' good-byes; one that reads nothing never says any."""
        until = self._clock.monotonic() + self._deadline.share(GOOD_BYE_SECONDS)
        while any(ref.is_alive() for ref in clients) and self._clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
        for ref in clients:
            if ref.actor is not None:
                ref.actor.cut()


def _is_agent(stranger: Aside) -> bool:
    return stranger.peer.protocol == SUBPROTOCOL


def _hang_up(strangers: Iterable[Aside]) -> None:
    for stranger in strangers:
        stranger.hang(CloseCode.SERVICE_RESTART, None)
