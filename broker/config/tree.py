"""Settings before they have a type: values that know where they were written."""

import re
from typing import Final

import attrs

__all__ = ["Located", "Place", "Plain", "Scalar", "Text", "child_path", "find", "is_secret_name", "mask"]

_SECRET_NAME: Final = re.compile(r"secret|token|passw|credential|key(?!_?file)", re.IGNORECASE)
_NAMED: Final = r"""(?:secret|token|passw|credential|key)[\w-]*["']?\s*:\s*+(?!\$\{\w+\}|!\w)"""
_SECRET_LINE: Final = re.compile(rf"""^(\s*(?:-\s+)*["']?[\w.-]*{_NAMED})([^{{\[].*)$""", re.IGNORECASE)
_SECRET_PAIR: Final = re.compile(rf"""({_NAMED})("[^"]*"?|'[^']*'?|[^,{{}}\[\]]+)""", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"(://[^\s:/@]*:)([^\s@]+)(?=@)")


class Text(str):
    """Text from the environment, a flag or `${VAR}`: the setting's type decides what it means."""

    __slots__ = ()


Scalar = str | int | float | bool | None
Plain = Scalar | list["Plain"] | dict[str, "Plain"]


@attrs.frozen
class Place:
    """Where something was written.

    Attributes:
        source: name of the file, or of the variable or flag.
        line: counted from 1; 0 outside of files.
        column: counted from 1; 0 outside of files.
        width: how many characters the caret line spans.
        text: the line itself, secrets masked.
    """

    source: str
    line: int = 0
    column: int = 0
    width: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@attrs.frozen
class Located:
    """A value with its place.

    Attributes:
        value: a scalar, or a list or mapping of further located values.
        place: where the value stands.
        key: where its key stands; the value's place if it has none.
        path: its dotted name, such as `plugins.metrics`.
        secret: came from `!file` or `!env` and is never shown.
    """

    value: "Scalar | list[Located] | dict[str, Located]" = attrs.field(repr=False)
    place: Place = attrs.field(repr=False)
    key: Place = attrs.field(repr=False)
    path: str = ""
    secret: bool = False

    def plain(self) -> Plain:
        """Return the value without its places."""
        if isinstance(self.value, dict):
            return {name: child.plain() for name, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, name: str | int) -> "Located | None":
        """Return the entry under this key or index, None if there is none."""
        if isinstance(self.value, dict):
            return self.value.get(str(name))
        if isinstance(self.value, list) and isinstance(name, int) and name < len(self.value):
            return self.value[name]
        return None


def find(root: Located, *names: str | int) -> Located | None:
    """Return what stands under these names, None if nothing does."""
    node: Located | None = root
    for name in names:
        node = node.child(name) if node is not None else None
    return node


def child_path(path: str, name: str | int) -> str:
    """Return the dotted name of an entry: `listen.port`, `listen.origins[0]`."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name


def is_secret_name(name: str) -> bool:
    """Tell whether a setting of this name is hidden although nothing else says that it is a secret."""
    return _SECRET_NAME.search(name) is not None


def mask(line: str) -> str:
    """Return a line of a file fit to be shown: secrets starred and control characters replaced, column for column."""
    line = "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in line)
    for pattern in (_SECRET_LINE, _SECRET_PAIR, _URL_PASSWORD):
        line = pattern.sub(lambda found: found[1] + "*" * len(found[2]), line)
    return line
