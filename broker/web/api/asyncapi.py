"""The description of the native protocol, AsyncAPI 3.0, made from the table of actions (PROTOCOL sections 2 and 3a)."""

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any, Final, Literal, NotRequired, TypedDict

from broker import __version__
from broker.errors import CLOSE_REASONS, ERRORS, CloseCode, may_reconnect
from broker.protocol.native import MAX_ID, NATIVE
from broker.web.actions import ACTIONS
from broker.web.api import answers, status
from broker.web.api.schemas import schemas_of
from broker.web.caller import ActionRow
from broker.web.services import Services, to_json

__all__ = ["asyncapi"]


class Authenticated(TypedDict):
    """Who a connection is from now on."""

    user: str | None
    scopes: list[str]
    expires_at: answers.Time | None


class Tapping(TypedDict):
    """What a client watches now."""

    tap: str


class Tapped(TypedDict):
    """Something that went through the broker, what is not known or not shown of it left out.

    `name` is the action of a message, the kind of a record, the name of an event. `data` is what was said; its first
    4096 bytes as text if it is longer (`cut`). `missed` counts what came before it and was left out, since the client
    reads too slowly. After what is `ended` nothing more comes.
    """

    at: answers.Time
    what: Literal["message", "record", "event", "connection", "ended"]
    name: str
    connection_id: NotRequired[str]
    user: NotRequired[str]
    session_id: NotRequired[str]
    room: NotRequired[str]
    turn_id: NotRequired[str]
    seq: NotRequired[int]
    protocol: NotRequired[str]
    kind: NotRequired[str]
    size: NotRequired[int]
    data: NotRequired[Any]
    cut: NotRequired[bool]
    missed: NotRequired[int]


ANSWERS: Final[Mapping[str, Any]] = {
    "auth": Authenticated,
    "broadcast": answers.Delivered,
    "send": answers.Delivered,
    "session.create": answers.Created,
    "session.list": answers.Sessions,
    "turn.start": answers.Started,
    "room.publish": answers.Published,
    "room.history": answers.Events,
    "project.feedback": answers.FeedbackAnswer,
    "trace": status.Traced,
    "tap": Tapping,
}
"""What actions answer, of those that answer as the HTTP API does."""
RECORDS: Final = (
    *("session.opened", "session.changed", "session.closed", "variables.changed"),
    *("user.message", "turn.queued", "turn.edited", "turn.started", "turn.stalled", "turn.cancelling", "turn.ended"),
    *("message.delta", "message.completed", "message.replaced", "thought.delta"),
    *("tool.started", "tool.updated", "plan.updated", "usage.updated", "debug"),
    *("approval.requested", "approval.resolved", "agent.state", "activity"),
)
"""Kinds of records; `vendor.*` come on top (PROTOCOL 3a)."""
_ID: Final = {"type": "string", "maxLength": MAX_ID}
_SEQ: Final = {"type": "integer", "minimum": 1}
_TEXT: Final = {"type": "string"}
_ERROR: Final = {"$ref": "#/components/schemas/Error"}
_SENDER: Final = {"$ref": "#/components/schemas/Sender"}
_SOCKET: Final = {"$ref": "#/channels/socket"}


def asyncapi(_: Services) -> bytes:
    """Return the document, as JSON."""
    return _document()


@cache
def _document() -> bytes:
    messages = {**dict(_requests()), **dict(_responses()), **dict(_notifications())}
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"actor-broker, {NATIVE.name}",
            "version": __version__,
            "description": "What clients and the broker say to each other over a WebSocket. "
            "Requests name an action; each is answered once, by a response or an error with its id.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "socket": {
                "address": "/ws",
                "title": "A client's WebSocket",
                "description": f"Subprotocol `{NATIVE.name}`; one message is one text frame.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
                "x-close-codes": [
                    {"code": int(code), "reason": CLOSE_REASONS[code], "reconnect": may_reconnect(code)}
                    for code in CloseCode
                ],
            }
        },
        "operations": {**dict(_asked()), "notify": _notify(messages)},
        "components": {"messages": messages, "schemas": _schemas()},
        "x-error-codes": [
            {
                "code": row.code,
                "category": row.category,
                "retryable": row.retryable,
                "sentence": row.sentence,
                "recovery": row.recovery,
            }
            for row in ERRORS.values()
        ],
    }
    return to_json(document)


