"""The merged settings as people read them: `check-config --print`."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin

import attrs

from broker.config.load import Loaded
from broker.config.reader import scalar
from broker.config.secret import HIDDEN, Secret
from broker.config.tree import Located, is_secret_name, mask
from broker.config.units import Unit

__all__ = ["Leaf", "as_data", "as_yaml", "leaves", "summary"]

_BARE: Final = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./:+-]*(?<!:)", re.ASCII)
_COMMENT_COLUMN: Final = 44


@attrs.frozen
class Leaf:
    """One setting, merged.

    Attributes:
        names: its path.
        value: what JSON can hold; durations and sizes as they are written, secrets hidden.
        origin: where it was written, or `default`.
    """

    names: tuple[str, ...]
    value: Any
    origin: str


def leaves(loaded: Loaded) -> Iterator[Leaf]:
    """Yield every setting in the order of `Settings`."""
    return _walk(loaded.settings, None, (), loaded.origins, hidden=False)


def as_data(loaded: Loaded) -> dict[str, Any]:
    """Return the merged settings as nested dictionaries."""
    data: dict[str, Any] = {}
    for leaf in leaves(loaded):
        block = data
        for name in leaf.names[:-1]:
            block = block.setdefault(name, {})
        block[leaf.names[-1]] = leaf.value
    return data


def as_yaml(loaded: Loaded) -> Iterator[str]:
    """Yield the lines of a file that would give these settings (secrets aside), each with its origin."""
    open_blocks: tuple[str, ...] = ()
    for leaf in leaves(loaded):
        for depth, name in enumerate(leaf.names[:-1]):
            if open_blocks[: depth + 1] != leaf.names[: depth + 1]:
                yield f"{'  ' * depth}{_text(name)}:"
        open_blocks = leaf.names[:-1]
        line = f"{'  ' * len(open_blocks)}{_text(leaf.names[-1])}: {_text(leaf.value)}"
        yield f"{line:<{_COMMENT_COLUMN}}  # {leaf.origin}"


def summary(settings: Any) -> Any:
    """Return settings that were made into a class, such as a plugin's, as values for JSON; secrets hidden."""
    return _summary(settings, None, hidden=False)


def _summary(value: Any, kind: Any, *, hidden: bool) -> Any:
    if attrs.has(type(value)) and not isinstance(value, Secret):
        return {
            field.name: _summary(
                getattr(value, field.name),
                field.type,
                hidden=bool(field.metadata.get("secret")) or is_secret_name(field.name),
            )
            for field in attrs.fields(type(value))
            if field.init and not field.name.startswith("_")
        }
    if isinstance(value, dict):
        inner = get_args(kind)[1] if get_origin(kind) is dict else None
        return {
            str(name): _summary(child, inner, hidden=hidden or is_secret_name(str(name)))
            for name, child in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_summary(child, None, hidden=hidden) for child in value]
    if hidden and isinstance(value, str):
        return HIDDEN if value else ""
    shown = _shown(value, kind)
    return shown if shown is None or isinstance(shown, str | int | float | bool) else str(shown)


def _walk(value: Any, kind: Any, names: tuple[str, ...], origins: dict[str, str], *, hidden: bool) -> Iterator[Leaf]:
    if isinstance(value, Located):
        hidden = hidden or value.secret
        value = value.value
    if attrs.has(type(value)) and not isinstance(value, Secret):
        for field in attrs.fields(type(value)):
            below = hidden or bool(field.metadata.get("secret"))
            yield from _walk(getattr(value, field.name), field.type, (*names, field.name), origins, hidden=below)
    elif isinstance(value, dict) and value:
        inner = get_args(kind)[1] if get_origin(kind) is dict else None
        for name, child in value.items():
            below = hidden or (isinstance(child, Located) and is_secret_name(name))
            yield from _walk(child, inner, (*names, name), origins, hidden=below)
    else:
        shown = HIDDEN if hidden and not isinstance(value, dict) else _shown(value, kind)
        yield Leaf(names, shown, origins.get(".".join(names), "default"))


def _shown(value: Any, kind: Any) -> Any:
    if isinstance(value, Located):
        return HIDDEN if value.secret else _shown(value.value, None)
    if isinstance(value, dict):
        return {name: HIDDEN if is_secret_name(name) else _shown(child, None) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(child, None) for child in value]
    if isinstance(value, Secret):
        return HIDDEN
    unit = next((mark for mark in get_args(kind) if isinstance(mark, Unit)), None)
    if unit is not None:
        text = unit.write(value)
        return int(text) if text.isdigit() else text
    return mask(value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) and scalar(value) == value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(value, ensure_ascii=False)
