"""Version 1 of the Agent Client Protocol: a prompt is answered when all is said, and updates name no turn."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from broker.agents.acp.dialect import Call, Turn, failed, refused
from broker.agents.acp.jsonrpc import MISREAD, Answer, RpcError
from broker.agents.acp.updates import (
    STATES,
    TOOL_DEFAULTS,
    block_text,
    fields_of,
    pieces,
    question_of,
    read_update,
    state_record,
)
from broker.agents.acp.wire import answer_of
from broker.agents.bounds import bounded, vendor_record
from broker.errors import BrokerError
from broker.messages import AgentEvent, AgentRecord, ApprovalRequested, TurnSettled

__all__ = ["V1"]

_TEXTS: Final = {"agent_message_chunk": False, "agent_thought_chunk": True}
_REPORTS: Final = {
    "tool_call": "tool.started",
    "tool_call_update": "tool.updated",
    "plan": "plan.updated",
    "usage_update": "usage.updated",
}


class _Settled(msgspec.Struct, frozen=True, rename="camel"):
    stop_reason: str
    usage: msgspec.Raw = msgspec.Raw()


class _Permission(msgspec.Struct, frozen=True, rename="camel"):
    options: msgspec.Raw
    tool_call: msgspec.Raw = msgspec.Raw(b"null")
    title: str | None = None


class _Title(msgspec.Struct, frozen=True):
    title: str | None = None


_SETTLED = msgspec.json.Decoder(_Settled)
_PERMISSION = msgspec.json.Decoder(_Permission)
_TITLE = msgspec.json.Decoder(_Title)


class V1:
    """How version 1 says things; it needs to remember nothing."""

    taken_when_written = True

    def begin(self) -> None:
        """Expect another turn."""

    def answered(self, turn: Turn, answer: Answer, logins: Sequence[str]) -> Iterator[AgentEvent]:
        """Yield the end of the turn; agents are known to say more of it afterwards."""
        if isinstance(answer, RpcError):
            yield refused(turn, answer, logins)
            return
        try:
            settled: _Settled = answer_of(_SETTLED, answer, "the prompt")
        except BrokerError as e:
            yield failed(turn, e)
            return
        try:
            usage = msgspec.json.encode(fields_of(settled.usage))
        except MISREAD:
            usage = None
        yield TurnSettled(turn.turn_id, settled.stop_reason, usage, last=False)

    def told(self, raw: msgspec.Raw, turn: Turn | None, late: str | None) -> Iterator[AgentEvent]:
        """Yield what an update says.

        An unknown kind is kept word for word as `vendor.<kind>`; so is a chunk that is not text.
        """
        update = read_update(raw)
        kind = update.session_update
        turn_id = late if turn is None else turn.turn_id
        if kind in _TEXTS and (text := block_text(update.content)) is not None:
            yield from pieces(text, turn_id, thought=_TEXTS[kind], message_id=update.message_id)
        elif kind in _REPORTS:
            fields = fields_of(raw)
            if kind == "tool_call":
                fields = TOOL_DEFAULTS | fields
            yield AgentRecord(turn_id, _REPORTS[kind], bounded(fields))
        elif kind in STATES:
            yield state_record(kind, raw, None if turn is None else turn_id)
        elif kind != "user_message_chunk" or turn is None:
            # The session has written the prompt for all its viewers already; an echo of it would double it.
            yield vendor_record(kind, raw, turn_id)

    def question(self, params: msgspec.Raw, turn_id: str, key: str) -> ApprovalRequested:
        """Return the question; it has a title of its own or that of the tool it is about."""
        asked = _PERMISSION.decode(params)
        if bytes(asked.tool_call) == b"null":
            return question_of(turn_id, key, (asked.title,), asked.options, None)
        titles = (asked.title, _TITLE.decode(asked.tool_call).title)
        return question_of(turn_id, key, titles, asked.options, fields_of(asked.tool_call))

    def mode(self, session_id: str, mode: str) -> Call:
        """Return the request that changes the mode."""
        return "session/set_mode", {"sessionId": session_id, "modeId": mode}

    def option(self, session_id: str, option: str, value: bool | str) -> Call:
        """Return the request that sets a configuration option."""
        params: dict[str, Any] = {"sessionId": session_id, "configId": option, "value": value}
        return "session/set_config_option", params | ({"type": "boolean"} if isinstance(value, bool) else {})

    def learn(self, options: msgspec.Raw) -> None:
        """Pass over them: modes stand beside the options, not among them."""
