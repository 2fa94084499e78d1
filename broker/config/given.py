"""A program's own values to located ones, so that they are checked like a file's and each mistake names its setting."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from broker.config.problems import ConfigErrors, Problem
from broker.config.reader import MAX_DEPTH, MAX_VALUES
from broker.config.secret import Secret
from broker.config.tree import Located, Place, child_path

__all__ = ["GIVEN", "located"]

GIVEN: Final = Place("the settings given")
"""Where all of it was written, as far as we know."""


def located(given: Mapping[str, object]) -> tuple[Located, list[Problem]]:
    """Return the tree of what was given, and what in it no file could hold.

    Raises:
        ConfigErrors: it has no end, or is far too large.
    """
    builder = _Builder()
    root = builder.build(given, "", 0)
    return root, builder.problems


class _Builder:
    """One walk through values."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._values = 0

    def build(self, value: object, path: str, depth: int) -> Located:
        """Return a value with all that is in it; what is of no use is noted, and left out."""
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise ConfigErrors([Problem("", "nested too deeply, or holds itself, or has too many values", GIVEN)])
        if isinstance(value, Secret):
            return Located(value.reveal(), GIVEN, GIVEN, path, secret=True)
        if isinstance(value, Located) or value is None or isinstance(value, str | int | float):
            return value if isinstance(value, Located) else Located(value, GIVEN, GIVEN, path)
        if isinstance(value, Mapping):
            return Located(dict(self._entries(value, path, depth)), GIVEN, GIVEN, path)
        if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
            children = [self.build(child, child_path(path, i), depth + 1) for i, child in enumerate(value)]
            return Located(children, GIVEN, GIVEN, path)
        self._note(path, f"a setting is text, a number, true, false, a list or a dict, not {type(value).__name__}")
        return Located(None, GIVEN, GIVEN, path)

    def _entries(self, block: Mapping[object, object], path: str, depth: int) -> Iterator[tuple[str, Located]]:
        for name, value in block.items():
            if isinstance(name, str):
                yield name, self.build(value, child_path(path, name), depth + 1)
            else:
                self._note(path, f"the name of a setting is text, not {type(name).__name__}")

    def _note(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message, GIVEN))
