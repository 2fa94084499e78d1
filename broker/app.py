"""The composition root: settings to store, plugins, actors and sockets, in this order; stopped in reverse."""

import asyncio
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
from loguru import logger

from broker import gauges, reload
from broker.actors.agents import CLOSE_SECONDS as GONE_SECONDS
from broker.actors.agents import Agents
from broker.actors.connection import ConnectionOptions
from broker.actors.heartbeat import Heartbeats
from broker.actors.lifecycle import Gone, StopSession
from broker.actors.options import RoomOptions, SessionOptions
from broker.actors.ref import LoopRef
from broker.actors.registry import Registry, RegistryOptions
from broker.actors.requests import Live, Wake
from broker.actors.room import Room
from broker.actors.session import Session
from broker.actors.store import CLOSE_SECONDS, Expire, Store, StoreHandle
from broker.actors.supervisor import Supervisor
from broker.agents.acp.orphans import reap
from broker.agents.kinds import kind_for
from broker.agents.port import AgentKind
from broker.agents.remote.worker import WorkerAgent
from broker.clock import Clock, Deadline, SystemClock
from broker.config import EX_CONFIG, Settings
from broker.drain import Drain
from broker.extensions.dispatch import Hooks
from broker.extensions.loader import STOPPING, Plugins
from broker.extensions.offers import PluginRefused
from broker.facade import Facade
from broker.hooks import TurnEnded
from broker.ids import new_id
from broker.messages import Record, SessionRow
from broker.protocol.native import NATIVE
from broker.stats import Stats
from broker.store.engines import engine_for
from broker.store.port import Engine, StoreError
from broker.tasks import spawn
from broker.traces import Traces
from broker.vitals.lag import LoopLag
from broker.vitals.load import Load
from broker.vitals.memory import Memory
from broker.vitals.watchdog import Watchdog
from broker.web.actions import ACTIONS
from broker.web.application import make_web_app
from broker.web.front import Front
from broker.web.listener import bind
from broker.web.services import Services

__all__ = ["EX_UNAVAILABLE", "STOP_SECONDS", "App", "CannotStart"]

