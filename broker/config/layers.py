"""The environment and flags, laid over what the file says (PROTOCOL section 7)."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import attrs

from broker.config.problems import ConfigErrors, Problem, suggest
from broker.config.reader import parse
from broker.config.settings import Settings
from broker.config.tree import Located, Place, Text, child_path

__all__ = ["overlay"]

PREFIX: Final = "BROKER_"
FILE_VARIABLE: Final = "BROKER_CONFIG"
OF_CLIENTS: Final = frozenset({"BROKER_TOKEN", "BROKER_URL"})
"""What tells programs where a broker is: no settings of one, but often there where one is started."""
ADDRESS_VARIABLE: Final = "WEBSOCKET_ADDR"

_SERVICE: Final = re.compile(r"BROKER_SERVICE_(HOST|PORT(_\w+)?)|BROKER_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?")
"""What Kubernetes sets in every pod beside a Service of the name `broker`."""
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\s]*):([0-9]{1,5})")


def overlay(root: Located, environ: Mapping[str, str], flags: Mapping[str, tuple[str, object]]) -> list[Problem]:
    """Write the environment's settings, then the flags', into the tree.

    Args:
        root: the tree of the file, changed in place.
        environ: the environment.
        flags: for each dotted name the flag and its value.

    Returns:
        what is wrong with the variables.
    """
    problems = list(_address(root, environ.get(ADDRESS_VARIABLE)))
    for variable in sorted(environ):
        ours = variable.startswith(PREFIX) and variable != FILE_VARIABLE and variable not in OF_CLIENTS
        if ours and not _from_kubernetes(variable, environ):
            problems += _variable(root, variable, environ[variable])
    for path, (flag, value) in flags.items():
        _put(root, path.split("."), Text(value), Place(flag))
    return problems


def _from_kubernetes(variable: str, environ: Mapping[str, str]) -> bool:
    is_link = variable == "BROKER_PORT" and "://" in environ[variable]
    return is_link or _SERVICE.fullmatch(variable) is not None


def _address(root: Located, value: str | None) -> Iterator[Problem]:
    if value is None:
        return
    place = Place(ADDRESS_VARIABLE)
    match = _ADDRESS.fullmatch(value)
    if match is None:
        yield Problem("listen", "expected host:port, such as 127.0.0.1:3000", place)
        return
    if match[1]:
        _put(root, ["listen", "host"], Text(match[1].strip("[]")), place)
    _put(root, ["listen", "port"], Text(match[2]), place)


def _variable(root: Located, variable: str, value: str) -> list[Problem]:
    place = Place(variable)
    kind: Any = Settings
    node: Located | None = root
    names: list[str] = []
    for segment in variable.removeprefix(PREFIX).split("__"):
        known = _entries(kind)
        name = _named(segment, known if known is not None else node.value if node else (), kind)
        if known is not None and name not in known:
            return [Problem("", f"unknown variable{_nearest(variable)}", place)]
        kind = known[name] if known is not None else _inside(kind)
        node = node.child(name) if node is not None else None
        names.append(name)
    if not _is_block(kind, names):
        _put(root, names, Text(value), place)
        return []
    return _block(root, names, value, place)


def _block(root: Located, names: list[str], value: str, place: Place) -> list[Problem]:
    """A variable that names a whole block holds YAML: `BROKER_PLUGINS__METRICS={}`."""
    try:
        block, problems = parse(value, place.source, {}, folder=Path(), path=".".join(names), inline=True)
    except ConfigErrors as errors:
        return errors.problems
    _put(root, names, block, place)
    return problems


def _put(root: Located, names: list[str], value: "Text | Located", place: Place) -> None:
    """Set one entry; where the file has something else than a block on the way, its own mistake is reported."""
    node = root
    for name in names[:-1]:
        if not isinstance(node.value, dict):
            return
        below = node.value.get(name)
        if below is None or below.value is None:
            below = node.value[name] = Located({}, place, place, child_path(node.path, name))
        node = below
    if isinstance(node.value, dict):
        path = child_path(node.path, names[-1])
        node.value[names[-1]] = value if isinstance(value, Located) else Located(value, place, place, path)


def _named(segment: str, known: Any, kind: Any) -> str:
    """Return the entry that a part of a variable's name means.

    One that is there, whatever its case and dashes; or a new one, in lower case unless it is a variable's name
    itself, as in an agent's `env`.
    """
    folded: dict[str, str] = {_folded(name): name for name in known} if isinstance(known, dict) else {}
    return folded.get(_folded(segment), segment if get_args(kind)[1:] == (str,) else segment.lower())


def _folded(name: str) -> str:
    return re.sub(r"[-.]", "_", name).upper()


def _entries(kind: Any) -> dict[str, Any] | None:
    """Return the entries that a block of this type may have, None if any."""
    if attrs.has(kind) and kind is not Located:
        return {field.name: field.type for field in attrs.fields(kind)}
    if _is_union(kind) and all(map(attrs.has, get_args(kind))):
        return {name: below for cls in get_args(kind) for name, below in (_entries(cls) or {}).items()}
    return None if kind is Located or get_origin(kind) is dict else {}


def _inside(kind: Any) -> Any:
    return get_args(kind)[1] if get_origin(kind) is dict else kind


def _is_block(kind: Any, names: list[str]) -> bool:
    if kind is Located:
        return len(names) <= len(("plugins", "name"))
    return attrs.has(kind) or get_origin(kind) is dict or (_is_union(kind) and all(map(attrs.has, get_args(kind))))


def _is_union(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin in {Union, UnionType} and origin is not Annotated


def _nearest(variable: str) -> str:
    known = list(_variables())
    inner = [name for name in known if name.endswith("__" + variable.removeprefix(PREFIX))]
    return f"; did you mean '{inner[0]}'?" if inner else suggest(variable, known)


def _variables(kind: Any = Settings, prefix: str = PREFIX) -> Iterator[str]:
    """Yield the names of all variables there are, to suggest one."""
    for name, below in (_entries(kind) or {}).items():
        yield prefix + name.upper()
        yield from _variables(below, f"{prefix}{name.upper()}__")
