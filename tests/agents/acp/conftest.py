"""Whatever starts processes is tested on both event loops: their pipes and their children are not alike."""

import asyncio
from collections.abc import Callable

import pytest


def on_uvloop() -> asyncio.AbstractEventLoop:
    """Make a uvloop; without one the test is skipped, for all to see."""
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the loops that each test of this folder runs on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": on_uvloop}
