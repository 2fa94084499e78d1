"""A worker from its first try to reach the broker to its last word."""

import asyncio
from typing import Final

from broker.client.link import Link
from broker.client.worker.turns import Turns

__all__ = ["serve"]

FAREWELL_SECONDS: Final = 2.0
"""For turns that are cut short to clean up, and for their ends to reach the broker."""
LAST_WORD_SECONDS: Final = 1.0
"""For the ends of turns that did not end themselves to reach the broker."""


async def serve(link: Link, turns: Turns, stop: asyncio.Event, grace: float) -> None:
    """Serve until `stop` is set or the broker refuses; then let what runs end within `grace` seconds.

    Raises:
        Refused: the broker will not have this worker.
    """
    loop = asyncio.get_running_loop()
    linked = loop.create_task(link.keep(), name="link")
    asked = loop.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({linked, asked}, return_when=asyncio.FIRST_COMPLETED)
        turns.drain()
        await _settled(turns, linked, grace)
    finally:
        turns.stop()
        try:
            await _settled(turns, linked, FAREWELL_SECONDS)
            if turns.cut():
                await _settled(turns, linked, LAST_WORD_SECONDS)
        finally:
            asked.cancel()
            linked.cancel()
            await asyncio.gather(asked, linked, return_exceptions=True)
            turns.close()
    if not linked.cancelled():
        linked.result()


async def _settled(turns: Turns, linked: asyncio.Task[None], patience: float) -> None:
    """Wait until the broker knows how each turn ended, at most `patience` seconds and while there is a link."""
    idle = asyncio.get_running_loop().create_task(turns.idle.wait(), name="idle")
    try:
        await asyncio.wait({idle, linked}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    finally:
        idle.cancel()
