"""The base of every plugin, and its hooks as data."""

import difflib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeVar

import attrs

from broker.hooks.offered import ActionHandler, Broker, Route
from broker.hooks.told import (
    Answered,
    Attempt,
    Auth,
    Content,
    Control,
    Degraded,
    Failure,
    Handshake,
    HandTo,
    Inbound,
    Peer,
    Permission,
    TurnEnded,
    TurnRequest,
    Undeclared,
)
from broker.messages import Principal, Record

__all__ = ["HOOKS", "Hook", "NoSettings", "Plugin"]


@attrs.frozen
class Hook:
    """A row of `HOOKS`.

    Attributes:
        name: the method of `Plugin`.
        kind: `gate` or `observer`.
        parameters: the names of what it is given.
        summary: the first line of its documentation.
    """

    name: str
    kind: Literal["gate", "observer"]
    parameters: tuple[str, ...]
    summary: str


HOOKS: Final[dict[str, Hook]] = {}
"""Every hook by name, in the order in which `Plugin` declares them."""

_PLAIN: Final = frozenset({"on_control", "on_dispatch", "reload", "trouble"})
"""Methods that are called where nothing can wait."""

Method = TypeVar("Method", bound=Callable[..., Any])


def _declare(kind: Literal["gate", "observer"], method: Method) -> Method:
    name = method.__name__
    _, *parameters = inspect.signature(method).parameters
    HOOKS[name] = Hook(name, kind, tuple(parameters), (inspect.getdoc(method) or "").partition("\n")[0])
    return method


def _gate(method: Method) -> Method:
    return _declare("gate", method)


def _observer(method: Method) -> Method:
    return _declare("observer", method)


@attrs.frozen
class NoSettings:
    """The settings of a plugin that has none."""


