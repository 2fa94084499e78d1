"""The composition root: settings to store, plugins, actors and sockets, in this order; stopped in reverse."""

import asyncio
import hashlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from aiohttp import web
from loguru import logger

from broker.actors.agents import Agents
from broker.actors.connection import ConnectionOptions
from broker.actors.heartbeat import Heartbeats
from broker.actors.lifecycle import Gone, StopSession
from broker.actors.options import RoomOptions, SessionOptions
from broker.actors.ref import LoopRef
from broker.actors.registry import HangAll, Live, Registry, RegistryOptions, Wake
from broker.actors.room import Room
from broker.actors.session import Session
from broker.actors.store import Expire, Store, StoreHandle
from broker.actors.supervisor import Supervisor
from broker.agents.acp.orphans import reap
from broker.agents.kinds import kind_for
from broker.agents.port import AgentKind
from broker.agents.remote.worker import WorkerAgent
from broker.clock import Clock, SystemClock
from broker.config import EX_CONFIG, Settings
from broker.dispatch import Hooks
from broker.errors import CloseCode
from broker.facade import Facade
from broker.hooks import TurnEnded
from broker.ids import new_id
from broker.lag import LoopLag
from broker.messages import Record, SessionRow
from broker.offers import PluginRefused
from broker.plugin_loader import Plugins
from broker.protocol.native import NATIVE
from broker.stats import Stats
from broker.store.engines import engine_for
from broker.store.port import Engine, StoreError
from broker.tasks import spawn
from broker.traces import Traces
from broker.web.actions import ACTIONS
from broker.web.agent_socket import add_agent_door
from broker.web.problems import problems
from broker.web.services import SERVICES, Services
from broker.web.site import add_routes, only_known_hosts
from broker.web.socket import client_socket

__all__ = ["App", "CannotStart"]

EX_UNAVAILABLE: Final = 69
"""Exit code for a port or a store that cannot be had (sysexits.h; PROTOCOL section 7)."""
EXPIRE_SECONDS: Final = 600.0
"""How often what is past keeping is looked for."""
HANG_SECONDS: Final = 1.0
"""How long clients may take over their good-byes at the end of a drain."""
OBSERVERS_SECONDS: Final = 2.0
"""How long plugins' observers may finish what they were told."""
BACKLOG: Final = 1024


