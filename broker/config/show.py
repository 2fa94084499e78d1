"""The merged settings as people read them: `check-config --print`."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, get_args, get_origin

import attrs

from broker.config.load import Loaded
from broker.config.reader import scalar
from broker.config.secret import HIDDEN, Secret
from broker.config.tree import Located, is_secret_name, mask
from broker.config.units import Unit

__all__ = ["Leaf", "as_data", "as_yaml", "leaves", "origins", "report", "secrets_of", "summary", "written"]

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


def as_data(loaded: Loaded, secrets: Collection[str] = ()) -> dict[str, Any]:
    """Return the merged settings as nested dictionaries.

    Args:
        loaded: the settings.
        secrets: texts that are hidden wherever they stand, since what reads them says that they are secret.
    """
    data: dict[str, Any] = {}
    for leaf in leaves(loaded):
        block = data
        for name in leaf.names[:-1]:
            block = block.setdefault(name, {})
        block[leaf.names[-1]] = _without(leaf.value, secrets)
    return data


def origins(loaded: Loaded) -> dict[str, str]:
    """Return for the dotted name of each setting where it was written, or `default`."""
    return {".".join(leaf.names): leaf.origin for leaf in leaves(loaded)}


def secrets_of(made: Iterable[Any]) -> frozenset[str]:
    """Return the texts that settings say are secret, such as those that plugins made of their blocks."""
    return frozenset(text for settings in made for text in _secrets(settings, secret=False))


def report(loaded: Loaded, made: Iterable[Any]) -> dict[str, Any]:
    """Return settings as people may see them who have no access to the machine: no secret, of the file its name alone.

    Args:
        loaded: the settings.
        made: what plugins made of theirs, which says what of it is secret.
    """
    file, written = loaded.file, origins(loaded)
    if file is not None:
        written = {name: origin.replace(f"{file}:", f"{file.name}:", 1) for name, origin in written.items()}
    return {
        "file": None if file is None else file.name,
        "settings": as_data(loaded, secrets_of(made)),
        "origins": written,
    }


def as_yaml(loaded: Loaded, secrets: Collection[str] = ()) -> Iterator[str]:
    """Yield the lines of a file that would give these settings (secrets aside), each with its origin; as `as_data`."""
    open_blocks: tuple[str, ...] = ()
    for leaf in leaves(loaded):
        for depth, name in enumerate(leaf.names[:-1]):
            if open_blocks[: depth + 1] != leaf.names[: depth + 1]:
                yield f"{'  ' * depth}{written(name)}:"
        open_blocks = leaf.names[:-1]
        line = f"{'  ' * len(open_blocks)}{written(leaf.names[-1])}: {written(_without(leaf.value, secrets))}"
        yield f"{line:<{_COMMENT_COLUMN}}  # {leaf.origin}"


def summary(settings: Any, written: Located | None = None) -> Any:
    """Return settings that were made into a class, such as a plugin's, as values for JSON; secrets hidden.

    Args:
        settings: an instance of the class.
        written: what it was made of, which says what of it came from where secrets are kept.
    """
    secrets = set() if written is None else set(_kept(written, secret=False))
    return _without(_summary(settings, None, hidden=False), secrets)


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


def _secrets(value: Any, *, secret: bool) -> Iterator[str]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            below = secret or bool(field.metadata.get("secret"))
            yield from _secrets(getattr(value, field.name), secret=below)
    elif isinstance(value, dict):
        for child in value.values():
            yield from _secrets(child, secret=secret)
    elif isinstance(value, list | tuple | set | frozenset):
        for child in value:
            yield from _secrets(child, secret=secret)
    elif secret and isinstance(value, str):
        yield value


def _kept(node: Located, *, secret: bool) -> Iterator[str]:
    """Yield the texts that were written as secrets, by `!file` or `!env`."""
    secret = secret or node.secret
    if isinstance(node.value, dict):
        for child in node.value.values():
            yield from _kept(child, secret=secret)
    elif isinstance(node.value, list):
        for child in node.value:
            yield from _kept(child, secret=secret)
    elif secret and isinstance(node.value, str):
        yield node.value


def _without(value: Any, secrets: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(child, secrets) for name, child in value.items()}
    if isinstance(value, list):
        return [_without(child, secrets) for child in value]
    return HIDDEN if isinstance(value, str) and value and value in secrets else value


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


def written(value: Any) -> str:
    """Return a value as it stands in a file, on one line."""
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) and scalar(value) == value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return json.dumps(value, ensure_ascii=False)
