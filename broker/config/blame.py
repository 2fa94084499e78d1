"""From an exception of cattrs to mistakes in a person's words, each at its place in the file."""

import re
from collections.abc import Iterator
from typing import Any, Final, get_args

import attrs
from cattrs import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from broker.config.problems import Problem, suggest
from broker.config.secret import Secret
from broker.config.settings import Settings
from broker.config.tree import Located, Place, child_path
from broker.config.units import Unit

__all__ = ["MisplacedError", "blame"]

_LIMIT: Final = re.compile(r"Expected `(\w+)` (of length )?([<>]=?) (\S+)")
_PATTERN: Final = re.compile(r"Expected `str` matching regex '(.*)'")
_TYPES: Final = re.compile(r"Expected `(\w+)`, got `(\w+)`")
_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "a block of settings",
}
_SIGNS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


class MisplacedError(ValueError):
    """A mistake in one entry of the block that raises it.

    Args:
        name: the entry.
        message: what is wrong with it.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@attrs.frozen
class _Spot:
    """Where the walk through an exception stands.

    Attributes:
        node: what was written there, if anything.
        path: its dotted name.
        near: its place, or that of what should hold it.
        kind: the type it should have.
        hidden: whether it is a secret, so that its line is not shown.
        wary: whether a secret may stand beside it, so that only its own part of the line is shown.
    """

    node: Located | None
    path: str
    near: Place
    kind: Any
    hidden: bool = False
    wary: bool = False

    def down(self, name: str | int, kind: Any, *, hidden: bool = False) -> "_Spot":
        node = self.node.child(name) if self.node is not None else None
        near = node.place if node is not None else self.near
        hidden = self.hidden or hidden or _holds_secret(kind)
        return _Spot(node, child_path(self.path, name), near, kind, hidden, self.wary)

    def problem(self, message: str, *, at_key: bool = False) -> Problem:
        place = self.node.key if at_key and self.node is not None else self.near
        text = "" if self.hidden else self._own_part(place) if self.wary else place.text
        return Problem(self.path, message, attrs.evolve(place, text=text))

    def _own_part(self, place: Place) -> str:
        name = self.path.rpartition(".")[2]
        before = place.text[: place.column - 1].strip()
        return place.text[: place.column - 1 + place.width] if before in {"", f"{name}:"} else ""


def blame(error: Exception, node: Located, cls: type) -> list[Problem]:
    """Return what is wrong with `node`, given the exception that structuring it as `cls` raised.

    The line of a secret is left out.
    """
    return list(_problems(error, _Spot(node, node.path, node.key, cls)))


def _problems(error: BaseException, spot: _Spot) -> Iterator[Problem]:
    if isinstance(error, ForbiddenExtraKeysError | ClassValidationError) and _holds_secrets(error.cl):
        spot = attrs.evolve(spot, wary=True)
    if isinstance(error, ForbiddenExtraKeysError):
        for name in sorted(error.extra_fields):
            yield spot.down(name, None).problem(_unknown(name, error.cl), at_key=True)
    elif isinstance(error, ClassValidationError):
        yield from _of_class(error, spot)
    elif isinstance(error, IterableValidationError):
        yield from _of_items(error, spot)
    elif isinstance(error, MisplacedError):
        yield spot.down(error.name, None).problem(str(error))
    else:
        words = _in_words(error, spot.kind)
        yield spot.problem("not accepted" if spot.hidden and str(error) == words else words)


def _of_class(error: ClassValidationError, spot: _Spot) -> Iterator[Problem]:
    noted, others = error.group_exceptions()
    for cause, note in noted:
        field = attrs.fields_dict(error.cl).get(note.name)
        hidden = field is not None and bool(field.metadata.get("secret"))
        below = spot.down(note.name, note.type, hidden=hidden)
        if isinstance(cause, KeyError) and below.node is None:
            yield attrs.evolve(below, near=spot.node.key if spot.node else spot.near).problem("missing")
        else:
            yield from _problems(cause, below)
    for cause in others:
        yield from _problems(cause, spot)


def _of_items(error: IterableValidationError, spot: _Spot) -> Iterator[Problem]:
    noted, others = error.group_exceptions()
    for cause, note in noted:
        below = spot.down(note.index, note.type)
        if "mapping key" in str(note):
            yield below.problem(f"as a name: {_in_words(cause, note.type)}", at_key=True)
        else:
            yield from _problems(cause, below)
    for cause in others:
        yield from _problems(cause, spot)


def _unknown(name: str, cls: type | None) -> str:
    known = [field.name for field in attrs.fields(cls)] if cls is not None and attrs.has(cls) else []
    hint = suggest(name, known)
    if not hint:
        elsewhere = [f"{block.name}.{name}" for block in attrs.fields(Settings) if name in _names(block.type)]
        hint = f"; did you mean '{elsewhere[0]}'?" if elsewhere else ""
    return f"unknown setting{hint}"


def _names(kind: Any) -> set[str]:
    return {field.name for field in attrs.fields(kind)} if isinstance(kind, type) and attrs.has(kind) else set()


def _holds_secret(kind: Any) -> bool:
    return kind is Secret or any(_holds_secret(part) for part in get_args(kind))


def _holds_secrets(cls: Any) -> bool:
    fields = attrs.fields(cls) if attrs.has(cls) else ()
    return any(_holds_secret(field.type) or field.metadata.get("secret") for field in fields)


def _in_words(error: BaseException, kind: Any) -> str:
    text = str(error)
    unit = next((mark for mark in get_args(kind) if isinstance(mark, Unit)), None)
    if match := _TYPES.search(text):
        got = f"expected {_WORDS.get(match[1], match[1])}, got {_WORDS.get(match[2], match[2])}"
        return f"{got}; put it in quotes" if match[1] == "str" and match[2] in {"int", "float", "bool"} else got
    if match := _LIMIT.search(text):
        bound = unit.write(float(match[4])) if unit else match[4].removesuffix(".0")
        what = unit.name if unit else _WORDS.get(match[1], match[1]).removeprefix("a ")
        if match[2]:
            if match[3] == ">=" and bound == "1":
                return "must not be empty"
            what = "characters" if match[1] == "str" else "entries"
            return f"expected {_SIGNS[match[3]]} {bound} {what}"
        return f"expected a {what} of {_SIGNS[match[3]]} {bound}"
    if _PATTERN.search(text):
        return "expected letters, digits, dots, dashes and underscores" if "A-Za-z0-9" in text else text
    return text or type(error).__name__