def _payload_of(row: ActionRow) -> type | None:
    return row.decode.args[0] if isinstance(row.decode, partial) else None


def _schemas() -> dict[str, Any]:
    payloads = [payload for payload in map(_payload_of, ACTIONS.values()) if payload is not None]
    classes = [*payloads, *ANSWERS.values(), answers.Sender, Tapped]
    schemas = schemas_of(classes, "#/components/schemas/")
    error = {
        "type": "object",
        "properties": {
            "code": {"type": "string", "enum": list(ERRORS)},
            "message": _TEXT,
            "retryable": {"type": "boolean"},
            "retry_after": {"type": "number"},
            "field": _TEXT,
            "hint": _TEXT,
        },
        "required": ["code", "message", "retryable"],
    }
    return {**schemas, "Error": error}


def _message(title: str, **properties: Any) -> dict[str, Any]:
    """Return a message whose properties are all there, but for those that are given as (schema, None)."""
    schemas = {name: schema[0] if isinstance(schema, tuple) else schema for name, schema in properties.items()}
    needed = [name for name, schema in properties.items() if not isinstance(schema, tuple)]
    return {"name": title, "title": title, "payload": {"type": "object", "properties": schemas, "required": needed}}


def _requests() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, row in ACTIONS.items():
        payload = _payload_of(row)
        schema = {} if payload is None else {"$ref": f"#/components/schemas/{payload.__name__}"}
        yield (
            name,
            _message(name, id=(_ID, None), type={"const": "request"}, action={"const": name}, payload=(schema, None)),
        )


def _responses() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ACTIONS:
        answer = ANSWERS.get(name)
        schema = {} if answer is None else {"$ref": f"#/components/schemas/{answer.__name__}"}
        yield f"{name}.response", _message(f"{name} is done", id=_ID, type={"const": "response"}, data=schema)
    yield (
        "error",
        _message("a request is refused", id=(_ID, None), type={"const": "error"}, data=_ERROR),
    )


def _notification(event: Any, **properties: Any) -> dict[str, Any]:
    return _message(event, type={"const": "notification"}, event={"const": event}, **properties)


def _notifications() -> Iterator[tuple[str, dict[str, Any]]]:
    session = {"session_id": _TEXT}
    head = {"type": "object", "properties": {"head": {"type": "integer"}}, "required": ["head"]}
    happening = {"$ref": "#/components/schemas/Happening"}
    event = {"anyOf": [{"enum": list(RECORDS)}, {"type": "string", "pattern": "^vendor\\."}]}
    record = {"seq": _SEQ, "turn_id": (_TEXT, None), "at": {**_TEXT, "format": "date-time"}, "data": {}}
    yield "welcome", _notification("welcome", data={"type": "object"})
    yield "record", _message("a record", type={"const": "notification"}, event=event, **session, **record)
    yield "session.caught_up", _notification("session.caught_up", **session, data=head)
    yield "session.reset", _notification("session.reset", **session, data=head)
    gone = {"type": "object", "properties": {"code": _TEXT, "message": _TEXT}, "required": ["code", "message"]}
    wait = {"type": "object", "properties": {"retry_after": {"type": "number"}}, "required": ["retry_after"]}
    yield "session.detached", _notification("session.detached", **session, data=gone)
    yield "room.left", _notification("room.left", room=_TEXT, data=gone)
    yield "tap.notification", _notification("tap", data={"$ref": "#/components/schemas/Tapped"})
    yield "restarting", _notification("restarting", data=wait)
    yield "room.event", _notification("room.event", room=_TEXT, seq=(_SEQ, None), data=happening, **{"from": _SENDER})
    yield "broadcast.notification", _notification("broadcast", data={}, **{"from": _SENDER})
    yield "message", _notification("message", data={}, **{"from": _SENDER})


def _refs(*names: str) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/socket/messages/{name}"} for name in names]


def _asked() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ACTIONS:
        reply = {"channel": _SOCKET, "messages": _refs(f"{name}.response", "error")}
        yield name, {"action": "receive", "channel": _SOCKET, "messages": _refs(name), "reply": reply}


def _notify(messages: Mapping[str, Any]) -> dict[str, Any]:
    told = [name for name, message in messages.items() if "event" in message["payload"]["properties"]]
    return {"action": "send", "channel": _SOCKET, "messages": _refs(*told)}
