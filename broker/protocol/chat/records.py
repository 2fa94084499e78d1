"""What `chat.v1.json` looks at in a session's records, and in what a session says of itself (PROTOCOL 2a and 3a)."""

from typing import Any, Final

import msgspec

from broker.protocol.chat.turns import TurnView

__all__ = ["read_answer", "read_end", "read_fields", "read_said", "read_view"]

_NULL: Final = msgspec.Raw(b"null")
_read_text: Final = msgspec.json.Decoder(str).decode


class View(msgspec.Struct):
    """What a session says of itself to who attaches."""

    head: int
    turn: TurnView | None
    queue: list[TurnView]
    approvals: list[dict[str, Any]]
    variables: msgspec.Raw


class Said(msgspec.Struct):
    """What a person has said."""

    content: msgspec.Raw
    client_msg_id: str
    author: str | None
    metadata: dict[str, msgspec.Raw] = {}

    @property
    def action_id(self) -> str | None:
        """The `actionId` that it was sent with; None for what is no text, such as a number that is out of range."""
        found = bytes(self.metadata.get("actionId", _NULL))
        return _read_text(found) if found.startswith(b'"') else None


class Answer(msgspec.Struct):
    """What an agent has said, or a piece of it."""

    message_id: str
    content: msgspec.Raw = _NULL
    text: msgspec.Raw = _NULL
    thought: bool = False


class End(msgspec.Struct):
    """How a turn has ended."""

    outcome: str
    empty: bool = False
    reason: str | None = None
    error: dict[str, Any] = {}


read_view: Final = msgspec.json.Decoder(View).decode
read_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
read_said: Final = msgspec.json.Decoder(Said).decode
read_answer: Final = msgspec.json.Decoder(Answer).decode
read_end: Final = msgspec.json.Decoder(End).decode
