"""What an ACP agent reports, as our records: pure functions, bytes in and events out.

One rule of spelling: the top-level names of an ACP object are written with underscores (`rawInput` is
`raw_input`), its id is `tool_id`; what is inside them stays byte for byte as the agent wrote it.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from broker.agents.acp.jsonrpc import MISREAD
from broker.agents.bounds import RECORD_LIMIT, TEXT_LIMIT, Fields, bounded, fields_in, kept
from broker.messages import AgentEvent, AgentRecord, ApprovalRequested, TextDelta

__all__ = [
    "STATES",
    "TOOL_DEFAULTS",
    "Update",
    "block_text",
    "encoded",
    "fields_of",
    "named",
    "pieces",
    "question_of",
    "read_update",
    "state_record",
]

STATES: Final = {
    "available_commands_update": "available_commands",
    "current_mode_update": "mode",
    "config_option_update": "config_options",
    "session_info_update": "session_info",
}
"""Updates about the agent rather than about what it says, and what of it has changed."""

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])[A-Z]")
_ASKING: Final = "The agent asks for permission"
_TITLE_WIDTH: Final = 500

TOOL_DEFAULTS: Final[Fields] = {"kind": msgspec.Raw(b'"other"'), "status": msgspec.Raw(b'"pending"')}
"""What a tool call is until the agent says more."""


class Update(msgspec.Struct, frozen=True, rename="camel"):
    """The `update` of a `session/update`, as far as it is read before it is known what it is."""

    session_update: str
    message_id: str | None = None
    content: msgspec.Raw = msgspec.Raw()


class _Block(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


_UPDATE = msgspec.json.Decoder(Update)
_BLOCK = msgspec.json.Decoder(_Block)
_OPTIONS = msgspec.json.Decoder(list[msgspec.Raw])


def read_update(raw: msgspec.Raw) -> Update:
    """Read what kind of update this is.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it cannot be read (`jsonrpc.MISREAD`).
    """
    return _UPDATE.decode(raw)


# -- text --------------------------------------------------------------------------------------------


def block_text(content: msgspec.Raw) -> str | None:
    """Return the text of a content block; None if it is of another kind or none at all."""
    try:
        block = _BLOCK.decode(content)
    except MISREAD:
        return None
    return block.text if block.type == "text" else None


def pieces(text: str, turn_id: str | None, *, thought: bool, message_id: str | None) -> Iterator[AgentEvent]:
    """Yield text as deltas of a bounded size; outside of any turn as records that look like them."""
    for start in range(0, len(text), TEXT_LIMIT):
        piece = text[start : start + TEXT_LIMIT]
        if turn_id is not None:
            yield TextDelta(turn_id, piece, thought=thought, message_id=message_id)
        else:
            stray = {"message_id": message_id, "role": "assistant", "text": piece}
            yield AgentRecord(None, "thought.delta" if thought else "message.delta", msgspec.json.encode(stray))


# -- records -----------------------------------------------------------------------------------------


def state_record(kind: str, raw: msgspec.Raw, turn_id: str | None) -> AgentRecord:
    """Return what one of `STATES` says of the agent.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON object, or nests too deep.
    """
    fields = fields_of(raw) | {"state": encoded("ready"), "changed": encoded(STATES[kind])}
    return AgentRecord(turn_id, "agent.state", bounded(fields))


def question_of(
    turn_id: str, key: str, titles: tuple[str | None, ...], options: msgspec.Raw, tool: Fields | None
) -> ApprovalRequested:
    """Return a question; its title is the first of `titles` that says anything.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: nobody could answer it.
    """
    if len(bytes(options)) > RECORD_LIMIT:
        raise ValueError("options beyond all bounds")
    data = msgspec.json.encode([_option(option) for option in _OPTIONS.decode(options)])
    if len(data) > RECORD_LIMIT:
        raise ValueError("options beyond all bounds")
    title = next((title for title in titles if title), _ASKING)[:_TITLE_WIDTH]
    return ApprovalRequested(turn_id, key, title, data, bounded(tool) if tool else None)


def _option(raw: msgspec.Raw) -> Fields:
    option = fields_of(raw)
    if "option_id" not in option:
        raise ValueError("an option without an id")
    return option


# -- objects -----------------------------------------------------------------------------------------


def fields_of(raw: msgspec.Raw) -> Fields:
    """Return what a record may hold of an ACP object: its fields under our names, without its discriminator.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON object, or nests too deep.
    """
    return kept(named(raw))


def named(raw: msgspec.Raw) -> Fields:
    """Return the fields of an ACP object under our names, none of them read, without its discriminator.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON object.
    """
    fields = {_name(key): value for key, value in fields_in(raw).items()}
    fields.pop("session_update", None)
    return fields


def _name(camel: str) -> str:
    snake = _CAMEL.sub(lambda found: f"_{found[0]}", camel).lower()
    return "tool_id" if snake == "tool_call_id" else snake


def encoded(value: Any) -> msgspec.Raw:
    """Return a value as JSON, to stand among fields."""
    return msgspec.Raw(msgspec.json.encode(value))
