"""One connection's end of `envelope.v1.json`: who reads what the client says, and who words what it is told."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import msgspec

from broker.errors import BrokerError
from broker.protocol.dialect import Reaction
from broker.protocol.envelope.answers import DELIVERED, HISTORY, Asked, Message, Page
from broker.protocol.envelope.requests import COMMANDS, command_of, command_payload, send_payload
from broker.protocol.envelope.sessions import Sessions
from broker.protocol.envelope.voice import Voice
from broker.protocol.envelope.wire import RESERVED, Wire, block_of, read, salvage
from broker.protocol.outgoing import (
    Broadcast,
    CaughtUp,
    Direct,
    Due,
    Entered,
    Failure,
    Outgoing,
    Request,
    Response,
    Restarting,
    SessionDetached,
    SessionRecord,
    SessionReset,
    Welcome,
)

__all__ = ["EnvelopeDialect"]


_OURS: Final = frozenset({"seq", "author"})
"""Of the keys of metadata that are the broker's, those that a history has."""


class _Who(msgspec.Struct):
    """What `auth` answers."""

    user: str | None = None


_read_text: Final = msgspec.json.Decoder(str).decode
_read_author: Final = msgspec.json.Decoder(str | None).decode
_read_user: Final = msgspec.json.Decoder(_Who).decode


