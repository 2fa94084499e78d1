"""What a client of `chat.v1.json` is told beside its sessions: answers, and what concerns the connection."""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import msgspec

from broker.ids import new_id
from broker.protocol.chat.asked import given
from broker.protocol.chat.wire import Tag, write
from broker.protocol.outgoing import Broadcast, Direct, Outgoing, Restarting, Welcome

__all__ = ["notice", "reply"]


def notice(value: Outgoing, at: int) -> Iterator[bytes]:
    """Tell what concerns the connection, or everybody; nothing of rooms, which this design does not know."""
    match value:
        case Welcome():
            yield _system("welcome", _camel(attrs.asdict(value)), at)
        case Restarting(seconds):
            yield _system("restarting", {"retryAfter": seconds}, at)
        case Broadcast(sender, data):
            yield _system("broadcast", msgspec.Raw(data), at, {"from": msgspec.Raw(sender)})
        case Direct(sender, data):
            yield _system("direct", msgspec.Raw(data), at, {"from": msgspec.Raw(sender)})


def reply(kind: str, content: Any, tag: Tag, at: int) -> bytes:
    """Answer a message: with what was done, or with an error."""
    metadata = given(inReplyTo=tag.message_id, of=tag.kind or None)
    about = {"session_id": tag.session_id, "action_id": tag.action_id}
    return _system(kind, content, at, metadata, **about)


def _system(kind: str, content: Any, at: int, metadata: Mapping[str, Any] | None = None, **about: str | None) -> bytes:
    return write("system", kind, content, message_id=new_id(), at=at, metadata=metadata, **about)


def _camel(data: Mapping[str, Any]) -> dict[str, Any]:
    words = {name: name.split("_") for name in data}
    return {head + "".join(map(str.capitalize, rest)): data[name] for name, (head, *rest) in words.items()}
