"""Lets in only messages that have the shape you say: JSON Schema by action, or by the types of another format.

docs/validation.md is its manual. Schemas are compiled at start, and nothing that they refer to is fetched. Their
patterns are those of an engine whose time grows with the text and never with its powers. Telling what is wrong with a
message must not cost more than looking at it, so the place is found by asking the parts of the schema whether they are
content, step by step; a library's own list of all mistakes takes seconds where alternatives are nested.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import msgspec

from broker.errors import BrokerError
from broker.hooks import Inbound, Plugin

try:
    import jsonschema_rs as rs
except ImportError as missing:
    raise ImportError('validation takes jsonschema-rs: pip install "actor-broker[filters]"') from missing

LARGEST_FILE: Final = 1 << 20
LOCATED: Final = 64 << 10
"""Bytes of the largest message in which the place of a mistake is looked for."""
DEEPEST: Final = 32
"""Steps that are gone to find it."""
LONGEST_NAME: Final = 64
LONGEST_FIELD: Final = 256
LONGEST_SENTENCE: Final = 200
"""Characters of what a client is told: some of it has come from the client."""

CONTAINERS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose values hold schemas by names that are no keywords."""
INVOLVED: Final = frozenset(
    {"anyOf", "oneOf", "not", "if", "then", "else", "contains", "propertyNames", "patternProperties", "dependencies"}
    | {"dependentSchemas", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"}
)
"""Keywords of which no short sentence can be made, or not cheaply."""
KEYWORDS: Final = INVOLVED | {
    *("$schema", "$id", "id", "$ref", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "$comment"),
    *("$defs", "definitions", "type", "enum", "const", "allOf", "properties", "additionalProperties", "required"),
    *("minProperties", "maxProperties", "dependentRequired", "items", "prefixItems", "additionalItems", "minItems"),
    *("maxItems", "uniqueItems", "minContains", "maxContains", "minLength", "maxLength", "pattern", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "title", "description", "default"),
    *("examples", "example", "deprecated", "readOnly", "writeOnly"),
    *("contentEncoding", "contentMediaType", "contentSchema"),
}

_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Schema:
    """One schema, compiled.

    Args:
        name: what clients are told that it is the schema of.
        source: the schema, as plain values.

    Raises:
        ValueError: it is none, or refers to another document; says where.
    """

    def __init__(self, name: str, source: Any) -> None:
        options: Any = {
            "mask": "it",
            "offline": True,
            "pattern_options": rs.RegexOptions(),
            "validate_formats": True,
            "ignore_unknown_formats": False,
        }
        try:
            self._whole = rs.validator_for(source, **options)
            self._parts = rs.validator_map_for(source, **options)
        except rs.ValidationError as e:
            where = "".join(f"/{step}" for step in e.instance_path)
            raise ValueError(f"{where and where + ': '}{e.message}") from None
        self._name = name
        self._source = source
        self._check_keywords()

    def _check_keywords(self) -> None:
        """Refuse what looks like a misspelt keyword: JSON Schema passes over it, and so over what it was to say."""
        for pointer in self._parts.keys():  # noqa: SIM118 - it is no mapping
            node = self._node(pointer)
            if not isinstance(node, dict) or pointer.rpartition("/")[2] in CONTAINERS:
                continue
            for key in node.keys() - KEYWORDS:
                near = difflib.get_close_matches(key, KEYWORDS, n=1, cutoff=0.8)
                if near and not key.startswith("x-"):
                    raise ValueError(f"{pointer[1:]}/{key}: no keyword; did you mean {near[0]}?")

    def check(self, text: bytes, root: str) -> None:
        """Refuse JSON that does not fit.

        Args:
            text: the JSON.
            root: what its root is called in paths, such as `$.payload`.

        Raises:
            BrokerError: `invalid_message` with the place, or `invalid_json`.
        """
        try:
            value = msgspec.json.decode(text)
            fits = self._whole.is_valid(value)
        except _UNREADABLE:
            raise BrokerError("invalid_json") from None
        if not fits:
            raise self._refusal(value, root, locate=len(text) <= LOCATED)

    def _refusal(self, value: Any, root: str, *, locate: bool) -> BrokerError:
        pointer, path = "#", list[str | int]()
        for _ in range(DEEPEST if locate else 0):
            step = self._next(pointer, value)
            if step is None:
                break
            pointer, key, value = step
            path += [] if key is None else [key]
        sentence = "There is no place for this." if self._node(pointer) is False else "It does not fit the schema."
        error = self._error_of(pointer, value) if locate else None
        if error is not None:
            sentence = f"{error.message[:1].upper()}{error.message[1:LONGEST_SENTENCE]}."
            pointer = f"{pointer}/{error.kind.name}"
            path += error.instance_path
        hint = f"the schema of {self._name}, {pointer}"[:LONGEST_FIELD]
        return BrokerError("invalid_message", sentence, field=field_of(root, path), hint=hint)

    def _next(self, pointer: str, value: Any) -> tuple[str, str | int | None, Any] | None:
        """Return the first part below that is not content: its pointer, by what one gets there, and what is there."""
        for step in self._below(pointer, value):
            part = self._parts.get(step[0])
            if part is not None and not part.is_valid(step[2]):
                return step
        return None

    def _below(self, pointer: str, value: Any) -> Iterator[tuple[str, str | int | None, Any]]:
        node = self._node(pointer)
        if not isinstance(node, dict):
            return
        if isinstance(node.get("$ref"), str):
            yield node["$ref"], None, value
        for index in range(len(node.get("allOf", ()))):
            yield f"{pointer}/allOf/{index}", None, value
        if isinstance(value, dict):
            yield from _members(pointer, node, value)
        if isinstance(value, list):
            yield from _items(pointer, node, value)

    def _error_of(self, pointer: str, value: Any) -> rs.ValidationError | None:
        """Return what is wrong in a place below which nothing is, if that can be said in a sentence."""
        node, part = self._node(pointer), self._parts.get(pointer)
        if not isinstance(node, dict) or part is None or not INVOLVED.isdisjoint(node):
            return None
        try:
            part.validate(value)
        except rs.ValidationError as e:
            return e
        return None

    def _node(self, pointer: str) -> Any:
        """Return the part of the schema that a pointer of the compiled parts points to (RFC 6901)."""
        node = self._source
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            node = node[int(name)] if isinstance(node, list) else node[name]
        return node


@attrs.frozen(kw_only=True)
class ValidationSettings:
    """What stands under `validation:`. A schema is written out, or the name of a file of JSON.

    Attributes:
        actions: Schemas of payloads, by action; over HTTP of bodies, by operation.
        types: Schemas of whole messages, by format and the format's own types; of bodies for the format `http`.
        others: Whether messages that no schema is for are let in.
    """

    actions: dict[str, Any] = attrs.field(factory=dict)
    types: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    others: Literal["allow", "refuse"] = "allow"
    sources: Mapping[str, bytes] = attrs.field(init=False, repr=False)
    of_actions: Mapping[str, Schema] = attrs.field(init=False, repr=False, eq=False)
    of_types: Mapping[tuple[str, str], Schema] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        mistakes: list[str] = []
        sources: dict[str, bytes] = {}

        def make(name: str, where: str, given: Any) -> Schema | None:
            try:
                # What was read is compared when settings are read again: a file may have changed and not its name.
                sources[where] = read(given)
                return Schema(name, msgspec.json.decode(sources[where]))
            except ValueError as e:
                mistakes.append(f"{where}: {e}")
                return None

        actions = {name: make(name, f"actions.{name}", given) for name, given in self.actions.items()}
        types = {
            (format_, kind): make(kind, f"types.{format_}.{kind}", given)
            for format_, kinds in self.types.items()
            for kind, given in kinds.items()
        }
        if mistakes:
            raise ValueError("; ".join(mistakes))
        for field, value in (("sources", sources), ("of_actions", actions), ("of_types", types)):
            object.__setattr__(self, field, value)


class Validation(Plugin):
    """Refuses messages that do not fit their schema."""

    version = "1.0"
    Settings = ValidationSettings
    settings: ValidationSettings

    def reload(self, settings: ValidationSettings) -> bool:
        """Take over new schemas; files are read again."""
        self.settings = settings
        return True

    def on_message(self, message: Inbound) -> None:
        """Look at a message by the schemas of its type and its action; at a request by one of them."""
        if not message.kind and not message.action:
            return  # it cannot be read, and is refused for that
        settings, format_ = self.settings, message.peer.protocol
        of_type = None if message.derived else settings.of_types.get((format_, message.kind))
        of_action = settings.of_actions.get(message.action)
        if of_type is None and of_action is None and settings.others == "refuse" and not message.derived:
            raise BrokerError("forbidden", "Messages of this kind are not taken here.")
        if of_type is not None:
            of_type.check(message.text or b"{}", "$")
        # A body is the whole message and the payload; who gives it a schema of its own means that one.
        if of_action is not None and not (format_ == "http" and of_type is not None):
            of_action.check(message.payload or b"{}", "$.payload")


def read(given: Any) -> bytes:
    """Return a schema as JSON, from a file if it is the name of one.

    Raises:
        ValueError: it cannot be read; says why.
    """
    if not isinstance(given, str):
        return msgspec.json.encode(_plain(given))
    try:
        with Path(given).open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            raise ValueError(f"the file {given} is larger than {LARGEST_FILE} bytes")
        msgspec.json.decode(text)
    except OSError as e:
        raise ValueError(f"the file {given} cannot be read: {e.strerror}") from None
    except _UNREADABLE as e:
        raise ValueError(f"the file {given} is not JSON: {e}") from None
    return text


def _plain(value: Any) -> Any:
    """Return values of the configuration as those of JSON: text of variables is text like any other."""
    if isinstance(value, dict):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return str(value) if isinstance(value, str) else value


def field_of(root: str, path: list[str | int]) -> str:
    """Return the JSON path of a place, cut where it is very long."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step[:LONGEST_NAME]}" for step in path)
    return (root + "".join(steps))[:LONGEST_FIELD]


def _members(pointer: str, node: dict[str, Any], value: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    known = node.get("properties", {})
    for name, item in value.items():
        if name in known:
            yield f"{pointer}/properties/{_escaped(name)}", name, item
        elif "patternProperties" not in node:
            yield f"{pointer}/additionalProperties", name, item


def _items(pointer: str, node: dict[str, Any], value: list[Any]) -> Iterator[tuple[str, int, Any]]:
    # Up to 2019 a list stood under `items`, and what came after it under `additionalItems`.
    first, rest = ("items", "additionalItems") if isinstance(node.get("items"), list) else ("prefixItems", "items")
    listed = len(node.get(first, ()))
    for index, item in enumerate(value):
        yield f"{pointer}/{first}/{index}" if index < listed else f"{pointer}/{rest}", index, item


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
