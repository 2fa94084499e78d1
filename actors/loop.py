"""Pykka's actors on the event loop: the model without a thread per actor.

A `LoopActor` is a `pykka.Actor` whose inbox is worked off by the event loop. An idle actor costs no
task, no timer and no future: its mail is queued, and one run queue per loop works off, tick by tick,
the actors that have mail. An actor that answers with a coroutine is paused until it is done, so it
still handles one message at a time.

With `ref.py` and `futures.py` this is all that touches pykka's private names (each has a contract test in
`tests/actors/test_pykka_contract.py`). What it changes, and why, is in ARCHITECTURE.md.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar, cast

import pykka
from pykka._envelope import Envelope
from pykka._introspection import get_attr_directly
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from broker.actors.futures import NO_ONE, LoopFuture, ReplyTo
from broker.actors.ref import Inbox, LoopRef, StopFlag, answer_dead
from broker.tasks import spawn

__all__ = ["LoopActor"]

Handler = TypeVar("Handler", bound=Callable[..., Any])
TURN: Final = 256
"""Messages an actor may handle before the others, and the sockets, have their turn ..."""
TURN_SECONDS: Final = 0.005
"""... and how long it may take over them, where each of them is much work ..."""
LOOK_EVERY: Final = 8
"""... for which it looks at the clock before every so many-th one."""
_LOOKS: Final = tuple(number % LOOK_EVERY == 0 for number in range(1, TURN + 1))
"""Whether to look before each message of a turn; counting them would cost more than all the rest."""


def handles(*kinds: type) -> Callable[[Handler], Handler]:
    """Mark the method of an actor that handles messages of exactly these classes."""

    def mark(method: Handler) -> Handler:
        method.handles = kinds  # type: ignore[attr-defined]
        return method

    return mark


class LoopActor(pykka.Actor):
    """An actor on the event loop.

    Mark methods with `handles`, and override where needed `setup` (async), `on_drained`, `on_stop` and `on_failure`.
    Unlike pykka's threads an actor here never registers globally and never stops others: a cancelled
    or failing handler stays its own affair, and a supervisor may put a fresh actor behind the same
    reference.
    """

    inbox_limit: int = 1000
    """Messages an inbox holds before `tell` refuses."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (Exception,)
    """Exceptions that are answers to an ask; any other one fails the actor as well."""

    _handlers: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {}
    _numbers: ClassVar[itertools.count[int]] = itertools.count(1)

    actor_inbox: Inbox

    def __init__(self, inbox_limit: int | None = None) -> None:
        if inbox_limit is not None:
            self.inbox_limit = inbox_limit
        # Not pykka's: it would make a uuid and a threading.Event for every socket.
        self.actor_urn = f"{type(self).__name__.lower()}-{next(self._numbers)}"
        self.actor_inbox = self._create_actor_inbox()
        self.actor_stopped = StopFlag()  # type: ignore[assignment]
        self._actor_ref: LoopRef[Any] = LoopRef(self)
        self._direct = self._handlers
        self._in_hand: Envelope[Any] | None = None
        self._supervisor: Callable[[LoopRef[Any], BaseException], None] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Gather the handlers, those of the bases first."""
        super().__init_subclass__(**kwargs)
        cls._handlers = dict(cls._handlers)
        for method in vars(cls).values():
            for kind in getattr(method, "handles", ()):
                cls._handlers[kind] = method

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
    def _create_actor_inbox() -> Inbox:
        return Inbox()

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

    def on_receive(self, message: Any) -> Any:
        """Call the method that handles messages of this class; one that nothing handles is logged, as pykka does."""
        handler = self._handlers.get(type(message))
        return super().on_receive(message) if handler is None else handler(self, message)

    def screen_mail(self) -> None:
        """Let `on_receive` see every message from now on; otherwise a marked method gets its messages at once."""
        self._direct = {}

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

    def refuse(self, reply_to: ReplyTo, error: Exception) -> None:
        """Answer an ask with one of the `refusals`; whoever overrides this must answer exactly once."""
        reply_to.set_exception((type(error), error, error.__traceback__))

    def answer_from(self, work: Coroutine[Any, Any, Any]) -> None:
        """Answer the message in hand with what `work` returns or raises, and take other messages meanwhile."""
        spawn(_answer_from(work, self.answer_later()), name=f"{self.actor_urn} answers a message")

    def supervised_by(self, on_death: Callable[[LoopRef[Any], BaseException], None]) -> None:
        """Name who is told when this actor fails."""
        self._supervisor = on_death

    def work_off_inbox(self) -> bool:
        """Handle the waiting mail, as much as goes into one turn; return whether there is more to do now."""
        inbox = self.actor_inbox
        until = monotonic() + TURN_SECONDS
        for look in islice(_LOOKS, len(inbox)):
            if look and monotonic() > until:
                break
            item = inbox.popleft()
            handler = self._direct.get(type(item))  # looked up afresh: any message may be where `screen_mail` begins
            if handler is None:  # an ask, a stop, a proxy's call, or something nothing is marked for
                if not self._handle(item):
                    return False
                continue
            self._in_hand = None
            try:
                response = handler(self, item)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as e:  # noqa: BLE001 - an actor's failure is its own, whatever it is
                self._failed_on(None, e)
                if self.actor_stopped.is_set():
                    return False
                continue
            if response is not None and inspect.iscoroutine(response):
                self._pause_for(response, None)
                return False
        try:
            self.on_drained()
        except Exception as e:  # noqa: BLE001 - as above
            self._fail(e)
            return False
        return bool(inbox)

    def _handle(self, item: Any) -> bool:
        """Handle one message; return whether the actor can take the next one at once."""
        envelope = item if type(item) is Envelope else None
        self._in_hand = envelope
        message = item if envelope is None else envelope.message
        handler = self._direct.get(type(message))
        try:
            response = self._handle_receive(message) if handler is None else handler(self, message)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as e:  # noqa: BLE001 - an actor's failure is its own, whatever it is
            self._failed_on(envelope, e)
            return not self.actor_stopped.is_set()
        if response is not None and inspect.iscoroutine(response):
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
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as e:  # noqa: BLE001 - as in _handle
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

    def _failed_on(self, envelope: Envelope[Any] | None, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            # Whoever cancelled meant this message alone; its asker must not wait for ever.
            self._fail_envelope(envelope, TimeoutError("the work on this message was cancelled"))
            return
        if envelope is None or envelope.reply_to is None:
            self._fail(error)
            return
        if isinstance(error, self.refusals):
            self.refuse(envelope.reply_to, error)
            return
        self._fail_envelope(envelope, error)
        self._fail(error)

    @staticmethod
    def _fail_envelope(envelope: Envelope[Any] | None, error: BaseException) -> None:
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

    def _fail(self, error: BaseException) -> None:
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
            answer_dead(item, error)
        self.actor_inbox.clear()
        self.actor_ref.forget()


async def _answer_from(work: Coroutine[Any, Any, Any], reply_to: ReplyTo) -> None:
    try:
        reply_to.set(await work)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as e:  # noqa: BLE001 - whatever it is, who asked must not wait for ever
        reply_to.set_exception((type(e), e, e.__traceback__))
