"""References to actors on the loop: their inboxes, and the queue in which those with mail wait for their turn."""

from __future__ import annotations

import asyncio
from collections import deque
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast
from weakref import WeakKeyDictionary

import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from broker.actors.futures import LoopFuture, ReplyTo

if TYPE_CHECKING:
    from broker.actors.loop import LoopActor

__all__ = ["Inbox", "InboxFull", "LoopRef", "StopFlag", "answer_dead"]

A = TypeVar("A", bound="LoopActor")


class InboxFull(Exception):  # noqa: N818 - named after the state of the resource, as trio does
    """The actor has as much mail as it may have; the message was not taken."""


class StopFlag:
    """What an actor needs of `threading.Event`, at a tenth of its memory."""

    __slots__ = ("_set",)

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        """Tell whether the actor has stopped."""
        return self._set

    def set(self) -> None:
        """Note that the actor has stopped."""
        self._set = True


class Inbox(deque[Any]):
    """A deque of messages and envelopes with the face that pykka's code expects."""

    __slots__ = ()

    def put(self, envelope: Any, /) -> None:
        """Append a message."""
        self.append(envelope)

    def get(self) -> Any:
        """Take the oldest message."""
        return self.popleft()

    def empty(self) -> bool:
        """Tell whether there is none."""
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
        try:
            for _ in range(len(ready)):
                ready.popleft().work()
        finally:  # whatever one of them raised, the others have their turn
            self._armed = bool(ready)
            if ready:
                self.loop.call_soon(self._run)


class LoopRef(pykka.ActorRef[A]):
    """A reference to an actor on the loop: it stays good when a supervisor replaces the actor behind it."""

    actor_inbox: Inbox

    def __init__(self, actor: A) -> None:
        super().__init__(actor)
        self._actor: A | None = actor
        self._queue = _RunQueue.here()
        self._thread = self._queue.thread
        self._limit = actor.inbox_limit
        self._queued = False  # whether it stands in the run queue
        self._held = True  # until the actor has started

    def is_alive(self) -> bool:
        """Tell whether the actor takes messages; it does while a supervisor replaces a failed one."""
        return self._actor is not None

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
        if self._actor is None:
            raise pykka.ActorDeadError(f"{self} not found")
        inbox = self.actor_inbox
        if not urgent and len(inbox) >= self._limit and type(message) is not _ActorStop:
            raise InboxFull(f"{self} has {len(inbox)} messages waiting")
        if get_ident() != self._thread:
            self._cross(message)
            return
        inbox.append(message)
        if not self._queued and not self._held:
            self._queued = True
            self._queue.add(self)

    def request(self, message: Any, reply_to: ReplyTo, *, urgent: bool = False) -> None:
        """Tell the actor a message whose answer goes to `reply_to`; the ask of those who cannot wait.

        Args:
            message: anything the actor understands.
            reply_to: where its answer goes, an exception too.
            urgent: as for `tell`.

        Raises:
            pykka.ActorDeadError, InboxFull: as `tell`.
        """
        self.tell(Envelope(message, reply_to=cast("pykka.Future[Any]", reply_to)), urgent=urgent)

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
        if actor is not None and not self._held and actor.work_off_inbox():
            self.wake()

    def wake(self) -> None:
        """Have the actor look into its inbox in the next tick."""
        if not self._queued and not self._held:
            self._queued = True
            self._queue.add(self)

    def hold(self) -> None:
        """Keep the actor from working, even if its turn is due already, until `release`."""
        self._held = True

    def release(self) -> None:
        """End a `hold`."""
        self._held = False
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

    def _cross(self, message: Any) -> None:
        try:
            self._queue.loop.call_soon_threadsafe(self._accept, message)
        except RuntimeError as e:
            raise pykka.ActorDeadError(f"the loop of {self} is closed") from e

    def _accept(self, message: Any) -> None:
        if self._actor is None:
            _refuse_dead(self, message)
            return
        self.actor_inbox.append(message)
        self.wake()


def answer_dead(item: Any, error: pykka.ActorDeadError) -> None:
    """Answer a message that its actor will not handle any more."""
    if type(item) is not Envelope or item.reply_to is None:
        return
    if type(item.message) is _ActorStop:
        item.reply_to.set(None)
    else:
        item.reply_to.set_exception((type(error), error, None))


def _refuse_dead(ref: LoopRef[Any], item: Any) -> None:
    answer_dead(item, pykka.ActorDeadError(f"{ref} not found"))
