"""An actor on the loop: one message at a time, in order, and whatever goes wrong stays its own affair."""

import asyncio
import contextlib
import gc
import logging
import weakref
from typing import Any, ClassVar

import attrs
import pykka
import pytest

from broker.actors.loop import LOOK_EVERY, TURN, TURN_SECONDS, LoopActor, handles
from broker.actors.ref import InboxFull, LoopRef
from broker.testing import settled, until


@attrs.frozen
class Note:
    """Keep this."""

    what: Any


@attrs.frozen
class Wait:
    """Wait for this, then keep `what`."""

    gate: asyncio.Event
    what: Any = "waited"


@attrs.frozen
class Break:
    """Raise this."""

    error: BaseException


@attrs.frozen
class BreakLater:
    """Raise this after a while."""

    error: BaseException


class Notebook(LoopActor):
    """Keeps what it is told."""

    inbox_limit: ClassVar[int] = 3

    def __init__(self, notes: list[Any] | None = None) -> None:
        super().__init__()
        self.notes: list[Any] = [] if notes is None else notes
        self.bursts: list[int] = []
        self.failures: list[Any] = []

    @handles(Note)
    def note(self, message: Note) -> int:
        self.notes.append(message.what)
        return len(self.notes)

    @handles(Wait)
    async def wait(self, message: Wait) -> int:
        self.notes.append("begun")
        await message.gate.wait()
        return self.note(Note(message.what))

    @handles(Break)
    def break_down(self, message: Break) -> None:
        raise message.error

    @handles(BreakLater)
    async def break_later(self, message: BreakLater) -> None:
        await asyncio.sleep(0)
        raise message.error

    def on_drained(self) -> None:
        self.bursts.append(len(self.notes))

    def on_stop(self) -> None:
        self.notes.append("stopped")

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        self.failures.append(exception_value)


def actor_of(ref: LoopRef[Notebook]) -> Notebook:
    assert ref.actor is not None
    return ref.actor


# -- telling and asking ------------------------------------------------------------------------------


async def test_what_is_told_is_handled_in_order_and_an_ask_is_answered_behind_it() -> None:
    ref = Notebook.start()
    ref.tell(Note("a"))
    ref.tell(Note("b"))
    assert await ref.ask(Note("c")) == 3
    assert actor_of(ref).notes == ["a", "b", "c"]


async def test_nothing_is_handled_before_the_loop_goes_on() -> None:
    ref = Notebook.start()
    ref.tell(Note("a"))
    assert actor_of(ref).notes == []


async def test_an_ask_that_is_not_answered_in_time_is_a_timeout_and_the_late_answer_is_dropped() -> None:
    ref = Notebook.start()
    gate = asyncio.Event()
    with pytest.raises(pykka.Timeout):
        await ref.ask(Wait(gate), timeout=0)
    gate.set()
    await settled(ref)
    assert actor_of(ref).notes == ["begun", "waited"]


async def test_an_ask_is_answered_by_the_exception_of_a_plain_and_of_an_async_handler_and_the_actor_goes_on() -> None:
    ref = Notebook.start()
    with pytest.raises(LookupError, match="plain"):
        await ref.ask(Break(LookupError("plain")))
    with pytest.raises(LookupError, match="later"):
        await ref.ask(BreakLater(LookupError("later")))
    assert await ref.ask(Note("a")) == 1


async def test_a_timeout_error_that_the_actor_answers_with_is_not_taken_for_a_missing_answer() -> None:
    ref = Notebook.start()
    with pytest.raises(TimeoutError, match="its own"):
        await ref.ask(Break(TimeoutError("its own")), timeout=5)


async def test_a_message_that_nothing_handles_is_logged_and_answered_with_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ref = Notebook.start()
    assert await ref.ask("what?") is None
    assert "Unexpected message" in caplog.text


async def test_handlers_are_inherited_and_overridden_by_name_of_the_message_s_class() -> None:
    class Shouting(Notebook):
        @handles(Note)
        def shout(self, message: Note) -> None:
            self.notes.append(message.what.upper())

    ref = Shouting.start()
    ref.tell(Note("a"))
    gate = asyncio.Event()
    gate.set()
    await ref.ask(Wait(gate))
    assert actor_of(ref).notes == ["A", "begun", "waited"]


async def test_proxy_messages_of_pykka_are_understood() -> None:
    ref = Notebook.start()
    assert await ref.ask(pykka.messages.ProxyCall(("note",), (Note("a"),), {})) == 1
    await ref.ask(pykka.messages.ProxySetAttr(("colour",), "red"))
    assert await ref.ask(pykka.messages.ProxyGetAttr(("colour",))) == "red"


