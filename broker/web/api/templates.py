"""What may be asked over a socket, over HTTP: each action with an example of its payload, made from its class."""

from functools import cache, partial
from typing import Any, Final, TypedDict

import attrs
import msgspec

from broker.extensions.offers import Action
from broker.web.actions import ACTIONS
from broker.web.api.endpoint import ENDPOINTS, PREFIX, Call, Endpoint, Nothing, endpoint
from broker.web.api.schemas import schemas_of
from broker.web.caller import ActionRow


class Way(TypedDict):
    """The endpoint that does the same over HTTP; names in braces are fields of the payload."""

    method: str
    path: str


class Template(TypedDict):
    """An action, a payload that it takes (null for any JSON, or none), and the JSON Schema of all that it takes."""

    name: str
    summary: str
    payload: Any
    schema: dict[str, Any]
    http: Way | None


class Templates(TypedDict):
    """All actions: the broker's own, then those of plugins and of a program around the broker."""

    actions: list[Template]


SUMMARIES: Final = {
    "ping": "Ask for the broker's time.",
    "echo": "Get the payload back.",
    "broadcast": "Tell every connection.",
    "send": "Tell chosen connections, or all of chosen users.",
    "get_connections": "Count who is connected; with scope admin list them.",
    "auth": "Show a token: to say who one is, or to stay who one is for longer.",
    "trace": "Ask where a message went, by any id of it.",
    "session.create": "Begin a conversation with an agent, and follow it.",
    "session.open": "Follow a session, and begin it if there is none.",
    "session.attach": "Follow a session, from a record on.",
    "session.detach": "Follow a session no longer.",
    "session.close": "Close a session: it can be read, but takes no more turns.",
    "session.delete": "Delete a session and its log.",
    "session.list": "List one's own sessions, newest first.",
    "session.history": "Read a session's log, or its messages.",
    "session.update": "Change a session's title and variables.",
    "session.share": "Share a session with a user.",
    "session.configure": "Ask a session's agent to work in another way.",
    "turn.start": "Say something to a session's agent.",
    "turn.edit": "Change what a turn says that waits.",
    "turn.drop": "Take back a turn that waits.",
    "turn.cancel": "Stop a turn.",
    "approval.answer": "Answer what an agent has asked.",
    "room.join": "Join a room.",
    "room.leave": "Leave a room.",
    "room.publish": "Publish an event to a room.",
    "room.presence": "Ask who is in a room.",
    "room.history": "Read a room's log.",
    "project.feedback": "Say something of a project to its agent.",
    "tap": "Watch what goes through the broker.",
    "untap": "Watch no longer.",
}
"""What each of the broker's own actions does, in a sentence."""
SAMPLES: Final[dict[str, Any]] = {
    "session_id": "demo",
    "title": "A demonstration",
    "variables": {"language": "en"},
    "after_seq": 0,
    "client_msg_id": "m1",
    "content": "Hello!",
    "turn_id": "the turn's id",
    "approval_id": "the question's id",
    "option_id": "allow",
    "kind": "records",
    "limit": 50,
    "user": "ann",
    "role": "viewer",
    "mode": "plan",
    "room": "lobby",
    "event": "message",
    "data": {"text": "Hello!"},
    "to": {"connections": [], "users": ["ann"]},
    "project": "p1",
    "token": "$TOKEN",
    "id": "m1",
    "pattern": "*",
}
"""What stands in an example, by the name of the field."""
PLAIN: Final[dict[str, Any]] = {"echo": {"text": "Hello!"}, "broadcast": {"text": "Hello!"}}
"""Examples for actions that take any JSON."""
ALIKE: Final = {
    "broadcast": "broadcast",
    "send": "send",
    "get_connections": "list_connections",
    "trace": "trace",
    "session.create": "create_session",
    "session.list": "list_sessions",
    "session.history": "list_records",
    "turn.start": "start_turn",
    "room.publish": "publish",
    "room.history": "list_events",
    "project.feedback": "ask_agent",
}
"""The endpoint that does the same as an action, by its name in the description of the API."""


@endpoint("GET", "/actions", "actions", answer=Templates)
async def list_actions(call: Call, _: Nothing) -> Any:
    """List what may be asked over a socket, each with an example; the page that tries things out is made of this."""
    return {"actions": [*_own(), *map(_plugins, call.services.hooks.actions.values())]}


@cache
def _own() -> tuple[Template, ...]:
    endpoints = {row.name: row for row in ENDPOINTS}
    return tuple(_template(row, endpoints) for row in ACTIONS.values())


def _template(row: ActionRow, endpoints: dict[str, Endpoint]) -> Template:
    payload = row.decode.args[0] if isinstance(row.decode, partial) else None
    alike = endpoints.get(ALIKE.get(row.name, ""))
    return {
        "name": row.name,
        "summary": SUMMARIES[row.name],
        "payload": PLAIN.get(row.name, {}) if payload is None else _example(payload),
        "schema": {} if payload is None else _schema(payload),
        "http": None if alike is None else {"method": alike.method, "path": PREFIX + alike.path},
    }


def _plugins(action: Action) -> Template:
    summary = f"Brought by {action.plugin}."
    return {"name": action.name, "summary": summary, "payload": {}, "schema": {}, "http": None}


def _example(payload: type) -> dict[str, Any]:
    """Return a payload with what has to be in it, and with what else there is a sample of."""
    fields = attrs.fields(payload)
    return {field.name: SAMPLES[field.name] for field in fields if field.default is attrs.NOTHING or _usual(field)}


def _usual(field: "attrs.Attribute[Any]") -> bool:
    return field.name in SAMPLES and field.name != "session_id"  # a session is better given an id of its own


def _schema(payload: type) -> dict[str, Any]:
    """Return the schema of a class, with those of the classes within it beside."""
    schemas = schemas_of([payload], "#/$defs/")
    whole = schemas.pop(payload.__name__)
    found: dict[str, Any] = msgspec.to_builtins({**whole, **({"$defs": schemas} if schemas else {})})
    return found
