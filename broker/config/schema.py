"""JSON Schema of the configuration file, made from the classes that read it."""

import re
from inspect import getdoc
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import attrs
import msgspec

from broker.config.secret import Secret
from broker.config.settings import Settings
from broker.config.tree import Located
from broker.config.units import Unit

__all__ = ["descriptions", "json_schema"]

_ENTRY: Final = re.compile(r"^    (\w+): (.+(?:\n        .+)*)", re.MULTILINE)
_FILLED_IN: Final = {"type": "string", "pattern": r"\$\{"}
"""`${VAR}` may stand for any value."""


def json_schema(cls: type = Settings) -> dict[str, Any]:
    """Return the JSON Schema 2020-12 of a file that gives `cls`."""
    definitions: dict[str, Any] = {}
    root = _schema(cls, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "actor-broker configuration",
        **root,
        "$defs": definitions,
    }


def descriptions(cls: type) -> dict[str, str]:
    """Return what the docstring of an attrs class says of each attribute."""
    _, _, listed = (getdoc(cls) or "").partition("Attributes:\n")
    return {name: " ".join(text.split()) for name, text in _ENTRY.findall(listed)}


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    members = get_args(kind)
    if kind is Located:
        return {"type": ["object", "null"]}
    if isinstance(kind, type) and attrs.has(kind) and kind is not Secret:
        return _class(kind, definitions)
    if get_origin(kind) is dict:
        inner = _schema(members[1], definitions)
        return {"type": ["object", "null"], "propertyNames": _leaf(members[0]), "additionalProperties": inner}
    if get_origin(kind) in {Union, UnionType}:
        options = [_schema(member, definitions) for member in members if member is not NoneType]
        if NoneType in members:
            options.append({"type": "null"})
        return {"anyOf": options}
    schema = _leaf(kind)
    return schema if schema.get("type") == "string" else {"anyOf": [schema, _FILLED_IN]}


def _leaf(kind: Any) -> dict[str, Any]:
    schema = msgspec.json.schema(str if kind is Secret else kind)
    if (unit := _unit(kind)) is not None:
        schema |= {"type": "string", "pattern": unit.pattern}
        if unit.bare is not None:
            schema |= {"type": ["string", "integer"], "maximum": min(unit.bare, schema.get("maximum", unit.bare))}
    return schema


def _unit(kind: Any) -> Unit | None:
    return next((mark for mark in get_args(kind) if isinstance(mark, Unit)), None)


def _class(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    if cls.__name__ not in definitions:
        fields, said = attrs.fields(cls), descriptions(cls)
        body: dict[str, Any] = {"type": ["object", "null"], "description": (getdoc(cls) or "").partition("\n")[0]}
        definitions[cls.__name__] = body
        body["properties"] = {field.name: _field(field, said, definitions) for field in fields}
        body["additionalProperties"] = False
        required = [field.name for field in fields if _is_required(field)]
        if required:
            body |= {"required": required, "type": "object"}
    return {"$ref": f"#/$defs/{cls.__name__}"}


def _field(field: Any, said: dict[str, str], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _schema(field.type, definitions)
    if field.name in said:
        schema = {**schema, "description": said[field.name]}
    default = field.default
    unit = _unit(field.type)
    if unit is not None and default is not attrs.NOTHING:
        schema["default"] = unit.write(default)
    elif isinstance(default, str | int | tuple):
        schema["default"] = list(default) if isinstance(default, tuple) else default
    return schema


def _is_required(field: Any) -> bool:
    is_kind = field.name == "kind" and get_origin(field.type) is Literal
    return field.default is attrs.NOTHING or is_kind
