"""Flags over environment over file over defaults, checked as a whole."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from broker.config.checks import clashes
from broker.config.given import GIVEN, located
from broker.config.layers import overlay
from broker.config.problems import ConfigErrors, Problem
from broker.config.reader import read
from broker.config.settings import Settings
from broker.config.structure import structure_settings
from broker.config.tree import Located, Place, find

__all__ = ["EX_CONFIG", "Loaded", "load", "take"]

DEPTH: Final = 5
"""How far up the wrong parts are left out before the others are looked at no further; no setting lies deeper."""
EX_CONFIG: Final = 78
"""Exit code for a configuration that cannot be used (sysexits.h; PROTOCOL section 7)."""


@attrs.frozen
class Loaded:
    """Settings, and where they came from.

    Attributes:
        settings: the settings.
        origins: for the dotted name of each value that is no default, where it was written, such as
            `config.yaml:3`, `BROKER_LISTEN__PORT` or `--port`.
        file: the configuration file, None if there is none.
        root: all that was written, with its places.
    """

    settings: Settings
    origins: dict[str, str]
    file: Path | None
    root: Located = attrs.field(repr=False)


def load(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, tuple[str, object]],
) -> Loaded:
    """Load and check the configuration.

    Args:
        path: the file; None for none.
        environ: the environment.
        overrides: values given by flags: dotted name to flag and value, such as
            `{"listen.port": ("--port", "3000")}`.

    Raises:
        ConfigErrors: every mistake that was found.
    """
    empty = Place("the environment")
    root, problems = read(path, environ) if path is not None else (Located({}, empty, empty), [])
    if root.value is None:
        root = attrs.evolve(root, value={})
    problems += overlay(root, environ, overrides)
    return _checked(root, problems, path)


def take(given: Mapping[str, Any] | Settings) -> Loaded:
    """Check settings that a program has made, and take them as they are: neither a file nor the environment counts.

    Args:
        given: the same blocks and settings as in a file, as dictionaries, lists and plain values; or whole settings, of
            which only the rules between them are left to be checked.

    Raises:
        ConfigErrors: every mistake that was found.
    """
    if not isinstance(given, Settings):
        root, problems = located(given)
        return _checked(root, problems, None)
    broken = [Problem(clash.paths[0], clash.message, GIVEN) for clash in clashes(given)]
    if broken:
        raise ConfigErrors(broken)
    return Loaded(given, {}, None, Located({}, GIVEN, GIVEN))


def _checked(root: Located, problems: list[Problem], path: Path | None) -> Loaded:
    """Return what a tree says, if nothing is wrong with it.

    Raises:
        ConfigErrors: the problems known already, and every mistake in the tree.
    """
    problems += _unwritable(root)
    settings, mistakes = _structured(root)
    blamed = [problem.path for problem in problems + mistakes]
    problems += mistakes
    for clash in clashes(settings) if settings is not None else ():
        if not any(_overlap(path, bad) for path in clash.paths for bad in blamed):
            problems.append(Problem(clash.paths[0], clash.message, _place(root, clash.paths)))
    if problems or settings is None:
        raise ConfigErrors(problems)
    return Loaded(settings, dict(_origins(root)), path, root)


def _unwritable(node: Located, name: str = "") -> Iterator[Problem]:
    """Yield what holds half a character (a lone surrogate): it could be neither shown nor sent."""
    if _is_half(name):
        yield Problem(node.path, "as a name: holds half a character", node.key)
    if isinstance(node.value, str) and _is_half(node.value):
        yield Problem(node.path, "holds half a character, such as a byte that is not UTF-8", node.place)
    elif isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _unwritable(child, key)
    elif isinstance(node.value, list):
        for child in node.value:
            yield from _unwritable(child)


def _is_half(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _structured(root: Located) -> tuple[Settings | None, list[Problem]]:
    """Return the settings, or what is wrong and the settings that could be made without the wrong parts."""
    try:
        return structure_settings(root), []
    except ConfigErrors as errors:
        problems = errors.problems
    wrong = {problem.path for problem in problems}
    for _ in range(DEPTH):
        try:
            return structure_settings(_without(root, wrong)), problems
        except ConfigErrors as errors:  # what is left is not whole without what was wrong: leave that out too
            wrong |= {problem.path.rpartition(".")[0] or problem.path for problem in errors.problems}
    return None, problems


def _without(node: Located, paths: set[str]) -> Located:
    if isinstance(node.value, dict):
        kept = {name: _without(child, paths) for name, child in node.value.items() if child.path not in paths}
        return attrs.evolve(node, value=kept)
    if isinstance(node.value, list):
        return attrs.evolve(node, value=[_without(child, paths) for child in node.value if child.path not in paths])
    return node


def _overlap(one: str, other: str) -> bool:
    one, other = f"{one}.", f"{other}.".replace("[", ".")
    return one.startswith(other) or other.startswith(one)


def _place(root: Located, paths: tuple[str, ...]) -> Place:
    """Return where the first of these settings that was written at all stands."""
    blamed = find(root, *paths[0].split("."))
    if blamed is not None:
        return blamed.place
    others = (find(root, *path.split(".")) for path in paths[1:])
    return next((other.key for other in others if other is not None), root.key)


def _origins(node: Located) -> Iterator[tuple[str, str]]:
    if isinstance(node.value, dict) and node.value:
        for child in node.value.values():
            yield from _origins(child)
    elif node.path:
        yield node.path, str(node.place)
