"""The way of a client's request: read, looked at by the gates, and done by an actor or a plugin."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from time import monotonic
from typing import Any, Final, NoReturn

from broker.actors.connection import Connection
from broker.actors.ref import LoopRef
from broker.errors import BrokerError, CloseCode
from broker.extensions.offers import Action
from broker.hooks import Inbound, Peer, Permission, TurnRequest
from broker.protocol.dialect import Ear
from broker.protocol.outgoing import Due, Request
from broker.protocol.payloads import Edit, Start, decode
from broker.tasks import spawn
from broker.vitals.load import GUARDED
from broker.web.admission import Guest
from broker.web.caller import ActionRow, Caller
from broker.web.lanes import Lanes
from broker.web.services import Services
from broker.web.tracing import SOCKET, refuse
from broker.web.watch import Watch

__all__ = ["Passage"]

CONCURRENT: Final = 64
"""Requests of one connection that may wait for a plugin at the same time."""
ERROR_WINDOW: Final = 60.0
SPEAKING: Final = (Start, Edit)
"""Payloads that say something to an agent, and so pass the gates for turns."""

_RUBBISH: Final = frozenset({"invalid_json", "invalid_message"})
"""What a message is refused with that cannot be read; a format may refuse one that can for other reasons."""
_ALL: Final = ""
"""What all of a connection waits behind: nothing is about nothing."""

Step = Callable[[ActionRow, Any, Request], None]
"""One step on the way of a request."""


class Passage(Caller):
    """A client, and the way of what it asks for.

    Args:
        services: the broker's parts.
        actions: the broker's own actions by name.
        peer: who it is.
        ear: reads its messages.
        ref: its connection, where answers go.
        guest: how it is counted until it is known who it is; None if it is not.

    Attributes:
        watch: tells plugins what becomes of its requests; None where no plugin wants to know.
    """

    __slots__ = ("_actions", "_ear", "_errors", "_errors_since", "_lanes", "_waiting", "watch")

    def __init__(
        self,
        services: Services,
        actions: Mapping[str, ActionRow],
        peer: Peer,
        ear: Ear,
        ref: LoopRef[Connection],
        guest: Guest | None = None,
    ) -> None:
        super().__init__(services, peer, ref, guest)
        self.watch = Watch(services.hooks) if services.hooks.answered else None
        self._actions = actions
        self._ear = ear
        self._waiting = 0
        self._lanes: Lanes | None = None  # there is one once something had to be waited for
        self._errors = 0
        self._errors_since = 0.0

    def take(self, text: bytes) -> None:
        """Take one message: whatever is wrong with it is told to its sender alone, and the connection stays."""
        services = self.services
        services.stats.messages_in += 1
        services.stats.bytes_in += len(text)
        try:
            request = self._ear.decode(text)
        except BrokerError as e:
            self._take_rubbish(text, e)
            return
        request.text = text
        if request.held and self.services.hooks.message and not self.ref.actor_stopped.is_set():
            self.ref.tell(Due(request.id), urgent=True)
        self._begin(request, len(text))

    def ask(self, request: Request) -> None:
        """Ask for what the client's format wants next, in its name; gates see it, as what no message brought."""
        self._begin(request, 0, derived=True)

    # -- the way of a request -----------------------------------------------------------------------

    def _take_rubbish(self, text: bytes, error: BrokerError) -> None:
        """Refuse what cannot be read, if the gates for messages do not: it has cost as much as any message."""
        request, hooks = Request("", b"", self._ear.salvage_id(text)), self.services.hooks
        try:
            waiting = hooks.run_gates(hooks.message, Inbound(self.peer, "", len(text), text=text))
            if waiting is None:
                _raise(error)
            self._later(_then(waiting, _raise, error), request)
        except Exception as e:  # noqa: BLE001 - as in _begin
            self._refuse(request, e)
        if error.code in _RUBBISH:
            self._count_error()

    def _begin(self, request: Request, size: int, *, derived: bool = False) -> None:
        """Do what is asked for, once the gates for messages have let it pass; whatever comes of it, it is answered."""
        try:
            if self.watch is not None:
                self.watch.asked(request, derived=derived)
            if self.deadline is not None:
                self._check_first(request)
            if request.looked or not self.services.hooks.message:
                self._act(request)
            elif self._lanes is None or not self._waits(self._lanes, _ALL, partial(self._look, request, size, derived)):
                self._look(request, size, derived)
        except Exception as e:  # noqa: BLE001 - one client's message must not end anything but itself
            self._refuse(request, e)

    def _look(self, request: Request, size: int, derived: bool) -> None:
        """Have the gates for messages look at a request, and go on once they have let it pass."""
        action = request.action
        inbound = Inbound(
            *(self.peer, action, size, request.kind or action, request.payload, request.text, request.id, derived)
        )
        try:
            waiting = self.services.hooks.run_gates(self.services.hooks.message, inbound)
            if waiting is None:
                self._act(request)
            else:
                self._later(_then(waiting, self._act, request), request, _ALL)
        except Exception as e:  # noqa: BLE001 - as in _begin
            self._refuse(request, e)

    def _check_first(self, request: Request) -> None:
        if request.action != "auth" or self.authenticating:
            raise BrokerError("unauthenticated", "Say who you are first, by `auth`, and wait for its answer.")

    def _act(self, request: Request) -> None:
        if request.held:
            self.respond(request.id, b"{}")
            return
        row = self._actions.get(request.action)
        if row is None or (request.kind and request.kind in self.services.hooks.actions):
            self._act_by_plugin(request)
            return
        payload = row.decode(request.payload)
        if isinstance(payload, Start):
            user, traces = self.peer.principal.user, self.services.traces
            traces.receive(SOCKET, session_id=payload.session_id, client_msg_id=payload.client_msg_id, user=user)
        lanes = self._lanes
        if lanes is None or not self._waits(lanes, row.about(payload), partial(self._go_on, row, payload, request)):
            self._judge(row, payload, request)

    def _go_on(self, row: ActionRow, payload: Any, request: Request) -> None:
        """Go on with what has waited for what was asked before."""
        try:
            self._judge(row, payload, request)
        except Exception as e:  # noqa: BLE001 - as in _begin
            self._refuse(request, e)

    def _waits(self, lanes: Lanes, about: str, go_on: Callable[[], None]) -> bool:
        """Tell whether the client has to wait with this for what it asked before about the same thing."""

        def let_go() -> None:
            self._waiting -= 1
            go_on()

        if not lanes.busy(about):
            return False
        self._wait()
        lanes.queue(about, let_go)
        return True

    def _wait(self) -> None:
        """Count one more request that waits; there may be so many of one connection (P7).

        Raises:
            BrokerError: `overloaded`.
        """
        if self._waiting >= CONCURRENT:
            raise BrokerError("overloaded", f"{CONCURRENT} requests of this connection wait already.", retry_after=1.0)
        self._waiting += 1

    def _judge(self, row: ActionRow, payload: Any, request: Request) -> None:
        hooks = self.services.hooks
        if hooks.permission and not row.free:
            check = Permission(self.peer.principal, row.asks or row.name, row.resource(payload))
            waiting = hooks.run_gates(hooks.permission, check)
            if waiting is not None:
                self._once(waiting, self._permitted, row, payload, request)
                return
        self._permitted(row, payload, request)

    def _permitted(self, row: ActionRow, payload: Any, request: Request) -> None:
        hooks = self.services.hooks
        if hooks.content and row.says is not None:
            passed = row.says.passed(hooks.run_filters, self.peer.principal, row.name, row.resource(payload), payload)
            if isawaitable(passed):
                self._later(self._filtered(passed, row, request), request, row.about(payload))
                return
            payload = passed
        self._approved(row, payload, request)

    async def _filtered(self, waiting: Awaitable[Any], row: ActionRow, request: Request) -> None:
        judged = self.peer.principal
        payload = await waiting
        (self._approved if self.peer.principal is judged else self._judge)(row, payload, request)

    def _approved(self, row: ActionRow, payload: Any, request: Request) -> None:
        hooks = self.services.hooks
        if hooks.turn and isinstance(payload, SPEAKING):
            asked = TurnRequest(payload.session_id, self.peer.principal, bytes(payload.content))
            waiting = hooks.run_gates(hooks.turn, asked)
            if waiting is not None:
                self._once(waiting, self._run, row, payload, request)
                return
        self._run(row, payload, request)

    def _once(self, waiting: Awaitable[None], go_on: Step, row: ActionRow, payload: Any, request: Request) -> None:
        """Go on once the gates have let it pass; what they let somebody else do than it is by then is judged anew."""
        judged = self.peer.principal

        def resume() -> None:
            (go_on if self.peer.principal is judged else self._judge)(row, payload, request)

        self._later(_then(waiting, resume), request, row.about(payload))

    def _run(self, row: ActionRow, payload: Any, request: Request) -> None:
        if row.name in GUARDED:
            self.services.load.check(row.name, row.resource(payload))
        work = row.run(self, payload, request.id)
        if work is not None:
            self._later(work, request, row.about(payload))

    def _act_by_plugin(self, request: Request) -> None:
        actions = self.services.hooks.actions
        action = actions.get(request.kind or request.action) or actions.get(request.action)
        if action is None:
            raise BrokerError("unknown_action", f"unknown action: {(request.kind or request.action)[:128]}")
        self._later(self._answer_by_plugin(action, request), request)

    async def _answer_by_plugin(self, action: Action, request: Request) -> None:
        hooks, began = self.services.hooks, monotonic()
        judged = None
        while self.peer.principal is not judged:  # as in _once
            judged = self.peer.principal
            waiting = hooks.run_gates(hooks.permission, Permission(judged, action.name))
            if waiting is not None:
                await waiting
        payload = request.text if action.whole else request.payload
        answer = await hooks.act(action, self.peer, payload)
        self.services.stats.request_seconds.observe(monotonic() - began)
        self.respond(request.id, answer, handled=True)

    def _later(self, work: Awaitable[None], request: Request, about: str | None = None) -> None:
        """See a request through that has to wait; only so many of one connection at a time (P7).

        Args:
            work: what is waited for, and what comes then.
            request: the request.
            about: what it is about; what the client asks about the same thing waits behind it.
        """
        try:
            self._wait()
        except BrokerError:
            if hasattr(work, "close"):
                work.close()
            raise
        if about is not None:
            self._lanes = self._lanes or Lanes()
            self._lanes.hold(about)
        spawn(self._see_through(work, request, about), name=f"a request of {self.peer.connection_id}")

    async def _see_through(self, work: Awaitable[None], request: Request, about: str | None) -> None:
        try:
            await work
        except Exception as e:  # noqa: BLE001 - as in _begin
            self._refuse(request, e)
        finally:
            self._waiting -= 1
            if about is not None and self._lanes is not None:
                self._lanes.release(about)

    def _refuse(self, request: Request, error: BaseException) -> None:
        if request.action == "turn.start":
            with suppress(BrokerError):  # one that cannot be read has no id to be found by
                refuse(self.services.traces, decode(Start, request.payload), self.peer.principal.user, error)
        self.refuse(request.id, error)

    def _count_error(self) -> None:
        """Close a connection that sends rubbish without end (PROTOCOL section 2)."""
        now = self.services.clock.monotonic()
        if now - self._errors_since > ERROR_WINDOW:
            self._errors_since, self._errors = now, 0
        self._errors += 1
        if self._errors > self.services.settings.limits.errors_per_minute:
            self.hang(CloseCode.PROTOCOL_ABUSE)


def _raise(error: BrokerError) -> NoReturn:
    raise error


async def _then(waiting: Awaitable[None], go_on: Callable[..., None], *args: Any) -> None:
    """Go on once the gates that had to be waited for have let it pass."""
    await waiting
    go_on(*args)
