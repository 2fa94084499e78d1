"""An ACP session as rules: lines in, events and lines out, no process and no loop."""

import gc
import json
import weakref
from typing import Any

import pytest

from broker.agents.acp.dialogue import MUTE, Dialogue
from broker.agents.acp.entry import KEPT_BYTES, KEPT_LIMIT
from broker.agents.acp.switchboard import Switchboard
from broker.agents.port import Configuration
from broker.errors import BrokerError
from broker.messages import (
    AgentLost,
    AgentReady,
    AgentRecord,
    ApprovalRequested,
    Prompt,
    TextDelta,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)
from broker.testing import ManualClock


class Stage:
    """A dialogue on a switchboard, what was written, what was emitted and what was given up for."""

    def __init__(self, offer: int = 1, memory: str | None = None) -> None:
        self.offer = offer
        self.written, self.heard, self.given_up = [], [], []
        self.clock = ManualClock()
        self.dialogue = Dialogue("/work", self.heard.append, self.give_up, memory, self.clock)

    def give_up(self, reason: str, error: BrokerError | None) -> None:
        self.given_up.append(error.message if error else reason)
        self.dialogue.end(reason, error)

    def ask(self, turn_id: str = "t1") -> None:
        self.dialogue.start_turn(Prompt("s1", turn_id, b'"hi"'))

    def says(self, **frame: object) -> None:
        self.board.feed(json.dumps({"jsonrpc": "2.0", **frame}).encode())

    def says_text(self, text: str) -> None:
        self.updates("agent_message_chunk", content={"type": "text", "text": text})

    def updates(self, kind: str, **fields: object) -> None:
        update = {"sessionUpdate": kind, **fields}
        self.says(method="session/update", params={"sessionId": "a1", "update": update})

    def asks(self, key: object = 0) -> None:
        options = [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}]
        self.says(id=key, method="session/request_permission", params={"sessionId": "a1", "options": options})

    def begin(self) -> None:
        self.board = Switchboard(self.offer, up=lambda: self.dialogue.open(self.board), down=self.unfit)
        self.board.begin(lambda line: self.written.append(json.loads(line)))

    def unfit(self, error: BrokerError) -> None:
        self.give_up("it is no good", error)

    def dies(self) -> None:
        self.board.end()
        self.dialogue.end("it died")

    def greets(self, **more: object) -> None:
        self.says(id=1, result={"protocolVersion": 1, "agentInfo": {"name": "fake", "version": "1"}, **more})

    def opens(self, **more: object) -> None:
        self.answers("session/new", {"sessionId": "a1", **more})

    def answers(self, method: str, result: object) -> None:
        """Answer the last request for `method`."""
        self.says(id=self.last(method)["id"], result=result)

    def refuses(self, method: str, code: int = -32601, message: str = "no") -> None:
        self.says(id=self.last(method)["id"], error={"code": code, "message": message})

    def last(self, method: str) -> dict[str, Any]:
        return next(frame for frame in reversed(self.written) if frame.get("method") == method)

    def methods(self) -> list[str]:
        return [frame["method"] for frame in self.written]

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
    stage.opens()
    stage.ask()
    stage.take()
    stage.written.clear()
    return stage


def told(ready: object) -> dict[str, Any]:
    """Return what viewers are told of an agent that is ready."""
    assert isinstance(ready, AgentReady), ready
    return dict(json.loads(ready.data))


