"""A run: connections are opened in steps, each sends at its pace, and what is still to come is waited for."""

import asyncio
import time
from collections.abc import Callable
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

Progress = Callable[[str, float, float], None]
"""Told what is done, how much of it, and how much there is."""


class NoneConnectedError(Exception):
    """Not one connection could be opened; says why the first could not, and by which code."""

    def __init__(self, why: str, code: str) -> None:
        super().__init__(why)
        self.code = code


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
        stopped: set it to have no more sent; what is still to come is waited for all the same.
    """

    plan: Plan
    _progress: Progress
    tally: Tally = attrs.field(factory=Tally, init=False)
    stopped: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _lobby: Lobby = attrs.field(init=False)
    _figures: dict[str, Any] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Make what members of rooms share."""
        self._lobby = Lobby(size=self.plan.room_size)

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
            connected = await self._open(peers)
            stays = [spawn(peer.stay(), name=f"bench link {peer.index}") for peer in connected]
            try:
                await self._load(connected)
                await self._wait(connected)
            finally:
                for peer in connected:
                    peer.part.close()
                await self._leave(connected, stays)
        return self._report(len(connected))

    def _part(self, peer: Peer) -> Part:
        if self.plan.mode == "echo":
            return Echoes(peer, self.tally, self.plan.text)
        if self.plan.mode == "turns":
            return Conversation(peer, self.tally, self.plan.text, self.plan.agent)
        return Member(peer, self.tally, self.plan.text, self._lobby)

    async def _open(self, peers: list[Peer]) -> list[Peer]:
        """Connect a step at a time; return those that are."""
        began, connected, why = time.perf_counter(), list[Peer](), None
        for first in range(0, len(peers), _AT_ONCE):
            if self.stopped.is_set():
                break
            step = peers[first : first + _AT_ONCE]
            results = await asyncio.gather(*(peer.connect() for peer in step), return_exceptions=True)
            for peer, trouble in zip(step, results, strict=True):
                if trouble is None:
                    connected.append(peer)
                    continue
                if not isinstance(trouble, Refusal | ClientError | OSError | TimeoutError):
                    raise trouble
                why = why or trouble
                self.tally.fail(trouble.code if isinstance(trouble, Refusal) else "not_reachable")
            self._progress("connecting", len(connected), len(peers))
            if why is not None and not connected:
                raise NoneConnectedError(str(why) or type(why).__name__, getattr(why, "code", "not_reachable"))
        self._figures["connect_seconds"] = round(time.perf_counter() - began, 3)
        return connected

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
            pause = first + (number - 1) / self.plan.rate - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            await peer.up.wait()
            if peer.gone or time.perf_counter() - began > self.plan.seconds + 1 / self.plan.rate:
                return
            await peer.part.act(number)

    async def _tick(self, began: float) -> None:
        while True:
            self._progress(self.plan.mode, min(time.perf_counter() - began, self.plan.seconds), self.plan.seconds)
            await asyncio.sleep(_LOOK)

    async def _wait(self, peers: list[Peer]) -> None:
        """Wait for what is still to come, as long as there is patience."""
        deadline = time.perf_counter() + self.plan.patience
        most = coming = sum(peer.part.open() for peer in peers)
        while coming and time.perf_counter() < deadline:
            self._progress("waiting for the rest", most - coming, most)
            await asyncio.sleep(_LOOK)
            coming = sum(peer.part.open() for peer in peers)

    async def _leave(self, peers: list[Peer], stays: list[asyncio.Task[None]]) -> None:
        """Leave nothing behind, as far as the broker lets us."""
        await _end(stays)
        for first in range(0, len(peers), _AT_ONCE):
            step = peers[first : first + _AT_ONCE]
            self._progress("cleaning up", first, len(peers))
            await asyncio.gather(*(peer.part.leave() for peer in step if peer.up.is_set()), return_exceptions=True)
            await asyncio.gather(*(peer.leave() for peer in step), return_exceptions=True)

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