EX_UNAVAILABLE: Final = 69
"""Exit code for a port or a store that cannot be had (sysexits.h; PROTOCOL section 7)."""
EXPIRE_SECONDS: Final = 600.0
"""How often what is past keeping is looked for."""
STOP_SECONDS: Final = 1.75
"""How long all of stopping may take beyond the grace: together with the end of the process, two seconds."""
END_SECONDS: Final = 5.0
"""How long the end of a turn may take to become durable when the broker stops: by itself, as the next two ..."""
OBSERVERS_SECONDS: Final = 2.0
"""... and plugins' observers may finish what they were told; beyond the grace, each has half of what is left."""


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

    Attributes:
        clean: whether everything that was given to the store is in it, once the broker has stopped.
    """

    def __init__(self, settings: Settings, plugins: Plugins, clock: Clock | None = None) -> None:
        self.settings = settings
        self.plugins = plugins
        self.clock = clock or SystemClock()
        self.stats = Stats()
        self.facade = Facade(self.stats, self.clock)
        self.supervisor = Supervisor(self.clock, self.stats.actor_failures)
        self.traces = Traces(self.clock.now)
        self._mark = mark_of(settings.store.url)
        self.kinds: dict[str, AgentKind] = {}
        self.port = settings.listen.port
        self.clean = True
        self._deadline = Deadline(self.clock, math.inf)
        self._undo: list[Callable[[], object]] = []

    async def start(self) -> None:
        """Start everything, in the order in which it needs each other.

        Raises:
            CannotStart: something cannot be had; what was started is stopped again.
        """
        try:
            self._start_watchdog()
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
        """Let the broker run out: no new clients, 1012 to those there are, time for running turns (PROTOCOL 7).

        From now on it has the grace and `STOP_SECONDS` for everything, `stop` included. Whoever asks over HTTP how the
        broker is, is answered until the end.
        """
        self.services.ready = False
        self.services.load.stopping = True
        grace = self.settings.shutdown.grace
        self._deadline = Deadline(self.clock, grace + STOP_SECONDS)
        await Drain(self.registry, self.clock, grace, self._end_turns, deadline=self._deadline).run()

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
        """Take over what can change while the broker runs, after all was checked; return what needs a restart.

        Raises:
            ConfigErrors: something is wrong with a plugin's block or beside what stays in force; nothing was taken.
        """
        checked = self.plugins.check(settings)
        merged = reload.merge(self.settings, settings)
        reload.check(merged, {**self.plugins.blocks, **settings.plugins})
        waiting = self.plugins.reload(settings.plugins, checked)
        self.settings = self.services.settings = attrs.evolve(merged, plugins=self.plugins.blocks)
        self.front.resize()
        return reload.changes(merged, settings) + waiting

    # -- starting -----------------------------------------------------------------------------------

    def _start_watchdog(self) -> None:
        """Watch the loop from the first step to the last, since a plugin may block it in any of them."""
        classes = [record.plugin for record in self.plugins.records if record.plugin is not None]
        watchdog = Watchdog({plugin.__module__: plugin.name for plugin in classes}, self.stats.blocked)
        watchdog.start()
        self._undo.append(watchdog.stop)

    def _start_store(self) -> None:
        engine: Engine = engine_for(self.settings.store.url, self.settings.store.sync)
        try:
            engine.open()
        except StoreError as e:
            raise CannotStart(str(e), EX_UNAVAILABLE) from e
        store = Store(engine, self.clock, self.stats)
        store.begin()
        self._undo.append(partial(self._close_store, store))
        self.store = StoreHandle(store, durable=engine.durable)

    async def _close_store(self, store: Store) -> None:
        self.clean = await store.close(min(CLOSE_SECONDS, self._deadline.left()))

    def _start_plugins(self) -> None:
        self._check_plugins()
        self.plugins.announce()
        self.plugins.create(self.facade)
        self._check_plugins()
        try:
            self.hooks = Hooks(self.plugins.instances, self.stats, reserved=ACTIONS, traces=self.traces)
        except PluginRefused as e:
            raise CannotStart(str(e), EX_CONFIG) from e
        self._undo.append(self.facade.stop)
        self._undo.append(lambda: self.plugins.stop(self._deadline.share(STOPPING)))
        self._undo.append(self._settle_observers)

    async def _settle_observers(self) -> None:
        """Let the plugins' observers finish what they were told, within reason."""
        seconds = self._deadline.share(OBSERVERS_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self.hooks.settled()
        except TimeoutError:
            logger.warning("some observers of plugins were still at work after {:.2g} s", seconds)

    def _check_plugins(self) -> None:
        if self.plugins.problems:
            text = "\n".join(problem.render() for problem in self.plugins.problems)
            raise CannotStart(text, EX_CONFIG)

    def _start_actors(self) -> None:
        profiles, errors = self.settings.agents.items(), self.stats.errors
        self.kinds = {name: kind_for(profile, self._mark, errors) for name, profile in profiles}
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
        gauges.show(
            self.stats,
            registry=self.registry,
            supervisor=self.supervisor,
            kinds=self.kinds,
            plugins=self.plugins.instances,
            hooks=self.hooks,
        )
        self._undo.append(self._stop_actors)

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
        memory = Memory(self.settings.limits.memory, self.clock)
        self.services = self._make_services(memory)
        lag = LoopLag(self.clock, self.stats.lag_seconds)
        self._show_vitals(lag)
        for part in (self.services.heartbeats, lag, memory):
            part.start()
            self._undo.append(part.stop)
        self.front = self._make_front()
        self._undo.append(self.front.stop)
        await self.front.start()
        self.port = self.front.port

    def _make_services(self, memory: Memory) -> Services:
        heartbeat = self.settings.heartbeat
        return Services(
            settings=self.settings,
            clock=self.clock,
            stats=self.stats,
            hooks=self.hooks,
            registry=self.registry,
            store=self.store,
            heartbeats=Heartbeats(heartbeat.interval, heartbeat.timeout, self.clock),
            connection=ConnectionOptions(
                self.clock, self.settings.limits.outbox_bytes, heartbeat.timeout, self.stats, self.traces
            ),
            formats={NATIVE.name: NATIVE},
            node=new_id(),
            traces=self.traces,
            open_to_all=not self.hooks.identifies,
            workers={name: kind for name, kind in self.kinds.items() if isinstance(kind, WorkerAgent)},
            plugin_rows=lambda: self.plugins.rows(self.stats, self.hooks.troubles()),
            load=Load(lambda: memory.short, lambda: self.store.behind, self._is_live),
        )

    def _show_vitals(self, lag: LoopLag) -> None:
        self.stats.loop_lag_seconds = lag.seconds
        self.stats.ready = lambda: self.services.trouble() is None
        self.stats.store_up = lambda: self.store.healthy
        self.stats.connections_limit = lambda: self.services.admission.limit
        self.stats.memory_limit = lambda: self.settings.limits.memory

    def _make_front(self) -> Front:
        listen = self.settings.listen
        try:
            return Front(make_web_app(self.services), bind(listen.host, listen.port), self.services)
        except PluginRefused as e:
            raise CannotStart(str(e), EX_CONFIG) from e
        except OSError as e:
            why = f"cannot listen on {listen.host}:{listen.port}: {e.strerror or e}"
            raise CannotStart(f"{why}; stop what uses it or choose another with --port", EX_UNAVAILABLE) from e

    def _is_live(self, session_id: str) -> bool:
        return self.registry.actor is not None and self.registry.actor.holds(f"session:{session_id}")

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

    async def _end_turns(self) -> None:
        """End the turns that still run, durably."""
        places: dict[str, LoopRef[Session]] = await self.registry.ask(Live())
        sessions = [ref for log, ref in places.items() if log.startswith("session:") and ref.is_alive()]
        seconds = self._deadline.share(END_SECONDS)
        asks = (ref.ask(StopSession(), timeout=seconds) for ref in sessions)
        await asyncio.gather(*asks, return_exceptions=True)

    async def _stop_actors(self) -> None:
        """End what still runs; then the agents, then everybody else."""
        await self._end_turns()
        await self.agents.close(self._deadline.share(GONE_SECONDS))
        await self.supervisor.stop(self._deadline.part())


def mark_of(url: str) -> str | None:
    """Return what the processes of a broker's agents carry in their environment: as unique as its store is."""
    path = url.removeprefix("sqlite:///")
    if path == url:
        return None  # a store in memory, which no later run can have in common with this one
    return hashlib.blake2b(os.fsencode(Path(path).resolve()), digest_size=16).hexdigest()