class CannotStart(Exception):  # noqa: N818 - the state, not the layer
    """The broker cannot start; `code` is what the process exits with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class App:
    """One broker: everything it consists of, from `start` to `stop`.

    Args:
        settings: the configuration.
        plugins: the plugins it names, loaded but not made.
        clock: time.
    """

    def __init__(self, settings: Settings, plugins: Plugins, clock: Clock | None = None) -> None:
        self.settings = settings
        self.plugins = plugins
        self.clock = clock or SystemClock()
        self.stats = Stats()
        self.facade = Facade(self.stats, self.clock)
        self.supervisor = Supervisor(self.clock)
        self.traces = Traces(self.clock.now)
        self._mark = mark_of(settings.store.url)
        self.kinds: dict[str, AgentKind] = {}
        self.port = settings.listen.port
        self._undo: list[Callable[[], object]] = []

    async def start(self) -> None:
        """Start everything, in the order in which it needs each other.

        Raises:
            CannotStart: something cannot be had; what was started is stopped again.
        """
        try:
            self._start_store()
            self._start_plugins()
            self._start_actors()
            await self._reap_orphans()
            await self.agents.start()
            await self._recover()
            await self.plugins.start()
            self._check_plugins()
            await self._listen()
        except BaseException:
            await self.stop()
            raise
        self.services.ready = True

    async def drain(self) -> None:
        """Let the broker run out: no new clients, 1012 to those there are, time for running turns (PROTOCOL 7)."""
        self.services.ready = False
        await self._site.stop()
        self.registry.tell(HangAll(CloseCode.SERVICE_RESTART), urgent=True)
        deadline = self.clock.monotonic() + self.settings.shutdown.grace
        while self.clock.monotonic() < deadline and await self._busy():  # noqa: ASYNC110 - many parts, looked at once
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Stop everything in reverse."""
        while self._undo:
            undo = self._undo.pop()
            try:
                result = undo()
                if asyncio.iscoroutine(result):
                    await result
            except Exception as e:  # noqa: BLE001 - stopping goes on
                logger.opt(exception=e).error("a part of the broker did not stop cleanly")

    def reload(self, settings: Settings) -> list[str]:
        """Take over what can change while the broker runs; return the blocks that changed and need a restart."""
        old = self.settings
        listen = attrs.evolve(
            old.listen, origins=settings.listen.origins, max_connections=settings.listen.max_connections
        )
        limits = attrs.evolve(old.limits, errors_per_minute=settings.limits.errors_per_minute)
        taken = attrs.evolve(old, listen=listen, limits=limits, log=settings.log, shutdown=settings.shutdown)
        self.settings = self.services.settings = taken
        return [field.name for field in attrs.fields(Settings) if _differ(taken, settings, field.name)]

    # -- starting -----------------------------------------------------------------------------------

    def _start_store(self) -> None:
        engine: Engine = engine_for(self.settings.store.url, self.settings.store.sync)
        try:
            engine.open()
        except StoreError as e:
            raise CannotStart(str(e), EX_UNAVAILABLE) from e
        store = Store(engine, self.clock, self.stats)
        store.begin()
        self._undo.append(store.close)
        self.store = StoreHandle(store, durable=engine.durable)

    def _start_plugins(self) -> None:
        self._check_plugins()
        self.plugins.create(self.facade)
        self._check_plugins()
        try:
            self.hooks = Hooks(self.plugins.instances, self.stats, reserved=ACTIONS, traces=self.traces)
        except PluginRefused as e:
            raise CannotStart(str(e), EX_CONFIG) from e
        self._undo.append(self.facade.stop)
        self._undo.append(self.plugins.stop)
        self._undo.append(self._settle_observers)

    async def _settle_observers(self) -> None:
        """Let the plugins' observers finish what they were told, within reason."""
        try:
            async with asyncio.timeout(OBSERVERS_SECONDS):
                await self.hooks.settled()
        except TimeoutError:
            logger.warning("some observers of plugins were still at work after {:g} s", OBSERVERS_SECONDS)

    def _check_plugins(self) -> None:
        if self.plugins.problems:
            text = "\n".join(problem.render() for problem in self.plugins.problems)
            raise CannotStart(text, EX_CONFIG)

    def _start_actors(self) -> None:
        self.kinds = {name: kind_for(profile, self._mark) for name, profile in self.settings.agents.items()}
        self.agents = Agents(
            self.settings.agents,
            self.kinds,
            queue_limit=self.settings.limits.queued_turns,
            supervisor=self.supervisor,
            clock=self.clock,
            traces=self.traces,
        )
        shared: dict[str, Any] = {
            "store": self.store,
            "clock": self.clock,
            "stats": self.stats,
            "mailbox": self.settings.limits.mailbox,
            "registry": self._tell_registry,
            "on_committed": self._committed,
        }
        self.sessions = SessionOptions(
            agents=self.agents.options,
            quota=self.settings.sessions.quota,
            traces=self.traces,
            on_turn_ended=self._turn_ended,
            **shared,
        )
        self.rooms = RoomOptions(history=self.settings.rooms.history, **shared)
        options = RegistryOptions(
            supervisor=self.supervisor,
            clock=self.clock,
            stats=self.stats,
            session=self._make_session,
            room=lambda name: Room(name, self.rooms),
            idle_after=self.settings.sessions.idle_after,
        )
        self.registry = self.supervisor.start(lambda: Registry(options))
        self.facade.connect(self.registry)
        self.stats.outbox_bytes = self._outbox_bytes
        self.stats.mailbox_depth = self.supervisor.mail
        self._undo.append(self._stop_actors)

    def _outbox_bytes(self) -> int:
        registry = self.registry.actor
        return 0 if registry is None else registry.outbox_bytes()

    def _make_session(self, session_id: str, row: SessionRow | None, chosen: bool) -> Session:
        return Session(session_id, self.sessions, row, chosen=chosen)

    def _tell_registry(self, message: Gone) -> None:
        if self.registry.is_alive():
            self.registry.tell(message, urgent=True)

    def _committed(self, log: str, records: Sequence[Record]) -> None:
        if self.hooks.committed:
            self.hooks.observe(self.hooks.committed, log, records)

    def _turn_ended(self, session_id: str, turn_id: str, agent: str, outcome: str, seconds: float) -> None:
        self.stats.turns_ended[outcome] += 1
        self.stats.turn_seconds.observe(seconds)
        if outcome not in {"completed", "cancelled"}:
            logger.bind(session=session_id, turn=turn_id).warning("turn of agent {} ended {}", agent, outcome)
        if self.hooks.turn_ended:
            self.hooks.observe(self.hooks.turn_ended, TurnEnded(session_id, turn_id, agent, outcome, seconds))

    async def _reap_orphans(self) -> None:
        """End what agents of an earlier run on this store are still at: the turns they had are lost, or go on anew."""
        if self._mark is None:
            return
        ended = await asyncio.to_thread(reap, self._mark)
        if ended:
            logger.warning("ended {} processes of agents that an earlier run had left behind", ended)

    async def _recover(self) -> None:
        """Take up the sessions whose turns an earlier run left open: what was dispatched ends, what waits goes on."""
        for session_id in await self.store.read("sessions_with_open_turns"):
            self.registry.tell(Wake(session_id), urgent=True)
        self._expiring = spawn(self._expire(), name="drop what is past keeping")
        self._undo.append(self._expiring.cancel)

    async def _listen(self) -> None:
        listen, heartbeat = self.settings.listen, self.settings.heartbeat
        heartbeats = Heartbeats(heartbeat.interval, heartbeat.timeout, self.clock)
        self.services = Services(
            settings=self.settings,
            clock=self.clock,
            stats=self.stats,
            hooks=self.hooks,
            registry=self.registry,
            store=self.store,
            heartbeats=heartbeats,
            connection=ConnectionOptions(
                self.clock, self.settings.limits.outbox_bytes, heartbeat.timeout, self.stats, self.traces
            ),
            formats={NATIVE.name: NATIVE},
            node=new_id(),
            traces=self.traces,
            open_to_all=not self.hooks.handshake,
            workers={name: kind for name, kind in self.kinds.items() if isinstance(kind, WorkerAgent)},
        )
        lag = LoopLag(self.clock)
        self.stats.loop_lag_seconds = lag.seconds
        for part in (heartbeats, lag):
            part.start()
            self._undo.append(part.stop)
        runner = web.AppRunner(make_web_app(self.services), access_log=None, shutdown_timeout=HANG_SECONDS)
        await runner.setup()
        self._undo.append(runner.cleanup)
        self._site = web.SockSite(runner, _bind(listen.host, listen.port), backlog=BACKLOG)
        await self._site.start()
        self.port = runner.addresses[0][1]

    # -- running and stopping -----------------------------------------------------------------------

    async def _expire(self) -> None:
        sessions, rooms = self.settings.sessions.keep, self.settings.rooms
        while True:
            now = self.clock.now()
            live = frozenset(await self.registry.ask(Live()))
            message = Expire(
                sessions_before=now - round(sessions * 1000) if sessions else 0,
                rooms_before=now - round(rooms.keep * 1000) if rooms.keep else 0,
                room_history=rooms.history,
                live=live,
            )
            try:
                gone = await self.store.expire(message)
            except StoreError as e:
                logger.error("what is past keeping could not be dropped: {}", e)
            else:
                if gone:
                    logger.info("dropped {} logs that were past keeping", len(gone))
            await asyncio.sleep(EXPIRE_SECONDS)

    async def _busy(self) -> bool:
        places: dict[str, LoopRef[Session]] = await self.registry.ask(Live())
        actors = [ref.actor for log, ref in places.items() if log.startswith("session:")]
        return self.stats.connections > 0 or any(actor is not None and actor.running for actor in actors)

    async def _stop_actors(self) -> None:
        """End what still runs, durably; then the agents, then everybody else."""
        places: dict[str, LoopRef[Session]] = await self.registry.ask(Live())
        sessions = [ref for log, ref in places.items() if log.startswith("session:") and ref.is_alive()]
        await asyncio.gather(*(ref.ask(StopSession(), timeout=5.0) for ref in sessions), return_exceptions=True)
        await self.agents.close()
        await self.supervisor.stop()


