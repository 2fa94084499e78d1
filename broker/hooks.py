"""The plugin API: what a plugin may be told, asked and given.

A plugin is a subclass of `Plugin` that overrides some of its no-op methods. *Gates* may refuse; *observers*
may not even disturb. `HOOKS` lists them as data, and `broker.dispatch.Hooks` calls them. The types that settings
are made of, such as `Duration`, are here too. With `broker.messages` and `broker.errors` this is all that a
plugin imports of ours; docs/plugins.md explains it by example.
"""

import difflib
import inspect
from asyncio import Task
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Protocol, TypeVar

import attrs

from broker.config.secret import Secret
from broker.config.units import ByteRate, Count, Duration, Percent, Positive, Rate, Size
from broker.messages import Principal, Record
from broker.stats import Histogram, Stats

__all__ = [
    "HOOKS",
    "ActionHandler",
    "Broker",
    "ByteRate",
    "Count",
    "Duration",
    "Failure",
    "Handshake",
    "Histogram",
    "Hook",
    "Inbound",
    "NoSettings",
    "Peer",
    "Percent",
    "Permission",
    "Plugin",
    "Positive",
    "Principal",
    "Rate",
    "Route",
    "Secret",
    "Size",
    "Stats",
    "TurnEnded",
    "TurnRequest",
]

# -- what hooks are given ----------------------------------------------------------------------------


@attrs.frozen
class Peer:
    """One connection.

    Attributes:
        connection_id: its id, as in `welcome`.
        principal: who it is.
        address: the client's IP address, past the trusted proxies.
        protocol: its wire format, such as `broker.v1.json`.
    """

    connection_id: str
    principal: Principal
    address: str
    protocol: str


@attrs.frozen
class Handshake:
    """A client that asks to be let in; nothing was answered yet.

    Attributes:
        path: the path it asks for, such as `/ws`.
        headers: its headers, case-insensitive; left out of `repr`, because tokens travel in them.
        query: its query parameters; left out of `repr` likewise.
        remote: the client's IP address, past the trusted proxies.
        origin: its Origin header, None if it sent none.
        protocol: the wire format that was agreed on.
    """

    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    query: Mapping[str, str] = attrs.field(repr=False)
    remote: str
    origin: str | None
    protocol: str


@attrs.frozen
class Inbound:
    """One message of a client, before anything is done about it; `size` is its length in bytes."""

    peer: Peer
    action: str
    size: int


@attrs.frozen
class Permission:
    """Somebody is about to do something to something.

    Attributes:
        principal: who.
        operation: what, an action of PROTOCOL 2a such as `room.join`, also when it is asked for over HTTP.
        resource: to which session, room or user, by id or name; None where there is none.
    """

    principal: Principal
    operation: str
    resource: str | None = None


@attrs.frozen
class TurnRequest:
    """A turn that would be accepted next; `content` is JSON, a string or an array of content blocks."""

    session_id: str
    principal: Principal
    content: bytes = attrs.field(repr=False)


@attrs.frozen
class TurnEnded:
    """A turn that has ended, after the record of it became durable.

    Attributes:
        session_id: its session.
        turn_id: its id.
        agent: the profile that was to do it.
        outcome: one of PROTOCOL section 3.
        seconds: from its acceptance to its end.
    """

    session_id: str
    turn_id: str
    agent: str
    outcome: str
    seconds: float


@attrs.frozen
class Failure:
    """Something broke inside the broker.

    Attributes:
        where: the part that broke, in words.
        error: what it raised.
        trace_id: the id under which the client was told and the log has it, if a client was waiting.
    """

    where: str
    error: BaseException
    trace_id: str | None = None


# -- what a plugin brings and may ask for ------------------------------------------------------------

ActionHandler = Callable[[Peer, Any], Any]
"""Answers an action: takes who asked and the payload, returns the answer or an awaitable of it.

The annotation of the second parameter decides what the payload comes as: without one, plain Python values;
`bytes`, the JSON itself; any class msgspec knows (attrs classes too), checked and converted, and a payload that
does not fit is refused as `invalid_message`. The answer is anything msgspec can encode, or JSON as `bytes`.
"""


@attrs.frozen
class Route:
    """An HTTP route of a plugin.

    Attributes:
        method: such as `GET`.
        path: in aiohttp's syntax, such as `/hello/{name}`.
        handler: takes an `aiohttp.web.Request`, returns an `aiohttp.web.StreamResponse`.
    """

    method: str
    path: str
    handler: Callable[[Any], Awaitable[Any]]


class Broker(Protocol):
    """What a plugin may ask of the broker. `data` is anything msgspec can encode, or JSON as `bytes`."""

    @property
    def version(self) -> str:
        """The broker's version."""

    @property
    def stats(self) -> Stats:
        """The broker's counters."""

    async def connections(self) -> Sequence[Peer]:
        """Return who is connected now."""

    async def send(self, connection_ids: Sequence[str], data: Any) -> int:
        """Send notification `message` to these connections; return how many of them there were."""

    async def broadcast(self, data: Any) -> int:
        """Send notification `broadcast` to every connection; return how many there were."""

    async def publish(self, room: str, event: str, data: Any) -> int | None:
        """Publish an event to a room; return its number in the room's log, None for a room without one."""

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> Task[Any]:
        """Run `work` in the background: named, its failure logged, cancelled when the broker stops."""


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

    A gate lets pass by returning None and refuses by raising `broker.errors.BrokerError`; any other exception, and
    any other answer, refuses too, as `internal`, and is logged. An observer's error is logged and counted.

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

    async def start(self) -> None:
        """Get ready; the broker does not listen yet. An exception stops the broker's start."""

    async def stop(self) -> None:
        """Let go of everything; the broker no longer listens."""

    def actions(self) -> Mapping[str, ActionHandler]:
        """Return actions that clients may request, by name."""
        return {}

    def routes(self) -> Sequence[Route]:
        """Return HTTP routes to serve."""
        return ()

    @_gate
    def on_handshake(self, handshake: Handshake) -> Awaitable[Principal | None] | Principal | None:
        """Let a client connect or refuse it; return a `Principal` to say who it is (the first one counts)."""

    @_gate
    def on_message(self, message: Inbound) -> Awaitable[None] | None:
        """Let a client's message in or refuse it; called for every one, so be quick."""

    @_gate
    def on_permission(self, check: Permission) -> Awaitable[None] | None:
        """Let somebody do something to a session, a room or a user, or refuse it."""

    @_gate
    def on_turn(self, turn: TurnRequest) -> Awaitable[None] | None:
        """Let a turn be accepted or refuse it; nothing of it is written yet."""

    @_observer
    def connected(self, peer: Peer) -> Awaitable[None] | None:
        """See a client that has connected."""

    @_observer
    def disconnected(self, peer: Peer, code: int) -> Awaitable[None] | None:
        """See a client that is gone; `code` is the WebSocket close code, 1006 for a line that broke."""

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
