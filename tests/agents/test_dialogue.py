"""An ACP session as rules: lines in, events and lines out, no process and no loop."""

import json
from typing import Any

import pytest

from broker.agents.dialogue import Dialogue
from broker.errors import BrokerError
from broker.messages import AgentLost, AgentRecord, ApprovalRequested, Prompt, TextDelta, TurnFailed, TurnSettled


class Stage:
    """A dialogue, what it wrote, what it emitted and what it gave up for."""

    def __init__(self) -> None:
        self.written, self.heard, self.given_up = [], [], []
        self.dialogue = Dialogue("/work", self.heard.append, self.give_up)

    def give_up(self, error: BrokerError) -> None:
        self.given_up.append(error.message)
        self.dialogue.end(error)

    def ask(self, turn_id: str = "t1") -> None:
        self.dialogue.start_turn(Prompt("s1", turn_id, b'"hi"'))

    def says(self, **frame: object) -> None:
        self.dialogue.feed(json.dumps({"jsonrpc": "2.0", **frame}).encode())

    def says_text(self, text: str) -> None:
        update = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
        self.says(method="session/update", params={"sessionId": "a1", "update": update})

    def asks(self, key: object = 0) -> None:
        options = [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}]
        self.says(id=key, method="session/request_permission", params={"sessionId": "a1", "options": options})

    def begin(self) -> None:
        self.dialogue.begin(lambda line: self.written.append(json.loads(line)))

    def greets(self) -> None:
        self.says(id=1, result={"protocolVersion": 1, "agentInfo": {"name": "fake", "version": "1"}})
        self.says(id=2, result={"sessionId": "a1"})

    def take(self) -> list[object]:
        heard, self.heard[:] = list(self.heard), []
        return heard


@pytest.fixture
def stage() -> Stage:
    """A dialogue that has not begun."""
    return Stage()


@pytest.fixture
def running(stage: Stage) -> Stage:
    """A dialogue whose agent has been given turn `t1`, as request 3."""
    stage.begin()
    stage.greets()
    stage.ask()
    stage.take()
    stage.written.clear()
    return stage


def test_the_opening_is_initialize_then_session_new_then_the_prompt(stage: Stage):
    stage.ask()
    stage.begin()
    assert [frame["method"] for frame in stage.written] == ["initialize"]
    stage.greets()
    assert [frame["method"] for frame in stage.written] == ["initialize", "session/new", "session/prompt"]
    hello, new, prompt = (frame["params"] for frame in stage.written)
    assert hello["protocolVersion"] == 1
    assert hello["clientCapabilities"] == {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
    assert new == {"cwd": "/work", "mcpServers": []}
    assert prompt == {"sessionId": "a1", "prompt": [{"type": "text", "text": "hi"}]}
    ready = b'{"state":"ready","agent":{"name":"fake","version":"1"},"context":"fresh"}'
    assert stage.take() == [AgentRecord("t1", "agent.state", ready)]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([{"id": 1, "error": {"code": -32603, "message": "no"}}], "no"),
        ([{"id": 1, "result": {"protocolVersion": 2}}], "The agent speaks version 2 of ACP, the broker 1."),
        ([{"id": 1, "result": {}}], "The agent's answer to initialize cannot be read."),
        (
            [
                {"id": 1, "result": {"protocolVersion": 1, "authMethods": [{"id": "k", "name": "Key"}]}},
                {"id": 2, "error": {"code": -32000, "message": "auth"}},
            ],
            "The agent wants a login: log it in with its own command first (it offers: Key).",
        ),
        (
            [{"id": 1, "result": {"protocolVersion": 1}}, {"id": 2, "result": None}],
            "The agent's answer to session/new cannot be read.",
        ),
    ],
)
def test_a_failed_start_fails_the_turn_and_gives_up(stage: Stage, answers: list[dict[str, Any]], message: str):
    stage.ask()
    stage.begin()
    for answer in answers:
        stage.says(**answer)
    assert stage.given_up == [message]
    assert stage.take() == [TurnFailed("t1", "agent_unavailable", message, retryable=True)]


def test_an_agent_lost_before_it_had_the_prompt_fails_the_turn(stage: Stage):
    stage.ask()
    stage.begin()
    stage.dialogue.end(BrokerError("agent_unavailable", "It died."))
    assert stage.take() == [TurnFailed("t1", "agent_unavailable", "It died.", retryable=True)]


def test_an_agent_lost_with_the_prompt_is_lost(running: Stage):
    running.says_text("half")
    running.dialogue.end(BrokerError("agent_unavailable", "It died."))
    running.says_text("never")
    assert running.take() == [TextDelta("t1", "half"), AgentLost("It died.")]


def test_an_agent_lost_between_turns_is_reported_gone(running: Stage):
    running.says(id=3, result={"stopReason": "end_turn"})
    running.take()
    running.dialogue.end(BrokerError("agent_unavailable", "It died."))
    assert running.take() == [AgentRecord(None, "agent.state", b'{"state":"gone","reason":"It died."}')]


def test_updates_keep_their_order_and_come_before_the_settle(running: Stage):
    for i in range(100):
        running.says_text(str(i))
    running.says(id=3, result={"stopReason": "end_turn"})
    texts = [TextDelta("t1", str(i)) for i in range(100)]
    assert running.take() == [*texts, TurnSettled("t1", "end_turn")]


