"""What of a changed configuration a running broker takes over, and what waits for a restart (PROTOCOL section 7)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from broker.config import ConfigErrors, Located, Problem, Settings
from broker.config.checks import clashes
from broker.config.tree import Place

__all__ = ["LIVE", "changes", "check", "merge", "origins"]

LIVE: Final[Mapping[str, frozenset[str]]] = {
    "listen": frozenset({"hosts", "max_connections", "origins"}),
    "limits": frozenset({"errors_per_minute"}),
    "log": frozenset({"level", "format", "access"}),
    "shutdown": frozenset({"grace"}),
}
"""The settings that are looked up each time they are needed, by block; plugins decide about theirs by themselves."""


def merge(old: Settings, new: Settings) -> Settings:
    """Return the settings in force with what of the new ones can be taken over; the blocks of plugins stay."""
    blocks = {
        block: attrs.evolve(getattr(old, block), **{name: getattr(getattr(new, block), name) for name in names})
        for block, names in LIVE.items()
    }
    return attrs.evolve(old, **blocks)


def check(merged: Settings, plugins: Mapping[str, Located]) -> None:
    """Refuse what is right in the file and wrong beside what stays in force until a restart.

    So nobody is let in without a token by a file whose `listen.host` would be harmless, while the broker still listens
    on the old one.

    Raises:
        ConfigErrors: every rule between settings that would be broken.
    """
    broken = list(clashes(attrs.evolve(merged, plugins=dict(plugins))))
    if broken:
        raise ConfigErrors(
            Problem(clash.paths[0], f"{clash.message} (until a restart the old one holds)", Place("in force"))
            for clash in broken
        )


def changes(one: Settings, other: Settings) -> list[str]:
    """Return the dotted names of what differs, plugins apart: blocks to their settings, agents by name."""
    return list(_changes(one, other, ""))


def _changes(one: Any, other: Any, path: str) -> Iterator[str]:
    for field in attrs.fields(type(one)):
        name, ours, theirs = f"{path}{field.name}", getattr(one, field.name), getattr(other, field.name)
        if name == "plugins" or ours == theirs:
            continue
        if attrs.has(type(ours)) and type(ours) is type(theirs):
            yield from _changes(ours, theirs, f"{name}.")
        elif isinstance(ours, dict):
            keys = dict.fromkeys([*ours, *theirs])
            yield from (f"{name}.{key}" for key in keys if ours.get(key) != theirs.get(key))
        else:
            yield name


def origins(before: Mapping[str, str], after: Mapping[str, str], waiting: Sequence[str]) -> dict[str, str]:
    """Return where the settings in force were written: those that wait for a restart as before, all others as now.

    Args:
        before: where they were written until now, by their dotted names.
        after: where the new ones were.
        waiting: names of what waits, of settings or of blocks.
    """
    kept = tuple(f"{name}." for name in waiting)
    old = {name: origin for name, origin in before.items() if f"{name}.".startswith(kept)}
    return {**{name: origin for name, origin in after.items() if not f"{name}.".startswith(kept)}, **old}
