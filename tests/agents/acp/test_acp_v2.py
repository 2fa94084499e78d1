"""The draft of version 2 of ACP: its words, and an agent that speaks it in a real process."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.agents.acp.dialect import Turn
from broker.agents.acp.jsonrpc import MISREAD, RpcError
from broker.agents.acp.said import MESSAGES_LIMIT
from broker.agents.acp.v2 import TOOLS_LIMIT, V2
from broker.agents.bounds import TEXT_LIMIT
from broker.agents.port import Configuration
from broker.errors import BrokerError
from broker.messages import (
    AgentEvent,
    ApprovalRequested,
    Prompt,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)
from broker.testing import until

TURN = Turn(Prompt("s1", "t1", b'"hi"'), written=True)


class Tongue:
    """A session of version 2 whose turn was accepted."""

    def __init__(self) -> None:
        self.v2 = V2()
        self.v2.begin()
        assert self.answer(b'{"messageId":"u1"}') == [TurnTaken("t1")]

    def answer(self, answer: bytes | RpcError) -> list[AgentEvent]:
        raw = answer if isinstance(answer, RpcError) else msgspec.Raw(answer)
        return list(self.v2.answered(TURN, raw, ()))

    def hears(self, kind: str, turn: Turn | None = TURN, late: str | None = None, **fields: object) -> list[AgentEvent]:
        raw = json.dumps({"sessionUpdate": kind, **fields}).encode()
        return list(self.v2.told(msgspec.Raw(raw), turn, late))

    def state(self, state: str, turn: Turn | None = TURN, **fields: object) -> list[AgentEvent]:
        return self.hears("state_update", turn, state=state, **fields)


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.fixture
def tongue() -> Tongue:
    return Tongue()


# -- the life of a turn ----------------------------------------------------------------------------------


def test_idle_is_the_end_with_its_reason_and_usage_and_nothing_comes_after_it(tongue: Tongue):
    usage = {"totalTokens": 4}
    assert tongue.state("idle", stopReason="end_turn", usage=usage) == [
        TurnSettled("t1", "end_turn", b'{"total_tokens":4}')
    ]


@pytest.mark.parametrize("reason", [{}, {"stopReason": None}, {"stopReason": 7}])
def test_an_end_without_a_reason_says_that_it_has_none(tongue: Tongue, reason: dict[str, object]):
    assert tongue.state("idle", **reason) == [TurnSettled("t1", "unknown")]


def test_an_idle_before_the_agent_has_the_turn_only_repeats_what_is_known(tongue: Tongue):
    tongue.v2.begin()
    assert tongue.state("idle", stopReason="end_turn") == []
    assert tongue.state("running") == [TurnTaken("t1")]
    assert tongue.state("idle", stopReason="refusal") == [TurnSettled("t1", "refusal")]
    assert tongue.state("idle", None, stopReason="refusal") == []


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("agent_message_chunk", {"content": {"type": "text", "text": "hi"}}),
        ("agent_thought", {"content": [{"type": "text", "text": "hi"}]}),
        ("tool_call_update", {"toolCallId": "c"}),
        ("plan_update", {"plan": {"entries": []}}),
    ],
)
def test_a_turn_whose_end_overtakes_the_answer_to_its_prompt_is_over(
    tongue: Tongue, kind: str, fields: dict[str, object]
):
    tongue.v2.begin()
    tongue.hears(kind, **fields)
    assert tongue.state("idle", stopReason="end_turn") == [TurnSettled("t1", "end_turn")]


@pytest.mark.parametrize("sign", ["running", "requires_action"])
def test_work_is_a_sign_of_life(tongue: Tongue, sign: str):
    assert tongue.state(sign) == [TurnTaken("t1")]


def test_work_that_nobody_asked_for_and_states_we_do_not_know_are_kept(tongue: Tongue):
    (unasked,) = tongue.state("running", None)
    assert (unasked.kind, unasked.turn_id) == ("vendor.state_update", None)
    (unknown,) = tongue.state("_musing")
    assert (unknown.kind, unknown.turn_id) == ("vendor.state_update", "t1")


@pytest.mark.parametrize(
    ("error", "message"),
    [({"code": -32603, "message": "Out of luck"}, "Out of luck"), (None, "The agent stopped with an error.")],
)
def test_an_end_in_error_fails_the_turn(tongue: Tongue, error: object, message: str):
    assert tongue.state("idle", stopReason="error", error=error) == [
        TurnFailed("t1", "agent_unavailable", message, retryable=True)
    ]


def test_a_prompt_that_is_not_accepted_fails(tongue: Tongue):
    failed = TurnFailed("t1", "agent_unavailable", "Busy", retryable=True)
    assert tongue.answer(RpcError(-32603, "Busy")) == [failed]


def test_the_prompt_is_not_repeated_and_kept_outside_of_a_turn(tongue: Tongue):
    assert tongue.hears("user_message", messageId="u1", content=[text("hi")]) == [TurnTaken("t1")]
    (stray,) = tongue.hears("user_message", None, messageId="u1", content=[text("hi")])
    assert stray.kind == "vendor.user_message"


# -- messages --------------------------------------------------------------------------------------------


def test_chunks_are_deltas_and_a_message_that_repeats_them_says_nothing_new(tongue: Tongue):
    assert tongue.hears("agent_message_chunk", messageId="m", content=text("It is ")) == [
        TextDelta("t1", "It is ", message_id="m")
    ]
    assert tongue.hears("agent_message", messageId="m", content=[text("It is ")]) == []
    assert tongue.hears("agent_message", messageId="m") == []
    assert tongue.hears("agent_message", messageId="m", content=[text("It is "), text("four.")]) == [
        TextDelta("t1", "four.", message_id="m")
    ]
    assert tongue.hears("agent_message_chunk", messageId="m", content=text(" So")) == [
        TextDelta("t1", " So", message_id="m")
    ]


def test_a_message_never_heard_of_is_said_as_a_whole(tongue: Tongue):
    assert tongue.hears("agent_message", messageId="m", content=[text("Hello")]) == [
        TextDelta("t1", "Hello", message_id="m")
    ]
    assert tongue.hears("agent_thought", messageId="h", content=[text("Hm")]) == [
        TextDelta("t1", "Hm", thought=True, message_id="h")
    ]


@pytest.mark.parametrize(("content", "now"), [([text("It is five.")], "It is five."), (None, ""), ([], "")])
def test_a_message_that_takes_something_back_is_replaced(tongue: Tongue, content: object, now: str):
    tongue.hears("agent_message_chunk", messageId="m", content=text("It is four."))
    assert tongue.hears("agent_message", messageId="m", content=content) == [TextReplaced("t1", now, message_id="m")]
    assert tongue.hears("agent_message", messageId="m", content=[text(now + " Yes.")]) == [
        TextDelta("t1", " Yes.", message_id="m")
    ]


def test_what_replaces_a_message_comes_in_pieces_of_a_bounded_size(tongue: Tongue):
    tongue.hears("agent_thought_chunk", messageId="m", content=text("No."))
    whole = "x" * (TEXT_LIMIT + 1)
    assert tongue.hears("agent_thought", messageId="m", content=[text(whole)]) == [
        TextReplaced("t1", whole[:-1], thought=True, message_id="m"),
        TextDelta("t1", "x", thought=True, message_id="m"),
    ]


def test_messages_that_are_not_all_text_are_kept_word_for_word(tongue: Tongue):
    (message,) = tongue.hears("agent_message", messageId="m", content=[text("a"), {"type": "image"}])
    assert message.kind == "vendor.agent_message"
    (chunk,) = tongue.hears("agent_message_chunk", messageId="m", content={"type": "image"})
    assert chunk.kind == "vendor.agent_message_chunk"


def test_only_so_many_messages_and_tools_are_remembered(tongue: Tongue):
    for i in range(MESSAGES_LIMIT + 1):
        tongue.hears("agent_message_chunk", messageId=f"m{i}", content=text("x"))
    assert tongue.hears("agent_message", messageId="m0", content=[text("x")]) == [TextDelta("t1", "x", message_id="m0")]
    assert tongue.hears("agent_message", messageId=f"m{MESSAGES_LIMIT}", content=[text("x")]) == []
    for i in range(TOOLS_LIMIT + 1):
        tongue.hears("tool_call_update", toolCallId=f"c{i}")
    assert tongue.hears("tool_call_update", toolCallId="c0")[0].kind == "tool.started"


# -- reports ---------------------------------------------------------------------------------------------


def test_a_tool_call_is_started_once_and_patched_after_that(tongue: Tongue):
    (started,) = tongue.hears("tool_call_update", toolCallId="c", title="Look", rawInput={"aB": 1})
    (updated,) = tongue.hears("tool_call_update", toolCallId="c", status="completed", content=None)
    (added,) = tongue.hears("tool_call_content_chunk", toolCallId="c", content={"type": "content"})
    data = [(event.kind, json.loads(event.data)) for event in (started, updated, added)]
    fields = {"tool_id": "c", "title": "Look", "kind": "other", "status": "pending", "raw_input": {"aB": 1}}
    assert data == [
        ("tool.started", fields),
        ("tool.updated", {"tool_id": "c", "status": "completed", "content": None}),
        ("tool.updated", {"tool_id": "c", "content_appended": [{"type": "content"}]}),
    ]


@pytest.mark.parametrize(
    ("kind", "fields", "record", "data"),
    [
        (
            "plan_update",
            {"plan": {"type": "items", "planId": "p", "entries": [1]}},
            "plan.updated",
            {"type": "items", "plan_id": "p", "entries": [1]},
        ),
        ("plan_removed", {"planId": "p"}, "plan.updated", {"plan_id": "p", "removed": True}),
        ("usage_update", {"used": 1, "size": 2}, "usage.updated", {"used": 1, "size": 2}),
        (
            "config_option_update",
            {"configOptions": []},
            "agent.state",
            {"state": "ready", "changed": "config_options", "config_options": []},
        ),
        (
            "terminal_update",
            {"terminalId": "x"},
            "vendor.terminal_update",
            {"sessionUpdate": "terminal_update", "terminalId": "x"},
        ),
    ],
)
def test_a_report_becomes_one_record(tongue: Tongue, kind: str, fields: dict[str, object], record: str, data: object):
    (event,) = tongue.hears(kind, **fields)
    assert (event.turn_id, event.kind, json.loads(event.data)) == ("t1", record, data)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("state_update", {}),
        ("tool_call_update", {}),
        ("tool_call_content_chunk", {"toolCallId": "c"}),
        ("plan_update", {"plan": 7}),
        ("agent_message", {"messageId": "m", "content": 7}),
    ],
)
def test_what_makes_no_sense_is_refused(tongue: Tongue, kind: str, fields: dict[str, object]):
    with pytest.raises(MISREAD):
        tongue.hears(kind, **fields)


# -- questions and configuration -------------------------------------------------------------------------

OPTION = {"optionId": "yes", "name": "Yes", "kind": "allow_once"}


def question(**params: object) -> ApprovalRequested:
    asked = {"title": "Really?", "options": [OPTION], **params}
    return V2().question(msgspec.Raw(json.dumps(asked).encode()), "t1", "0")


@pytest.mark.parametrize(
    ("params", "tool"),
    [
        ({}, None),
        ({"subject": None}, None),
        ({"description": "All of it"}, {"description": "All of it"}),
        (
            {"subject": {"type": "tool_call", "toolCall": {"toolCallId": "c", "kind": "edit"}}, "description": "d"},
            {"tool_id": "c", "kind": "edit", "description": "d"},
        ),
        ({"subject": {"type": "_corp", "aB": 1}}, {"subject": {"type": "_corp", "aB": 1}}),
    ],
)
def test_a_question_carries_what_it_is_about(params: dict[str, object], tool: object):
    asked = question(**params)
    assert (asked.title, json.loads(asked.options)[0]["option_id"]) == ("Really?", "yes")
    assert (None if asked.tool is None else json.loads(asked.tool)) == tool


def test_the_mode_is_the_option_of_that_category(tongue: Tongue):
    with pytest.raises(BrokerError, match="no modes") as refused:
        tongue.v2.mode("a1", "code")
    assert refused.value.code == "not_found"
    tongue.v2.learn(msgspec.Raw(b'[{"configId":"model"},{"configId":"how","category":"mode"}]'))
    params = {"sessionId": "a1", "configId": "how", "type": "id", "value": "code"}
    assert tongue.v2.mode("a1", "code") == ("session/set_config_option", params)
    assert tongue.v2.option("a1", "fast", True)[1]["type"] == "boolean"


# -- a real process --------------------------------------------------------------------------------------


@pytest.fixture
def second(line: Callable[..., Any]) -> Callable[..., Any]:
    """Make a line to an agent that speaks version 2."""
    return lambda *arguments, **settings: line(*arguments, script="fake_v2.py", **settings)


async def test_a_turn_is_taken_streams_and_settles(second: Callable[..., Any]):
    agent = second()
    agent.ask("chunks 3")
    ready = await agent.ear.ready()
    assert json.loads(ready.data)["protocol"] == 2
    events = await agent.ear.until()
    assert events[0] == TurnTaken("t1")
    said = [event for event in events if not isinstance(event, TurnTaken)]
    usage = b'{"total_tokens":4,"input_tokens":3,"output_tokens":1}'
    deltas = [TextDelta("t1", f"t{i} ", message_id="m1") for i in range(3)]
    assert said == [*deltas, TurnSettled("t1", "end_turn", usage)]


async def test_an_agent_that_goes_back_on_its_words(second: Callable[..., Any]):
    agent = second()
    agent.ask("retract")
    first, tail, replaced, settled = await agent.ear.turn()
    assert (first.text, tail.text) == ("It is four.", " No:")
    assert replaced == TextReplaced("t1", "It is five.", message_id=first.message_id)
    assert settled == TurnSettled("t1", "end_turn")


async def test_a_question_is_asked_and_answered(second: Callable[..., Any]):
    agent = second()
    agent.ask("permission")
    *_, asked = await agent.ear.until(ApprovalRequested)
    assert asked.title == "Run it?"
    assert json.loads(asked.tool)["subject"]["command"] == "rm -r /"
    agent.link.answer_approval("t1", asked.key, "yes")
    assert json.loads(agent.text(await agent.ear.until())) == {"outcome": "selected", "optionId": "yes"}


async def test_a_cancel_makes_it_idle(second: Callable[..., Any]):
    agent = second()
    agent.ask("silent")
    await agent.ear.until(TextDelta)
    agent.link.cancel_turn("t1")
    *_, settled = await agent.ear.until()
    assert settled == TurnSettled("t1", "cancelled")


async def test_a_session_is_resumed_and_its_idle_state_ends_no_turn(second: Callable[..., Any]):
    agent = second(memory="fake")
    agent.ask("chunks 1")
    assert json.loads((await agent.ear.ready()).data)["context"] == "restored"
    assert agent.text(await agent.ear.until()) == "t0 "


async def test_a_mode_is_set_as_an_option(second: Callable[..., Any]):
    agent, answers = second(), []
    agent.link.configure(Configuration("code"), answers.append)
    await until(lambda: answers)
    assert answers == [None]
    await agent.ear.ready()
    state = await agent.ear.state()
    assert state["changed"] == "config_options"
    assert state["config_options"][0]["currentValue"] == "code"


async def test_a_prompt_without_a_login_fails_and_the_agent_is_let_go(second: Callable[..., Any]):
    agent = second("reject")
    agent.ask("chunks 1")
    (failed,) = await agent.ear.turn()
    assert failed.message.startswith("The agent wants a login")
    assert agent.link.pid is None


async def test_version_2_is_not_spoken_where_the_profile_offers_1(second: Callable[..., Any]):
    agent = second(protocol=1)
    agent.ask("chunks 1")
    (failed,) = await agent.ear.turn()
    assert failed.message == "The agent speaks version 2 of ACP, the broker offered 1."
