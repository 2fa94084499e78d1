"""One plugin's method for one hook, found once, at the start."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from broker.hooks import HOOKS, Plugin

__all__ = ["Bound", "compiled", "may_answer", "overridden"]


@attrs.frozen(eq=False)
class Bound:
    """One plugin's method for one hook."""

    plugin: str
    hook: str
    call: Callable[..., Any]


def overridden(plugin: type[Plugin]) -> tuple[str, ...]:
    """Return the names of the hooks that a plugin's class overrides, in the order of `HOOKS`."""
    return tuple(name for name in HOOKS if getattr(plugin, name) is not getattr(Plugin, name))


def compiled(plugins: Sequence[Plugin], hook: str) -> tuple[Bound, ...]:
    """Return the methods for a hook of those plugins that override it, in order."""
    # From the class: an attribute of the instance that happens to be called like a hook is none.
    return tuple(
        Bound(plugin.name, hook, getattr(type(plugin), hook).__get__(plugin))
        for plugin in plugins
        if hook in overridden(type(plugin))
    )


def may_answer(gate: Bound) -> bool:
    """Tell whether a gate may answer: all but those whose annotation says that they return None."""
    try:
        return inspect.signature(gate.call, eval_str=True).return_annotation is not None
    except NameError:  # an annotation that names what only a type checker sees
        return True
