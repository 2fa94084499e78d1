"""From the broker to its plugins: each hook compiled at start to a plain tuple of those who override it.

A hook that nobody overrides is an empty tuple, and asking an empty tuple is free; a caller on the message path
tests it before it even makes the value: `if hooks.message: ...`.
"""

import asyncio
import inspect
from asyncio import Task
from collections import defaultdict
from collections.abc import Awaitable, Collection, Sequence
from types import NoneType
from typing import Any, Final, cast

import attrs

from broker.errors import BrokerError
from broker.extensions import fence
from broker.extensions.bound import Bound, compiled, may_answer, overridden
from broker.extensions.fence import contained, discard, within
from broker.extensions.offers import Action, collect_actions, collect_routes, to_json
from broker.hooks import Auth, Content, Control, Failure, Handshake, Peer, Permission, Plugin, Undeclared
from broker.ids import new_id
from broker.logs import limited
from broker.messages import Principal
from broker.protocol.edge import check_depth
from broker.stats import Stats
from broker.tasks import spawn
from broker.traces import Traces

__all__ = ["Bound", "Hooks", "overridden"]

_WHO: Final = Principal | Undeclared

OBSERVING: Final = 256
"""Calls of one plugin's async observers that may be under way; more are dropped and counted (PROTOCOL P7)."""

PATIENCE: Final = 10.0
"""Seconds that an async gate may take; then it refuses with `timeout`, so that every request is answered."""

ACTING: Final = 30.0
"""Seconds that an async action may take, for the same reason."""

_OURS: Final = frozenset({__file__, fence.__file__})


