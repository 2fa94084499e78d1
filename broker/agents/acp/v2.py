"""The draft of version 2 of the Agent Client Protocol: a prompt is answered when it is accepted, the rest is updates.

What an agent says is patched by ids: an omitted field stays, null clears, a value replaces, a chunk is added.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from broker.agents.acp.dialect import Call, Turn, failed, refused
from broker.agents.acp.jsonrpc import MISREAD, Answer, RpcError
from broker.agents.acp.said import Said
from broker.agents.acp.updates import (
    STATES,
    TOOL_DEFAULTS,
    Update,
    block_text,
    encoded,
    fields_of,
    pieces,
    question_of,
    read_update,
    state_record,
)
from broker.agents.acp.wire import refusal_of
from broker.agents.bounds import TEXT_LIMIT, Fields, bounded, kept, vendor_record
from broker.errors import BrokerError
from broker.messages import AgentEvent, AgentRecord, ApprovalRequested, TextReplaced, TurnSettled, TurnTaken

__all__ = ["V2"]

TOOLS_LIMIT: Final = 4096
"""Tool calls that are known to have been reported before."""
BLOCKS_LIMIT: Final = 64 * 1024
"""Braces of a message's content; one with more of them is not taken apart into its blocks."""

_NOTHING: Final = (b"", b"null")

_WORK: Final = frozenset({"tool_call_update", "tool_call_content_chunk", "plan_update", "plan_removed"})
"""Reports of what is done in a turn, which show that the agent has it, whenever it answers the prompt."""


class _State(msgspec.Struct, frozen=True, rename="camel"):
    state: str
    stop_reason: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Tool(msgspec.Struct, frozen=True, rename="camel"):
    tool_call_id: str


class _Plan(msgspec.Struct, frozen=True):
    plan: msgspec.Raw


class _Permission(msgspec.Struct, frozen=True):
    title: str
    options: msgspec.Raw
    description: str | None = None
    subject: msgspec.Raw = msgspec.Raw()


class _Subject(msgspec.Struct, frozen=True, rename="camel"):
    type: str
    tool_call: msgspec.Raw = msgspec.Raw()


class _Option(msgspec.Struct, frozen=True, rename="camel"):
    config_id: str
    category: str | None = None


_STATE = msgspec.json.Decoder(_State)
_TOOL = msgspec.json.Decoder(_Tool)
_PLAN = msgspec.json.Decoder(_Plan)
_PERMISSION = msgspec.json.Decoder(_Permission)
_SUBJECT = msgspec.json.Decoder(_Subject)
_OPTIONS = msgspec.json.Decoder(list[_Option])
_TEXT = msgspec.json.Decoder(str)
_BLOCKS = msgspec.json.Decoder(list[msgspec.Raw])
_ERROR = msgspec.json.Decoder(RpcError)


