"""From what an ACP agent of version 1 says to our events."""

import json
from typing import Any

import msgspec
import pytest

from broker.agents.acp.dialect import Turn
from broker.agents.acp.jsonrpc import MISREAD, RpcError
from broker.agents.acp.v1 import V1
from broker.agents.bounds import RECORD_LIMIT, TEXT_LIMIT
from broker.messages import (
    AgentEvent,
    AgentRecord,
    ApprovalRequested,
    Prompt,
    TextDelta,
    TurnFailed,
    TurnSettled,
)

TURN = Turn(Prompt("s1", "t1", b'"hi"'), written=True)


def events(update: object, turn: Turn | None = TURN, late: str | None = None) -> list[AgentEvent]:
    raw = update if isinstance(update, bytes) else json.dumps(update).encode()
    return list(V1().told(msgspec.Raw(raw), turn, late))


def chunk(kind: str, content: object, **fields: object) -> dict[str, object]:
    return {"sessionUpdate": kind, "content": content, **fields}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (chunk("agent_message_chunk", text("hi")), TextDelta("t1", "hi")),
        (chunk("agent_message_chunk", text("hi"), messageId="m"), TextDelta("t1", "hi", message_id="m")),
        (chunk("agent_thought_chunk", text("hm")), TextDelta("t1", "hm", thought=True)),
    ],
)
def test_text_becomes_deltas(update: dict[str, object], expected: TextDelta):
    assert events(update) == [expected]


@pytest.mark.parametrize(
    ("update", "kind", "data"),
    [
        (
            {"sessionUpdate": "tool_call", "toolCallId": "c", "title": "T", "rawInput": {"aB": 1}, "_meta": {"xY": 2}},
            "tool.started",
            {"tool_id": "c", "title": "T", "kind": "other", "status": "pending", "raw_input": {"aB": 1}}
            | {"_meta": {"xY": 2}},
        ),
        (
            {"sessionUpdate": "tool_call", "toolCallId": "c", "title": "T", "kind": "read", "status": "in_progress"},
            "tool.started",
            {"tool_id": "c", "title": "T", "kind": "read", "status": "in_progress"},
        ),
        (
            {"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "failed", "rawOutput": None},
            "tool.updated",
            {"tool_id": "c", "status": "failed", "raw_output": None},
        ),
        ({"sessionUpdate": "plan", "entries": [{"content": "x"}]}, "plan.updated", {"entries": [{"content": "x"}]}),
        ({"sessionUpdate": "usage_update", "used": 1, "size": 2}, "usage.updated", {"used": 1, "size": 2}),
        (
            {"sessionUpdate": "available_commands_update", "availableCommands": []},
            "agent.state",
            {"state": "ready", "changed": "available_commands", "available_commands": []},
        ),
        (
            {"sessionUpdate": "current_mode_update", "currentModeId": "m", "state": "gone"},
            "agent.state",
            {"state": "ready", "changed": "mode", "current_mode_id": "m"},
        ),
        (
            {"sessionUpdate": "config_option_update", "configOptions": [1]},
            "agent.state",
            {"state": "ready", "changed": "config_options", "config_options": [1]},
        ),
        (
            {"sessionUpdate": "session_info_update", "title": "T", "updatedAt": "now"},
            "agent.state",
            {"state": "ready", "changed": "session_info", "title": "T", "updated_at": "now"},
        ),
    ],
)
@pytest.mark.parametrize("turn", [TURN, None])
def test_a_report_becomes_one_record_under_our_names(
    update: dict[str, object], kind: str, data: dict[str, object], turn: Turn | None
):
    (record,) = events(update, turn)
    assert isinstance(record, AgentRecord)
    turn_id = None if turn is None else "t1"
    assert (record.turn_id, record.kind, json.loads(record.data)) == (turn_id, kind, data)


def test_after_the_settle_what_is_said_names_that_turn_and_how_the_agent_is_names_none():
    assert events(chunk("agent_message_chunk", text("hi")), None, "t0") == [TextDelta("t0", "hi")]
    (late,) = events({"sessionUpdate": "usage_update", "used": 1, "size": 2}, None, "t0")
    assert late.turn_id == "t0"
    (state,) = events({"sessionUpdate": "current_mode_update", "currentModeId": "m"}, None, "t0")
    assert state.turn_id is None


def test_what_is_inside_a_field_stays_byte_for_byte():
    (record,) = events(b'{"sessionUpdate":"tool_call_update","toolCallId":"c","content":[ 1.50, "\\u00e9" ]}')
    assert b'"content":[ 1.50, "\\u00e9" ]' in record.data


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"sessionUpdate" : "weather_update","sky":1.0}', "vendor.weather_update"),
        (b'{"sessionUpdate":"_corp/x","a":[ ]}', "vendor._corp/x"),
        (b'{"sessionUpdate":"bad name\\u0000"}', "vendor.unknown"),
        (b'{"sessionUpdate":"agent_message_chunk","content":{"type":"image"}}', "vendor.agent_message_chunk"),
        (b'{"sessionUpdate":"agent_message_chunk","content":7}', "vendor.agent_message_chunk"),
        (b'{"sessionUpdate":"agent_message_chunk"}', "vendor.agent_message_chunk"),
    ],
)
def test_what_we_have_no_word_for_is_kept_word_for_word(raw: bytes, kind: str):
    assert events(raw) == [AgentRecord("t1", kind, raw)]


