"""Pykka's actors on the event loop: the model without a thread per actor.

A `LoopActor` is a `pykka.Actor` whose inbox is worked off by the event loop. An idle actor costs no
task, no timer and no future: its mail is queued, and one run queue per loop works off, tick by tick,
the actors that have mail. An actor that answers with a coroutine is paused until it is done, so it
still handles one message at a time.

This is the only module that touches pykka's private names (each has a contract test in
`tests/actors/test_pykka_contract.py`). What it changes, and why, is in ARCHITECTURE.md.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from threading import get_ident
from types import TracebackType
from typing import Any, ClassVar, Final, Protocol, Self, TypeVar, cast
from weakref import WeakKeyDictionary

import pykka
from pykka._envelope import Envelope
from pykka._introspection import get_attr_directly
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from broker.tasks import spawn

__all__ = ["NO_ONE", "InboxFull", "LoopActor", "LoopFuture", "LoopRef", "ReplyTo", "ask_thread"]

T = TypeVar("T")
A = TypeVar("A", bound="LoopActor")
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

TURN: Final = 256
"""Messages an actor may handle before the others, and the sockets, have their turn."""


class InboxFull(Exception):  # noqa: N818 - named after the state of the resource, as trio does
    """The actor has as much mail as it may have; the message was not taken."""


class ReplyTo(Protocol):
    """Where an answer goes: a future, or anything else with these two methods."""

    def set(self, value: Any = None, /) -> None:
        """Answer with a value."""

    def set_exception(self, exc_info: ExcInfo | None = None, /) -> None:
        """Answer with an exception; the one being handled if none is given."""


class _NoOne:
    """Takes the answers that nobody waits for."""

    def set(self, value: Any = None, /) -> None:
        pass

    def set_exception(self, exc_info: ExcInfo | None = None, /) -> None:
        pass


NO_ONE: Final[ReplyTo] = _NoOne()


class LoopFuture(pykka.Future[T]):
    """A pykka future that is awaited on the loop it was made on, and may be set from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._future: asyncio.Future[T] = self._loop.create_future()

    def get(self, *, timeout: float | None = None) -> T:  # noqa: ARG002 - pykka's signature
        """Refuse: blocking here would stop the loop that has to bring the answer.

        Raises:
            RuntimeError: always; await the future instead.
        """
        raise RuntimeError("await this future; get() would block the event loop")

    def set(self, value: T | None = None) -> None:
        """Answer with a value; a second answer, or one that nobody waits for any more, is dropped."""
        self._resolve(self._future.set_result, cast("T", value))

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:
        """Answer with an exception; the one being handled if none is given."""
        _, error, traceback = exc_info or cast("ExcInfo", sys.exc_info())
        self._resolve(self._future.set_exception, error.with_traceback(traceback))

    def _resolve(self, setter: Callable[[Any], None], value: Any) -> None:
        if get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._resolve_here, setter, value)
        else:
            self._resolve_here(setter, value)

    def _resolve_here(self, setter: Callable[[Any], None], value: Any) -> None:
        if not self._future.done():
            setter(value)

    def __await__(self) -> Any:  # type: ignore[override]  # pykka's own version would block the loop
        return self._future.__await__()

    async def wait(self, timeout: float | None) -> T:  # noqa: ASYNC109 - pykka's Timeout, not asyncio's
        """Return the answer.

        Args:
            timeout: seconds, or None for ever.

        Raises:
            pykka.Timeout: there was no answer in time.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._future
        except TimeoutError as e:
            if not self._future.cancelled():
                raise
            raise pykka.Timeout(f"no answer in {timeout} s") from e


async def ask_thread(ref: pykka.ActorRef[Any], message: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109
    """Ask a `pykka.ThreadingActor` from the event loop, without blocking either.

    Raises:
        pykka.ActorDeadError: the actor has stopped.
        pykka.Timeout: there was no answer within `timeout` seconds.
    """
    if not ref.is_alive():
        raise pykka.ActorDeadError(f"{ref} not found")
    future: LoopFuture[Any] = LoopFuture()
    ref.actor_inbox.put(Envelope(message, reply_to=future))
    return await future.wait(timeout)


class _StopFlag:
    """What an actor needs of `threading.Event`, at a tenth of its memory."""

    __slots__ = ("_set",)

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True


class _Inbox(deque[Any]):
    """A deque of messages and envelopes with the face that pykka's code expects."""

    __slots__ = ()

    def put(self, envelope: Any, /) -> None:
        self.append(envelope)

    def get(self) -> Any:
        return self.popleft()

    def empty(self) -> bool:
        return not self


