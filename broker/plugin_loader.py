"""Loads the plugins that the configuration names, takes them through their life, and says how each fared."""

import asyncio
from collections.abc import Coroutine, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
from loguru import logger

from broker.config import ConfigErrors, Loaded, Located, Problem, structure_block
from broker.config.problems import suggest
from broker.dispatch import overridden
from broker.hooks import Broker, Plugin
from broker.plugin_files import Found, Unsafe, find, own_frames

__all__ = ["PluginRecord", "PluginSettings", "Plugins", "Status", "describe", "load"]

STARTING: Final = 30.0
"""Seconds that a plugin's `start` may take."""

STOPPING: Final = 5.0
"""Seconds that a plugin's `stop` may take."""


class PluginSettings(Protocol):
    """What the loader reads of the broker's settings."""

    @property
    def plugins(self) -> Mapping[str, Located]:
        """The block of each plugin that is to be loaded, by its name."""

    @property
    def plugins_dir(self) -> str | None:
        """The folder of drop-ins, None for none."""


class Status(StrEnum):
    """How a plugin fared; anything but the first two keeps the broker from starting."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    NOT_FOUND = "not found"
    UNSAFE = "unsafe"
    LOAD_ERROR = "load error"
    SETTINGS_ERROR = "settings error"
    START_ERROR = "start error"


@attrs.define(eq=False)
class PluginRecord:
    """One plugin, and how it fared.

    Attributes:
        name: what `plugins:` calls it.
        block: its block of the configuration, None if it is not named there.
        found: where it is, None if it was not found.
        status: how it fared so far.
        problems: what is wrong, each at its place in the configuration.
        plugin: its class, once loaded.
        settings: its settings, once checked.
        instance: the plugin itself, once made.
        started: whether it is to be stopped.
    """

    name: str
    block: Located | None = attrs.field(default=None, repr=False)
    found: Found | None = None
    status: Status = Status.DISABLED
    problems: list[Problem] = attrs.field(factory=list)
    plugin: type[Plugin] | None = None
    settings: Any = attrs.field(default=None, repr=False)
    instance: Plugin | None = None
    started: bool = False

    def fail(self, status: Status, text: str) -> None:
        """Note that it got no further than this."""
        self.status = status
        if self.block is not None:
            self.problems.append(Problem(self.block.path, f"{status}: {text}", self.block.key))

    def as_row(self) -> dict[str, Any]:
        """Return what `broker plugins` shows of it, as JSON-able values."""
        return {
            "name": self.name,
            "status": str(self.status),
            "version": (self.plugin.version or None) if self.plugin else None,
            "source": self.found.source if self.found else None,
            "location": self.found.location if self.found else None,
            "hooks": list(overridden(self.plugin)) if self.plugin else [],
            "error": "\n".join(problem.message for problem in self.problems) or None,
        }


class Plugins:
    """The plugins of one broker, in the order in which the configuration names them.

    Args:
        records: of the named ones, then of those that are there but not named.
    """

    def __init__(self, records: list[PluginRecord]) -> None:
        self.records = records

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with those that are named.

        The broker must not start with any: it would run without what its operator relies on.
        """
        return [problem for record in self.records for problem in record.problems]

    @property
    def instances(self) -> tuple[Plugin, ...]:
        """The plugins that were made."""
        return tuple(record.instance for record in self.records if record.instance is not None)

    def create(self, broker: Broker) -> None:
        """Make each plugin; one that fails becomes a problem."""
        for record in self.records:
            if record.plugin is None or record.problems:
                continue
            try:
                record.instance = record.plugin(record.settings, broker)
            except Exception as e:  # noqa: BLE001 - a plugin's failure is its own, whatever it is
                record.fail(Status.START_ERROR, own_frames(e))

    async def start(self, timeout: float = STARTING) -> None:  # noqa: ASYNC109 - of each, and it is reported
        """Start each plugin that was made; one that fails, or takes more than `timeout` seconds, becomes a problem."""
        for record in self.records:
            if record.instance is None:
                continue
            try:
                await _within(timeout, record.instance.start())
            except Exception as e:  # noqa: BLE001 - as in create
                record.fail(Status.START_ERROR, own_frames(e))
            else:
                record.started = True

    async def stop(self, timeout: float = STOPPING) -> None:  # noqa: ASYNC109 - as in start
        """Stop the started plugins in reverse, each within `timeout` seconds; what goes wrong is logged."""
        for record in reversed(self.records):
            if record.instance is None or not record.started:
                continue
            record.started = False
            try:
                await _within(timeout, record.instance.stop())
            except Exception as e:  # noqa: BLE001 - the others are stopped all the same
                logger.bind(plugin=record.name).opt(exception=e).error("plugin {} failed to stop", record.name)


def load(settings: PluginSettings, config_file: Path | None = None) -> Plugins:
    """Load the plugins that `settings` names; others that are there are listed and their code is not run.

    Args:
        settings: the broker's.
        config_file: what a relative `plugins_dir` is relative to the folder of; the working directory without it.
    """
    folder = None
    if settings.plugins_dir is not None:
        folder = (config_file.parent if config_file else Path()) / settings.plugins_dir
    there = find(folder)
    named = [_load_one(name, block, there) for name, block in settings.plugins.items()]
    others = [PluginRecord(name, found=there[name]) for name in sorted(there.keys() - settings.plugins.keys())]
    return Plugins(named + others)


def describe(loaded: Loaded) -> list[dict[str, Any]]:
    """Return a row for each plugin of a loaded configuration: how it fared, and what `broker plugins` shows of it."""
    return [record.as_row() for record in load(loaded.settings, loaded.file).records]


def _load_one(name: str, block: Located, there: Mapping[str, Found]) -> PluginRecord:
    record = PluginRecord(name, block, there.get(name))
    if record.found is None:
        known = ", ".join(sorted(there)) or "none"
        record.fail(Status.NOT_FOUND, f"there is no such plugin; there are: {known}{suggest(name, there)}")
        return record
    try:
        record.plugin = record.found.load()
        record.settings = structure_block(record.plugin.Settings, block)
    except Unsafe as e:
        record.fail(Status.UNSAFE, str(e))
    except ConfigErrors as e:
        record.status = Status.SETTINGS_ERROR
        record.problems.extend(e.problems)
    except (Exception, SystemExit) as e:  # noqa: BLE001 - whatever the plugin's code raised
        record.fail(Status.LOAD_ERROR, own_frames(e))
    else:
        record.status = Status.ENABLED
    return record


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(seconds) as limit:
            await work
    except TimeoutError as e:
        if limit.expired():
            raise TimeoutError(f"it took longer than {seconds:g} s") from e
        raise
