"""The description of the HTTP API, OpenAPI 3.1, made from the table of endpoints and the classes that they use."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import attrs
import msgspec

from broker import __version__
from broker.errors import ERRORS
from broker.web.api import answers
from broker.web.api.endpoint import ENDPOINTS, PREFIX, Endpoint
from broker.web.api.replays import LONGEST_KEY
from broker.web.api.schemas import schemas_of
from broker.web.services import Services, to_json

__all__ = ["openapi"]

_SCHEMAS: Final = "#/components/schemas/"
_ALWAYS: Final = (
    *("invalid_message", "unauthenticated", "token_expired", "forbidden", "rate_limited"),
    *("unavailable", "timeout", "internal"),
)
"""Codes that any request may be refused with."""
_OF_BODIES: Final = ("invalid_json", "too_large")
_SAID: Final = {
    "Retry-After": ("integer", "Seconds after which the same request may succeed."),
    "WWW-Authenticate": ("string", "Bearer."),
    "Idempotent-Replayed": ("string", "`true` if this is the answer to an earlier request with the same key."),
}
_HEADERS_OF: Final = {401: ("WWW-Authenticate",), 409: ("Retry-After",), 429: ("Retry-After",), 503: ("Retry-After",)}
_TAGS: Final = {
    "sessions": "Conversations and their turns.",
    "rooms": "Rooms and their events.",
    "projects": "What users say to the agents of projects.",
    "connections": "Who is connected.",
    "users": "All connections of a user.",
    "broadcast": "Telling everybody.",
    "send": "Telling some.",
    "tickets": "Letting pages in.",
    "passes": "Signing in with a link.",
    "trace": "Where a message went.",
    "stats": "How the broker fares.",
    "overview": "How the broker fares now, and in the last five minutes.",
    "latency": "How long everything takes.",
    "agents": "How agents fare.",
    "plugins": "How plugins fare.",
    "configuration": "The settings in force.",
    "log": "The newest lines of the log.",
    "whoami": "Who asks.",
    "actions": "What may be asked over a socket.",
}


def openapi(services: Services) -> bytes:
    """Return the document, as JSON; it says whether anybody has to say who they are."""
    return _document(services.open_to_all)


@cache
def _document(open_to_all: bool) -> bytes:
    schemas = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for row in ENDPOINTS:
        paths.setdefault(PREFIX + row.path, {})[row.method.lower()] = _operation(row, schemas)
    bearer = {"type": "http", "scheme": "bearer", "description": "A token or an API key with the scope `api`."}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "actor-broker",
            "version": __version__,
            "description": "For backends: what clients do over their sockets, without a socket.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{"bearer": []}, *([{}] if open_to_all else [])],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in schemas.items() if name not in _payload_names()},
            "headers": {name: _header(*said) for name, said in _SAID.items()},
            "securitySchemes": {"bearer": bearer},
        },
    }
    return to_json(document)


def _payload_names() -> frozenset[str]:
    return frozenset(row.payload.__name__ for row in ENDPOINTS)


def _header(kind: str, text: str) -> dict[str, Any]:
    return {"description": text, "schema": {"type": kind}}


def _headers(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of all classes by their names."""
    payloads = {row.payload for row in ENDPOINTS} - {msgspec.Raw}
    classes = [*payloads, *(row.answer for row in ENDPOINTS), answers.Problem]
    schemas = schemas_of(classes, _SCHEMAS)
    for payload in payloads:
        for field in attrs.fields(payload):
            if attrs.has(field.type):
                schemas[field.type.__name__]["additionalProperties"] = False
    schemas["Problem"]["properties"]["code"]["enum"] = list(ERRORS)
    return schemas


def _operation(row: Endpoint, schemas: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": row.name,
        "summary": row.summary,
        "tags": [row.path.split("/")[1]],
        "x-permission": row.operation,
        "responses": dict(_responses(row)),
    }
    if row.description:
        operation["description"] = row.description
    if parameters := list(_parameters(row, schemas)):
        operation["parameters"] = parameters
    if row.public:
        operation["security"] = []
    if row.takes_body:
        operation["requestBody"] = _body(row, schemas)
    return operation


def _parameters(row: Endpoint, schemas: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    properties = {} if row.payload is msgspec.Raw else schemas[row.payload.__name__]["properties"]
    for name in row.in_path:
        yield {"name": name, "in": "path", "required": True, "schema": properties[name]}
    if not row.takes_body:
        for name in row.fields:
            yield {"name": name, "in": "query", "schema": _without_null(properties[name])}
    if row.keyed:
        schema = {"type": "string", "maxLength": LONGEST_KEY, "pattern": "^[!-~]([ -~]*[!-~])?$"}
        text = "The same request with the same key is done once, and answered with the same."
        yield {"name": "Idempotency-Key", "in": "header", "description": text, "schema": schema}


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter, which can be left out but not be null."""
    kept = [some for some in schema.get("anyOf", ()) if some != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    return {**rest, **(kept[0] if kept else {})}


def _body(row: Endpoint, schemas: Mapping[str, Any]) -> dict[str, Any]:
    if row.payload is msgspec.Raw:
        return {"required": True, "content": {"application/json": {"schema": {}}}}
    whole = schemas[row.payload.__name__]
    needed = [name for name in whole.get("required", ()) if name in row.fields]
    schema = {
        "type": "object",
        "description": whole.get("description", ""),
        "properties": {name: whole["properties"][name] for name in row.fields},
        "required": needed,
        "additionalProperties": False,
    }
    return {"required": bool(needed), "content": {"application/json": {"schema": schema}}}


def _responses(row: Endpoint) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = {"$ref": _SCHEMAS + row.answer.__name__}
    told = ("Idempotent-Replayed",) if row.keyed else ()
    done = {"description": (row.answer.__doc__ or "Done.").partition("\n")[0], "headers": _headers(told)}
    yield str(row.status), {**done, "content": {"application/json": {"schema": schema}}}
    for status, codes in sorted(_refusals(row).items()):
        yield (
            str(status),
            {
                "description": "; ".join(f"`{code}`" for code in codes),
                "headers": _headers(_HEADERS_OF.get(status, ())),
                "content": {"application/problem+json": {"schema": {"$ref": f"{_SCHEMAS}Problem"}}},
            },
        )


def _refusals(row: Endpoint) -> dict[int, list[str]]:
    """Return the codes that a request may be refused with, by status."""
    found: dict[int, list[str]] = {}
    for code in dict.fromkeys((*_ALWAYS, *(_OF_BODIES if row.takes_body else ()), *row.errors)):
        found.setdefault(ERRORS[code].status.value, []).append(code)
    if row.in_path:
        found.setdefault(404, ["not_found"])
    if row.takes_body:
        found[415] = ["invalid_message"]
    if row.keyed:
        found.setdefault(409, []).append("busy")
        found[422] = ["conflict"]
        found[409] = list(dict.fromkeys(found[409]))
    return found
