"""How a client asks: once, within a time; or again over the next link, if one breaks before the answer."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from broker.client.backoff import Backoff
from broker.client.calls import Landed
from broker.client.errors import BrokerError, Disconnected, RateLimited, TimedOut, Unavailable
from broker.client.line import ClientLink

__all__ = ["Caller"]

log = logging.getLogger("broker.client")

LONGEST_PAUSE: Final = 20.0
"""Seconds until what was refused for now is asked again, at most."""


class Caller:
    """Asks over whichever link there is.

    Args:
        link: the link.
        timeout: seconds that an answer may take, where nothing else is said.
    """

    def __init__(self, link: ClientLink, timeout: float) -> None:
        self.link = link
        self.timeout = timeout

    async def once(
        self, action: str, payload: Any, landed: Landed | None = None, *, within: float | None = None
    ) -> Any:
        """Ask once, as soon as there is a link.

        Raises:
            BrokerError: the broker's refusal.
            Disconnected: there was no link in time, or it broke before the answer: it may have been done.
            TimedOut: no answer came in time: it may have been done, or be done yet.
            Refused: there will be no link any more.
        """
        async with self._limited(within):
            await self.link.ready()
            return await self.link.ask(action, payload, landed)

    async def again(
        self, action: str, payload: Any, landed: Landed | None = None, *, within: float | None = None
    ) -> Any:
        """Ask until there is an answer: for what may be asked twice.

        Raises:
            BrokerError: the broker's refusal.
            Disconnected, TimedOut: no answer came in time.
            Refused: there will be no link any more.
        """
        async with self._limited(within):
            while True:
                await self.link.ready()
                try:
                    return await self.link.ask(action, payload, landed)
                except Disconnected:
                    continue
                except Unavailable:
                    if not self.link.leaving:
                        raise
                    await self.link.loss()  # it takes nothing new before it restarts; the next one will

    async def until(self, action: str, payload: Any, landed: Landed | None = None) -> Any:
        """Ask until there is an answer, however long that takes, and whatever is too much just now.

        Raises:
            BrokerError: the broker's refusal, of what asking again does not help.
            Refused: there will be no link any more.
        """
        backoff = Backoff(longest=LONGEST_PAUSE)
        while True:
            try:
                return await self.again(action, payload, landed, within=self.timeout)
            except Disconnected:
                continue
            except (RateLimited, TimedOut, Unavailable) as e:
                log.info("%s is not done for now: %s", action, e.words)
                await asyncio.sleep(backoff.pause() if e.retry_after is None else min(e.retry_after, LONGEST_PAUSE))

    @asynccontextmanager
    async def _limited(self, seconds: float | None) -> AsyncIterator[None]:
        within = self.timeout if seconds is None else seconds
        try:
            async with asyncio.timeout(within):
                yield
        except BrokerError:
            raise
        except TimeoutError:
            if not self.link.is_open:
                raise Disconnected(f"There was no connection to {self.link.name} for {within:g} s.") from None
            raise TimedOut("timeout", f"No answer came within {within:g} s.") from None
