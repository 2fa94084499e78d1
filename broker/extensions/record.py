"""One plugin, and how it fared."""

import inspect
from enum import StrEnum
from typing import Any

import attrs
from loguru import logger

from broker.config import Located, Problem
from broker.config.show import summary
from broker.extensions.dispatch import overridden
from broker.extensions.fence import discard
from broker.extensions.files import Found, own_frames
from broker.hooks import Plugin

__all__ = ["PluginRecord", "Status"]


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

    def take(self, settings: Any, block: Located) -> bool:
        """Hand it its new settings; tell whether it works by them now. If not, it goes by the old ones.

        Args:
            settings: an instance of its `Settings`.
            block: what they were made of.
        """
        if self.instance is None:
            return False
        try:
            taken = _answer(self.instance.reload(settings))
        except BaseException as e:  # noqa: BLE001 - called by a signal, where nothing else catches
            text = "plugin {} could not take over its settings, the old ones stay: {}"
            logger.bind(plugin=self.name).error(text, self.name, own_frames(e))
            taken = False
        if taken:
            self.settings, self.block = settings, block
        self.instance.settings = self.settings
        return taken

    def as_row(self) -> dict[str, Any]:
        """Return what `broker plugins` shows of it, as JSON-able values; secrets hidden."""
        found, plugin = self.found, self.plugin
        return {
            "name": self.name,
            "status": str(self.status),
            "version": (plugin.version if plugin else "") or (found.version if found else None),
            "source": found.source if found else None,
            "location": found.location if found else None,
            "hides": found.hides.source if found and found.hides else None,
            "about": _first_line(plugin) if plugin else None,
            "hooks": list(overridden(plugin)) if plugin else [],
            "settings": summary(self.settings, self.block) if self.settings is not None else None,
            "error": "\n".join(problem.message for problem in self.problems) or None,
        }


def _first_line(plugin: type[Plugin]) -> str | None:
    return inspect.cleandoc(vars(plugin).get("__doc__") or "").partition("\n")[0] or None


def _answer(taken: Any) -> bool:
    if not isinstance(taken, bool):
        discard(taken)
        raise TypeError(f"reload() returns True or False; it returned {type(taken).__name__}")
    return taken
