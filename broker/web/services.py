"""What everything at the web's edge shares: settings, counters, hooks, and the way to the actors."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import msgspec
import pykka
from aiohttp import web
from loguru import logger

from broker.actors.connection_mail import ConnectionOptions
from broker.actors.expiry import Expiry
from broker.actors.heartbeat import Heartbeats
from broker.actors.ref import InboxFull, LoopRef
from broker.actors.registry import Registry
from broker.actors.requests import ToRoom, ToSession
from broker.actors.store import StoreHandle
from broker.agents.remote.worker import WorkerAgent
from broker.clock import Clock
from broker.config import Settings
from broker.errors import BrokerError
from broker.extensions.dispatch import Hooks
from broker.hooks import Failure as Broke
from broker.ids import new_id
from broker.passes import Passes
from broker.protocol.dialect import Format
from broker.protocol.outgoing import Failure, RequestId
from broker.stats import Stats
from broker.tickets import Tickets
from broker.traces import Traces
from broker.vitals.journal import Journal
from broker.vitals.load import Load
from broker.vitals.series import Series
from broker.web.admission import Admission
from broker.web.proxies import Proxies
from broker.web.taps import Taps

__all__ = ["ASK_SECONDS", "SERVICES", "Services", "expected", "to_json"]

ASK_SECONDS: Final = 30.0
"""How long an HTTP request waits for an actor before it is answered with `timeout`."""


@attrs.define(eq=False)
class Services:
    """One broker's parts, as the handlers of sockets and requests use them.

    Attributes:
        settings: the configuration.
        clock: time.
        stats: the counters.
        hooks: the plugins.
        registry: the registry actor.
        store: the store, for lists and history.
        heartbeats: pings connections.
        connection: what all connections share.
        formats: the wire formats by subprotocol.
        node: this process's id.
        traces: where each reply went.
        ready: whether new clients are wanted; not while draining.
        open_to_all: whether nobody has to say who they are.
        workers: the agent profiles that agents may dial in for, by name.
        series: the last five minutes in figures.
        journal: the newest lines of the log.
        configuration: returns the settings in force and where they come from, secrets hidden.
        plugin_rows: how each plugin fares, for people: `broker.extensions.loader.Plugins.rows`.
        expiry: sends away whose time is over.
        tickets: what backends hand to pages, so that they are let in.
        passes: what people get for a link that works once.
        load: whether there is room for new work.
        admission: counts who is inside.
        taps: shows administrators what goes through the broker.
    """

    settings: Settings
    clock: Clock
    stats: Stats
    hooks: Hooks
    registry: LoopRef[Registry]
    store: StoreHandle
    heartbeats: Heartbeats
    connection: ConnectionOptions
    formats: Mapping[str, Format]
    node: str
    traces: Traces
    series: Series
    journal: Journal
    configuration: Callable[[], dict[str, Any]]
    ready: bool = False
    open_to_all: bool = True
    workers: Mapping[str, WorkerAgent] = attrs.Factory(dict)
    plugin_rows: Callable[[], list[dict[str, Any]]] = list
    expiry: Expiry = attrs.Factory(lambda self: Expiry(self.clock), takes_self=True)
    tickets: Tickets = attrs.Factory(lambda self: Tickets(self.clock), takes_self=True)
    passes: Passes = attrs.Factory(lambda self: Passes(self.clock), takes_self=True)
    load: Load = attrs.Factory(Load)
    admission: Admission = attrs.Factory(lambda self: self._admission(), takes_self=True)
    taps: Taps = attrs.Factory(lambda self: self._taps(), takes_self=True)

    def trouble(self) -> str | None:
        """Return why nobody should send us new work; None if they may (PROTOCOL section 5, `/readyz`)."""
        if not self.ready:
            return "The broker is starting or stopping."
        if not self.store.healthy:
            return "The store does not take writes."
        return self.load.trouble() or self.hooks.trouble()

    def _admission(self) -> Admission:
        listen, limits = self.settings.listen, self.settings.limits
        return Admission(listen.max_connections, limits.unknown_per_address, Proxies(listen.trusted_proxies))

    def _taps(self) -> Taps:
        return Taps(self.hooks, self.clock, self.settings.limits.outbox_bytes)

    def failure(self, request_id: RequestId | None, error: BaseException, conn: str | None = None) -> Failure:
        """Return what a client is told of an error; what is no refusal is logged, and told as a trace id only."""
        refusal = self.refusal(error, conn=conn, request=None if request_id is None else str(request_id))
        self.stats.errors[refusal.code] += 1
        return Failure(request_id, refusal)

    def refusal(self, error: BaseException, **ids: str | None) -> BrokerError:
        """Return the typed refusal that an exception amounts to; `ids` go with the log line of an unexpected one."""
        refusal = expected(error)
        if refusal is not None:
            return refusal
        trace_id = new_id()
        self.traces.fail(trace_id, "broker", type(error).__name__)
        bound = logger.bind(trace_id=trace_id, **{name: value for name, value in ids.items() if value})
        bound.opt(exception=error).error("a request failed inside the broker")
        self.hooks.observe(self.hooks.failed, Broke("a request", error, trace_id))
        return BrokerError("internal", hint=f"trace {trace_id}")

    async def ask_session(self, session_id: str, operation: Any) -> Any:
        """Return a session's answer to an operation.

        Raises:
            BrokerError: what the session refuses with.
            pykka.Timeout: it did not answer.
        """
        return await self.registry.ask(ToSession(session_id, operation), timeout=ASK_SECONDS)

    async def ask_room(self, room: str, operation: Any) -> Any:
        """Return a room's answer to an operation; raises as `ask_session`."""
        return await self.registry.ask(ToRoom(room, operation), timeout=ASK_SECONDS)


SERVICES: Final = web.AppKey("services", Services)


def expected(error: BaseException) -> BrokerError | None:
    """Return the typed refusal that an exception amounts to; None for one that nobody foresaw."""
    match error:
        case BrokerError():
            return error
        case InboxFull():
            return BrokerError("overloaded", retry_after=1.0)
        case pykka.ActorDeadError():
            return BrokerError("unavailable", retry_after=1.0)
        case pykka.Timeout():
            return BrokerError("timeout")
    return None


Encode = Callable[[Any], bytes]
to_json: Final[Encode] = msgspec.json.Encoder().encode
