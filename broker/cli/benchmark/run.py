"""A run: connections are opened in steps, each sends at its pace, and what is still to come is waited for."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal

import attrs
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from broker.cli.benchmark.parts import Conversation, Echoes
from broker.cli.benchmark.peer import Part, Peer, Refusal
from broker.cli.benchmark.rooms import Lobby, Member
from broker.cli.benchmark.tally import Tally
from broker.nearby import Nearby
from broker.tasks import spawn

__all__ = ["NoneConnectedError", "Plan", "Progress", "Run"]

_AT_ONCE: Final = 50
"""Connections that are opened, or closed, at the same time."""
_LOOK: Final = 0.05
"""Seconds between two looks at whether everything has come."""
_PAUSE: Final = 0.5
"""Seconds until what was refused for being too much is asked again: sooner, and the broker would close."""
_LATER: Final = frozenset({"rate_limited", "overloaded", "busy", "unavailable"})
"""Refusals after which the same may be asked again."""

Progress = Callable[[str, float, float], None]
"""Told what is done, how much of it, and how much there is."""


class NoneConnectedError(Exception):
    """Not one connection could be opened; says why the first could not."""

    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


@attrs.frozen
class Plan:
    """What is to be done.

    Attributes:
        target: the broker.
        mode: what connections do.
        connections: how many.
        rate: messages of each per second.
        seconds: for how long they send.
        text: what they say.
        agent: the profile that turns are for; None for the broker's default.
        room_size: members of a room.
        patience: seconds to wait for what is still to come.
    """

    target: Nearby
    mode: Literal["echo", "turns", "rooms"] = "echo"
    connections: int = 50
    rate: float = 10.0
    seconds: float = 10.0
    text: str = ""
    agent: str | None = None
    room_size: int = 10
    patience: float = 10.0

    @property
    def due(self) -> int:
        """Messages that are due, all together."""
        return self.connections * self.messages

    @property
    def messages(self) -> int:
        """Messages that each connection is to send."""
        return max(1, round(self.rate * self.seconds))


@attrs.define(eq=False)
class Run:
    """One run of a plan.

    Attributes:
        tally: what was counted so far.
        stopped: set once no more is to be sent.
    """

    plan: Plan
    _progress: Progress
    tally: Tally = attrs.field(factory=Tally, init=False)
    stopped: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _hurried: bool = attrs.field(default=False, init=False)
    _lobby: Lobby = attrs.field(init=False)
    _figures: dict[str, Any] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Make what members of rooms share."""
        self._lobby = Lobby(size=self.plan.room_size)

    def stop(self) -> bool:
        """Have no more sent; the second time, nothing waited for either. Return False if both was asked for before."""
        if self._hurried:
            return False
        self._hurried = self.stopped.is_set()
        self.stopped.set()
        return True

    async def run(self) -> dict[str, Any]:
        """Do it, and return the report.

        Raises:
            NoneConnectedError: there was nobody to do it with.
        """
        timeout = ClientTimeout(total=None, sock_connect=self.plan.patience)
        async with ClientSession(connector=TCPConnector(limit=0), timeout=timeout) as http:
            peers = [Peer(index, self.plan.target, http, self.tally) for index in range(self.plan.connections)]
            for peer in peers:
                peer.part = self._part(peer)
            stays = list[asyncio.Task[None]]()
            try:
                connected = await self._open(peers)
                stays = [spawn(peer.stay(), name=f"bench link {peer.index}") for peer in connected]
                await self._load(connected)
                await self._wait(connected)
                for peer in connected:
                    peer.part.close()
            finally:
                await _end(stays)
                await self._leave(peers, Peer(-1, self.plan.target, http, self.tally))
        return {**self._report(len(connected)), "left_behind": sum(peer.part.remains for peer in peers)}

    def _part(self, peer: Peer) -> Part:
        if self.plan.mode == "echo":
            return Echoes(peer, self.tally, self.plan.text)
        if self.plan.mode == "turns":
            return Conversation(peer, self.tally, self.plan.text, self.plan.agent)
        return Member(peer, self.tally, self.plan.text, self._lobby)

    async def _open(self, peers: list[Peer]) -> list[Peer]:
        """Connect a step at a time; return those that are."""
        began, connected = time.perf_counter(), list[Peer]()
        why: Exception | None = None
        for first in range(0, len(peers), _AT_ONCE):
            if self.stopped.is_set():
                break
            step = peers[first : first + _AT_ONCE]
            for peer, trouble in zip(step, await self._connect(step), strict=True):
                if trouble is None:
                    connected.append(peer)
                    continue
                if isinstance(trouble, asyncio.CancelledError):
                    continue
                if not isinstance(trouble, Refusal | ClientError | OSError | TimeoutError):
                    raise trouble
                why = why or trouble
                self.tally.fail(trouble.code if isinstance(trouble, Refusal) else "not_reachable")
            self._progress("connecting", len(connected), len(peers))
            if why is not None and not connected and not self.stopped.is_set():
                raise NoneConnectedError(why)
        self._figures["connect_seconds"] = round(time.perf_counter() - began, 3)
        return connected

    async def _connect(self, step: list[Peer]) -> list[BaseException | None]:
        """Connect these, and return what went wrong with each; who is not connected when the run is stopped is not."""
        over = spawn(self.stopped.wait(), name="bench stop")
        tries = [asyncio.ensure_future(peer.connect()) for peer in step]
        results = asyncio.gather(*tries, return_exceptions=True)
        try:
            await asyncio.wait([over, results], return_when="FIRST_COMPLETED")
        finally:
            await _end([over])
            for one in tries:
                one.cancel()  # without effect on those that are done
        return list(await results)

    async def _load(self, peers: list[Peer]) -> None:
        """Have each send at its pace, evenly spread, until the time is over."""
        began, cpu = time.perf_counter(), time.process_time()
        senders = [spawn(self._send(peer, began), name=f"bench sender {peer.index}") for peer in peers]
        ticker = spawn(self._tick(began), name="bench progress")
        over = spawn(self.stopped.wait(), name="bench stop")
        try:
            await asyncio.wait([over, spawn(_all(senders), name="bench senders")], return_when="FIRST_COMPLETED")
        finally:
            await _end([*senders, ticker, over])
        took = time.perf_counter() - began
        self._figures |= {
            "seconds": round(took, 3),
            "sent_per_second": round(self.tally.sent / took, 1),
            "client_cpu": round((time.process_time() - cpu) / took, 3),
        }

    async def _send(self, peer: Peer, began: float) -> None:
        first = began + peer.index / (self.plan.connections * self.plan.rate)
        for number in range(1, self.plan.messages + 1):
            due = first + (number - 1) / self.plan.rate
            pause = due - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            await peer.up.wait()
            if peer.gone or time.perf_counter() - began > self.plan.seconds + 1 / self.plan.rate:
                return
            await peer.part.act(number, due)

    async def _tick(self, began: float) -> None:
        while True:
            self._progress(self.plan.mode, min(time.perf_counter() - began, self.plan.seconds), self.plan.seconds)
            await asyncio.sleep(_LOOK)

    async def _wait(self, peers: list[Peer]) -> None:
        """Wait for what is still to come, as long as there is patience."""
        deadline = time.perf_counter() + self.plan.patience
        most = coming = sum(peer.part.open() for peer in peers)
        while coming and time.perf_counter() < deadline and not self._hurried:
            self._progress("waiting for the rest", most - coming, most)
            await asyncio.sleep(_LOOK)
            coming = sum(peer.part.open() for peer in peers)

    async def _leave(self, peers: list[Peer], cleaner: Peer) -> None:
        """Leave nothing behind, as far as the broker lets us."""
        silent = False
        for first in range(0, len(peers), _AT_ONCE):
            step = peers[first : first + _AT_ONCE]
            self._progress("cleaning up", first, len(peers))
            linked = [] if silent else [peer for peer in step if peer.up.is_set() and not peer.gone]
            said = await asyncio.gather(*(peer.part.leave(peer.ask) for peer in linked), return_exceptions=True)
            silent = silent or (bool(said) and all(isinstance(one, TimeoutError) for one in said))
            await asyncio.gather(*(peer.leave() for peer in step), return_exceptions=True)
        rest = [peer.part for peer in peers if peer.part.remains]
        if rest and not silent:
            with suppress(Refusal, ClientError, OSError):
                async with asyncio.timeout(self.plan.patience):
                    await self._clear(rest, cleaner)
            await cleaner.leave()

    async def _clear(self, rest: list[Part], cleaner: Peer) -> None:
        """Have taken away, over a link of its own, what others could not take away over theirs."""
        cleaner.part = Echoes(cleaner, Tally(), "")
        await cleaner.connect()
        while rest:
            try:
                await rest[-1].leave(cleaner.ask)
            except Refusal as e:
                if e.code not in _LATER:
                    raise
                await asyncio.sleep(_PAUSE)
            else:
                rest.pop()

    def _report(self, connected: int) -> dict[str, Any]:
        plan, tally = self.plan, self.tally
        return {
            "mode": plan.mode,
            "url": plan.target.url,
            "connections": plan.connections,
            "connected": connected,
            "rate": plan.rate,
            **self._figures,
            "due": plan.due,
            "sent": tally.sent,
            "left_out": tally.left_out,
            "answered": tally.answered,
            "lost": tally.lost,
            "reordered": tally.reordered,
            "doubled": tally.doubled,
            "reconnects": tally.reconnects,
            "errors": dict(tally.errors),
            **({"outcomes": dict(tally.outcomes)} if plan.mode == "turns" else {}),
            "latency": {what: spread.as_data() for what, spread in tally.took.items()},
        }


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
