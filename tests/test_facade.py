"""What plugins may ask of the broker, as far as it needs no broker behind it."""

import asyncio
import inspect
from typing import Any

import pytest

from broker.actors.loop import LoopActor
from broker.clock import SystemClock
from broker.errors import BrokerError
from broker.facade import SPAWNED, Facade
from broker.stats import Stats
from broker.testing import until


@pytest.fixture
async def facade() -> Facade:
    """One that has an actor behind it, which is asked nothing here."""
    facade = Facade(Stats(), SystemClock())
    registry: Any = LoopActor.start()
    facade.connect(registry)
    return facade


async def test_a_plugin_that_leaks_tasks_is_stopped_at_a_thousand_and_others_are_not(facade: Facade) -> None:
    over = asyncio.Event()
    ran = []

    async def leak() -> None:
        await over.wait()

    async def work() -> None:
        ran.append("others")

    tasks = [facade.spawn(leak(), name="leak") for _ in range(SPAWNED)]
    with pytest.raises(BrokerError) as refusal:
        facade.spawn(leak(), name="leak")
    assert (refusal.value.code, refusal.value.retry_after) == ("overloaded", 1.0)
    await facade.spawn(work(), name="work")
    assert ran == ["others"]
    over.set()
    await asyncio.gather(*tasks)
    await until(lambda: not facade._behind.tasks)
    assert not facade._behind.spawned
    await facade.spawn(leak(), name="leak")


async def test_what_plugins_left_running_is_cancelled_at_the_end(facade: Facade) -> None:
    task = facade.spawn(asyncio.Event().wait(), name="for ever")
    await asyncio.sleep(0)
    facade.cancel_spawned()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_nothing_runs_before_the_start_or_after_the_end(facade: Facade) -> None:
    async def work() -> None:
        pytest.fail("it ran")

    early, late = work(), work()
    with pytest.raises(RuntimeError, match="once it starts"):
        Facade(Stats(), SystemClock(), asleep=True).spawn(early, name="early")
    facade.cancel_spawned()
    with pytest.raises(BrokerError) as refusal:
        facade.spawn(late, name="late")
    assert refusal.value.code == "unavailable"
    states = {inspect.getcoroutinestate(work) for work in (early, late)}
    assert states == {inspect.CORO_CLOSED}  # so that nothing warns about them