class Hooks:
    """All plugins' hooks, actions and routes, ready to be called.

    Args:
        plugins: in the order in which they are to be called.
        stats: where their errors are counted.
        reserved: the names of the broker's own actions.
        patience: seconds that an async gate may take.
        acting: seconds that an async action may take.
        traces: where they are found by the id that a client was told.
        largest: bytes of what a content gate may have said instead, as of a message; None for no limit.

    Attributes:
        handshake: gates for `identify`.
        identifies: whether one of those may say who somebody is; one annotated `-> None` only refuses.
        auth: gates for `recognize`.
        message: gates for `run_gates` with an `Inbound`.
        control: gates for `check_control` with a `Control`.
        permission: gates for `run_gates` with a `Permission`.
        content: gates for `run_filters` with a `Content`.
        turn: gates for `run_gates` with a `TurnRequest`.
        dispatch: for `broker.extensions.dispatching.decide` with an `Attempt`.
        connected: observers for `observe` with a `Peer`.
        disconnected: with a `Peer` and the close code.
        answered: with an `Answered`.
        committed: with the log's name and its records.
        turn_ended: with a `TurnEnded`.
        failed: with a `Failure`.
        actions: for `act`, by name.
        routes: in order, each with whose it is.

    Raises:
        PluginRefused: an action or a route would be there twice or cannot be used.
    """

    def __init__(
        self,
        plugins: Sequence[Plugin] = (),
        stats: Stats | None = None,
        *,
        reserved: Collection[str] = (),
        patience: float = PATIENCE,
        acting: float = ACTING,
        traces: Traces | None = None,
        largest: int | None = None,
    ) -> None:
        self._plugins = tuple(plugins)
        self._stats = Stats() if stats is None else stats
        self._patience = patience
        self._acting = acting
        self._traces = traces
        self._largest = largest
        self._observing: defaultdict[str, set[Task[None]]] = defaultdict(set)
        self.handshake = compiled(plugins, "on_handshake")
        self.identifies = any(may_answer(gate) for gate in self.handshake)
        self.auth = compiled(plugins, "on_auth")
        self.message = compiled(plugins, "on_message")
        self.control = compiled(plugins, "on_control")
        self.permission = compiled(plugins, "on_permission")
        self.content = compiled(plugins, "on_content")
        self.turn = compiled(plugins, "on_turn")
        self.dispatch = compiled(plugins, "on_dispatch")
        self.connected = compiled(plugins, "connected")
        self.disconnected = compiled(plugins, "disconnected")
        self.answered = compiled(plugins, "answered")
        self.committed = compiled(plugins, "committed")
        self.turn_ended = compiled(plugins, "turn_ended")
        self.failed = compiled(plugins, "failed")
        self.actions = collect_actions(plugins, reserved)
        self.routes = collect_routes(plugins)

    def add(self, hook: str, bound: Bound) -> None:
        """Have one more asked or told, after those there are; by the name of the attribute."""
        setattr(self, hook, (*getattr(self, hook), bound))

    def remove(self, hook: str, bound: Bound) -> None:
        """Have it asked or told no longer; what nobody is left for is free again."""
        setattr(self, hook, tuple(other for other in getattr(self, hook) if other is not bound))

    # -- gates ---------------------------------------------------------------------------------------

    async def identify(self, handshake: Handshake) -> Principal | Undeclared | None:
        """Ask every handshake gate; return who the first that knows says it is, None if none does.

        Raises:
            BrokerError: a gate refuses.
        """
        return cast("Principal | Undeclared | None", await self._first(self.handshake, handshake, _WHO))

    async def recognize(self, auth: Auth) -> Principal | None:
        """Ask every gate for tokens; return who the first that knows says it is, None if none does.

        Raises:
            BrokerError: a gate refuses.
        """
        return cast("Principal | None", await self._first(self.auth, auth, Principal))

    async def _first(self, gates: tuple[Bound, ...], value: Any, allowed: Any) -> Any:
        """Ask all, since each may refuse, and return the first answer."""
        first: Any = None
        for gate in gates:
            answer = await self._settle(gate, self._ask(gate, value), allowed)
            first = answer if first is None else first
        return first

    def check_control(self, frame: Control) -> None:
        """Ask each gate for frames that are no messages.

        Raises:
            BrokerError: one refuses.
        """
        for gate in self.control:
            try:
                _checked(gate.call(frame), NoneType)
            except BrokerError:
                raise
            except BaseException as e:
                raise self.broke(gate.plugin, gate.hook, e) from e

    def run_gates(self, gates: tuple[Bound, ...], value: Any) -> Awaitable[None] | None:
        """Ask each gate in order, until one refuses.

        Returns:
            None if all have let pass; where one has to be waited for, what must be awaited to know.

        Raises:
            BrokerError: a gate refuses, here or where the result is awaited.
        """
        for gate in gates:  # every message passes here: the gate is called in place
            try:
                answer = gate.call(value)
            except BrokerError:
                raise
            except BaseException as e:
                raise self.broke(gate.plugin, gate.hook, e) from e
            if answer is not None:
                return self._run_rest(gate, answer, gates[gates.index(gate) + 1 :], value)
        return None

    def run_filters(self, content: Content) -> Awaitable[bytes] | bytes:
        """Return what is to be said in the end, once each gate has seen what those before it made of it.

        Returns:
            JSON; where a gate has to be waited for, what must be awaited to have it.

        Raises:
            BrokerError: a gate refuses, here or where the result is awaited.
        """
        for index, gate in enumerate(self.content):
            answer = self._ask(gate, content)
            if inspect.isawaitable(answer):
                return self._filter_rest(index, answer, content)
            content = self._replace(gate, answer, content)
        return content.data

    async def _filter_rest(self, index: int, answer: Awaitable[Any], content: Content) -> bytes:
        content = self._replace(self.content[index], await self._settle(self.content[index], answer, bytes), content)
        for gate in self.content[index + 1 :]:
            content = self._replace(gate, await self._settle(gate, self._ask(gate, content), bytes), content)
        return content.data

    def _replace(self, gate: Bound, answer: Any, content: Content) -> Content:
        """Return the content as a gate left it, which is bound by what binds every message."""
        try:
            data = _checked(answer, bytes)
            if data is None:
                return content
            data = to_json(data)
            check_depth(data)
        except Exception as e:
            raise self.broke(gate.plugin, gate.hook, e) from e
        if self._largest is not None and len(data) > self._largest:  # taking out may well make longer: no fault
            raise BrokerError("too_large", f"What is made of this message has more than {self._largest} bytes.")
        return attrs.evolve(content, data=data)

    async def permits(self, check: Permission) -> bool:
        """Tell whether the gates let something be done, for a list that leaves out what one may not see.

        Raises:
            BrokerError: a gate refuses for another reason than that it is forbidden.
        """
        try:
            waiting = self.run_gates(self.permission, check)
            if waiting is not None:
                await waiting
        except BrokerError as e:
            if e.code != "forbidden":
                raise
            return False
        return True

    async def _run_rest(self, gate: Bound, answer: Any, others: tuple[Bound, ...], value: Any) -> None:
        await self._settle(gate, answer, NoneType)
        rest = self.run_gates(others, value)
        if rest is not None:
            await rest

    def _ask(self, gate: Bound, value: Any) -> Any:
        try:
            return gate.call(value)
        except BrokerError:
            raise
        except BaseException as e:  # plain code cannot be cancelled: whatever it raised is its own
            raise self.broke(gate.plugin, gate.hook, e) from e

    async def _settle(self, gate: Bound, answer: Any, allowed: Any) -> Any:
        """Return what the gate says in the end."""
        try:
            if inspect.isawaitable(answer):
                answer = await within(self._patience, answer, name=f"{gate.plugin}.{gate.hook}")
            return _checked(answer, allowed)
        except BrokerError:
            raise
        except Exception as e:
            raise self.broke(gate.plugin, gate.hook, e) from e

    # -- observers -----------------------------------------------------------------------------------

    def observe(self, observers: tuple[Bound, ...], *args: Any) -> None:
        """Tell each observer, in order, and wait for none; async ones begin in this order and run on by themselves."""
        for observer in observers:
            try:
                work = observer.call(*args)
            except BaseException as e:  # noqa: BLE001 - an observer is never felt
                self.broke(observer.plugin, observer.hook, e)
                continue
            if work is not None and inspect.isawaitable(work):
                self._let_run(observer, work)

    async def settled(self) -> None:
        """Return once the async observers told so far are done."""
        while under_way := [task for tasks in self._observing.values() for task in tasks]:
            await asyncio.wait(under_way)

    def _let_run(self, observer: Bound, work: Awaitable[Any]) -> None:
        under_way = self._observing[observer.plugin]
        if len(under_way) >= OBSERVING:
            discard(work)
            self._stats.dropped["observer"] += 1
            log = limited((observer.plugin, "dropped"))
            log.warning("plugin {} has {} observers at work, more are dropped", observer.plugin, OBSERVING)  # noqa: PLE1205 - loguru's braces
            return
        task = spawn(self._see_through(observer, work), name=f"{observer.plugin}.{observer.hook}")
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        task.add_done_callback(lambda _: discard(work))

    async def _see_through(self, observer: Bound, work: Awaitable[Any]) -> None:
        try:
            await contained(work)
        except (Exception, GeneratorExit) as e:  # noqa: BLE001 - as in observe
            self.broke(observer.plugin, observer.hook, e)

    # -- what else plugins do ------------------------------------------------------------------------

    async def act(self, action: Action, peer: Peer, payload: bytes) -> bytes:
        """Have a plugin answer an action; payload and answer are JSON.

        Raises:
            BrokerError: the plugin refuses, the payload does not fit, the plugin failed (`internal`), or it did not
                answer in time (`timeout`).
        """
        where = f"action {action.name}"
        try:
            answer = action.call(peer, action.decode(payload))
        except BrokerError:
            raise
        except BaseException as e:
            raise self.broke(action.plugin, where, e, told=True) from e
        try:
            if inspect.isawaitable(answer):
                answer = await within(action.timeout or self._acting, answer, name=f"{action.plugin}.{action.name}")
            return to_json(answer)
        except BrokerError:
            raise
        except Exception as e:
            raise self.broke(action.plugin, where, e, told=True) from e

    def trouble(self) -> str | None:
        """Return which plugin cannot do its work now, and why; None if all can."""
        return next((f"plugin {name}: {why}" for name, why in self.troubles().items()), None)

    def troubles(self) -> dict[str, str]:
        """Return what keeps plugins from their work now, by plugin; one that cannot say is in trouble too."""
        found: dict[str, str] = {}
        for plugin in self._plugins:
            try:
                why = _trouble_of(plugin)
            except BaseException as e:  # noqa: BLE001 - as in observe
                self.broke(plugin.name, "trouble", e)
                why = "cannot say how it fares; the log has the error"
            if why:
                found[plugin.name] = why
        return found

    # -- errors --------------------------------------------------------------------------------------

    def broke(self, plugin: str, where: str, error: BaseException, *, told: bool = False) -> BrokerError:
        """Log and count a plugin's own error; return what a client is told of it, an id by which to ask us.

        Args:
            plugin: whose it is.
            where: what of the plugin failed, such as the hook.
            error: what it raised.
            told: whether observers of failures are told.
        """
        self._stats.plugin_errors[plugin] += 1
        trace_id = new_id()
        if self._traces is not None:
            self._traces.fail(trace_id, f"plugin {plugin}", f"{type(error).__name__} in {where}")
        log = limited((plugin, where, type(error))).opt(exception=_from_its_own_line(error))
        log.error("plugin {} failed in {}, trace {}", plugin, where, trace_id)  # noqa: PLE1205 - loguru's braces
        if told:
            self.observe(self.failed, Failure(f"plugin {plugin}, {where}", error, trace_id))
        if isinstance(error, TimeoutError):
            return BrokerError("timeout", hint=f"trace {trace_id}")
        return BrokerError("internal", hint=f"trace {trace_id}")


def _checked(answer: Any, allowed: Any) -> Any:
    # A gate that returns False where it means a refusal must not let pass.
    if answer is not None and not isinstance(answer, allowed):
        discard(answer)
        raise TypeError(f"a gate refuses by raising BrokerError; it returned {type(answer).__name__}")
    return answer


def _trouble_of(plugin: Plugin) -> str | None:
    why: Any = plugin.trouble()
    if why is not None and not isinstance(why, str):
        discard(why)
        raise TypeError(f"trouble() returns text or None; it returned {type(why).__name__}")
    return why


def _from_its_own_line(error: BaseException) -> BaseException:
    """Cut our own frames off the beginning of a plugin's traceback, which is about the plugin."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename in _OURS:
        frames = frames.tb_next
    return error.with_traceback(frames)
