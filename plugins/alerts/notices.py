"""Telling a webhook what has changed: one after the other, again and again if need be, and holding up nobody."""

import asyncio
import base64
import hmac
import logging
import random
from asyncio import Task
from collections import deque
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

import attrs
import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar

from broker.hooks import Broker

from .rules import Webhook

__all__ = ["Notices"]

WAITING: Final = 100
"""Notices that may wait for the webhook; the oldest give way."""
LONGEST_PAUSE: Final = 60.0
"""Seconds between two tries."""

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Notices:
    """What waits to be sent, and the one task that sends it.

    Attributes:
        broker: runs the task.
        webhook: where to; None for nowhere.
        given_up: notices that were not taken.
    """

    broker: Broker
    webhook: Webhook | None
    given_up: int = 0
    _waiting: deque[bytes] = attrs.Factory(deque)
    _sending: Task[None] | None = None
    _session: ClientSession | None = None

    def add(self, notice: Mapping[str, Any]) -> None:
        """Have something sent, after what waits already."""
        if self.webhook is None:
            return
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self._give_up("too many wait for it")
        self._waiting.append(msgspec.json.encode(notice))
        if self._sending is None:
            self._sending = self.broker.spawn(self._send_all(), name="send alerts")

    def describe(self) -> dict[str, Any] | None:
        """Return how it stands, as JSON-able values; None where nobody is told."""
        if self.webhook is None:
            return None
        return {"to": self.webhook.place, "waiting": len(self._waiting), "given_up": self.given_up}

    async def close(self) -> None:
        """Send nothing more."""
        if self._sending is not None:
            self._sending.cancel()
        if self._session is not None:
            await self._session.close()

    async def _send_all(self) -> None:
        try:
            while self._waiting and self.webhook is not None:
                notice = self._waiting[0]
                await self._send(notice)
                if self._waiting and self._waiting[0] is notice:  # else it had to give way meanwhile
                    self._waiting.popleft()
        finally:
            self._sending = None

    async def _send(self, notice: bytes) -> None:
        """Send one notice, again and again if need be, under the same id each time."""
        name, tries, why = uuid4().hex, 0, ""
        while (webhook := self.webhook) is not None:
            try:
                status = await self._post(webhook, name, notice)
            except (ClientError, OSError, TimeoutError) as e:
                why = type(e).__name__
            else:
                if status // 100 == 2:  # noqa: PLR2004 - HTTP's own
                    return
                why = f"it answered {status}"
            tries += 1
            if tries >= webhook.tries:
                self._give_up(why)
                return
            longest = min(webhook.pause * 2.0 ** (tries - 1), LONGEST_PAUSE)
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - no secret; all at once is no help

    async def _post(self, webhook: Webhook, name: str, notice: bytes) -> int:
        """Send a notice once; return the status, whatever the rest of the answer says, and wherever it points."""
        if self._session is None:
            self._session = ClientSession(cookie_jar=DummyCookieJar(), auto_decompress=False)
        headers = {"Content-Type": "application/json", **self._signature(webhook, name, notice)}
        timeout = ClientTimeout(total=webhook.timeout)
        url = webhook.url.reveal()
        async with self._session.post(
            url, data=notice, headers=headers, allow_redirects=False, timeout=timeout
        ) as answer:
            return answer.status

    def _signature(self, webhook: Webhook, name: str, notice: bytes) -> Mapping[str, str]:
        """Return the headers of a notice, signed as Standard Webhooks 1.0 has it."""
        now = str(self.broker.now() // 1000)
        headers = {"webhook-id": name, "webhook-timestamp": now}
        if webhook.secret is not None:
            signed = b"%b.%b.%b" % (name.encode(), now.encode(), notice)
            digest = hmac.digest(webhook.secret.reveal().encode(), signed, "sha256")
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return headers

    def _give_up(self, why: str) -> None:
        self.given_up += 1
        place = "" if self.webhook is None else self.webhook.place
        log.error("an alert could not be told to %s: %s; it is in this log", place, why)