def mark_of(url: str) -> str | None:
    """Return what the processes of a broker's agents carry in their environment: as unique as its store is."""
    path = url.removeprefix("sqlite:///")
    if path == url:
        return None  # a store in memory, which no later run can have in common with this one
    return hashlib.blake2b(os.fsencode(Path(path).resolve()), digest_size=16).hexdigest()


def make_web_app(services: Services) -> web.Application:
    """Return the aiohttp application of a broker."""
    app = web.Application(middlewares=[problems, only_known_hosts])
    app[SERVICES] = services
    app.on_response_prepare.append(_sign)
    app.router.add_get("/ws", client_socket)
    add_agent_door(app)
    add_routes(app)
    for route in services.hooks.routes:
        app.router.add_route(route.method, route.path, route.handler)
    return app


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "actor-broker"  # aiohttp would name the versions of everything below


def _differ(one: Settings, other: Settings, block: str) -> bool:
    if block == "plugins":  # their blocks know their places in the file, which move without meaning anything
        return {k: v.plain() for k, v in one.plugins.items()} != {k: v.plain() for k, v in other.plugins.items()}
    return bool(getattr(one, block) != getattr(other, block))


def _bind(host: str, port: int) -> socket.socket:
    """Return a listening socket's basis.

    Raises:
        CannotStart: the address cannot be had; the text says what to do.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as e:
        text = f"cannot listen on {host}:{port}: {e.strerror or e}; stop what uses it or choose another with --port"
        raise CannotStart(text, EX_UNAVAILABLE) from e
    return sock