def test_the_prompt_is_not_repeated_while_its_turn_runs_and_is_kept_outside_of_one():
    echoed = chunk("user_message_chunk", text("hi"))
    assert events(echoed) == []
    assert [event.kind for event in events(echoed, None)] == ["vendor.user_message_chunk"]


def test_text_outside_of_a_turn_is_a_record_without_one():
    (record,) = events(chunk("agent_thought_chunk", text("hm"), messageId="m"), None)
    assert (record.turn_id, record.kind) == (None, "thought.delta")
    assert json.loads(record.data) == {"message_id": "m", "role": "assistant", "text": "hm"}


def test_a_flood_of_text_comes_in_pieces_that_joined_are_the_text():
    words = "añ" * TEXT_LIMIT
    pieces = events(chunk("agent_message_chunk", text(words)))
    assert "".join(piece.text for piece in pieces) == words
    assert max(len(piece.text) for piece in pieces) <= TEXT_LIMIT


@pytest.mark.parametrize("kind", ["tool_call_update", "weather_update"])
def test_a_report_beyond_bounds_loses_its_largest_fields_and_says_which(kind: str):
    update = {"sessionUpdate": kind, "toolCallId": "c", "content": "x" * RECORD_LIMIT, "rawOutput": "y" * 10}
    (record,) = events(update)
    data = json.loads(record.data)
    assert len(record.data) <= RECORD_LIMIT
    assert data["truncated"] == ["content"]
    assert "y" * 10 in data.values()


def test_a_field_beyond_bounds_is_never_read():
    raw = b'{"sessionUpdate":"tool_call_update","toolCallId":"c","rawOutput":[%s"\xff"]}' % (b"[]," * RECORD_LIMIT)
    (record,) = events(raw)
    assert json.loads(record.data) == {"tool_id": "c", "truncated": ["raw_output"]}


def test_a_report_of_very_many_fields_is_bounded_too():
    update = {"sessionUpdate": "usage_update"} | {f"k{i}" * 20: i for i in range(20_000)}
    (record,) = events(update)
    assert len(record.data) <= RECORD_LIMIT