class EnvelopeDialect:
    """What one connection has to remember.

    Args:
        timeout: seconds within which a text has a reply or an error.
        voice: words what is said.
    """

    def __init__(self, timeout: float, voice: Voice) -> None:
        self._timeout = timeout
        self._voice = voice
        self._sessions = Sessions(timeout, voice)

    # -- what the client says -------------------------------------------------------------------------

    def decode(self, text: bytes) -> Request:
        """Read one message.

        A type that the design does not name, and a command that it does not know, are asked for by that alone: a
        handler may be registered for it, and no action of the broker is reached by its name.

        Raises:
            BrokerError: `invalid_json`, `invalid_message` with the field that is wrong, or `overloaded`.
        """
        wire = read(text)
        if wire.type not in {"text", "init", "system"}:
            return self._other(wire, f"unknown type: {wire.type}")
        match wire.type, wire.to:
            case "init", "ai" | "system":
                return self._sessions.init(wire)
            case "text", "ai":
                return self._sessions.text(wire, text)
            case "text", "user":
                return self._send(wire)
            case _, "system":
                return self._command(wire)
        raise BrokerError("invalid_message", f"Nothing of type {wire.type} goes there.", field="$.to")

    def salvage_id(self, text: bytes) -> Asked | None:
        """Return the id of a message that was refused, if one can be read."""
        found = salvage(text)
        return None if found is None else Asked(found, lambda _: (), partial(self._refuse, found, None))

    def _other(self, wire: Wire, unknown: str) -> Request:
        def refused(error: BrokerError) -> Iterator[Reaction]:
            yield from self._refuse(wire.id, wire.session_id, _worded(error, unknown))

        return Request("", bytes(wire.content), Asked(wire.id, partial(self._handled, wire), refused), wire.type)

    def _send(self, wire: Wire) -> Request:
        refused = partial(self._refuse, wire.id, wire.session_id)
        asked = Asked(wire.id, partial(self._sent, wire), refused, partial(self._handled, wire))
        return Request("send", send_payload(wire), asked, wire.type)

    def _command(self, wire: Wire) -> Request:
        command = command_of(wire)
        known = COMMANDS.get(command.action)
        if known is None:
            return self._other(wire, f"unknown action: {command.action}")
        session_id = None
        if known.of_session:
            session_id = wire.session_id or self._sessions.current
            if session_id is None:
                raise BrokerError("invalid_message", "Say which session that is about.", field="$.sessionId")
        then, payload = partial(self._done, wire, known.event, session_id), command_payload(command, session_id)
        refused = partial(self._refuse, wire.id, session_id)
        if command.action == "cancel" and session_id and command.id and command.turn_id is None:
            asked = Asked(wire.id, then, lambda error: refused(_named(error)))
            return self._sessions.cancel(session_id, command.id, payload, asked)
        return Request(known.action, payload, Asked(wire.id, then, refused))

    # -- what it is answered --------------------------------------------------------------------------

    def _refuse(self, message_id: str | None, session_id: str | None, error: BrokerError) -> Iterator[Reaction]:
        final = None if message_id is None or self._sessions.texts.pending(message_id) else True
        yield self._voice.error(error, {"replyTo": message_id, "final": final}, session_id=session_id)

    def _handled(self, wire: Wire, data: bytes) -> Iterator[Reaction]:
        yield self._voice.answer(wire, data, final=True)

    def _sent(self, wire: Wire, data: bytes) -> Iterator[Reaction]:
        told, marks = {"delivered": DELIVERED.decode(data).delivered}, {"replyTo": wire.id, "final": True}
        yield self._voice.event("delivered", told, marks, session_id=wire.session_id)

    def _done(self, wire: Wire, event: str, session_id: str | None, data: bytes) -> Iterator[Reaction]:
        told: Any = msgspec.Raw(data)
        match event:
            case "history":
                told = self._history(session_id, HISTORY.decode(data))
            case "authenticated":
                self._sessions.texts.user = _read_user(data).user
        yield self._voice.event(event, told, {"replyTo": wire.id, "final": True}, session_id=session_id)

    def _history(self, session_id: str | None, page: Page) -> dict[str, Any]:
        texts = {message.turn_id: message for message in page.messages if message.role == "user"}
        messages = [msgspec.Raw(self._past(session_id, message, texts)) for message in page.messages]
        return {"messages": messages, **({} if page.before_seq is None else {"beforeSeq": page.before_seq})}

    def _past(self, session_id: str | None, message: Message, texts: dict[str | None, Message]) -> bytes:
        """Say a message of the past; `texts` has the texts that are answered, by their turn."""
        known = {key: value for key, value in message.metadata.items() if key in _OURS or key not in RESERVED}
        known.pop("client_msg_id", None)
        text, person = texts.get(message.turn_id), message.role == "user"
        asked = None if text is None else _id_of(text)
        if text is not None and not person and (author := text.metadata.get("author")) is not None:
            known |= {} if _read_author(author) == self._sessions.texts.user else {"author": author}
        return self._voice.say(
            block_of(message.content),
            {**known, "turnId": message.turn_id, "replyTo": None if person else asked},
            kind="text",
            sender="user" if person else "ai",
            to="ai" if person else "user",
            session_id=session_id,
            message_id=asked if person else message.message_id,
            at=message.at,
        )

    # -- what it is told ------------------------------------------------------------------------------

    def tell(self, value: Outgoing | Entered | Due) -> Iterator[Reaction]:
        """Say what this client has to know, and ask for what it wants next."""
        match value:
            case SessionRecord() | SessionReset() | CaughtUp() | SessionDetached():
                yield from self._sessions.tell(value)
            case Response(asked, data, handled):
                yield from asked.then(data) if not handled or asked.handled is None else asked.handled(data)
            case Failure(asked, error) if asked is not None:
                yield from asked.refused(error)
            case Due():
                yield from self._sessions.due(value.token)
            case _:
                yield from self._tell_of_itself(value)

    def _tell_of_itself(self, value: Outgoing | Entered) -> Iterator[bytes]:
        """Say what is of no session, and no answer; nothing of rooms, which this design does not have."""
        match value:
            case Direct(sender, data) | Broadcast(sender, data):
                yield self._voice.pass_on(sender, data)
            case Welcome():
                self._sessions.texts.user = value.user
                yield self._welcome(value)
            case Restarting(retry_after):
                yield self._voice.event("restarting", {"retryAfter": retry_after})
            case Failure(_, error):
                yield self._voice.error(error)

    def _welcome(self, value: Welcome) -> bytes:
        told = {
            "connectionId": value.connection_id,
            "user": value.user,
            "protocol": value.protocol,
            "server": value.server,
            "node": value.node,
            "heartbeat": value.heartbeat,
            "maxMessageBytes": value.max_message_bytes,
            "messageTimeout": self._timeout,
        }
        return self._voice.event("welcome", told)


def _named(error: BrokerError) -> BrokerError:
    """Say which ids of texts name a turn, where one does not."""
    if error.code != "not_found" or error.field != "$.payload.turn_id":
        return error
    hint = "a text of yours whose turn goes on, by its id, or any turn by its turnId"
    return BrokerError(error.code, error.message, field="$.content.id", hint=hint)


def _id_of(message: Message) -> str:
    """Return the id that a person has given to a message."""
    return _read_text(message.metadata["client_msg_id"])


def _worded(error: BrokerError, unknown: str) -> BrokerError:
    """Say what it is that nobody knows; the format asks for such things by no name."""
    return BrokerError("unknown_action", unknown) if error.code == "unknown_action" else error
