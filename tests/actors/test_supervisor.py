"""A failed actor is replaced behind the same reference, a few times; then it stays dead, and its mail is answered."""

import asyncio
import collections
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pykka
import pytest

from broker.actors.loop import LoopActor, handles
from broker.actors.ref import LoopRef
from broker.actors.supervisor import DELAYS, RESTARTS, WITHIN, Supervisor
from broker.testing import ManualClock, settled, until


class Counter(LoopActor):
    """Counts from zero in each life."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @handles(str)
    def receive(self, message: str) -> int:
        if message == "break":
            raise LookupError("told to break")
        self.count += 1
        return self.count

    @handles(asyncio.Event)
    async def wait(self, gate: asyncio.Event) -> None:
        await gate.wait()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def supervisor(clock: ManualClock) -> Supervisor:
    return Supervisor(clock)


async def fail(ref: LoopRef[Any], times: int, clock: ManualClock) -> None:
    for _ in range(times):
        ref.tell("break")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        clock.advance(DELAYS[-1])


async def test_a_failed_actor_starts_anew_behind_the_same_reference_and_finds_the_mail_it_had(
    supervisor: Supervisor,
) -> None:
    ref = supervisor.start(Counter)
    assert await ref.ask("one") == 1
    ref.tell("break")
    ref.tell("waits through the restart")
    assert await ref.ask("and so does this") == 2
    assert ref.is_alive()


async def test_the_first_failures_are_forgiven_and_one_more_within_the_minute_is_not(
    supervisor: Supervisor, clock: ManualClock
) -> None:
    deaths: list[str] = []
    ref = supervisor.start(Counter, on_death=lambda: deaths.append("dead"))
    await fail(ref, RESTARTS, clock)
    assert await ref.ask("still there") == 1
    assert deaths == []
    ref.tell("break")
    asked = asyncio.ensure_future(ref.ask("behind the last failure"))
    with pytest.raises(pykka.ActorDeadError):
        await asked
    assert deaths == ["dead"]
    assert not ref.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("too late")


async def test_an_actor_that_fails_again_and_again_is_given_ever_more_time(
    supervisor: Supervisor, clock: ManualClock
) -> None:
    lives: list[float] = []
    waits: list[float] = []

    def make() -> Counter:
        lives.append(clock.monotonic())
        return Counter()

    ref = supervisor.start(make)
    for number in range(1, RESTARTS + 1):
        ref.tell("break")
        failed_at = clock.monotonic()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        while len(lives) == number:
            clock.advance(0.1)
        waits.append(round(lives[-1] - failed_at, 1))
    assert waits == [0, 0.1, 0.4, 1.6, 1.6]


async def test_one_that_waits_to_be_started_again_can_be_stopped_and_its_mail_is_answered(
    supervisor: Supervisor, clock: ManualClock
) -> None:
    lives: list[Counter] = []

    def make() -> Counter:
        lives.append(Counter())
        return lives[-1]

    ref = supervisor.start(make)
    await fail(ref, 1, clock)
    ref.tell("break")
    asked = asyncio.ensure_future(ref.ask("behind the failure"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ref.is_alive()
    await supervisor.stop()
    with pytest.raises(pykka.ActorDeadError):
        await asked
    clock.advance(DELAYS[-1])
    assert len(lives) == 2
    assert not ref.is_alive()


async def test_what_another_thread_tells_one_that_waits_to_be_started_again_is_kept(
    supervisor: Supervisor, clock: ManualClock
) -> None:
    ref = supervisor.start(Counter)
    await fail(ref, 1, clock)
    ref.tell("break")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.to_thread(ref.tell, "from a thread")
    clock.advance(DELAYS[-1])
    assert await ref.ask("second") == 2


async def test_failures_that_are_long_ago_are_forgotten(supervisor: Supervisor, clock: ManualClock) -> None:
    ref = supervisor.start(Counter)
    for _ in range(3):
        await fail(ref, RESTARTS, clock)
        clock.advance(WITHIN)
    assert await ref.ask("still there") == 1


async def test_a_restart_in_the_middle_of_a_burst_lets_setup_finish_before_the_rest(supervisor: Supervisor) -> None:
    gate = asyncio.Event()
    order: list[str] = []

    class Loading(Counter):
        async def setup(self) -> None:
            if order:  # the second life
                await gate.wait()
            order.append("set up")

        @handles(str)
        def receive(self, message: str) -> int:
            if message == "break":
                self.actor_ref.tell("to my next life")
            order.append(message)
            return super().receive(message)

    ref = supervisor.start(Loading)
    ref.tell("break")
    for _ in range(6):
        await asyncio.sleep(0)
    assert order == ["set up", "break"]
    gate.set()
    await settled(ref)
    assert order == ["set up", "break", "set up", "to my next life"]


async def test_an_actor_that_cannot_start_is_tried_as_often_as_its_budget_allows(
    supervisor: Supervisor, clock: ManualClock
) -> None:
    tries: list[int] = []

    class Stillborn(Counter):
        def on_start(self) -> None:
            tries.append(1)
            raise LookupError("no start")

    deaths: list[str] = []
    ref = supervisor.start(Stillborn, on_death=lambda: deaths.append("dead"))
    clock.advance(WITHIN)
    assert len(tries) == RESTARTS + 1
    assert deaths == ["dead"]
    assert not ref.is_alive()


async def test_one_actor_s_failures_cost_another_nothing(supervisor: Supervisor, clock: ManualClock) -> None:
    broken, other = supervisor.start(Counter), supervisor.start(Counter)
    await other.ask("one")
    await fail(broken, RESTARTS + 1, clock)
    assert not broken.is_alive()
    assert await other.ask("two") == 2


async def test_a_failed_actor_that_was_forgotten_is_not_replaced(supervisor: Supervisor, clock: ManualClock) -> None:
    ref = supervisor.start(Counter)
    supervisor.forget(ref)
    await fail(ref, 1, clock)
    assert not ref.is_alive()


async def test_all_stop_the_youngest_first_each_after_its_mail(supervisor: Supervisor) -> None:
    stopped: list[str] = []

    def named(name: str) -> Callable[[], LoopActor]:
        class Named(Counter):
            def on_stop(self) -> None:
                stopped.append(f"{name} after {self.count}")

        return Named

    refs = [supervisor.start(named(name)) for name in ("store", "registry", "session")]
    refs[0].tell("one")
    refs[0].tell("two")
    await supervisor.stop()
    assert stopped == ["session after 0", "registry after 0", "store after 2"]
    assert not any(ref.is_alive() for ref in refs)


async def test_an_actor_that_hangs_does_not_keep_the_others_from_stopping(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.actors.supervisor.STOP_SECONDS", 0.01)
    other, hanging = supervisor.start(Counter), supervisor.start(Counter)
    gate = asyncio.Event()
    hanging.tell(gate)
    await supervisor.stop()
    assert not other.is_alive()
    assert hanging.is_alive()
    gate.set()
    await until(lambda: not hanging.is_alive())


async def test_mailboxes_tell_what_waits_for_each_actor(supervisor: Supervisor) -> None:
    supervisor.start(Counter).tell("one")
    ref = supervisor.start(Counter)
    ref.tell("two")
    ref.tell("three")
    mailboxes = supervisor.mailboxes()
    assert next(mailboxes) == ("counter", 1)
    supervisor.start(Counter)  # while they are being looked at
    assert list(mailboxes) == [("counter", 2)]


async def test_failures_are_counted_by_class(clock: ManualClock) -> None:
    failures: collections.Counter[str] = collections.Counter()
    supervisor = Supervisor(clock, failures)
    ref = supervisor.start(Counter)
    ref.tell("break")
    await until(lambda: failures == {"counter": 1})
    await supervisor.stop()


async def test_lives_that_are_over_leave_memory(
    supervisor: Supervisor, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(100, "pykka")  # a log line kept for the report keeps the traceback
    ref = supervisor.start(Counter)
    first = weakref.ref(ref.actor)  # type: ignore[type-var]
    await fail(ref, 1, clock)
    gc.collect()
    assert first() is None
    assert ref.is_alive()
