"""What an ACP agent reports, as our events: pure functions, bytes in and events out.

One rule of spelling: the top-level names of an ACP object are written with underscores (`rawInput` is
`raw_input`), its id is `tool_id`; what is inside them stays byte for byte as the agent wrote it.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from broker.agents.jsonrpc import MISREAD
from broker.messages import AgentEvent, AgentRecord, ApprovalRequested, TextDelta

__all__ = ["DEPTH_LIMIT", "RECORD_LIMIT", "TEXT_LIMIT", "approval_of", "events_of", "fields_of", "vendor_record"]

DEPTH_LIMIT: Final = 64
"""Nesting beyond which JSON is refused (PROTOCOL section 2)."""
RECORD_LIMIT: Final = 256 * 1024
"""Bytes of one record's data; a larger report loses its largest fields, or no viewer could ever take it."""
TEXT_LIMIT: Final = 32 * 1024
"""Characters of one delta."""

_NAMES_LIMIT: Final = 20
_NAME_LIMIT: Final = 64
_RAW_NULL: Final = msgspec.Raw(b"null")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])[A-Z]")
_VENDOR: Final = re.compile(r"[A-Za-z0-9_$./-]{1,64}")
_TEXTS: Final = {"agent_message_chunk": "message.delta", "agent_thought_chunk": "thought.delta"}
_REPORTS: Final = {
    "tool_call": "tool.started",
    "tool_call_update": "tool.updated",
    "plan": "plan.updated",
    "usage_update": "usage.updated",
}
_STATES: Final = {
    "available_commands_update": "available_commands",
    "current_mode_update": "mode",
    "config_option_update": "config_options",
    "session_info_update": "session_info",
}
_TOOL_DEFAULTS: Final = {"kind": msgspec.Raw(b'"other"'), "status": msgspec.Raw(b'"pending"')}
_ASKING: Final = "The agent asks for permission"

Fields = dict[str, msgspec.Raw]


class _Update(msgspec.Struct, frozen=True, rename="camel"):
    session_update: str
    message_id: str | None = None
    content: msgspec.Raw = msgspec.Raw()


class _Block(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


class _Permission(msgspec.Struct, frozen=True, rename="camel"):
    options: list[msgspec.Raw]
    tool_call: msgspec.Raw = _RAW_NULL
    title: str | None = None


class _Title(msgspec.Struct, frozen=True):
    title: str | None = None


_UPDATE = msgspec.json.Decoder(_Update)
_BLOCK = msgspec.json.Decoder(_Block)
_FIELDS = msgspec.json.Decoder(Fields)
_PERMISSION = msgspec.json.Decoder(_Permission)
_TITLE = msgspec.json.Decoder(_Title)


def events_of(raw: msgspec.Raw, turn_id: str | None) -> Iterator[AgentEvent]:
    """Yield what one `update` of a `session/update` says about the turn that is running, None for none.

    An unknown kind is kept word for word as `vendor.<kind>`; so is a chunk that is not text.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it cannot be read (`jsonrpc.MISREAD`).
    """
    update = _UPDATE.decode(raw)
    kind = update.session_update
    if kind in _TEXTS:
        yield from _text(raw, update, turn_id)
    elif kind in _REPORTS:
        fields = fields_of(raw)
        if kind == "tool_call":
            fields = _TOOL_DEFAULTS | fields
        yield AgentRecord(turn_id, _REPORTS[kind], _bounded(fields))
    elif kind in _STATES:
        fields = fields_of(raw) | {"state": _encoded("ready"), "changed": _encoded(_STATES[kind])}
        yield AgentRecord(turn_id, "agent.state", _bounded(fields))
    elif kind != "user_message_chunk" or turn_id is None:
        # The session has written the prompt for all its viewers already; an echo of it would double it.
        yield vendor_record(kind, raw, turn_id)


def _text(raw: msgspec.Raw, update: _Update, turn_id: str | None) -> Iterator[AgentEvent]:
    try:
        block = _BLOCK.decode(update.content)
    except MISREAD:
        block = _Block("unreadable")
    if block.type != "text":
        yield vendor_record(update.session_update, raw, turn_id)
        return
    kind, message_id = _TEXTS[update.session_update], update.message_id
    for start in range(0, len(block.text), TEXT_LIMIT):
        text = block.text[start : start + TEXT_LIMIT]
        if turn_id is not None:
            yield TextDelta(turn_id, text, thought=kind == "thought.delta", message_id=message_id)
        else:
            stray = {"message_id": message_id, "role": "agent", "text": text}
            yield AgentRecord(None, kind, msgspec.json.encode(stray))


def vendor_record(kind: str, raw: msgspec.Raw, turn_id: str | None) -> AgentRecord:
    """Keep a report that we have no word for as it is, under `vendor.<kind>`.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON object, or nests too deep.
    """
    _checked(raw)
    word = kind if _VENDOR.fullmatch(kind) else "unknown"
    data = bytes(raw)
    if len(data) > RECORD_LIMIT:
        data = _bounded(_FIELDS.decode(raw))
    elif not data.startswith(b"{"):
        raise ValueError("a report that is no JSON object")
    return AgentRecord(turn_id, f"vendor.{word}", data)


def approval_of(raw: msgspec.Raw, turn_id: str, key: str) -> ApprovalRequested:
    """Return the question that the params of a `session/request_permission` ask.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: they cannot be read.
    """
    asked = _PERMISSION.decode(raw)
    tool = None if bytes(asked.tool_call) == b"null" else asked.tool_call
    title = asked.title or (tool is not None and _TITLE.decode(tool).title) or _ASKING
    options = [fields_of(option) for option in asked.options]
    if any("option_id" not in option for option in options):
        raise ValueError("an option without an id")
    data = msgspec.json.encode(options)
    if len(data) > RECORD_LIMIT:
        raise ValueError("options beyond all bounds")
    return ApprovalRequested(turn_id, key, title[:500], data, None if tool is None else _bounded(fields_of(tool)))


def fields_of(raw: msgspec.Raw) -> Fields:
    """Return the fields of an ACP object under our names, their values untouched, without its discriminator.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON object, or nests too deep.
    """
    _checked(raw)
    fields = {_name(key): value for key, value in _FIELDS.decode(raw).items()}
    fields.pop("session_update", None)
    return fields


def _name(camel: str) -> str:
    snake = _CAMEL.sub(lambda found: f"_{found[0]}", camel).lower()
    return "tool_id" if snake == "tool_call_id" else snake


def _bounded(fields: Fields) -> bytes:
    """Encode `fields`, without the largest of them where they are too much; `truncated` then names those."""
    data = msgspec.json.encode(fields)
    if len(data) <= RECORD_LIMIT:
        return data
    sizes = {name: len(name) + len(bytes(value)) for name, value in fields.items()}
    excess = len(data) - RECORD_LIMIT + _NAMES_LIMIT * _NAME_LIMIT
    dropped: list[str] = []
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if excess <= 0:
            break
        excess -= sizes[name]
        dropped.append(name)
    gone = frozenset(dropped)
    kept = {name: value for name, value in fields.items() if name not in gone}
    return msgspec.json.encode(kept | {"truncated": [name[:_NAME_LIMIT] for name in dropped[:_NAMES_LIMIT]]})


def _encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _checked(raw: msgspec.Raw) -> None:
    """Read all of it once: what is only carried along must still be JSON for whoever reads the log."""
    if _depth(msgspec.json.decode(raw)) > DEPTH_LIMIT:
        raise ValueError("nested too deep")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