class _RunQueue:
    """The actors of one loop that have mail, in the order in which it came."""

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, _RunQueue]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = get_ident()
        self._ready: deque[LoopRef[Any]] = deque()
        self._armed = False

    @classmethod
    def here(cls) -> _RunQueue:
        loop = asyncio.get_running_loop()
        queue = cls._of_loop.get(loop)
        if queue is None:
            queue = cls._of_loop[loop] = cls(loop)
        return queue

    def add(self, ref: LoopRef[Any]) -> None:
        self._ready.append(ref)
        if not self._armed:
            self._armed = True
            self.loop.call_soon(self._run)

    def _run(self) -> None:
        """Give every actor that is ready now one turn; what becomes ready meanwhile waits for the next tick."""
        ready = self._ready
        for _ in range(len(ready)):
            ready.popleft().work()
        self._armed = bool(ready)
        if ready:
            self.loop.call_soon(self._run)


class LoopRef(pykka.ActorRef[A]):
    """A reference to an actor on the loop: it stays good when a supervisor replaces the actor behind it."""

    actor_inbox: _Inbox

    def __init__(self, actor: A) -> None:
        super().__init__(actor)
        self._actor: A | None = actor
        self._queue = _RunQueue.here()
        self._limit = actor.inbox_limit
        self._queued = True  # until the actor has started

    @property
    def actor(self) -> A | None:
        """The actor itself, for a look at it on its own loop; None once it has stopped."""
        return self._actor

    def tell(self, message: Any, *, urgent: bool = False) -> None:
        """Put a message into the actor's inbox; safe from every thread.

        Args:
            message: anything the actor understands.
            urgent: take it even if the inbox is full. For what the actor itself asked for or has to
                know (an answer, a commit, a stop), whose number its own questions bound.

        Raises:
            pykka.ActorDeadError: the actor has stopped.
            InboxFull: there is no room; the sender should refuse its own sender in turn.
        """
        if self.actor_stopped.is_set():
            raise pykka.ActorDeadError(f"{self} not found")
        inbox = self.actor_inbox
        if len(inbox) >= self._limit and not urgent and type(message) is not _ActorStop:
            raise InboxFull(f"{self} has {len(inbox)} messages waiting")
        if get_ident() != self._queue.thread:
            self._queue.loop.call_soon_threadsafe(self._accept, message)
            return
        inbox.append(message)
        if not self._queued:
            self._queued = True
            self._queue.add(self)

    def request(self, message: Any, reply_to: ReplyTo) -> None:
        """Tell the actor a message whose answer goes to `reply_to`; the ask of those who cannot wait.

        Raises:
            pykka.ActorDeadError, InboxFull: as `tell`.
        """
        self.tell(Envelope(message, reply_to=cast("pykka.Future[Any]", reply_to)))

    async def ask(self, message: Any, *, timeout: float | None = None) -> Any:  # type: ignore[override]  # noqa: ASYNC109
        """Return the actor's answer.

        Args:
            message: anything the actor understands.
            timeout: seconds, or None for ever.

        Raises:
            pykka.ActorDeadError, InboxFull: as `tell`.
            pykka.Timeout: there was no answer in time.
            Exception: what the actor answered with.
        """
        future: LoopFuture[Any] = LoopFuture()
        self.request(message, future)
        return await future.wait(timeout)

    def ask_from_thread(self, message: Any, *, timeout: float | None = None) -> Any:
        """Return the actor's answer to a caller in another thread, which blocks meanwhile.

        Raises:
            RuntimeError: called on the actor's own loop, which it would block for ever.
            pykka.ActorDeadError, InboxFull, pykka.Timeout, Exception: as `ask`.
        """
        if get_ident() == self._queue.thread:
            raise RuntimeError("on the event loop, use `await ref.ask(...)`")
        future: pykka.ThreadingFuture[Any] = pykka.ThreadingFuture()
        self.request(message, cast("ReplyTo", future))
        return future.get(timeout=timeout)

    async def stop(self, *, timeout: float | None = None) -> bool:  # type: ignore[override]  # noqa: ASYNC109
        """Stop the actor after the mail it already has; return False if it had stopped before.

        Raises:
            pykka.Timeout: it did not stop in time.
        """
        if self.actor_stopped.is_set():
            return False
        future: LoopFuture[Any] = LoopFuture()
        self.tell(Envelope(_ActorStop(), reply_to=future), urgent=True)
        try:
            await future.wait(timeout)
        except pykka.ActorDeadError:
            return False
        return True

    def work(self) -> None:
        """Give the actor a turn; the run queue's side of the reference."""
        self._queued = False
        actor = self._actor
        if actor is not None and actor.work_off_inbox():
            self.wake()

    def wake(self) -> None:
        """Have the actor look into its inbox in the next tick."""
        if not self._queued:
            self._queued = True
            self._queue.add(self)

    def hold(self) -> None:
        """Keep the actor from working until `wake` is called on a released reference."""
        self._queued = True

    def release(self) -> None:
        """End a `hold`."""
        self._queued = False
        if self.actor_inbox:
            self.wake()

    def replace(self, actor: A) -> None:
        """Put a fresh actor behind this reference; the mail stays, the message that failed is gone."""
        actor.actor_inbox = self.actor_inbox
        actor._actor_ref = self
        self._actor = actor
        self.actor_stopped = actor.actor_stopped

    def give_up(self) -> None:
        """Let the failed actor behind this reference stay dead: its mail is answered as dead."""
        if self._actor is not None:
            self._actor._finish(pykka.ActorDeadError(f"{self} failed"))

    def forget(self) -> None:
        """Let go of the stopped actor, so that neither keeps the other in memory."""
        self._actor = None

    def _accept(self, message: Any) -> None:
        if self.actor_stopped.is_set():
            _refuse_dead(self, message)
            return
        self.actor_inbox.append(message)
        self.wake()


