"""Located values to attrs classes, strictly, with every mistake at its place.

cattrs walks the classes and collects; msgspec decides on the leaves, because cattrs alone would turn
`"false"` into True and `80.9` into 80.
"""

from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import attrs
import msgspec
from cattrs import Converter
from cattrs.cols import is_mapping, list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn

from broker.config.blame import MisplacedError, blame
from broker.config.forms import Rule
from broker.config.problems import ConfigErrors, suggest
from broker.config.reader import scalar
from broker.config.secret import Secret
from broker.config.settings import Settings
from broker.config.tree import Located, Text
from broker.config.units import Unit

__all__ = ["structure_block", "structure_settings"]

T = TypeVar("T")
_Hook = Callable[[Any, Any], Any]


def structure_block(cls: type[T], block: Located) -> T:
    """Make an instance of an attrs class from a block of the configuration, such as a plugin's.

    Unknown settings, wrong types and values out of range are all found in one pass.

    Raises:
        ConfigErrors: every mistake, at its place.
    """
    return _structure(cls, {} if block.value is None else block.plain(), block)


def structure_settings(root: Located) -> Settings:
    """Make the settings from the whole tree; the blocks of plugins stay located.

    Raises:
        ConfigErrors: every mistake, at its place.
    """
    data = root.plain()
    plugins = root.child("plugins")
    if isinstance(data, dict) and plugins is not None and isinstance(plugins.value, dict):
        return _structure(Settings, data | {"plugins": dict(plugins.value)}, root)
    return _structure(Settings, data, root)


def _structure(cls: type[T], data: object, node: Located) -> T:
    try:
        return _converter.structure(data, cls)
    except Exception as error:  # noqa: BLE001 - whatever a hook raised is a mistake at a place
        raise ConfigErrors(blame(error, node, cls)) from None


# -- leaves --------------------------------------------------------------------------------------


def _leaf(value: object, kind: Any) -> Any:
    if isinstance(value, Text):
        value = str(value) if kind is str else scalar(value)
    return msgspec.convert(value, kind)


def _secret(value: object, _: object) -> Secret:
    return Secret(_leaf(value, str))


def _literal(value: object, kind: Any) -> object:
    options = {str(option): option for option in get_args(kind)}
    if isinstance(value, bool | list | dict) or str(value) not in options:
        near = suggest(value, options) if isinstance(value, str) else ""
        raise ValueError(f"expected one of: {', '.join(options)}{near}")
    return options[str(value)]


def _annotated(kind: Any) -> _Hook:
    base, *marks = get_args(kind)
    unit = next((mark for mark in marks if isinstance(mark, Unit)), None)
    rules = [mark for mark in marks if isinstance(mark, Rule)]
    inner = None if unit else _converter.get_structure_hook(base)

    def structure(value: object, _: object) -> object:
        plain = unit.parse(value) if unit else inner(value, base) if inner else value
        for rule in rules:
            rule.check(str(plain))
        return msgspec.convert(plain, kind)

    return structure


# -- blocks --------------------------------------------------------------------------------------


def _class(kind: type) -> _Hook:
    build: Any = make_dict_structure_fn(kind, _converter, _cattrs_forbid_extra_keys=True)
    return lambda value, _: build(_block(value), kind)


def _mapping(kind: Any) -> _Hook:
    build: Any = mapping_structure_factory(kind, _converter)
    return lambda value, _: build(_block(value), kind)


def _sequence(kind: Any) -> _Hook:
    items: Any = list.__class_getitem__(get_args(kind)[0])
    build = list_structure_factory(items, _converter)
    make: Any = tuple if get_origin(kind) is Sequence else get_origin(kind)

    def structure(value: object, _: object) -> object:
        if isinstance(value, Text):
            value = [Text(part.strip()) for part in value.split(",") if part.strip()]
        return make(build(msgspec.convert(value, list), items))

    return structure


def _tagged(kind: Any) -> _Hook:
    """Choose among attrs classes by their `kind`."""
    classes = {str(get_args(attrs.fields_dict(cls)["kind"].type)[0]): cls for cls in get_args(kind)}

    def structure(value: object, _: object) -> object:
        name = _block(value).get("kind")
        if name is None:
            raise MisplacedError("kind", f"missing; one of: {', '.join(classes)}")
        if str(name) not in classes:
            known = ", ".join(classes)
            raise MisplacedError("kind", f"unknown kind; known are: {known}{suggest(str(name), classes)}")
        return _converter.structure(value, classes[str(name)])

    return structure


def _raw(value: object, _: object) -> Located:
    if not isinstance(value, Located):
        raise TypeError("expected a located block")
    if value.value is None:
        return attrs.evolve(value, value={})
    _block(value.plain())
    return value


def _block(value: object) -> Mapping[str, Any]:
    return {} if value is None else msgspec.convert(value, dict[str, Any])


# -- the converter -------------------------------------------------------------------------------


def _origin(kind: Any) -> Any:
    return get_origin(kind)


def _is_sequence(kind: Any) -> bool:
    origin, args = _origin(kind), get_args(kind)
    return origin in {list, set, frozenset, Sequence} or (origin is tuple and args[1:] == (...,))


def _is_tagged(kind: Any) -> bool:
    members = get_args(kind)
    return _origin(kind) in {Union, UnionType} and all(
        attrs.has(cls) and "kind" in attrs.fields_dict(cls) for cls in members
    )


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook_factory(attrs.has, _class)
    converter.register_structure_hook_factory(is_mapping, _mapping)
    converter.register_structure_hook_factory(_is_sequence, _sequence)
    converter.register_structure_hook_factory(_is_tagged, _tagged)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is Annotated, _annotated)
    converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _literal)
    # Registered one by one: a hook by predicate loses to the one that cattrs has for these types.
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _leaf)
    converter.register_structure_hook(Secret, _secret)
    converter.register_structure_hook(Located, _raw)
    return converter


_converter: Final = _make_converter()