async def test_an_actor_may_answer_later_and_then_its_return_value_is_not_the_answer() -> None:
    kept: list[Any] = []

    class Slow(LoopActor):
        @handles(Note)
        def note(self, message: Note) -> str:
            kept.append(self.answer_later())
            return "ignored"

    ref = Slow.start()
    asked = asyncio.ensure_future(ref.ask(Note("a")))
    await settled(ref)
    assert not asked.done()
    kept[0].set("at last")
    assert await asked == "at last"
    ref.tell(Note("nobody asks"))
    await settled(ref)
    kept[1].set("dropped")


async def test_a_told_message_that_is_answered_later_answers_nobody_not_even_whoever_asked_before() -> None:
    class Later(LoopActor):
        @handles(Note)
        def note(self, message: Note) -> str:
            return "answered"

        @handles(Wait)
        def wait(self, message: Wait) -> None:
            self.answer_later().set("an answer to nobody")

    answers: list[Any] = []

    class Reply:
        def set(self, value: Any = None, /) -> None:
            answers.append(value)

        def set_exception(self, exc_info: Any = None, /) -> None:
            answers.append(exc_info)

    ref = Later.start()
    ref.request(Note("a"), Reply())
    ref.tell(Wait(asyncio.Event()))
    await settled(ref)
    assert answers == ["answered"]


# -- the inbox ---------------------------------------------------------------------------------------


async def test_a_full_inbox_refuses_with_its_own_type_but_takes_what_is_urgent_and_a_stop() -> None:
    ref = Notebook.start()
    for word in "abc":
        ref.tell(Note(word))
    with pytest.raises(InboxFull, match="3 messages"):
        ref.tell(Note("d"))
    with pytest.raises(InboxFull):
        await ref.ask(Note("d"))
    ref.tell(Note("urgent"), urgent=True)
    notes = actor_of(ref).notes
    assert await ref.stop()
    assert notes == ["a", "b", "c", "urgent", "stopped"]


async def test_an_inbox_has_room_again_once_it_was_worked_off() -> None:
    ref = Notebook.start()
    for word in "abc":
        ref.tell(Note(word))
    await worked_off(ref)
    ref.tell(Note("d"))
    await settled(ref)
    assert actor_of(ref).notes == [*"abcd"]


async def worked_off(ref: LoopRef[Any]) -> None:
    await until(lambda: not ref.actor_inbox)


async def test_on_drained_is_called_once_for_a_burst() -> None:
    ref = Notebook.start()
    for word in "abc":
        ref.tell(Note(word))
    await worked_off(ref)
    assert actor_of(ref).bursts == [3]


async def test_an_actor_with_much_mail_lets_the_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.actors.loop.monotonic", float)  # its turn takes no time
    order: list[Any] = []
    busy, quick = Notebook.start(order), Notebook.start(order)
    for number in range(2 * TURN):
        busy.tell(Note(number), urgent=True)
    quick.tell(Note("quick"))
    await settled(quick)
    assert order[: TURN + 1] == [*range(TURN), "quick"]
    await worked_off(busy)
    assert len(order) == 2 * TURN + 1


async def test_an_actor_whose_messages_take_long_lets_the_others_have_their_turn_sooner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[Any] = []
    monkeypatch.setattr("broker.actors.loop.monotonic", lambda: len(order) * TURN_SECONDS / 2)  # as each message does
    busy = Notebook.start(order)
    for number in range(3 * LOOK_EVERY):
        busy.tell(Note(number), urgent=True)
    asyncio.get_running_loop().call_soon(lambda: order.append("socket"))
    await worked_off(busy)
    assert order.index("socket") == LOOK_EVERY - 1
    assert actor_of(busy).bursts[0] == LOOK_EVERY - 1
    assert [each for each in order if each != "socket"] == list(range(3 * LOOK_EVERY))


async def test_a_socket_s_turn_comes_between_two_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.actors.loop.monotonic", float)
    order: list[Any] = []
    busy = Notebook.start(order)
    for number in range(3 * TURN):
        busy.tell(Note(number), urgent=True)
    asyncio.get_running_loop().call_soon(lambda: order.append("socket"))
    await worked_off(busy)
    assert order.index("socket") == TURN


# -- async handlers ----------------------------------------------------------------------------------


