"""A worker whose answers do not end: they block a thread, or swallow that they are cancelled.

Run with an URL, and with the seconds that the process has for what its turns leave behind.
"""

import asyncio
import sys
import threading
from contextlib import suppress

from broker.client import Turn, Worker
from broker.client.worker import program, service


class Stuck(Worker):
    agent = "stuck"

    async def answer(self, turn: Turn) -> None:
        if turn.text == "block":
            await asyncio.to_thread(threading.Event().wait)
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


service.FAREWELL_SECONDS = 0.1  # type: ignore[misc]
program.LEFTOVER_SECONDS = float(sys.argv[2])  # type: ignore[misc]
Stuck().run(sys.argv[1], grace=0)
