"""A link to the broker: made, read, lost, and made again (PROTOCOL section 2c).

What is said over it is up to who inherits: workers speak of turns, clients ask for things.
"""

import asyncio
import logging
from typing import Final, NoReturn

import attrs
from aiohttp import ClientError, ClientSession, ClientTimeout, WSMsgType

from broker.client.backoff import Backoff
from broker.client.dial import Dial, Socket
from broker.client.errors import Refused, reason_of
from broker.clock import Clock
from broker.errors import CloseCode, may_reconnect

__all__ = ["End", "Link"]

log = logging.getLogger("broker.client")

STEADY_SECONDS: Final = 20.0
"""A link that held for so long was a good one: the next pause starts small again."""

_NO_CODE: Final = 1005
_ABNORMAL: Final = 1006


@attrs.frozen
class End:
    """How a link ended, or that there was none.

    Attributes:
        code: the close code; 1006 if nothing was said.
        reason: the broker's word with it, or what broke.
        opened: whether there was a link.
    """

    code: int
    reason: str
    opened: bool = True

    def __str__(self) -> str:
        if not self.opened:
            return self.reason
        return f"closed with {self.code}{f' ({self.reason})' if self.reason else ''}"


class Link:
    """Keeps a link to the broker.

    Args:
        dial: opens sockets.
        backoff: how long to pause between tries.
        clock: time.

    Attributes:
        name: the broker's address, without anything secret.
    """

    def __init__(self, dial: Dial, backoff: Backoff, clock: Clock) -> None:
        self._dial = dial
        self._backoff = backoff
        self._clock = clock
        self._trouble = ""
        self._complaint = ""
        self.name = dial.name

    # -- what is said over it ---------------------------------------------------------------------------

    def trying(self) -> None:
        """Take note that the broker is tried now."""

    async def begin(self, socket: Socket) -> None:
        """Say what is said first."""

    async def attend(self, socket: Socket) -> None:
        """Do what goes on beside the reading; it is cancelled when the link is lost."""

    async def take(self, socket: Socket, text: bytes) -> None:
        """Take what the broker says."""
        raise NotImplementedError

    def answered(self, data: bytes) -> None:
        """Take the answer to a ping."""

    def lost(self, end: End | None) -> None:
        """Take note that there is no link any more; None if it is not wanted any more."""

    def pause(self, end: End) -> float:
        """Return how many seconds to wait before the next try.

        Raises:
            Exception: there is to be none.
        """
        return self._backoff.pause()

    def welcomed(self, text: str) -> None:
        """Take note, and word of it for the log, that the broker lets this program in."""
        self._dial.prove()
        self._trouble = self._complaint = ""
        log.info("linked to %s%s", self.name, text)

    def complain(self, complaint: str) -> None:
        """Keep what the broker says is wrong; if it closes, that is why."""
        self._complaint = complaint

    # -- the link ---------------------------------------------------------------------------------------

    async def keep(self) -> NoReturn:
        """Be linked, and come back whenever the link is lost, until cancelled.

        Raises:
            Refused: the broker will not have this program.
        """
        async with ClientSession(timeout=ClientTimeout(total=None)) as session:
            while True:
                began = self._clock.monotonic()
                self.trying()
                end = await self._attempt(session)
                if self._clock.monotonic() - began >= STEADY_SECONDS:
                    self._backoff.reset()
                trouble, delay = str(end), self.pause(end)
                level = logging.DEBUG if trouble == self._trouble else logging.WARNING
                log.log(level, "no link to %s: %s; trying again", self.name, trouble)
                self._trouble = trouble
                await self._sleep(delay)

    async def _attempt(self, session: ClientSession) -> End:
        """Be linked once, if it can be; return how that ended."""
        try:
            socket = await self._dial.open(session)
        except Refused:
            raise
        except (ClientError, OSError) as e:
            return End(_ABNORMAL, reason_of(e), opened=False)
        end = None
        try:
            end = await self._converse(socket)
        finally:
            self.lost(end)
            await socket.close(code=CloseCode.GOING_AWAY)
        if not may_reconnect(end.code):
            raise Refused(f"the broker {end}{f': {self._complaint}' if self._complaint else ''}", end.code)
        return end

    async def _converse(self, socket: Socket) -> End:
        await self.begin(socket)
        async with asyncio.TaskGroup() as group:
            beside = group.create_task(self.attend(socket), name="link")
            end = await self._read(socket)
            beside.cancel()
        return end

    async def _read(self, socket: Socket) -> End:
        while True:
            message = await socket.receive()
            try:
                if message.type is WSMsgType.TEXT:
                    await self.take(socket, message.data)
                elif message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.PONG:
                    self.answered(message.data)
                elif message.type is WSMsgType.CLOSE:
                    return End(message.data or _NO_CODE, message.extra or "")
                elif message.type is not WSMsgType.BINARY:
                    return End(socket.close_code or _ABNORMAL, str(socket.exception() or "the connection broke"))
            except (ClientError, ConnectionError):
                continue  # an answer could not be sent; what is read next says why

    async def _sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        timer = self._clock.call_later(seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()
