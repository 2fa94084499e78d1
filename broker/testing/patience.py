"""Waiting for what happens on this loop, without sleeping."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pykka.messages import ProxyGetAttr

if TYPE_CHECKING:
    from broker.actors.ref import LoopRef

__all__ = ["PATIENCE", "settled", "until"]

PATIENCE: Final = 10.0
"""Real seconds after which waiting for something counts as a failed test; what is waited for takes milliseconds."""


async def settled(ref: "LoopRef[Any]") -> None:
    """Return once the actor has handled all the mail it has now: inboxes are in order, so a question is a barrier."""
    await ref.ask(ProxyGetAttr(attr_path=("actor_urn",)), timeout=PATIENCE)


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop go on until `condition()` is true; for what no message tells of.

    Raises:
        TimeoutError: it did not become so.
    """
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the tests of an actor's inside have no event to wait for
            await asyncio.sleep(0)
