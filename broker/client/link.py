"""A worker's link to the broker: made, greeted, lost, and made again (PROTOCOL sections 2c and 4)."""

import asyncio
import logging
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import attrs
from aiohttp import ClientError, ClientSession, ClientTimeout, WSMsgType

from broker.client.dial import Dial, Socket
from broker.client.faults import Refused
from broker.client.projects import Projects
from broker.client.turns import Turns
from broker.client.wire import Fault, ProjectFeedback, ProjectUpdate, Welcome, frame, read
from broker.clock import Clock
from broker.errors import CloseCode, may_reconnect

__all__ = ["Backoff", "Link"]

log = logging.getLogger("broker.client")

RESUME_SECONDS: Final = 10.0
"""For the broker to take up the turns that a hello names."""
STEADY_SECONDS: Final = 20.0
"""A link that held for so long was a good one: the next pause starts small again."""

_NO_CODE: Final = 1005
_ABNORMAL: Final = 1006
_WIDTH: Final = 500


@attrs.define
class Backoff:
    """Pauses between tries, each anything up to a bound that doubles: "full jitter", so that many spread out.

    Attributes:
        first: the first bound, in seconds.
        longest: the last one.
    """

    first: float = 0.5
    longest: float = 20.0
    _tries: int = attrs.field(default=0, init=False)

    def pause(self) -> float:
        """Return how long to wait before the next try, in seconds."""
        bound = min(self.longest, self.first * 2**self._tries)
        self._tries = min(self._tries + 1, 30)
        return random.uniform(0.0, bound)  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        """Start small again."""
        self._tries = 0


@attrs.frozen
class _End:
    """How a link ended."""

    code: int
    reason: str

    def __str__(self) -> str:
        return f"closed with {self.code}{f' ({self.reason})' if self.reason else ''}"


class Link:
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
        self._dial = dial
        self._hello = hello
        self._turns = turns
        self._projects = projects
        self._backoff = backoff
        self._clock = clock
        self._trouble = ""
        self._complaint = ""

    async def keep(self) -> None:
        """Be linked, and come back whenever the link is lost, until cancelled.

        Raises:
            Refused: the broker will not have this worker.
        """
        async with ClientSession(timeout=ClientTimeout(total=None)) as session:
            while True:
                began = self._clock.monotonic()
                trouble = await self._attempt(session)
                if self._clock.monotonic() - began >= STEADY_SECONDS:
                    self._backoff.reset()
                level = logging.DEBUG if trouble == self._trouble else logging.WARNING
                log.log(level, "no link to %s: %s; trying again", self._dial.name, trouble)
                self._trouble = trouble
                await self._sleep(self._backoff.pause())

    async def _attempt(self, session: ClientSession) -> str:
        """Be linked once, if it can be; return why that is over."""
        try:
            socket = await self._dial.open(session)
        except Refused:
            raise
        except (ClientError, OSError) as e:
            return str(e) or type(e).__name__
        try:
            end = await self._converse(socket)
        finally:
            self._turns.lost()
            await socket.close(code=CloseCode.GOING_AWAY)
        if not may_reconnect(end.code):
            raise Refused(f"the broker {end}{f': {self._complaint}' if self._complaint else ''}", end.code)
        return str(end)

    async def _converse(self, socket: Socket) -> _End:
        hello = frame("hello", {**self._hello, "turns": self._turns.names()})
        with suppress(ClientError, ConnectionError):  # what a broker said before it closed is still to be read
            await socket.send_frame(hello, WSMsgType.TEXT)
        self._turns.wake.set()  # what is to be sent may wait since before this link
        patience = self._clock.call_later(RESUME_SECONDS, self._turns.abandon)
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(socket), name="link writer")
                end = await self._read(socket)
                writer.cancel()
        finally:
            patience.cancel()
        return end

    async def _write(self, socket: Socket) -> None:
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

    async def _read(self, socket: Socket) -> _End:
        while True:
            message = await socket.receive()
            try:
                if message.type is WSMsgType.TEXT:
                    await self._take(socket, message.data)
                elif message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.PONG:
                    self._turns.arrived(int(message.data) if message.data.isdigit() else 0)
                elif message.type is WSMsgType.CLOSE:
                    return _End(message.data or _NO_CODE, message.extra or "")
                elif message.type is not WSMsgType.BINARY:
                    return _End(socket.close_code or _ABNORMAL, str(socket.exception() or "the connection broke"))
            except (ClientError, ConnectionError):
                continue  # an answer could not be sent; what is read next says why

    async def _take(self, socket: Socket, text: bytes) -> None:
        try:
            said = read(text)
        except ValueError as e:
            log.warning("%s", e)
            return
        if isinstance(said, Welcome):
            self._dial.proved = True
            self._trouble = self._complaint = ""
            log.info("linked to %s as %s", self._dial.name, self._hello["agent"])
        elif isinstance(said, Fault):
            self._complaint = f"{said.code}: {said.message}"[:_WIDTH]
            log.warning("the broker refuses a frame: %s", self._complaint)
        elif isinstance(said, ProjectFeedback | ProjectUpdate):
            if self._projects is not None:
                self._projects.hear(said)
        elif said is not None and (answer := self._turns.hear(said)) is not None:
            await socket.send_frame(answer, WSMsgType.TEXT)

    async def _sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        timer = self._clock.call_later(seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()