class V2:
    """How version 2 says things; it remembers which messages and tool calls there are."""

    taken_when_written = False

    def __init__(self) -> None:
        self._at_work = False
        self._said = Said()
        self._tools: dict[str, bool] = {}
        self._mode_option: str | None = None

    def begin(self) -> None:
        """Expect another turn: an idle state before its first sign of life is not its end."""
        self._at_work = False

    def answered(self, turn: Turn, answer: Answer, logins: Sequence[str]) -> Iterator[AgentEvent]:
        """Yield that the agent has the turn, or its end if it will not have it."""
        if isinstance(answer, RpcError):
            yield refused(turn, answer, logins)
        else:
            yield self._taken(turn)

    def told(self, raw: msgspec.Raw, turn: Turn | None, late: str | None) -> Iterator[AgentEvent]:
        """Yield what an update says; what we have no word for is kept as it is, as `vendor.<kind>`."""
        update = read_update(raw)
        turn_id = late if turn is None else turn.turn_id
        match update.session_update:
            case "state_update":
                yield from self._state(raw, turn, turn_id)
            case "agent_message_chunk" | "agent_thought_chunk":
                self._at_work = True
                yield from self._chunk(raw, update, turn_id)
            case "agent_message" | "agent_thought":
                self._at_work = True
                yield from self._upsert(raw, update, turn_id)
            case "user_message" | "user_message_chunk" if turn is not None:
                # The session has written the prompt for all its viewers already; what is new is that it is in.
                yield self._taken(turn)
            case kind if kind in STATES:
                yield state_record(kind, raw, None if turn is None else turn_id)
            case kind if (report := self._report(kind, raw)) is not None:
                yield AgentRecord(turn_id, report[0], bounded(report[1]))
            case kind:
                yield vendor_record(kind, raw, turn_id)

    def _taken(self, turn: Turn) -> AgentEvent:
        self._at_work = True
        return TurnTaken(turn.turn_id)

    # -- the life of a turn ------------------------------------------------------------------------

    def _state(self, raw: msgspec.Raw, turn: Turn | None, turn_id: str | None) -> Iterator[AgentEvent]:
        said = _STATE.decode(raw)
        if said.state == "idle":
            # One that comes before the agent took the turn, or after its end, repeats what is known.
            if turn is not None and self._at_work:
                yield self._idle(said, turn)
        elif turn is not None and said.state in {"running", "requires_action"}:
            yield self._taken(turn)
        else:
            yield vendor_record("state_update", raw, turn_id)

    @staticmethod
    def _idle(said: _State, turn: Turn) -> AgentEvent:
        reason = _word(said.stop_reason)
        if reason == "error":
            try:
                error = refusal_of(_ERROR.decode(said.error))
            except MISREAD:
                error = BrokerError("agent_unavailable", "The agent stopped with an error.")
            return failed(turn, error)
        try:
            usage = msgspec.json.encode(fields_of(said.usage))
        except MISREAD:
            usage = None
        return TurnSettled(turn.turn_id, reason, usage)

    # -- messages ----------------------------------------------------------------------------------

    def _chunk(self, raw: msgspec.Raw, update: Update, turn_id: str | None) -> Iterator[AgentEvent]:
        text = block_text(update.content)
        if text is None:
            yield vendor_record(update.session_update, raw, turn_id)
            return
        self._said.add(update.message_id, text)
        thought = update.session_update == "agent_thought_chunk"
        yield from pieces(text, turn_id, thought=thought, message_id=update.message_id)

    def _upsert(self, raw: msgspec.Raw, update: Update, turn_id: str | None) -> Iterator[AgentEvent]:
        """Say what a message as a whole adds to what was said of it; what takes something back replaces it."""
        if bytes(update.content) == b"":
            return
        if bytes(update.content).count(b"{") > BLOCKS_LIMIT:
            yield vendor_record(update.session_update, raw, turn_id)
            return
        blocks = [] if bytes(update.content) == b"null" else _BLOCKS.decode(update.content)
        texts = [block_text(block) for block in blocks]
        if None in texts:
            yield vendor_record(update.session_update, raw, turn_id)
            return
        whole = "".join(text for text in texts if text)
        thought = update.session_update == "agent_thought"
        rest = self._said.rest(update.message_id, whole)
        if rest is not None:
            yield from pieces(rest, turn_id, thought=thought, message_id=update.message_id)
            return
        yield TextReplaced(turn_id, whole[:TEXT_LIMIT], thought, update.message_id)
        yield from pieces(whole[TEXT_LIMIT:], turn_id, thought=thought, message_id=update.message_id)

    # -- tools, plans and questions ------------------------------------------------------------------

    def _report(self, kind: str, raw: msgspec.Raw) -> tuple[str, Fields] | None:
        """Return what becomes one record: its kind and its fields."""
        self._at_work |= kind in _WORK
        match kind:
            case "tool_call_update":
                return self._tool(raw)
            case "tool_call_content_chunk":
                return "tool.updated", _appended(raw)
            case "plan_update":
                return "plan.updated", fields_of(_PLAN.decode(raw).plan)
            case "plan_removed":
                return "plan.updated", fields_of(raw) | {"removed": msgspec.Raw(b"true")}
            case "usage_update":
                return "usage.updated", fields_of(raw)
        return None

    def _tool(self, raw: msgspec.Raw) -> tuple[str, Fields]:
        tool_id = _TOOL.decode(raw).tool_call_id
        fields = fields_of(raw)
        if tool_id in self._tools:
            return "tool.updated", fields
        self._tools[tool_id] = True
        if len(self._tools) > TOOLS_LIMIT:
            del self._tools[next(iter(self._tools))]
        return "tool.started", TOOL_DEFAULTS | fields

    def question(self, params: msgspec.Raw, turn_id: str, key: str) -> ApprovalRequested:
        """Return the question; what it is about stands in `tool`, word for word where it is no tool call."""
        asked = _PERMISSION.decode(params)
        tool: Fields = {}
        if bytes(asked.subject) not in _NOTHING:
            subject = _SUBJECT.decode(asked.subject)
            tool = fields_of(subject.tool_call) if subject.type == "tool_call" else kept({"subject": asked.subject})
        if asked.description:
            tool["description"] = encoded(asked.description)
        return question_of(turn_id, key, (asked.title,), asked.options, tool)

    # -- configuration -----------------------------------------------------------------------------

    def mode(self, session_id: str, mode: str) -> Call:
        """Return the request that changes the mode, which is the option of that category.

        Raises:
            BrokerError: `not_found`: there is no such option.
        """
        if self._mode_option is None:
            raise BrokerError("not_found", "This agent has no modes.", hint="see its configuration options")
        return self.option(session_id, self._mode_option, mode)

    def option(self, session_id: str, option: str, value: bool | str) -> Call:
        """Return the request that sets a configuration option."""
        kind = "boolean" if isinstance(value, bool) else "id"
        return "session/set_config_option", {"sessionId": session_id, "configId": option, "type": kind, "value": value}

    def learn(self, options: msgspec.Raw) -> None:
        """Look for the option that is the mode."""
        try:
            known = _OPTIONS.decode(options)
        except MISREAD:
            return
        self._mode_option = next((option.config_id for option in known if option.category == "mode"), None)


def _word(raw: msgspec.Raw) -> str:
    """Return why a turn ended, also where the agent does not say."""
    try:
        return _TEXT.decode(raw)
    except MISREAD:
        return "unknown"


def _appended(raw: msgspec.Raw) -> Fields:
    """Return the fields of content that is added to a tool call's: one more, rather than all there is."""
    fields = fields_of(raw)
    if "content" not in fields:
        raise ValueError("a chunk without content")
    fields["content_appended"] = msgspec.Raw(b"[" + bytes(fields.pop("content")) + b"]")
    return fields
