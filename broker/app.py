"""The composition root: settings to store, plugins, actors and sockets, in this order; stopped in reverse."""

import asyncio
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import attrs
from loguru import logger

from broker import gauges, reload
from broker.actors.connection_mail import ConnectionOptions
from broker.actors.heartbeat import Heartbeats
from broker.actors.store import CLOSE_SECONDS, Store, StoreHandle
from broker.agents.remote.worker import WorkerAgent
from broker.clock import Clock, Deadline, SystemClock
from broker.config import EX_CONFIG, Loaded, Settings, take
from broker.config.show import report
from broker.drain import Drain
from broker.extensions.dispatch import Hooks
from broker.extensions.loader import STOPPING, Plugins
from broker.extensions.offers import PluginRefused
from broker.facade import Facade
from broker.ids import new_id
from broker.protocol.formats import make_formats
from broker.stats import Stats
from broker.store.engines import engine_for
from broker.store.port import Engine, StoreError
from broker.system import ActorSystem
from broker.tasks import spawn
from broker.traces import Traces
from broker.vitals.journal import Journal
from broker.vitals.lag import LoopLag
from broker.vitals.load import Load
from broker.vitals.memory import Memory
from broker.vitals.series import Series
from broker.vitals.watchdog import Watchdog
from broker.web.actions import ACTIONS
from broker.web.front import CannotListen, Door, Front
from broker.web.services import Services

__all__ = ["EX_UNAVAILABLE", "STOP_SECONDS", "App", "CannotStart"]

