"""Actors on the loop and pykka's own, in threads, tell and ask each other; neither blocks the loop."""

import asyncio
import threading
from typing import Any

import attrs
import pykka
import pytest

from broker.actors.futures import NO_ONE, LoopFuture, ask_thread
from broker.actors.loop import LoopActor, handles
from broker.actors.ref import InboxFull, LoopRef
from broker.testing import settled, until


@attrs.frozen
class Add:
    """Add this to the sum and return it."""

    number: int


class Sum(LoopActor):
    """Adds up, on the loop."""

    inbox_limit = 1000

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.threads: set[int] = set()

    @handles(Add)
    def add(self, message: Add) -> int:
        if message.number < 0:
            raise ValueError("negative")
        self.threads.add(threading.get_ident())
        self.total += message.number
        return self.total


class Threaded(pykka.ThreadingActor):
    """Runs whatever function it is told, in its own thread."""

    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        return message()


@pytest.fixture
def threaded() -> Any:
    ref = Threaded.start()
    yield ref
    ref.stop(timeout=5)


async def test_a_threading_actor_tells_one_on_the_loop_which_handles_it_on_the_loop(
    threaded: pykka.ActorRef[Threaded],
) -> None:
    ref = Sum.start()
    for number in range(10):
        await ask_thread(threaded, lambda number=number: ref.tell(Add(number)), timeout=5)
    await settled(ref)
    assert ref.actor is not None
    assert ref.actor.total == 45
    assert ref.actor.threads == {threading.get_ident()}


async def test_a_threading_actor_asks_one_on_the_loop_and_gets_its_answer_or_its_exception(
    threaded: pykka.ActorRef[Threaded],
) -> None:
    ref = Sum.start()
    assert await ask_thread(threaded, lambda: ref.ask_from_thread(Add(3), timeout=5), timeout=5) == 3
    with pytest.raises(ValueError, match="negative"):
        await ask_thread(threaded, lambda: ref.ask_from_thread(Add(-1), timeout=5), timeout=5)


async def test_on_the_loop_itself_asking_as_from_a_thread_is_refused_rather_than_hanging_for_ever() -> None:
    ref = Sum.start()
    with pytest.raises(RuntimeError, match=r"await ref\.ask"):
        ref.ask_from_thread(Add(1))
    with pytest.raises(RuntimeError, match="await this future"):
        LoopFuture[int]().get()


async def test_the_loop_asks_a_threading_actor_without_blocking(threaded: pykka.ActorRef[Threaded]) -> None:
    gate = threading.Event()
    asked = asyncio.ensure_future(ask_thread(threaded, lambda: gate.wait(5), timeout=5))
    ref = Sum.start()
    assert await ref.ask(Add(1)) == 1  # while the thread is busy
    assert not asked.done()
    gate.set()
    assert await asked is True


async def test_a_threading_actor_answers_the_loop_with_its_exception(threaded: pykka.ActorRef[Threaded]) -> None:
    def fail() -> None:
        raise LookupError("in the thread")

    with pytest.raises(LookupError, match="in the thread"):
        await ask_thread(threaded, fail, timeout=5)


async def test_a_threading_actor_that_takes_too_long_is_a_timeout(threaded: pykka.ActorRef[Threaded]) -> None:
    gate = threading.Event()
    with pytest.raises(pykka.Timeout):
        await ask_thread(threaded, lambda: gate.wait(5), timeout=0)
    gate.set()


async def test_a_stopped_threading_actor_is_dead_to_the_loop_also_for_what_it_had_not_handled() -> None:
    ref = Threaded.start()
    gate = threading.Event()
    ref.tell(lambda: gate.wait(5))
    ref.stop(block=False)
    late = asyncio.ensure_future(ask_thread(ref, lambda: "late", timeout=5))
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(pykka.ActorDeadError):
        await late
    with pytest.raises(pykka.ActorDeadError):
        await ask_thread(ref, lambda: "later")


async def test_a_thread_that_tells_or_asks_a_stopped_actor_is_told_that_it_is_dead(
    threaded: pykka.ActorRef[Threaded],
) -> None:
    ref = Sum.start()
    await ref.stop()
    with pytest.raises(pykka.ActorDeadError):
        await ask_thread(threaded, lambda: ref.tell(Add(1)), timeout=5)


async def test_a_question_of_a_thread_that_crosses_with_a_stop_is_answered_as_dead(
    threaded: pykka.ActorRef[Threaded],
) -> None:
    ref = Sum.start()
    on_its_way = threading.Event()
    answers: list[BaseException] = []

    def ask() -> None:
        future: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
        ref.request(Add(1), future)  # type: ignore[arg-type]
        on_its_way.set()
        try:
            future.get(timeout=5)
        except pykka.ActorDeadError as e:
            answers.append(e)

    assert ref.actor is not None
    ref.actor.stop()  # the stop is in the inbox, and the loop stands still until the thread has asked
    threaded.tell(ask)
    assert on_its_way.wait(5)
    await until(lambda: answers)


async def test_a_thread_is_refused_by_a_full_inbox_too(threaded: pykka.ActorRef[Threaded]) -> None:
    class Narrow(Sum):
        inbox_limit = 0

    ref: LoopRef[Narrow] = Narrow.start()
    with pytest.raises(InboxFull):
        await ask_thread(threaded, lambda: ref.tell(Add(1)), timeout=5)
    await ask_thread(threaded, lambda: ref.tell(Add(1), urgent=True), timeout=5)


async def test_mail_of_a_thread_does_not_break_into_an_async_handler(threaded: pykka.ActorRef[Threaded]) -> None:
    order: list[str] = []
    gate = asyncio.Event()

    class Slow(LoopActor):
        @handles(str)
        async def wait(self, message: str) -> None:
            order.append(f"{message} begins")
            await gate.wait()
            order.append(f"{message} ends")

    ref = Slow.start()
    ref.tell("first")
    await asyncio.sleep(0)
    await ask_thread(threaded, lambda: ref.tell("second"), timeout=5)
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["first begins"]
    gate.set()
    await ref.stop()
    assert order == ["first begins", "first ends", "second begins", "second ends"]


async def test_the_first_answer_of_a_future_counts_whichever_thread_it_comes_from() -> None:
    future = LoopFuture[int]()
    threads = [threading.Thread(target=future.set, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
        thread.join(5)
    assert await future == 1
    assert await future.wait(0) == 1


async def test_a_future_may_be_answered_by_the_exception_in_hand() -> None:
    future = LoopFuture[int]()
    try:
        raise LookupError("in hand")  # noqa: TRY301
    except LookupError:
        future.set_exception()
    with pytest.raises(LookupError, match="in hand"):
        await future


def test_what_comes_for_a_loop_that_is_closed_is_dropped_or_refused_as_dead() -> None:
    async def leave_behind() -> tuple[LoopFuture[int], LoopRef[Sum]]:
        return LoopFuture[int](), Sum.start()

    future, ref = asyncio.run(leave_behind())
    raised: list[BaseException | None] = []

    def come_late() -> None:
        future.set(1)
        future.set_exception((LookupError, LookupError("late"), None))
        try:
            ref.tell(Add(1))
        except pykka.ActorDeadError as e:
            raised.append(e)

    thread = threading.Thread(target=come_late)
    thread.start()
    thread.join(5)
    assert len(raised) == 1


def test_no_one_takes_any_answer() -> None:
    NO_ONE.set(1)
    NO_ONE.set_exception(None)