class Plugin:
    """The base of every plugin: override what you need, leave the rest.

    Every hook may be `def` or `async def`; one that is plain costs the message path no more than its call. The
    plugins run in the order in which `plugins:` of the configuration names them, and stop in reverse.

    A gate lets pass by returning None and refuses by raising `broker.errors.BrokerError`, whose `close` may end the
    connection too; any other exception, and any other answer, refuses as `internal`, and is logged. An observer's
    error is logged and counted.

    Args:
        settings: an instance of the class's `Settings`.
        broker: what the plugin may ask of the broker.
    """

    name: ClassVar[str] = ""
    """What `plugins:` calls it: the file's or entry point's name, which the loader fills in."""

    version: ClassVar[str] = ""
    """Shown by `broker plugins`."""

    Settings: ClassVar[type[Any]] = NoSettings
    """An attrs class; the block under the plugin's name is checked and converted to it."""

    def __init__(self, settings: Any, broker: Broker) -> None:
        self.settings = settings
        self.broker = broker

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse what looks like a hook but would never be called, or not as written: a misspelt gate is an open one.

        Raises:
            TypeError: an `on_...` method that is no gate, or a hook that does not take what it is given.
        """
        super().__init_subclass__(**kwargs)
        for name, method in vars(cls).items():
            if name.startswith("on_") and name not in HOOKS:
                near = difflib.get_close_matches(name, HOOKS, n=1)
                raise TypeError(f"{name} is no hook" + (f"; did you mean {near[0]}?" if near else ""))
            if name in HOOKS:
                _check_signature(method, HOOKS[name])
            if name in _PLAIN and inspect.iscoroutinefunction(method):
                raise TypeError(f"{name} must be plain, not async: nothing waits for its answer")
            if name in HOOKS and (inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method)):
                raise TypeError(f"{name} must not yield: nothing of it would ever run")

    async def start(self) -> None:
        """Get ready; the broker does not listen yet. An exception stops the broker's start."""

    async def stop(self) -> None:
        """Let go of everything; the broker no longer listens."""

    def reload(self, settings: Any) -> bool:
        """Take over settings that changed while running (SIGHUP), all or nothing; return False if that takes a restart.

        Where it returns True, `self.settings` is the new one afterwards; where it does not, or raises, the old one.

        Args:
            settings: a new instance of `Settings`, checked.
        """
        return bool(settings == self.settings)

    def trouble(self) -> str | None:
        """Return, in words for an operator, why the plugin cannot do its work now; `/readyz` then says no."""

    @classmethod
    def issue_token(cls, settings: Any, claims: Mapping[str, Any]) -> str:
        """Return a token for `broker gentoken`, of a plugin that has the means to make one.

        Args:
            settings: an instance of `Settings`.
            claims: what the token is to say: `sub`, `exp` and `iat` in seconds since the epoch, and more.

        Raises:
            ValueError: these settings or claims cannot make a token that would be let in; says why.
        """
        raise NotImplementedError

    @classmethod
    async def check_token(cls, settings: Any, token: str) -> Mapping[str, Any]:
        """Return what a token says, for `broker checktoken`.

        Raises:
            BrokerError: it would not be let in; says why.
        """
        raise NotImplementedError

    def actions(self) -> Mapping[str, ActionHandler]:
        """Return actions that clients may request, by name."""
        return {}

    def routes(self) -> Sequence[Route]:
        """Return HTTP routes to serve."""
        return ()

    @_gate
    def on_handshake(
        self, handshake: Handshake
    ) -> Awaitable[Principal | Undeclared | None] | Principal | Undeclared | None:
        """Let a client in or refuse it; return a `Principal` to say who it is (the first answer counts).

        Annotate one that only refuses with `-> None`: it leaves the broker open to everybody whom it lets pass.
        """

    @_gate
    def on_auth(self, auth: Auth) -> Awaitable[Principal | None] | Principal | None:
        """Say who a token stands for that was shown in band (the first answer counts), or refuse it."""

    @_gate
    def on_message(self, message: Inbound) -> Awaitable[None] | None:
        """Let a client's message in or refuse it; called for every one, so be quick."""

    @_gate
    def on_control(self, frame: Control) -> None:
        """Let a ping, a pong or a piece of a message in; plain, since nothing waits for it."""

    @_gate
    def on_permission(self, check: Permission) -> Awaitable[None] | None:
        """Let somebody do something to a session, a room or a user, or refuse it."""

    @_gate
    def on_content(self, content: Content) -> Awaitable[bytes | None] | bytes | None:
        """Let pass what somebody says, refuse it, or return JSON that is said instead.

        Each gate is given what the one before it made of it.
        """

    @_gate
    def on_turn(self, turn: TurnRequest) -> Awaitable[None] | None:
        """Let a turn be accepted or refuse it; nothing of it is written yet."""

    @_gate
    def on_dispatch(self, attempt: Attempt) -> HandTo | Degraded | None:
        """Say who gets a turn that its agent has not taken up; None for the usual way. Plain, since nothing waits."""

    @_observer
    def connected(self, peer: Peer) -> Awaitable[None] | None:
        """See a client that has connected."""

    @_observer
    def disconnected(self, peer: Peer, code: int) -> Awaitable[None] | None:
        """See a client that is gone; `code` is the WebSocket close code, 1006 for a line that broke."""

    @_observer
    def answered(self, answer: Answered) -> Awaitable[None] | None:
        """See what became of a client's request, just before the client does; called for every one, so be quick."""

    @_observer
    def committed(self, log: str, records: Sequence[Record]) -> Awaitable[None] | None:
        """See records of `session:<id>` or `room:<name>` that have become durable, each once, in order."""

    @_observer
    def turn_ended(self, turn: TurnEnded) -> Awaitable[None] | None:
        """See a turn that has ended, each accepted one exactly once while the broker runs."""

    @_observer
    def failed(self, failure: Failure) -> Awaitable[None] | None:
        """See an unexpected error inside the broker, for an error tracker; not those of plugins' observers."""


def _check_signature(method: Callable[..., Any], hook: Hook) -> None:
    try:
        inspect.signature(method).bind(None, *hook.parameters)
    except TypeError:
        raise TypeError(f"{hook.name} must take (self, {', '.join(hook.parameters)})") from None