def test_an_update_outside_of_a_turn_names_none(running: Stage):
    running.says(id=3, result={"stopReason": "end_turn"})
    running.says_text("by the way")
    settled, stray = running.take()
    assert settled == TurnSettled("t1", "end_turn")
    assert (type(stray), stray.turn_id, stray.kind) == (AgentRecord, None, "message.delta")


def test_a_turn_is_settled_once_however_often_the_agent_answers(running: Stage):
    running.says(id=3, result={"stopReason": "end_turn"})
    running.ask("t2")
    running.says(id=3, result={"stopReason": "refusal"})
    running.says_text("for t2")
    assert running.take() == [TurnSettled("t1", "end_turn"), TextDelta("t2", "for t2")]


def test_a_second_turn_is_refused_while_one_runs(running: Stage):
    running.ask("t2")
    (refused,) = running.take()
    assert (type(refused), refused.turn_id, refused.code) == (TurnFailed, "t2", "busy")
    running.says(id=3, result={"stopReason": "end_turn"})
    assert running.take() == [TurnSettled("t1", "end_turn")]


def test_a_prompt_without_a_login_fails_and_the_next_turn_starts_a_fresh_agent(running: Stage):
    running.says(id=3, error={"code": -32000, "message": "auth"})
    failed, gone = running.take()
    assert (type(failed), failed.code) == (TurnFailed, "agent_unavailable")
    assert gone.kind == "agent.state"
    assert len(running.given_up) == 1


def test_cancel_asks_the_agent_once_and_waits_for_its_settle(running: Stage):
    running.dialogue.cancel_turn("t1")
    running.dialogue.cancel_turn("t1")
    running.dialogue.cancel_turn("t7")
    assert running.written == [{"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "a1"}}]
    assert running.take() == []
    running.says_text("one more")
    running.says(id=3, result={"stopReason": "cancelled"})
    assert running.take() == [TextDelta("t1", "one more"), TurnSettled("t1", "cancelled")]


def test_a_cancel_answered_with_the_error_for_it_is_a_settle(running: Stage):
    running.dialogue.cancel_turn("t1")
    running.says(id=3, error={"code": -32800, "message": "cancelled"})
    assert running.take() == [TurnSettled("t1", "cancelled")]


def test_a_turn_cancelled_before_the_agent_is_up_never_reaches_it(stage: Stage):
    stage.ask()
    stage.begin()
    stage.dialogue.cancel_turn("t1")
    assert stage.take() == [TurnSettled("t1", "cancelled")]
    stage.ask("t2")
    stage.greets()
    prompts = [frame for frame in stage.written if frame.get("method") == "session/prompt"]
    assert len(prompts) == 1
    assert [event.turn_id for event in stage.take()] == ["t2"]


def test_a_question_is_answered_once(running: Stage):
    running.asks()
    (question,) = running.take()
    assert isinstance(question, ApprovalRequested)
    running.dialogue.answer_approval("t1", "7", "yes")
    running.dialogue.answer_approval("t2", "0", "yes")
    running.dialogue.answer_approval("t1", question.key, "yes")
    running.dialogue.answer_approval("t1", question.key, None)
    assert running.written == [
        {"jsonrpc": "2.0", "id": 0, "result": {"outcome": {"outcome": "selected", "optionId": "yes"}}}
    ]


CANCELLED = {"outcome": {"outcome": "cancelled"}}


def test_several_questions_may_be_open_and_a_cancel_withdraws_them_all(running: Stage):
    running.asks(0)
    running.asks("b")
    running.dialogue.cancel_turn("t1")
    running.asks(2)
    answers = {frame["id"]: frame["result"] for frame in running.written if "id" in frame}
    assert answers == {0: CANCELLED, "b": CANCELLED, 2: CANCELLED}
    assert len(running.take()) == 2


def test_a_question_declined_by_the_broker_is_cancelled(running: Stage):
    running.asks()
    running.dialogue.answer_approval("t1", "0", None)
    assert [frame["result"] for frame in running.written] == [CANCELLED]


def test_a_question_outside_of_a_turn_or_left_open_by_its_end_is_cancelled(running: Stage):
    running.asks(0)
    running.says(id=3, result={"stopReason": "end_turn"})
    running.asks(1)
    assert [(frame["id"], frame["result"]) for frame in running.written] == [(0, CANCELLED), (1, CANCELLED)]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("fs/read_text_file", {"path": "/etc/passwd"}, -32601),
        ("terminal/create", {}, -32601),
        ("_corp/x", {}, -32601),
        ("session/request_permission", {"options": 7}, -32602),
    ],
)
def test_what_the_broker_does_not_lend_is_refused_at_once(
    running: Stage, method: str, params: dict[str, Any], code: int
):
    running.says(id="x", method=method, params=params)
    assert [(frame["id"], frame["error"]["code"]) for frame in running.written] == [("x", code)]
    assert running.take() == []


def test_notifications_of_other_kinds_are_kept_and_dollar_ones_are_not(running: Stage):
    running.says(method="_auth/status_update", params={"ok": True})
    running.says(method="$/cancel_request", params={"requestId": 1})
    assert running.take() == [AgentRecord("t1", "vendor._auth/status_update", b'{"ok": true}')]


@pytest.mark.parametrize(
    "line", [b"", b"  ", b"Loading...", b"[1]", b'{"id":99,"result":1}', b'{"method":"session/update","params":{}}']
)
def test_a_line_that_makes_no_sense_changes_nothing(running: Stage, line: bytes):
    running.dialogue.feed(line)
    running.says_text("on we go")
    assert running.take() == [TextDelta("t1", "on we go")]
    assert running.given_up == []
