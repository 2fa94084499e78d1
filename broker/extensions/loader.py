"""Loads the plugins that the configuration names, takes them through their life, and says how each fared."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

from loguru import logger

from broker.config import ConfigErrors, Loaded, Located, Problem, structure_block
from broker.config.problems import suggest
from broker.extensions.fence import within
from broker.extensions.files import Found, find, own_frames
from broker.extensions.record import PluginRecord, Status
from broker.extensions.trust import Unsafe
from broker.hooks import Broker, Plugin, Stats

__all__ = ["STOPPING", "PluginRecord", "PluginSettings", "Plugins", "Status", "describe", "load"]

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


class Plugins:
    """The plugins of one broker, in the order in which the configuration names them.

    Args:
        records: of the named ones, then of those that are there but not named.
        config_file: what a relative `plugins_dir` is relative to the folder of.
    """

    def __init__(self, records: list[PluginRecord], config_file: Path | None = None) -> None:
        self.records = records
        self._config_file = config_file

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

    @property
    def blocks(self) -> dict[str, Located]:
        """The blocks of the configuration that are in force."""
        return {record.name: record.block for record in self.records if record.block is not None}

    def rows(self, stats: Stats, troubles: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return a row for each plugin of a running broker.

        Args:
            stats: the broker's.
            troubles: what `broker.extensions.dispatch.Hooks.troubles` gives.

        Returns:
            what `describe` does, with `started`, `errors` (unexpected ones so far), `blocked` (times that it held up
            the event loop) and `trouble` (what keeps it from its work now, None for nothing).
        """
        return [
            {
                **record.as_row(),
                "started": record.started,
                "errors": stats.plugin_errors[record.name],
                "blocked": stats.blocked[record.name],
                "trouble": troubles.get(record.name),
            }
            for record in self.records
        ]

    def announce(self) -> None:
        """Log what is loaded, and what of it stands where somebody may not expect it."""
        loaded = [record for record in self.records if record.plugin is not None]
        shown = (
            f"{row['name']} {row['version'] or ''}".strip() + f" ({row['source']})"
            for row in map(PluginRecord.as_row, loaded)
        )
        logger.info("plugins: {}", ", ".join(shown) or "none")
        for record in loaded:
            if record.found and record.found.source == "drop-in" and (hidden := record.found.hides):
                text = "plugin {} is the drop-in {}, in the place of the {} of that name"
                logger.warning(text, record.name, record.found.location, hidden.source)

    def create(self, broker: Broker, seen_by: Callable[[str], Broker] | None = None) -> None:
        """Make each plugin; one that fails becomes a problem.

        Args:
            broker: what it is given.
            seen_by: returns what one plugin is given in its place, by its name.
        """
        for record in self.records:
            if record.plugin is None or record.problems:
                continue
            try:
                record.instance = record.plugin(record.settings, seen_by(record.name) if seen_by else broker)
            except (Exception, SystemExit) as e:  # noqa: BLE001 - a plugin's failure is its own, whatever it is
                record.fail(Status.START_ERROR, own_frames(e))

    async def start(self, timeout: float = STARTING) -> None:  # noqa: ASYNC109 - of each, and it is reported
        """Start each plugin that was made; one that fails, or takes more than `timeout` seconds, becomes a problem."""
        for record in self.records:
            if record.instance is None:
                continue
            try:
                await within(timeout, record.instance.start(), name=f"start {record.name}")
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
                await within(timeout, record.instance.stop(), name=f"stop {record.name}")
            except Exception as e:  # noqa: BLE001 - the others are stopped all the same
                logger.bind(plugin=record.name).opt(exception=e).error("plugin {} failed to stop", record.name)

    # -- while running -------------------------------------------------------------------------------

    def check(self, settings: PluginSettings) -> dict[str, Any]:
        """Return the new settings of each plugin that runs and is still named, checked; nothing is changed.

        Raises:
            ConfigErrors: every mistake in a plugin's block, and every plugin that is not there at all.
        """
        known = {record.name: record.plugin for record in self.records if record.instance is not None}
        there = _there(settings, self._config_file) if settings.plugins.keys() - known.keys() else {}
        problems: list[Problem] = []
        checked: dict[str, Any] = {}
        for name, block in settings.plugins.items():
            plugin = known.get(name)
            if plugin is None:
                problems += [] if name in there else [_not_found(name, block, there)]
                continue
            try:
                checked[name] = structure_block(plugin.Settings, block)
            except ConfigErrors as e:
                problems += e.problems
        if problems:
            raise ConfigErrors(problems)
        return checked

    def reload(self, blocks: Mapping[str, Located], checked: Mapping[str, Any]) -> list[str]:
        """Hand over what `check` gave to each plugin whose settings changed; return the names of what needs a restart.

        Args:
            blocks: the new configuration's.
            checked: what `check` made of them.
        """
        running = {record.name: record for record in self.records if record.instance is not None}
        waiting = [
            f"plugins.{name}" for name in dict.fromkeys([*blocks, *running]) if (name in blocks) != (name in running)
        ]
        for name, new in checked.items():
            record, block = running[name], blocks[name]
            # Both, since a secret's file may have changed, and a plugin may not compare what it makes of it.
            if record.settings == new and record.block is not None and record.block.plain() == block.plain():
                continue
            if record.take(new, block):
                logger.info("plugin {} took over its new settings", name)
            else:
                waiting.append(f"plugins.{name}")
        if not waiting and list(blocks) != list(running):
            waiting.append("the order of plugins")
        return waiting


def load(
    settings: PluginSettings, config_file: Path | None = None, given: Mapping[str, type[Plugin]] = MappingProxyType({})
) -> Plugins:
    """Load the plugins that `settings` names; others that are there are listed and their code is not run.

    Args:
        settings: the broker's.
        config_file: what a relative `plugins_dir` is relative to the folder of; the working directory without it.
        given: classes by name, which go before any that are found.
    """
    there = _there(settings, config_file) | {name: Found(name, "given", given=plugin) for name, plugin in given.items()}
    named = [_load_one(name, block, there) for name, block in settings.plugins.items()]
    others = [PluginRecord(name, found=there[name]) for name in sorted(there.keys() - settings.plugins.keys())]
    return Plugins(named + others, config_file)


def describe(loaded: Loaded) -> list[dict[str, Any]]:
    """Return a row for each plugin of a loaded configuration: how it fared, and what `broker plugins` shows of it."""
    return [record.as_row() for record in load(loaded.settings, loaded.file).records]


def _there(settings: PluginSettings, config_file: Path | None) -> dict[str, Found]:
    if settings.plugins_dir is None:
        return find(None)
    return find((config_file.parent if config_file else Path()) / settings.plugins_dir)


def _not_found(name: str, block: Located, there: Mapping[str, Found]) -> Problem:
    known = ", ".join(sorted(there)) or "none"
    text = f"{Status.NOT_FOUND}: there is no such plugin; there are: {known}{suggest(name, there)}"
    return Problem(block.path, text, block.key)


def _load_one(name: str, block: Located, there: Mapping[str, Found]) -> PluginRecord:
    record = PluginRecord(name, block, there.get(name))
    if record.found is None:
        record.status = Status.NOT_FOUND
        record.problems.append(_not_found(name, block, there))
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
