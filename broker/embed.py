"""The broker as a part of somebody's aiohttp application, under a prefix of its paths; starts and stops with it.

Nothing of the process is touched: no signal, no log's configuration, no setting of the interpreter or of the system.
The server is the application's own, and so is what only a server can hold against its clients.
"""

import math
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from aiohttp import web
from loguru import logger

from broker import reload
from broker.app import App, CannotStart
from broker.clock import SystemClock
from broker.config import ConfigErrors, Loaded, Located, Settings, load, take
from broker.config.given import GIVEN
from broker.extensions.loader import load as load_plugins
from broker.facade import Facade
from broker.hooks import Plugin
from broker.stats import Stats
from broker.web.actions import ACTIONS
from broker.web.embedded import Entrance

__all__ = ["Broker", "CannotStart", "ConfigErrors"]

Given = Mapping[str, Any] | Settings | str | os.PathLike[str]
"""Settings as a dictionary, as they are, or the path of a YAML file."""

APART: Final = frozenset(
    {"limits.handshake", "listen.host", "listen.port", "log.format", "log.level", "runtime.loop"},
)
"""Settings that are about a server or a process of the broker's own."""


class Broker(Facade):
    """One broker in an aiohttp application, and what the application may ask of it: all that plugins may.

    Handlers and listeners can be registered at once, before it starts; it can be asked from the application's start-up
    on, after its own part of it, until its clean-up.

    Args:
        settings: the keys and values of a configuration file as a dictionary; a whole `Settings`; or the path of such a
            file, which is read together with the environment's variables, as the command `broker` does. Left out,
            everything has its default, the store too: a file, since what was acknowledged is to outlive the process.
        plugins: further plugins that the settings need not name, by name or as classes. Settings for one stand, as for
            any, under `plugins:` and its name: that of a class is its `name`, or what Python calls it in lower case.

    Raises:
        ConfigErrors: every mistake in the settings at once; nothing was started.
        ValueError: two of the plugins given are called the same.
    """

    def __init__(self, settings: Given | None = None, plugins: Sequence[type[Plugin] | str] = ()) -> None:
        super().__init__(Stats(), SystemClock(), reserved=ACTIONS, asleep=True)
        loaded = _loaded(settings)
        named = _by_name(plugins)
        self._settings = _naming(loaded.settings, named)
        self._loaded = attrs.evolve(loaded, settings=self._settings)
        classes = {name: plugin for name, plugin in named.items() if plugin is not None}
        self._plugins = load_plugins(self._settings, loaded.file, classes)
        if self._plugins.problems:
            raise ConfigErrors(self._plugins.problems)
        self._taken = False
        self._app: App | None = None

    def setup(self, app: web.Application, prefix: str = "/broker") -> None:
        """Have an application serve the broker under a prefix, start it in its start-up, and stop it with it.

        When the application shuts down, clients are told to come back later and running turns have `shutdown.grace`;
        in its clean-up all the rest ends. A broker that cannot start has the application's start-up fail with
        `CannotStart`.

        Args:
            app: it must not have started.
            prefix: such as `/broker`, which makes the clients' socket `/broker/ws`; empty to leave to the broker all
                that the application has no route for.

        Raises:
            RuntimeError: the broker has an application already, or this one has started.
            ValueError: the prefix is none.
        """
        if self._taken:
            raise RuntimeError("a broker is a part of one application; make another for another")
        entrance = Entrance(prefix)
        entrance.add_to(app)
        app.cleanup_ctx.append(lambda _: self._live(entrance))
        app.on_shutdown.append(self._drain)
        self._taken = True

    @asynccontextmanager
    async def _live(self, entrance: Entrance) -> AsyncIterator[None]:
        if unheard := sorted(APART.intersection(reload.changes(Settings(), self._settings))):
            text = "the application has a server and a log of its own, so these count for nothing: {}"
            logger.warning(text, ", ".join(unheard))
        app = App(self._settings, self._plugins, facade=self, front=entrance.open, loaded=self._loaded)
        await app.start()
        self._app = app
        yield
        entrance.door = None
        await app.stop(math.inf)
        if not app.clean:
            logger.error("the store could not be closed in time; what was acknowledged is in it")

    async def _drain(self, _: web.Application) -> None:
        """Send clients away before the server waits for them."""
        if self._app is not None:
            await self._app.drain()


def _loaded(given: Given | None) -> Loaded:
    if isinstance(given, str | os.PathLike):
        return load(Path(given), os.environ, {})
    return take({} if given is None else given)


def _by_name(plugins: Sequence[type[Plugin] | str]) -> dict[str, type[Plugin] | None]:
    """Return the classes by name; None for what is only named.

    Raises:
        ValueError: two are called the same.
    """
    found: dict[str, type[Plugin] | None] = {}
    for plugin in plugins:
        name = plugin if isinstance(plugin, str) else plugin.name or plugin.__name__.lower()
        if name in found:
            raise ValueError(f"two of the plugins given are called {name!r}")
        found[name] = None if isinstance(plugin, str) else plugin
    return found


def _naming(settings: Settings, names: Iterable[str]) -> Settings:
    """Return the settings with a block, if need be an empty one, for each of these plugins."""
    blocks = {name: Located({}, GIVEN, GIVEN, f"plugins.{name}") for name in names}
    return attrs.evolve(settings, plugins={**blocks, **settings.plugins})