def test_the_opening_is_initialize_then_session_new_then_the_prompt(stage: Stage):
    stage.ask()
    stage.begin()
    assert stage.methods() == ["initialize"]
    stage.greets()
    stage.opens()
    assert stage.methods() == ["initialize", "session/new", "session/prompt"]
    hello, new, prompt = (frame["params"] for frame in stage.written)
    assert hello["protocolVersion"] == 1
    assert hello["clientCapabilities"] == {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
    assert new == {"cwd": "/work", "mcpServers": []}
    assert prompt == {"sessionId": "a1", "prompt": [{"type": "text", "text": "hi"}]}
    ready, taken = stage.take()
    assert (ready.turn_id, ready.memory) == ("t1", "a1")
    assert told(ready) == {
        "state": "ready",
        "agent": {"name": "fake", "version": "1"},
        "protocol": 1,
        "context": "fresh",
        "agent_session_id": "a1",
    }
    assert taken == TurnTaken("t1")


def test_an_agent_that_refuses_the_offer_of_version_2_is_offered_1():
    stage = Stage(offer=2)
    stage.begin()
    stage.says(id=1, error={"code": -32602, "message": "what is 2?"})
    assert [frame["params"]["protocolVersion"] for frame in stage.written] == [2, 1]
    stage.says(id=2, result={"protocolVersion": 1})
    assert stage.methods()[2:] == ["session/new"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([{"id": 1, "error": {"code": -32603, "message": "no"}}], "no"),
        ([{"id": 1, "result": {"protocolVersion": 2}}], "The agent speaks version 2 of ACP, the broker offered 1."),
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
    stage.dies()
    assert stage.take() == [TurnFailed("t1", "agent_unavailable", "It died.", retryable=True)]


def test_an_agent_lost_with_the_prompt_is_lost(running: Stage):
    running.says_text("half")
    running.dies()
    running.says_text("never")
    assert running.take() == [TextDelta("t1", "half"), AgentLost("it died", "t1")]


def test_an_agent_lost_between_turns_is_reported_gone(running: Stage):
    running.says(id=3, result={"stopReason": "end_turn"})
    running.take()
    running.dies()
    assert running.take() == [AgentRecord(None, "agent.state", b'{"state":"gone","reason":"it died"}')]


def test_updates_keep_their_order_and_come_before_the_settle(running: Stage):
    for i in range(100):
        running.says_text(str(i))
    running.says(id=3, result={"stopReason": "end_turn"})
    texts = [TextDelta("t1", str(i)) for i in range(100)]
    assert running.take() == [*texts, TurnSettled("t1", "end_turn", last=False)]


def test_what_comes_after_the_settle_names_that_turn_until_the_next_prompt_is_written(running: Stage):
    running.says(id=3, result={"stopReason": "end_turn"})
    running.says_text("by the way")
    running.ask("t2")
    running.says_text("now")
    assert running.take() == [
        TurnSettled("t1", "end_turn", last=False),
        TextDelta("t1", "by the way"),
        TurnTaken("t2"),
        TextDelta("t2", "now"),
    ]


def test_what_comes_before_any_prompt_names_no_turn(stage: Stage):
    stage.begin()
    stage.greets()
    stage.opens()
    stage.says_text("welcome")
    _, stray = stage.take()
    assert (type(stray), stray.turn_id, stray.kind) == (AgentRecord, None, "message.delta")


def test_a_turn_is_settled_once_however_often_the_agent_answers(running: Stage):
    running.says(id=3, result={"stopReason": "end_turn"})
    running.ask("t2")
    running.says(id=3, result={"stopReason": "refusal"})
    running.says_text("for t2")
    assert running.take() == [
        TurnSettled("t1", "end_turn", last=False),
        TurnTaken("t2"),
        TextDelta("t2", "for t2"),
    ]


def test_a_second_turn_is_refused_while_one_runs(running: Stage):
    running.ask("t2")
    (refused,) = running.take()
    assert (type(refused), refused.turn_id, refused.code) == (TurnFailed, "t2", "busy")
    running.says(id=3, result={"stopReason": "end_turn"})
    assert running.take() == [TurnSettled("t1", "end_turn", last=False)]


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
    assert running.take() == [TextDelta("t1", "one more"), TurnSettled("t1", "cancelled", last=False)]


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
    stage.opens()
    prompts = [frame for frame in stage.written if frame.get("method") == "session/prompt"]
    assert len(prompts) == 1
    assert [event.turn_id for event in stage.take()] == ["t2", "t2"]


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


def test_a_question_that_the_agent_takes_back_is_answered_so_and_cannot_be_answered_again(running: Stage):
    running.asks(0)
    running.asks("b")
    running.says(method="$/cancel_request", params={"requestId": "b"})
    running.says(method="$/cancel_request", params={"requestId": "never"})
    running.dialogue.answer_approval("t1", '"b"', "yes")
    running.dialogue.answer_approval("t1", "0", "yes")
    taken_back, answered = running.written
    assert (taken_back["id"], taken_back["error"]["code"]) == ("b", -32800)
    assert (answered["id"], answered["result"]["outcome"]["optionId"]) == (0, "yes")


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
    running.board.feed(line)
    running.says_text("on we go")
    assert running.take() == [TextDelta("t1", "on we go")]
    assert running.given_up == []


# -- taking a session up again ---------------------------------------------------------------------------


ALL = {"agentCapabilities": {"loadSession": True, "sessionCapabilities": {"resume": {}}}}
LOADS = {"agentCapabilities": {"loadSession": True}}


def remembering() -> Stage:
    """A dialogue whose agent called the session `a1` before, with a turn that waits."""
    stage = Stage(memory="a1")
    stage.ask()
    stage.begin()
    return stage


def test_an_agent_that_can_resume_is_asked_to_and_its_context_is_restored():
    stage = remembering()
    stage.greets(**ALL)
    assert stage.last("session/resume")["params"] == {"sessionId": "a1", "cwd": "/work", "mcpServers": []}
    stage.answers("session/resume", {})
    assert stage.methods()[1:] == ["session/resume", "session/prompt"]
    ready, _ = stage.take()
    assert (told(ready)["context"], ready.memory) == ("restored", "a1")


def test_a_replay_is_looked_at_and_not_logged():
    stage = remembering()
    stage.greets(**LOADS)
    stage.updates("user_message_chunk", content={"type": "text", "text": "what was asked"})
    stage.says_text("what was answered")
    stage.updates("tool_call", toolCallId="c1", title="Look")
    stage.updates("current_mode_update", currentModeId="code")
    stage.answers("session/load", {})
    ready, mode, taken = stage.take()
    assert told(ready)["context"] == "restored"
    assert json.loads(mode.data)["current_mode_id"] == "code"
    assert taken == TurnTaken("t1")


@pytest.mark.parametrize(("hint", "context"), [(False, "fresh"), (True, "unknown")])
def test_a_load_that_replays_nothing_has_not_brought_back_anything(hint: bool, context: str):
    stage = remembering()
    stage.greets(**LOADS)
    if hint:
        stage.updates("available_commands_update", availableCommands=[])
    stage.answers("session/load", None)
    assert told(stage.take()[0])["context"] == context


def test_an_agent_that_refuses_what_it_advertises_gets_a_new_session():
    stage = remembering()
    stage.greets(**ALL)
    stage.refuses("session/resume")
    stage.says_text("half a replay")
    stage.refuses("session/load", -32002)
    stage.answers("session/new", {"sessionId": "a2"})
    assert stage.methods()[1:] == ["session/resume", "session/load", "session/new", "session/prompt"]
    ready, _ = stage.take()
    assert (told(ready)["context"], told(ready)["agent_session_id"], ready.memory) == ("fresh", "a2", "a2")
    stage.says_text("of a1, which is nobody's any more")
    assert stage.take() == []


def test_a_new_process_takes_up_what_the_last_one_had(running: Stage):
    running.dies()
    running.take()
    running.ask("t2")
    running.begin()
    running.greets(**ALL)
    running.answers("session/resume", {})
    ready, taken = running.take()
    assert (told(ready)["context"], told(ready)["restarted"]) == ("restored", True)
    assert taken == TurnTaken("t2")


# -- leaving a process that others use ---------------------------------------------------------------------


def test_who_leaves_has_nothing_of_his_run_on(running: Stage):
    running.asks(0)
    running.dialogue.part()
    running.says_text("too late")
    answered, cancelled = running.written
    assert (answered["id"], answered["result"]) == (0, CANCELLED)
    assert (cancelled["method"], cancelled["params"]) == ("session/cancel", {"sessionId": "a1"})
    assert len(running.take()) == 1


def test_a_session_that_is_opened_too_late_is_closed_again(stage: Stage):
    stage.ask()
    stage.begin()
    stage.greets(agentCapabilities={"sessionCapabilities": {"close": {}}})
    stage.dialogue.part()
    stage.opens()
    assert stage.methods()[1:] == ["session/new", "session/close"]
    assert stage.take() == []


def test_a_process_counts_as_mute_once_it_has_been_deaf_to_a_cancel_for_long(running: Stage):
    running.clock.advance(2 * MUTE)
    assert not running.dialogue.mute  # it may be thinking
    running.dialogue.cancel_turn("t1")
    assert not running.dialogue.mute
    running.clock.advance(MUTE)
    assert running.dialogue.mute
    running.says(method="session/update", params={"sessionId": "a9", "update": {}})
    assert not running.dialogue.mute
    running.says(id=3, result={"stopReason": "cancelled"})
    assert not running.dialogue.mute


def test_a_session_that_is_being_opened_makes_no_process_mute(stage: Stage):
    stage.ask()
    stage.begin()
    stage.greets()
    stage.clock.advance(2 * MUTE)
    assert not stage.dialogue.mute


def test_a_later_turn_begins_with_no_cancel_to_heed(running: Stage):
    running.dialogue.cancel_turn("t1")
    running.says(id=3, result={"stopReason": "cancelled"})
    running.ask("t2")
    running.clock.advance(2 * MUTE)
    assert not running.dialogue.mute


@pytest.mark.parametrize("end", ["part", "idle"])
def test_a_prompt_that_is_never_answered_is_not_kept(end: str):
    stage = Stage(offer=2)
    stage.begin()
    stage.greets(protocolVersion=2, info={"name": "fake"})
    stage.opens()
    prompt = Prompt("s1", "t1", b'"hi"')
    kept = weakref.ref(prompt)
    stage.dialogue.start_turn(prompt)
    del prompt
    if end == "part":
        stage.dialogue.part()
        stage.dialogue.end("it left")
    else:
        stage.says_text("done")
        stage.updates("state_update", state="idle", stopReason="end_turn")
    stage.take()
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("size", [1, KEPT_BYTES // 10])
def test_what_is_kept_for_a_session_on_its_way_in_is_bounded_and_the_newest(size: int):
    stage = remembering()
    stage.greets(**LOADS)
    for number in range(KEPT_LIMIT + 10):
        stage.updates("session_info_update", title=f"{number}", filler="x" * size)
    stage.updates("session_info_update", title="too much", filler="x" * KEPT_BYTES)
    stage.answers("session/load", {})
    titles = [json.loads(event.data)["title"] for event in stage.take() if isinstance(event, AgentRecord)]
    count = KEPT_LIMIT if size == 1 else 9
    assert titles == [str(number) for number in range(KEPT_LIMIT + 10)][-count:]


# -- configuration ---------------------------------------------------------------------------------------


class Told:
    """Who wants to know what became of a configuration."""

    def __init__(self) -> None:
        self.answers: list[str | None] = []

    def __call__(self, error: BrokerError | None) -> None:
        self.answers.append(None if error is None else error.code)


def test_a_mode_and_options_are_asked_for_one_by_one_and_viewers_are_told(running: Stage):
    answer = Told()
    running.dialogue.configure(Configuration("code", {"model": "opus", "fast": True}), answer)
    running.answers("session/set_mode", {})
    running.answers("session/set_config_option", {"configOptions": [{"id": "model"}]})
    assert answer.answers == []
    running.answers("session/set_config_option", {"configOptions": [{"id": "model"}, {"id": "fast"}]})
    assert answer.answers == [None]
    assert [frame["params"] for frame in running.written] == [
        {"sessionId": "a1", "modeId": "code"},
        {"sessionId": "a1", "configId": "model", "value": "opus"},
        {"sessionId": "a1", "configId": "fast", "value": True, "type": "boolean"},
    ]
    records = [json.loads(record.data) for record in running.take()]
    assert [record["changed"] for record in records] == ["mode", "config_options", "config_options"]
    assert records[0] == {"state": "ready", "changed": "mode", "current_mode_id": "code"}


@pytest.mark.parametrize(
    ("code", "expected"), [(-32601, "not_found"), (-32602, "invalid_message"), (-32603, "agent_unavailable")]
)
def test_what_the_agent_refuses_is_its_error_and_the_rest_is_not_asked_for(running: Stage, code: int, expected: str):
    answer = Told()
    running.dialogue.configure(Configuration("code", {"model": "opus"}), answer)
    running.refuses("session/set_mode", code)
    assert answer.answers == [expected]
    assert running.methods() == ["session/set_mode"]


def test_a_value_that_is_no_text_and_no_switch_is_refused(running: Stage):
    answer = Told()
    running.dialogue.configure(Configuration(options={"model": {"a": 1}}), answer)
    assert answer.answers == ["invalid_message"]


def test_a_configuration_waits_for_the_agent_and_the_prompt_for_the_configuration(stage: Stage):
    answer = Told()
    stage.dialogue.configure(Configuration("code"), answer)
    assert stage.dialogue.wanted
    stage.ask()
    stage.begin()
    stage.greets()
    stage.opens()
    assert stage.methods()[2:] == ["session/set_mode"]
    stage.answers("session/set_mode", {})
    assert answer.answers == [None]
    assert stage.methods()[3:] == ["session/prompt"]


def test_a_restarted_agent_is_configured_again_as_far_as_it_takes_it(running: Stage):
    answer = Told()
    running.dialogue.configure(Configuration("code", {"model": "opus"}), answer)
    running.answers("session/set_mode", {})
    running.answers("session/set_config_option", {"configOptions": []})
    for taken in (["session/set_mode", "session/set_config_option"], ["session/set_config_option"]):
        running.dies()
        running.written.clear()
        running.ask("t2")
        running.begin()
        running.greets()
        running.opens()
        if "session/set_mode" in taken:
            running.refuses("session/set_mode", -32602)
        running.answers("session/set_config_option", {"configOptions": []})
        assert running.methods()[2:] == [*taken, "session/prompt"]
    assert answer.answers == [None]


def test_what_was_not_taken_before_the_agent_is_gone_never_will_be(stage: Stage):
    answers = [Told() for _ in range(20)]
    for answer in answers:
        stage.dialogue.configure(Configuration("code"), answer)
    assert [answer.answers for answer in answers[16:]] == [["overloaded"]] * 4
    stage.dialogue.end("it died")
    assert [answer.answers for answer in answers[:16]] == [["agent_unavailable"]] * 16
    stage.dialogue.close()
    assert len(answers[0].answers) == 1
