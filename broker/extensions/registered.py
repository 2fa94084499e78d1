"""What is registered beside what plugins' classes bring, and may come and go: handlers of messages, and listeners.

Both are known before there are any hooks, and are put among them once there are. A hook stays a plain tuple, so that
one to which nobody listens costs the message path nothing.
"""

import inspect
import math
from collections.abc import Callable, Collection
from typing import Any, Final, get_args

import attrs
import msgspec

from broker.errors import BrokerError
from broker.extensions.bound import Bound
from broker.extensions.dispatch import Hooks
from broker.extensions.offers import Action, PluginRefused
from broker.hooks import Broker, Context, Event, Inbound, MessageHandler, Peer

__all__ = ["Registered", "handling"]


@attrs.frozen
class _Kind:
    """What an event is made of.

    Attributes:
        hook: where it is among `Hooks`.
        parameters: the names of what a listener is given.
    """

    hook: str
    parameters: tuple[str, ...]


_KINDS: Final[dict[str, _Kind]] = {
    "connection": _Kind("connected", ("peer",)),
    "disconnection": _Kind("disconnected", ("peer", "code")),
    "message": _Kind("message", ("message",)),
    "turn": _Kind("turn_ended", ("turn",)),
    "error": _Kind("failed", ("failure",)),
}
assert _KINDS.keys() == set(get_args(Event))  # noqa: S101 - one list, read by people and by type checkers

_read: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Registered:
    """Handlers and listeners of one broker.

    Args:
        reserved: names that no handler may have.
    """

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self._reserved = reserved
        self._handlers: dict[str, Action] = {}  # those of the hooks, once there are some
        self._replacing: set[str] = set()
        self._listeners: list[tuple[str, Bound]] = []
        self._hooks: Hooks | None = None

    def connect(self, hooks: Hooks) -> None:
        """Put all of it among the hooks, from now on.

        Raises:
            PluginRefused: a handler has the name of a plugin's action, and is not to replace it.
        """
        for name in self._handlers.keys() & hooks.actions.keys() - self._replacing:
            both = f"{self._handlers[name].plugin!r} and {hooks.actions[name].plugin!r}"
            raise PluginRefused(f"{both} both bring action {name!r}")
        hooks.actions.update(self._handlers)
        self._handlers = hooks.actions
        self._hooks = hooks
        for hook, bound in self._listeners:
            hooks.add(hook, bound)

    def handle(self, action: Action, *, replace: bool) -> None:
        """Add a handler.

        Raises:
            ValueError: its name is taken.
        """
        if action.name in self._reserved:
            raise ValueError(f"the broker itself has the action {action.name!r}")
        there = self._handlers.get(action.name)
        if there is not None and not replace:
            raise ValueError(
                f"{there.plugin!r} has a handler for {action.name!r} already; replace=True takes its place"
            )
        self._handlers[action.name] = action
        if replace:
            self._replacing.add(action.name)

    def listen(self, owner: str, event: str, listener: Callable[..., Any]) -> Callable[[], None]:
        """Add a listener; return what takes it away again.

        Raises:
            ValueError: there is no such event.
            TypeError: it does not take what it is to be given.
        """
        kind = _KINDS.get(event)
        if kind is None:
            raise ValueError(f"there is no event {event!r}; there are: {', '.join(_KINDS)}")
        _check(listener, f"a listener to {event!r}", kind.parameters)
        bound = Bound(owner, f"on {event}", listener)
        entry = (kind.hook, self._quietly(bound) if event == "message" else bound)
        self._listeners.append(entry)
        if self._hooks is not None:
            self._hooks.add(*entry)
        return lambda: self._forget(entry)

    def _quietly(self, bound: Bound) -> Bound:
        """Return a gate that refuses nothing, since messages have gates alone."""

        def tell(message: Inbound) -> None:
            if self._hooks is not None and not message.derived:
                self._hooks.observe((bound,), message)

        return attrs.evolve(bound, call=tell)

    def _forget(self, entry: tuple[str, Bound]) -> None:
        if entry in self._listeners:
            self._listeners.remove(entry)
        if self._hooks is not None:
            self._hooks.remove(*entry)


def handling(owner: str, kind: str, handler: MessageHandler, broker: Broker, timeout: float | None) -> Action:
    """Return a handler as an action.

    Args:
        owner: who registers it.
        kind: what clients call it.
        handler: takes a message and its `Context`.
        broker: what the context offers.
        timeout: seconds that it may take; None for as long as any.

    Raises:
        TypeError: it cannot be called so.
        ValueError: the timeout is none.
    """
    _check(handler, f"a handler for {kind!r}", ("message", "context"))
    if timeout is not None and not 0 < timeout < math.inf:
        raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")

    def call(peer: Peer, message: dict[str, Any]) -> Any:
        return handler(message, Context(peer, broker))

    return Action(owner, kind, call, _message, whole=True, timeout=timeout)


def _message(text: bytes) -> dict[str, Any]:
    try:
        return _read(text)
    except msgspec.DecodeError as e:
        raise BrokerError("invalid_message", str(e)) from None


def _check(called: Callable[..., Any], what: str, parameters: tuple[str, ...]) -> None:
    try:
        inspect.signature(called).bind(*parameters)
    except TypeError:
        raise TypeError(f"{what} must take ({', '.join(parameters)})") from None
    except ValueError:
        return  # written in C, and says nothing of what it takes
