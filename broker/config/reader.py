"""YAML to located values: YAML 1.2, duplicate keys refused, `!file`, `!env` and `${VAR}` filled in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from broker.config.problems import ConfigErrors, Problem
from broker.config.tree import Located, Place, Scalar, Text, child_path, mask

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "parse", "read", "scalar"]

MAX_BYTES: Final = 1 << 20
"""Size of a configuration file."""
MAX_VALUES: Final = 10_000
"""Values in it, aliases counted each time they are used."""
MAX_DEPTH: Final = 32

_TAG: Final = "tag:yaml.org,2002:"
_VARIABLE: Final = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")


def read(path: Path, environ: Mapping[str, str]) -> tuple[Located, list[Problem]]:
    """Read a configuration file.

    Returns:
        the tree, and the problems of single values, which do not keep others from being found.

    Raises:
        ConfigErrors: there is no such file, or it is not YAML.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        _refuse(name, "there is no such file; name one with --config FILE, or none to run with the defaults")
    except OSError as error:
        _refuse(name, f"cannot be read: {error.strerror}")
    if len(content) > MAX_BYTES:
        _refuse(name, "larger than 1 MiB; that is no configuration")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([Problem("", "not UTF-8 text", Place(name, line, 1))]) from None
    return parse(text, name, environ, folder=path.parent)


def parse(
    text: str, source: str, environ: Mapping[str, str], *, folder: Path, path: str = "", inline: bool = False
) -> tuple[Located, list[Problem]]:
    """Read YAML text as `read` does; `inline` text, the value of a variable, is known as `path` and has no lines."""
    builder = _Builder(text, source, environ, folder, inline=inline)
    try:
        node = builder.yaml.compose(text)
        root = builder.empty(path) if node is None else builder.build(node, None, path, 0)
    except MarkedYAMLError as error:
        message = ": ".join(part for part in (error.context, error.problem) if part)
        _refuse_mark(builder, message, error.problem_mark or error.context_mark)
    except ReaderError as error:
        position = int(error.position)
        line = text.count("\n", 0, position)
        column = position - text.rfind("\n", 0, position) - 1
        raise ConfigErrors([Problem("", "a character that YAML does not allow", builder.at(line, column))]) from None
    except (YAMLError, RecursionError, ValueError):
        _refuse(source, "cannot be read as YAML; it may be nested too deeply")
    return root, builder.problems


def scalar(text: str) -> Scalar:
    """Return what `text` would mean as a plain YAML value: `3000` is a number, `true` is true."""
    yaml = YAML(typ="safe", pure=True)
    node = ScalarNode(yaml.resolver.resolve(ScalarNode, text, (True, False)), text)
    return _construct(yaml, node)


def _construct(yaml: YAML, node: ScalarNode) -> Scalar:
    if str(node.tag).removeprefix(_TAG) not in {"null", "bool", "int", "float"}:
        return str(node.value)
    value: Scalar = yaml.constructor.construct_object(node, deep=True)
    return value


def _refuse(source: str, message: str) -> NoReturn:
    raise ConfigErrors([Problem("", message, Place(source))]) from None


def _refuse_mark(builder: "_Builder", message: str, mark: StreamMark | None) -> NoReturn:
    place = builder.at(mark.line, mark.column) if mark is not None else Place(builder.source)
    raise ConfigErrors([Problem("", message, place)]) from None


