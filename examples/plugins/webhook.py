"""Tells another service of every turn that has ended."""

import asyncio
import logging

import attrs
from aiohttp import ClientError, ClientSession, ClientTimeout

from broker.hooks import Count, Duration, Plugin, Secret, TurnEnded

log = logging.getLogger(__name__)


class Webhook(Plugin):
    """Posts each turn that has ended to a URL, one after another, and tries again where that fails."""

    version = "1.0"

    @attrs.frozen
    class Settings:
        url: str
        token: Secret | None = None
        waiting: Count = 1000
        attempts: Count = 5
        pause: Duration = 1.0
        timeout: Duration = 10.0

    settings: Settings

    async def start(self) -> None:
        self.queue = asyncio.Queue(self.settings.waiting)
        self.session = ClientSession(timeout=ClientTimeout(self.settings.timeout))
        self.broker.spawn(self.deliver(), name="webhook")

    async def stop(self) -> None:
        await self.session.close()

    def reload(self, settings: Settings) -> bool:
        # The queue and the session were made with the old ones.
        return (settings.waiting, settings.timeout) == (self.settings.waiting, self.settings.timeout)

    def trouble(self) -> str | None:
        return "its queue is full" if self.queue.full() else None

    def turn_ended(self, turn: TurnEnded) -> None:
        try:
            self.queue.put_nowait(attrs.asdict(turn))
        except asyncio.QueueFull:
            log.warning("too many turns wait for the webhook; turn %s is not told of", turn.turn_id)

    async def deliver(self) -> None:
        while True:
            turn = await self.queue.get()
            for attempt in range(self.settings.attempts):
                if await self.post(turn):
                    break
                await asyncio.sleep(self.settings.pause * 2**attempt)
            else:
                log.error("the webhook was not told of turn %s", turn["turn_id"])

    async def post(self, turn: dict) -> bool:
        headers = {"Authorization": f"Bearer {self.settings.token.reveal()}"} if self.settings.token else {}
        try:
            async with self.session.post(self.settings.url, json=turn, headers=headers) as answer:
                return answer.ok
        except (ClientError, TimeoutError):
            return False