@pytest.mark.parametrize(
    "raw",
    [
        b"7",
        b"{}",
        b'{"sessionUpdate":7}',
        b'{"sessionUpdate":"plan","entries":"\xff"}',
        b'{"sessionUpdate":"weather","x":"\xff"}',
        b'{"sessionUpdate":"weather","x":"\\ud800"}',
        b'{"sessionUpdate":"plan","x":' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"sessionUpdate":"weather","x":' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"sessionUpdate":"agent_message_chunk","messageId":7,"content":{"type":"text","text":"x"}}',
    ],
)
def test_what_would_poison_the_log_is_refused(raw: bytes):
    with pytest.raises(MISREAD):
        events(raw)


def question(**params: object) -> ApprovalRequested:
    return V1().question(msgspec.Raw(json.dumps(params).encode()), "t1", "0")


OPTION = {"optionId": "yes", "name": "Yes", "kind": "allow_once"}


def test_a_permission_request_becomes_a_question():
    asked = question(toolCall={"toolCallId": "c", "title": "Delete it", "kind": "delete"}, options=[OPTION])
    assert (asked.turn_id, asked.key, asked.title) == ("t1", "0", "Delete it")
    assert json.loads(asked.options) == [{"option_id": "yes", "name": "Yes", "kind": "allow_once"}]
    assert asked.tool is not None
    assert json.loads(asked.tool) == {"tool_id": "c", "title": "Delete it", "kind": "delete"}


def test_a_question_without_a_title_still_asks_something():
    assert question(toolCall={"toolCallId": "c", "title": None}, options=[]).title == "The agent asks for permission"
    assert question(options=[]).tool is None
    assert question(title="Really?", toolCall={"title": "Delete it"}, options=[]).title == "Really?"


@pytest.mark.parametrize(
    "params",
    [{}, {"options": [{"name": "no id"}]}, {"options": 7}, {"options": [OPTION | {"name": "x" * RECORD_LIMIT}]}],
)
def test_a_question_that_nobody_could_answer_is_refused(params: dict[str, Any]):
    with pytest.raises(MISREAD):
        question(**params)


def settled(answer: bytes | RpcError, *, cancelling: bool = False) -> AgentEvent:
    turn = Turn(Prompt("s1", "t1", b'"hi"'), written=True, cancelling=cancelling)
    (event,) = V1().answered(turn, answer if isinstance(answer, RpcError) else msgspec.Raw(answer), ())
    return event


def test_a_settle_carries_its_reason_and_usage_and_need_not_be_the_last_word():
    expected = TurnSettled("t1", "refusal", b'{"input_tokens":3}', last=False)
    assert settled(b'{"stopReason":"refusal","usage":{"inputTokens":3}}') == expected


@pytest.mark.parametrize("usage", [b"", b',"usage":null', b',"usage":7'])
def test_a_settle_without_usage_has_none(usage: bytes):
    assert settled(b'{"stopReason":"end_turn"%s}' % usage) == TurnSettled("t1", "end_turn", last=False)


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b"[]", b'{"stopReason":7}'])
def test_an_answer_of_no_known_shape_fails_the_turn(raw: bytes):
    failed = TurnFailed("t1", "agent_unavailable", "The agent's answer to the prompt cannot be read.", retryable=True)
    assert settled(raw) == failed


def test_the_error_for_a_cancel_is_a_settle_of_a_turn_that_was_cancelled_and_of_no_other():
    error = RpcError(-32800, "cancelled")
    assert settled(error, cancelling=True) == TurnSettled("t1", "cancelled")
    assert settled(error) == TurnFailed("t1", "agent_unavailable", "cancelled", retryable=True)


@pytest.mark.parametrize(("value", "kind"), [("opus", {}), (True, {"type": "boolean"})])
def test_modes_and_options_are_asked_for_in_the_words_of_version_1(value: bool | str, kind: dict[str, str]):
    assert V1().mode("a1", "plan") == ("session/set_mode", {"sessionId": "a1", "modeId": "plan"})
    params = {"sessionId": "a1", "configId": "model", "value": value} | kind
    assert V1().option("a1", "model", value) == ("session/set_config_option", params)
