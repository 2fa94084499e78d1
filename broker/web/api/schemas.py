"""JSON Schemas of the classes that the code decodes and encodes."""

from collections.abc import Iterable
from typing import Any

import attrs
import msgspec

__all__ = ["schemas_of"]


def schemas_of(classes: Iterable[Any], prefix: str) -> dict[str, dict[str, Any]]:
    """Return the schemas of classes, and of those that they are made of, by name.

    Args:
        classes: attrs classes and TypedDicts.
        prefix: what a reference to one of them begins with.
    """
    told = [_tellable(cls) if attrs.has(cls) else cls for cls in classes]
    return msgspec.json.schema_components(told, ref_template=prefix + "{name}")[1]


def _tellable(cls: Any) -> Any:
    """Return the class, without defaults that are raw JSON: msgspec cannot put those into a schema."""
    if not any(isinstance(field.default, msgspec.Raw) for field in attrs.fields(cls)):
        return cls
    fields = {field.name: attrs.field(type=field.type, default=_told(field.default)) for field in attrs.fields(cls)}
    return attrs.make_class(cls.__name__, fields, class_body={"__doc__": cls.__doc__})


def _told(default: Any) -> Any:
    return msgspec.json.decode(default) if isinstance(default, msgspec.Raw) else default
