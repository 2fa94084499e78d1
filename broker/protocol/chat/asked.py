"""What the messages of a client of `chat.v1.json` ask for: from its words to the broker's own actions."""

from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from broker.errors import BrokerError
from broker.protocol.chat.session import ChatSession
from broker.protocol.chat.wire import CONTENTS, Options, Said, Tag, payload_of
from broker.protocol.outgoing import Request

__all__ = [
    "OF_SESSIONS",
    "Leaving",
    "Opening",
    "ask",
    "given",
    "is_plain",
    "open_named",
    "opening",
    "session_of",
    "speak",
]

OF_SESSIONS: Final = frozenset({"user", "unsubscribe", "cancel", "approval", "variables"})
"""The kinds of messages that are about a session which is there, or is being opened."""
_KINDS: Final = ", ".join(sorted({*CONTENTS, "ping", "subscribe", "unsubscribe"}))
_TRUE: Final = ("1", "true", "yes")
_LONGEST: Final = 18
"""Digits that a number in the URL may have."""
_encode: Final = msgspec.json.Encoder().encode


class _Started(msgspec.Struct):
    """What `turn.start` answers."""

    duplicate: bool
    durable: bool


_decode_started: Final = msgspec.json.Decoder(_Started).decode


@attrs.frozen
class Opening:
    """The tag of a request that opens a session.

    Attributes:
        tag: the message that wants it; one without an id for the session of the URL.
        stream: whether answers are wanted while they are being written.
        payload: what is asked for.
        tries: how often it was asked for before.
        counted: whether it is among those of which there may be so many at a time.
    """

    tag: Tag
    stream: bool
    payload: bytes = attrs.field(repr=False)
    tries: int = 0
    counted: bool = False

    def __str__(self) -> str:
        return str(self.tag)

    def request(self) -> Request:
        """Ask for it."""
        return Request("session.open", self.payload, self, "subscribe" if self.tag.kind == "subscribe" else "")


@attrs.frozen
class Leaving:
    """The tag of a request that ends a subscription.

    Attributes:
        tag: the message that wants it.
        session: what was subscribed to, in case that is refused; None for nothing.
    """

    tag: Tag
    session: ChatSession | None = attrs.field(repr=False)

    def __str__(self) -> str:
        return str(self.tag)


def speak(said: Said, options: Options, tag: Tag) -> Request:
    """Start a turn with what a person says.

    Raises:
        BrokerError: `invalid_message`: no session is named.
    """
    metadata = dict(said.metadata or {})
    if said.action_id is not None:
        metadata["actionId"] = msgspec.Raw(_encode(said.action_id))
    start = {
        "session_id": session_of(tag),
        "client_msg_id": said.message_id,
        "content": said.content,
        "metadata": metadata,
        **given(if_busy=options.if_busy, retry_of=options.retry_of),
    }
    return Request("turn.start", _encode(start), tag, tag.kind)


def is_plain(data: bytes) -> bool:
    """Tell whether a turn was accepted as turns are: then its author sees it as everybody does."""
    started = _decode_started(data)
    return started.durable and not started.duplicate


def ask(said: Said, tag: Tag) -> Request:
    """Ask for what a system message wants, other than to subscribe.

    A kind that the format does not know is asked for by that alone: a handler may be registered for it, and no action
    of the broker is reached by a client that happens to say its name.

    Raises:
        BrokerError: `invalid_message` with the field that is wrong.
    """
    match tag.kind:
        case "" | "user":
            raise BrokerError("invalid_message", "Say what it is.", field="$.metadata.kind", hint=_KINDS)
        case "unsubscribe":
            return Request("session.detach", _encode({"session_id": session_of(tag)}), tag, tag.kind)
        case "ping":
            return Request("ping", bytes(said.content), tag, tag.kind)
        case kind if kind not in CONTENTS:
            return Request("", bytes(said.content), tag, kind)
    action, content = CONTENTS[tag.kind]
    payload = payload_of(said, content)
    if action != "auth":
        payload["session_id"] = session_of(tag)
    return Request(action, _encode(payload), tag, tag.kind)


def opening(tag: Tag, options: Options) -> Opening:
    """Open the session that a message is about.

    Raises:
        BrokerError: `invalid_message`: none is named.
    """
    wanted = {
        "session_id": session_of(tag),
        **given(
            after_seq=options.after_seq,
            epoch=options.epoch,
            agent=options.agent,
            title=options.title,
            workspace_dir=options.workspace_dir,
            variables=options.variables,
        ),
    }
    return Opening(tag, options.stream, _encode(wanted))


def open_named(session_id: str, query: Mapping[str, str]) -> Opening:
    """Open the session that the URL names; what is wrong with its parameters is told as of any message."""
    after = query.get("afterSeq", query.get("after_seq", "0"))
    is_number = after.removeprefix("-").isdecimal() and len(after) <= _LONGEST
    wanted = {
        "session_id": session_id,
        "after_seq": int(after) if is_number else after,
        **given(epoch=query.get("epoch"), agent=query.get("agent"), title=query.get("title")),
    }
    return Opening(Tag("", None, session_id), query.get("stream") in _TRUE, _encode(wanted))


def session_of(tag: Tag) -> str:
    """Return the session that a message is about.

    Raises:
        BrokerError: `invalid_message`: it names none.
    """
    if tag.session_id is None:
        raise BrokerError("invalid_message", "Say which session it is about.", field="$.sessionId")
    return tag.session_id


def given(**values: Any) -> dict[str, Any]:
    """Return what is there."""
    return {name: value for name, value in values.items() if value is not None}