EX_UNAVAILABLE: Final = 69
"""Exit code for a port or a store that cannot be had (sysexits.h; PROTOCOL section 7)."""
STOP_SECONDS: Final = 1.75
"""How long all of stopping may take beyond the grace: together with the end of the process, two seconds."""
OBSERVERS_SECONDS: Final = 2.0
"""How long plugins' observers may finish what they were told; beyond the grace, half of what is left."""


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
        facade: what plugins may ask of the broker; one of its own if left out.
        front: makes what serves sockets and requests; a server of its own if left out.
        loaded: where the settings come from; a program's own if left out.

    Attributes:
        loaded: the settings that are in force, and where they come from.
        waiting: names of settings that were changed, and need a restart.
        clean: whether everything that was given to the store is in it, once the broker has stopped.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: Plugins,
        clock: Clock | None = None,
        *,
        facade: Facade | None = None,
        front: Callable[[Services], Door] = Front,
        loaded: Loaded | None = None,
    ) -> None:
        self.settings = settings
        self.loaded = take(settings) if loaded is None else loaded
        self.plugins = plugins
        self.clock = clock or SystemClock()
        self.facade = facade or Facade(Stats(), self.clock, reserved=ACTIONS)
        self.stats = self.facade.stats
        self.traces = Traces(self.clock.now)
        self.waiting: list[str] = []
        self.port = settings.listen.port
        self.clean = True
        self._journal = Journal()
        self._make_front = front
        self._deadline = Deadline(self.clock, math.inf)
        self._undo: list[Callable[[], object]] = []

    async def start(self) -> None:
        """Start everything, in the order in which it needs each other.

        Raises:
            CannotStart: something cannot be had; what was started is stopped again.
        """
        try:
            self._undo.append(self._journal.close)
            self._start_watchdog()
            self._start_store()
            self._start_plugins()
            await self._start_actors()
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
        self._deadline = deadline = Deadline(self.clock, grace + STOP_SECONDS)
        await self.system.end_feedback(deadline)
        end_turns = partial(self.system.end_turns, deadline)
        await Drain(self.registry, self.clock, grace, end_turns, deadline=deadline).run()

    async def stop(self, seconds: float | None = None) -> None:
        """Stop everything in reverse.

        Args:
            seconds: how long that may take, where it is not to be what `drain` has left of its time.
        """
        if seconds is not None:
            self._deadline = Deadline(self.clock, seconds)
        while self._undo:
            undo = self._undo.pop()
            try:
                result = undo()
                if asyncio.iscoroutine(result):
                    await result
            except Exception as e:  # noqa: BLE001 - stopping goes on
                logger.opt(exception=e).error("a part of the broker did not stop cleanly")

    def reload(self, settings: Settings, written: Mapping[str, str] = MappingProxyType({})) -> list[str]:
        """Take over what can change while the broker runs, after all was checked; return what needs a restart.

        Args:
            settings: all of them, as they are to be.
            written: where they come from, as in `Loaded`.

        Raises:
            ConfigErrors: something is wrong with a plugin's block or beside what stays in force; nothing was taken.
        """
        checked = self.plugins.check(settings)
        merged = reload.merge(self.settings, settings)
        reload.check(merged, {**self.plugins.blocks, **settings.plugins})
        waiting = self.plugins.reload(settings.plugins, checked)
        self.settings = self.services.settings = attrs.evolve(merged, plugins=self.plugins.blocks)
        self.front.resize()
        self.waiting = reload.changes(merged, settings) + waiting
        found = reload.origins(self.loaded.origins, written, self.waiting)
        self.loaded = attrs.evolve(self.loaded, settings=self.settings, origins=found)
        return self.waiting

    def keep_log(self) -> None:
        """Keep the newest lines of the log at hand, from now on; again, when the log was set up anew.

        For a process that is the broker's alone: a program around it has a log of its own.
        """
        self._journal.open(self.settings.log.level)

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
        self.plugins.create(self.facade, self.facade.of)
        self._check_plugins()
        try:
            self.hooks = Hooks(
                self.plugins.instances,
                self.stats,
                reserved=ACTIONS,
                acting=self.settings.limits.message_timeout,
                traces=self.traces,
                largest=self.settings.limits.message_bytes,
            )
            self.facade.connect_hooks(self.hooks)
        except PluginRefused as e:
            raise CannotStart(str(e), EX_CONFIG) from e
        self._undo.append(self.facade.cancel_spawned)
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

    async def _start_actors(self) -> None:
        self.system = ActorSystem(self.settings, self.clock, self.stats, self.traces, self.store, self.hooks)
        self._undo.append(lambda: self.system.stop(self._deadline))
        self.registry, self.supervisor, self.kinds = self.system.registry, self.system.supervisor, self.system.kinds
        self.facade.connect(self.registry, largest=self.settings.limits.message_bytes)
        gauges.show(
            self.stats,
            registry=self.registry,
            supervisor=self.supervisor,
            kinds=self.kinds,
            plugins=self.plugins.instances,
            hooks=self.hooks,
        )
        await self.system.start()
        expiring = spawn(self.system.expire(), name="drop what is past keeping")
        self._undo.append(expiring.cancel)

    async def _listen(self) -> None:
        memory = Memory(self.settings.limits.memory, self.clock)
        lag = LoopLag(self.clock, self.stats.lag_seconds)
        series = Series(self.stats, self.clock, lag.worst)
        self.services = self._make_services(memory, series)
        self._show_vitals(lag)
        for part in (self.services.heartbeats, lag, memory, series):
            part.start()
            self._undo.append(part.stop)
        try:
            self.front = self._make_front(self.services)
        except PluginRefused as e:
            raise CannotStart(str(e), EX_CONFIG) from e
        except CannotListen as e:
            raise CannotStart(str(e), EX_UNAVAILABLE) from e
        self._undo.append(self.front.stop)
        await self.front.start()
        self.port = self.front.port

    def _make_services(self, memory: Memory, series: Series) -> Services:
        heartbeat = self.settings.heartbeat
        return Services(
            settings=self.settings,
            clock=self.clock,
            stats=self.stats,
            hooks=self.hooks,
            registry=self.registry,
            store=self.store,
            heartbeats=Heartbeats(heartbeat.interval, heartbeat.timeout, self.clock, heartbeat.idle),
            connection=ConnectionOptions(
                self.clock, self.settings.limits.outbox_bytes, heartbeat.timeout, self.stats, self.traces
            ),
            formats=make_formats(self.settings.limits.message_timeout, self.clock.now),
            node=new_id(),
            traces=self.traces,
            series=series,
            journal=self._journal,
            configuration=self._configuration,
            open_to_all=not self.hooks.identifies,
            workers={name: kind for name, kind in self.kinds.items() if isinstance(kind, WorkerAgent)},
            plugin_rows=lambda: self.plugins.rows(self.stats, self.hooks.troubles()),
            load=Load(lambda: memory.short, lambda: self.store.behind, self.system.is_live),
        )

    def _configuration(self) -> dict[str, Any]:
        made = [record.settings for record in self.plugins.records]
        return {**report(self.loaded, made), "waiting": self.waiting}

    def _show_vitals(self, lag: LoopLag) -> None:
        gauges.show_memory(self.stats)
        self.stats.loop_lag_seconds = lag.seconds
        self.stats.ready = lambda: self.services.trouble() is None
        self.stats.store_up = lambda: self.store.healthy
        self.stats.connections_limit = lambda: self.services.admission.limit
        self.stats.memory_limit = lambda: self.settings.limits.memory