class _Builder:
    """Turns composed nodes into located values and collects what is wrong with single ones."""

    def __init__(self, text: str, source: str, environ: Mapping[str, str], folder: Path, *, inline: bool) -> None:
        self.yaml = YAML(typ="safe", pure=True)
        self.source = source
        self.problems: list[Problem] = []
        self._lines = [] if inline else re.split(r"\r\n|\r|\n", text)
        self._environ = environ
        self._folder = folder
        self._values = 0

    def at(self, line: int, column: int, width: int = 1) -> Place:
        """Return the place at this line and column, both counted from 0."""
        if not self._lines:
            return Place(self.source)
        text = mask(self._lines[line]) if line < len(self._lines) else ""
        return Place(self.source, line + 1, column + 1, max(1, width), text)

    def empty(self, path: str) -> Located:
        """Return a block without entries."""
        return Located({}, Place(self.source), Place(self.source), path)

    def build(self, node: Node, key: Place | None, path: str, depth: int) -> Located:
        """Return the located value of a node; aliases are expanded, so each use counts."""
        place = self._place(node)
        self._values += 1
        if depth > MAX_DEPTH:
            raise ConfigErrors([Problem("", "nested too deeply, or an alias that holds itself", key or place)])
        if self._values > MAX_VALUES:
            raise ConfigErrors([Problem("", f"more than {MAX_VALUES} values, aliases counted at each use", place)])
        if not isinstance(node, ScalarNode) and str(node.tag).startswith("!"):
            self._note(path, f"{node.tag} cannot stand before a block; known are !file and !env, before text", place)
        if isinstance(node, MappingNode):
            return Located(self._mapping(node, path, depth), place, key or place, path)
        if isinstance(node, SequenceNode):
            children = [
                self.build(child, None, child_path(path, index), depth + 1) for index, child in enumerate(node.value)
            ]
            return Located(children, place, key or place, path)
        if not node.value and node.start_mark.index == node.end_mark.index and key is not None:
            place = key
        value = self._scalar(node, path, place) if isinstance(node, ScalarNode) else None
        return Located(value, place, key or place, path, secret=str(node.tag) in {"!file", "!env"})

    def _place(self, node: Node) -> Place:
        start, end = node.start_mark, node.end_mark
        return self.at(start.line, start.column, end.column - start.column if end.line == start.line else 1)

    def _mapping(self, node: MappingNode, path: str, depth: int) -> dict[str, Located]:
        children: dict[str, Located] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node)
            if not isinstance(key_node, ScalarNode) or str(key_node.tag) in {_TAG + "merge", _TAG + "null"}:
                self._note(path, "a key must be text; merge keys (<<) are not read", place)
                continue
            name = str(key_node.value)
            if name in children:
                first = children[name].key.line
                self._note(child_path(path, name), f"written twice, first in line {first}", place)
                continue
            children[name] = self.build(value_node, place, child_path(path, name), depth + 1)
        return children

    def _scalar(self, node: ScalarNode, path: str, place: Place) -> Scalar:
        tag = str(node.tag)
        if tag.startswith("!"):
            return self._tagged(tag, self._filled(node.value, path, place), path, place)
        try:
            value = _construct(self.yaml, node)
        except (ValueError, KeyError, YAMLError):
            self._note(path, "not a value that can be read", place)
            return None
        return self._filled(value, path, place) if isinstance(value, str) else value

    def _filled(self, text: str, path: str, place: Place) -> str:
        if "${" not in text:
            return text

        def fill(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            if name is None and found[0] == "${":
                self._note(path, "write ${NAME} or ${NAME:-default}, or $${ for the characters themselves", place)
            if name is None:
                return "${"
            value = self._environ.get(name)
            if value is None and default is None:
                self._note(path, f"the variable {name} is not set; set it, or write ${{{name}:-default}}", place)
            return value or default or ""

        return Text(_VARIABLE.sub(fill, text))

    def _tagged(self, tag: str, argument: str, path: str, place: Place) -> Scalar:
        if tag == "!env":
            if argument not in self._environ:
                self._note(path, f"the variable {argument} is not set", place)
            return Text(self._environ.get(argument, ""))
        if tag == "!file":
            return self._file(argument, path, place)
        self._note(path, f"unknown tag {tag}; known are !file and !env", place)
        return argument

    def _file(self, name: str, path: str, place: Place) -> Scalar:
        try:
            with (self._folder / name).expanduser().open(encoding="utf-8") as file:
                line = file.readline(MAX_BYTES).strip()
                if line.startswith("-----BEGIN "):  # a key or certificate in PEM, whose lines belong together
                    line = f"{line}\n{file.read(MAX_BYTES)}"
        except (OSError, UnicodeDecodeError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            self._note(path, f"the file {name} cannot be read: {reason}", place)
            return Text("")
        if not line:
            self._note(path, f"the first line of the file {name} is empty", place)
        return Text(line)

    def _note(self, path: str, message: str, place: Place) -> None:
        self.problems.append(Problem(path, message, place))
