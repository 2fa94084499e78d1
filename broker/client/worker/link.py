"""A worker's link to the broker: what is said over it (PROTOCOL section 4)."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from aiohttp import ClientError, WSMsgType

from broker.client.backoff import Backoff
from broker.client.dial import Dial, Socket
from broker.client.link import End, Link
from broker.client.worker.projects import Projects
from broker.client.worker.turns import Turns
from broker.client.worker.wire import Fault, ProjectFeedback, ProjectUpdate, Welcome, frame, read
from broker.clock import Clock, Timer

__all__ = ["WorkerLink"]

log = logging.getLogger("broker.client")

RESUME_SECONDS: Final = 10.0
"""For the broker to take up the turns that a hello names."""

_WIDTH: Final = 500


class WorkerLink(Link):
    """Keeps a worker linked to the broker.

    Args:
        dial: opens sockets.
        hello: what the broker is told first; the turns that go on are added.
        turns: the worker's turns.
        backoff: how long to pause between tries.
        clock: time.
        projects: the worker's part in projects; None for none.
    """

    def __init__(
        self,
        dial: Dial,
        hello: Mapping[str, Any],
        turns: Turns,
        backoff: Backoff,
        clock: Clock,
        projects: Projects | None = None,
    ) -> None:
        super().__init__(dial, backoff, clock)
        self._hello = hello
        self._turns = turns
        self._projects = projects
        self._patience: Timer | None = None

    async def begin(self, socket: Socket) -> None:
        """Say hello."""
        hello = frame("hello", {**self._hello, "turns": self._turns.names()})
        with suppress(ClientError, ConnectionError):  # what a broker said before it closed is still to be read
            await socket.send_frame(hello, WSMsgType.TEXT)
        self._turns.wake.set()  # what is to be sent may wait since before this link
        self._patience = self._clock.call_later(RESUME_SECONDS, self._turns.abandon)

    def lost(self, end: End | None) -> None:
        """Have what was sent and not taken sent again over the next link."""
        if self._patience is not None:
            self._patience.cancel()
        self._turns.lost()

    async def attend(self, socket: Socket) -> None:
        """Send what there is to be sent."""
        draining = False
        while True:
            await self._turns.wake.wait()
            self._turns.wake.clear()
            try:
                if self._turns.stopping and not draining:
                    draining = True
                    await socket.send_frame(frame("drain", {}), WSMsgType.TEXT)
                for text in self._turns.unsent():
                    await socket.send_frame(text, WSMsgType.TEXT)
                for text in () if self._projects is None else self._projects.unsent():
                    await socket.send_frame(text, WSMsgType.TEXT)
                if mark := self._turns.mark():
                    await socket.ping(str(mark).encode())
            except (ClientError, ConnectionError):
                return  # the reading half hears of it too, and knows why

    def answered(self, data: bytes) -> None:
        """Know that the broker has what was sent before that ping."""
        self._turns.arrived(int(data) if data.isdigit() else 0)

    async def take(self, socket: Socket, text: bytes) -> None:
        """Give a turn, or whatever it is, to whom it concerns."""
        try:
            said = read(text)
        except ValueError as e:
            log.warning("%s", e)
            return
        if isinstance(said, Welcome):
            self.welcomed(f" as {self._hello['agent']}")
        elif isinstance(said, Fault):
            complaint = f"{said.code}: {said.message}"[:_WIDTH]
            self.complain(complaint)
            log.warning("the broker refuses a frame: %s", complaint)
        elif isinstance(said, ProjectFeedback | ProjectUpdate):
            if self._projects is not None:
                self._projects.hear(said)
        elif said is not None and (answer := self._turns.hear(said)) is not None:
            await socket.send_frame(answer, WSMsgType.TEXT)