class LoopActor(pykka.Actor):
    """An actor on the event loop.

    Override `on_receive`, and where needed `setup` (async), `on_drained`, `on_stop` and `on_failure`.
    Unlike pykka's threads an actor here never registers globally and never stops others: a cancelled
    or failing handler stays its own affair, and a supervisor may put a fresh actor behind the same
    reference.
    """

    inbox_limit: ClassVar[int] = 1000
    """Messages an inbox holds before `tell` refuses."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (Exception,)
    """Exceptions that are answers to an ask; any other one fails the actor as well."""

    _numbers: ClassVar[itertools.count[int]] = itertools.count(1)

    actor_inbox: _Inbox

    def __init__(self) -> None:
        # Not pykka's: it would make a uuid and a threading.Event for every socket.
        self.actor_urn = f"{type(self).__name__.lower()}-{next(self._numbers)}"
        self.actor_inbox = self._create_actor_inbox()
        self.actor_stopped = _StopFlag()  # type: ignore[assignment]
        self._actor_ref: LoopRef[Self] = LoopRef(self)
        self._in_hand: Envelope[Any] | None = None
        self._supervisor: Callable[[LoopRef[Any], BaseException], None] | None = None

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> LoopRef[Self]:
        """Make the actor and start it on the running loop."""
        actor = cls(*args, **kwargs)
        actor.begin()
        return actor.actor_ref

    @property
    def actor_ref(self) -> LoopRef[Self]:
        """The reference others hold."""
        return self._actor_ref

    @staticmethod
    def _create_actor_inbox() -> _Inbox:
        return _Inbox()

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return LoopFuture()

    def begin(self) -> None:
        """Start handling mail; for whoever made the actor itself rather than by `start`."""
        self._start_actor_loop()

    def _start_actor_loop(self) -> None:
        self.actor_ref.hold()
        self._actor_loop_setup()
        if self.actor_stopped.is_set():
            self._fail(pykka.ActorDeadError(f"{self.actor_ref} failed in on_start"))
        elif type(self).setup is LoopActor.setup:
            self.actor_ref.release()
        else:
            self._pause_for(self.setup(), None)

    async def setup(self) -> None:
        """Run before the first message: load what has to be waited for."""

    def on_drained(self) -> None:
        """Run after a burst of messages, before the loop goes on: join what has to be said into one write."""

    def answer_later(self) -> ReplyTo:
        """Take over answering the message in hand; whoever calls this must answer exactly once."""
        envelope = self._in_hand
        if envelope is None or envelope.reply_to is None:
            return NO_ONE
        reply_to, envelope.reply_to = envelope.reply_to, None
        return cast("ReplyTo", reply_to)

    def supervised_by(self, on_death: Callable[[LoopRef[Any], BaseException], None]) -> None:
        """Name who is told when this actor fails."""
        self._supervisor = on_death

    def work_off_inbox(self) -> bool:
        """Handle the waiting mail, at most `TURN` messages; return whether there is more to do now."""
        inbox = self.actor_inbox
        for _ in range(min(len(inbox), TURN)):
            if not self._handle(inbox.popleft()):
                return False
        self._guard(self.on_drained)
        return bool(inbox) and not self.actor_stopped.is_set()

    def _handle(self, item: Any) -> bool:
        """Handle one message; return whether the actor can take the next one at once."""
        envelope = item if type(item) is Envelope else None
        self._in_hand = envelope
        try:
            response = self._handle_receive(item if envelope is None else envelope.message)
        except Exception as e:  # noqa: BLE001 - an actor's failure is its own, whatever it is
            self._failed_on(envelope, e)
            return not self.actor_stopped.is_set()
        if inspect.iscoroutine(response):
            self._pause_for(response, envelope)
            return False
        if envelope is not None and envelope.reply_to is not None:
            envelope.reply_to.set(response)
        return not self.actor_stopped.is_set()

    def _handle_receive(self, message: Any) -> Any:
        kind = type(message)
        if kind is _ActorStop:
            return self._stop()
        if kind is ProxyCall:
            return get_attr_directly(self, message.attr_path)(*message.args, **message.kwargs)
        if kind is ProxyGetAttr or kind is ProxySetAttr:
            return super()._handle_receive(message)
        return self.on_receive(message)

    def _pause_for(self, work: Awaitable[Any], envelope: Envelope[Any] | None) -> None:
        """Let no message in until `work` is done, then answer `envelope` and go on."""
        self.actor_ref.hold()
        spawn(self._see_through(work, envelope), name=f"{self.actor_urn} handles a message")

    async def _see_through(self, work: Awaitable[Any], envelope: Envelope[Any] | None) -> None:
        try:
            response = await work
        except asyncio.CancelledError:
            # Whoever cancelled meant this message alone; its asker must not wait for ever.
            self._fail_envelope(envelope, TimeoutError("the work on this message was cancelled"))
        except Exception as e:  # noqa: BLE001 - as in _handle
            self._failed_on(envelope, e)
        else:
            if envelope is not None and envelope.reply_to is not None:
                envelope.reply_to.set(response)
        if not self.actor_stopped.is_set():
            self._guard(self.on_drained)
            self.actor_ref.release()

    def _guard(self, hook: Callable[[], None]) -> None:
        if self.actor_stopped.is_set():
            return
        try:
            hook()
        except Exception as e:  # noqa: BLE001 - as in _handle
            self._fail(e)

    def _failed_on(self, envelope: Envelope[Any] | None, error: Exception) -> None:
        if envelope is None or envelope.reply_to is None:
            self._fail(error)
            return
        self._fail_envelope(envelope, error)
        if not isinstance(error, self.refusals):
            self._fail(error)

    @staticmethod
    def _fail_envelope(envelope: Envelope[Any] | None, error: Exception) -> None:
        if envelope is not None and envelope.reply_to is not None:
            envelope.reply_to.set_exception((type(error), error, error.__traceback__))

    def _stop(self) -> None:
        self.actor_stopped.set()
        envelope = self._in_hand
        try:
            self.on_stop()
        except Exception as e:  # noqa: BLE001 - stopping goes on
            self._handle_failure(type(e), e, e.__traceback__)
        if envelope is not None and envelope.reply_to is not None:
            envelope.reply_to.set(None)
            envelope.reply_to = None
        self._finish(pykka.ActorDeadError(f"{self.actor_ref} stopped before handling the message"))

    def _fail(self, error: Exception) -> None:
        self._handle_failure(type(error), error, error.__traceback__)
        try:
            self.on_failure(type(error), error, error.__traceback__)
        except Exception as e:  # noqa: BLE001 - failing goes on
            self._handle_failure(type(e), e, e.__traceback__)
        if self._supervisor is None:
            self._finish(pykka.ActorDeadError(f"{self.actor_ref} failed"))
        else:
            self.actor_ref.hold()
            self._supervisor(self.actor_ref, error)

    def _handle_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pykka._actor.logger.error(
            "Unhandled exception in %s:",
            self,
            exc_info=(exception_type, exception_value, traceback),  # type: ignore[arg-type]
        )
        self.actor_stopped.set()

    def _finish(self, error: pykka.ActorDeadError) -> None:
        for item in self.actor_inbox:
            _answer_dead(item, error)
        self.actor_inbox.clear()
        self.actor_ref.forget()


def _answer_dead(item: Any, error: pykka.ActorDeadError) -> None:
    if type(item) is not Envelope or item.reply_to is None:
        return
    if type(item.message) is _ActorStop:
        item.reply_to.set(None)
    else:
        item.reply_to.set_exception((type(error), error, None))


def _refuse_dead(ref: LoopRef[Any], item: Any) -> None:
    _answer_dead(item, pykka.ActorDeadError(f"{ref} not found"))