async def test_an_async_handler_holds_back_the_next_message_until_it_is_done() -> None:
    ref = Notebook.start()
    gate = asyncio.Event()
    ref.tell(Wait(gate))
    asked = asyncio.ensure_future(ref.ask(Note("next")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert actor_of(ref).notes == ["begun"]
    gate.set()
    await asked
    assert actor_of(ref).notes == ["begun", "waited", "next"]


async def test_what_an_actor_tells_itself_before_an_async_handler_does_not_break_into_it() -> None:
    class Talking(Notebook):
        @handles(Note)
        def note(self, message: Note) -> int:
            if message.what == "talk":
                self.actor_ref.tell(Note("to myself"))
            return super().note(message)

    ref = Talking.start()
    gate = asyncio.Event()
    ref.tell(Note("talk"))
    ref.tell(Wait(gate))
    for _ in range(5):
        await asyncio.sleep(0)
    assert actor_of(ref).notes == ["talk", "begun"]
    gate.set()
    await settled(ref)
    assert actor_of(ref).notes == ["talk", "begun", "waited", "to myself"]


async def test_setup_is_awaited_before_the_first_message() -> None:
    gate = asyncio.Event()

    class Loading(Notebook):
        async def setup(self) -> None:
            await gate.wait()
            self.notes.append("loaded")

    ref = Loading.start()
    ref.tell(Note("a"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert actor_of(ref).notes == []
    gate.set()
    await settled(ref)
    assert actor_of(ref).notes == ["loaded", "a"]


# -- failure and cancellation ------------------------------------------------------------------------


async def test_a_told_message_that_fails_ends_its_actor_alone_and_answers_the_mail_behind_it() -> None:
    broken, other = Notebook.start(), Notebook.start()
    failures = actor_of(broken).failures
    broken.tell(Break(LookupError("told")))
    asked = asyncio.ensure_future(broken.ask(Note("behind")))
    with pytest.raises(pykka.ActorDeadError):
        await asked
    assert [str(e) for e in failures] == ["told"]
    assert not broken.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        broken.tell(Note("too late"))
    assert await other.ask(Note("a")) == 1


async def test_an_async_handler_that_fails_on_a_told_message_ends_its_actor() -> None:
    ref = Notebook.start()
    ref.tell(BreakLater(LookupError("told")))
    with pytest.raises(pykka.ActorDeadError):
        await ref.ask(Note("behind"))


async def test_an_answer_that_is_not_among_the_refusals_fails_the_actor_as_well() -> None:
    class Strict(Notebook):
        refusals: ClassVar[tuple[type[Exception], ...]] = (LookupError,)

    ref = Strict.start()
    with pytest.raises(LookupError):
        await ref.ask(Break(LookupError("a refusal")))
    assert ref.is_alive()
    with pytest.raises(ValueError, match="a bug"):
        await ref.ask(Break(ValueError("a bug")))
    assert not ref.is_alive()


async def test_a_failing_on_drained_and_a_failing_on_failure_end_the_actor_and_nothing_else() -> None:
    class Fragile(Notebook):
        def on_drained(self) -> None:
            raise LookupError("drained")

        def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
            raise LookupError("failing too")

    fragile, other = Fragile.start(), Notebook.start()
    assert await fragile.ask(Note("a")) == 1
    await settled(other)
    assert not fragile.is_alive()
    assert await other.ask(Note("a")) == 1


async def test_an_actor_that_fails_in_on_start_is_dead_from_the_beginning() -> None:
    class Stillborn(Notebook):
        def on_start(self) -> None:
            raise LookupError("no start")

    ref = Stillborn.start()
    assert not ref.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        await ref.ask(Note("a"))


async def test_cancelled_work_answers_its_asker_and_the_actor_goes_on() -> None:
    ref = Notebook.start()
    asked = asyncio.ensure_future(ref.ask(Wait(asyncio.Event())))
    await settled_on_begun(ref)
    work = next(task for task in asyncio.all_tasks() if task.get_name().endswith("handles a message"))
    work.cancel()
    with pytest.raises(TimeoutError, match="cancelled"):
        await asked
    assert await ref.ask(Note("a")) == 2


async def settled_on_begun(ref: LoopRef[Notebook]) -> None:
    await until(lambda: actor_of(ref).notes == ["begun"])


async def test_a_cancelled_asker_takes_neither_the_actor_nor_the_message_with_it() -> None:
    ref = Notebook.start()
    gate = asyncio.Event()
    asked = asyncio.ensure_future(ref.ask(Wait(gate)))
    await settled_on_begun(ref)
    asked.cancel()
    gate.set()
    await settled(ref)
    assert actor_of(ref).notes == ["begun", "waited"]


class Doom(BaseException):
    """Neither an Exception nor the end of the program."""


@pytest.mark.parametrize("error", [Doom("doom"), asyncio.CancelledError(), GeneratorExit()])
async def test_not_even_a_base_exception_in_one_actor_stops_another(error: BaseException) -> None:
    broken, other = Notebook.start(), Notebook.start()
    broken.tell(Break(error))
    other.tell(Note("a"))
    async with asyncio.timeout(5):
        assert await other.ask(Note("b")) == 2


@pytest.mark.parametrize("breaking", [Break, BreakLater])
async def test_whoever_asked_for_what_ended_in_a_base_exception_gets_an_answer(breaking: type) -> None:
    ref = Notebook.start()
    with pytest.raises((Doom, pykka.ActorDeadError)):
        await ref.ask(breaking(Doom("doom")), timeout=5)


@pytest.mark.parametrize("breaking", [Break, BreakLater])
async def test_an_asker_of_work_that_turned_out_cancelled_is_answered_and_the_actor_goes_on(breaking: type) -> None:
    ref = Notebook.start()
    with pytest.raises(TimeoutError, match="cancelled"):
        await ref.ask(breaking(asyncio.CancelledError()), timeout=5)
    assert await ref.ask(Note("a"), timeout=5) == 1


# -- stopping ----------------------------------------------------------------------------------------


async def test_stop_waits_its_turn_and_what_comes_behind_it_is_answered_as_dead() -> None:
    ref = Notebook.start()
    notes = actor_of(ref).notes
    ref.tell(Note("before"))
    stopping = asyncio.ensure_future(ref.stop())
    await asyncio.sleep(0)
    late = asyncio.ensure_future(ref.ask(Note("behind")))
    assert await stopping is True
    with pytest.raises(pykka.ActorDeadError):
        await late
    assert notes == ["before", "stopped"]
    assert await ref.stop() is False
    assert ref.actor is None


async def test_two_stops_at_once_are_both_answered() -> None:
    ref = Notebook.start()
    assert await asyncio.gather(ref.stop(), ref.stop()) == [True, True]


async def test_a_failing_on_stop_does_not_keep_the_actor_from_stopping() -> None:
    class Stubborn(Notebook):
        def on_stop(self) -> None:
            raise LookupError("no")

    ref = Stubborn.start()
    assert await ref.stop()
    assert not ref.is_alive()


async def test_a_stop_that_takes_too_long_is_a_timeout_and_still_comes_to_pass() -> None:
    ref = Notebook.start()
    gate = asyncio.Event()
    ref.tell(Wait(gate))
    with pytest.raises(pykka.Timeout):
        await ref.stop(timeout=0)
    gate.set()
    await until(lambda: not ref.is_alive())


# -- what an actor costs -----------------------------------------------------------------------------


async def test_an_idle_actor_has_no_task_and_a_forgotten_one_no_place_in_memory() -> None:
    before = asyncio.all_tasks()
    refs = [Notebook.start() for _ in range(100)]
    for ref in refs:
        ref.tell(Note("a"))
    await settled(refs[-1])
    assert asyncio.all_tasks() == before
    alive = [weakref.ref(actor_of(ref)) for ref in refs]
    del refs, ref
    gc.collect()
    assert not any(actor() for actor in alive)


async def test_a_stopped_actor_leaves_memory_although_its_reference_is_kept() -> None:
    ref = Notebook.start()
    alive = weakref.ref(actor_of(ref))
    await ref.stop()
    gc.collect()
    assert alive() is None
    assert not ref.is_alive()


async def test_a_failed_actor_leaves_memory_although_its_reference_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "pykka")  # a log line kept for the report keeps the traceback
    ref = Notebook.start()
    alive = weakref.ref(actor_of(ref))
    ref.tell(Break(LookupError("told")))
    with contextlib.suppress(pykka.ActorDeadError):
        await ref.ask(Note("behind"))
    caplog.clear()
    gc.collect()
    assert alive() is None


async def test_pykka_s_global_registry_never_hears_of_it() -> None:
    ref = Notebook.start()
    assert ref not in pykka.ActorRegistry.get_all()  # noqa: TID251 - to see that we are not in it
    await ref.stop()


async def test_screening_begins_with_the_very_next_message_also_within_a_burst() -> None:
    class Closing(Notebook):
        inbox_limit = 10

        @handles(Wait)
        def close(self, message: Wait) -> None:
            self.screen_mail()

        def on_receive(self, message: Any) -> Any:
            self.notes.append("screened")

    ref = Closing.start()
    for message in (Note("a"), Wait(asyncio.Event()), Note("b")):
        ref.tell(message)
    await settled(ref)
    assert actor_of(ref).notes == ["a", "screened"]
