"""What the person at the page sees of a turn: questions, stops, the queue, ends in words, and where it went."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from playwright.sync_api import expect
from websockets.sync.client import connect

Message = dict[str, Any]
Visit = Callable[..., Any]
Together = Callable[..., tuple[Any, Any]]

ASKING = Path(__file__).with_name("scripts") / "asking.py"
NAMES = '''
from broker.hooks import Handshake, Plugin, Principal


class Names(Plugin):
    """Believes whoever says who they are."""

    def on_handshake(self, handshake: Handshake):
        user = handshake.headers.get("Cookie", "").partition("user=")[2]
        return Principal(user=user, scopes=frozenset({"api"})) if user else None
'''
AGENTS = {
    "play": {"kind": "echo", "faults": True},
    "hasty": {"kind": "echo", "faults": True, "deadlines": {"stalled": "300ms", "idle": "1500ms", "approval": "1s"}},
    "asking": {"kind": "acp", "command": [sys.executable, str(ASKING)]},
    "absent": {"kind": "worker"},
}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A running broker that knows people by a cookie."""
    return serve({"plugins/names.py": NAMES}, agents=AGENTS, default_agent="play", plugins={"names": {}})


@pytest.fixture
def together(server: Any, visit: Visit) -> Together:
    """Open a session of Ann's with an agent in her tab, and in the tab of Bob, who has a role in it."""

    def begin(agent: str = "play", role: str = "member", **options: Any) -> tuple[Any, Any]:
        ann = visit(user="ann")
        ann.begin(agent)
        cookie = {"Cookie": "user=ann"}
        payload = {"session_id": ann.session_id, "user": "bob", "role": role}
        with connect(f"ws://127.0.0.1:{server.port}/ws", additional_headers=cookie) as socket:
            socket.recv(timeout=10)
            socket.send(json.dumps({"id": "1", "type": "request", "action": "session.share", "payload": payload}))
            answer = json.loads(socket.recv(timeout=10))
        assert answer["type"] == "response", answer
        return ann, visit(ann.page.url, user="bob", **options)

    return begin


# -- questions --------------------------------------------------------------------------------------


def test_an_open_question_survives_a_reload_and_the_other_tab_sees_who_answered(together: Together) -> None:
    ann, bob = together()
    ann.say("/ask hello there")
    expect(ann.card).to_contain_text("hello there")
    ann.page.reload()
    expect(ann.card).to_have_count(1)
    expect(ann.card).to_contain_text("Open until")
    ann.card.get_by_role("button", name="Allow").click()
    expect(ann.card).to_contain_text("Answered “Allow” by you")
    expect(ann.card).to_be_focused()
    expect(bob.card).to_contain_text("Answered “Allow” by ann")
    for visitor in (ann, bob):
        visitor.see_end()
        expect(visitor.page.locator(".message")).to_have_text("hello there")
        expect(visitor.card.get_by_role("button")).to_have_count(0)


def test_a_tab_that_does_not_know_of_the_answer_is_told_when_it_answers_again(
    browsing: ModuleType, together: Together
) -> None:
    def keep_the_answer_back(_: Any, message: Message) -> list[Message]:
        return [] if message.get("event") == "approval.resolved" or message.get("seq", 0) > 5 else [message]

    ann, bob = together(wire=browsing.Wire(keep_the_answer_back))
    ann.say("/ask hello there")
    expect(bob.card.get_by_role("button")).to_have_count(2)
    ann.card.get_by_role("button", name="Reject").click()
    expect(ann.card).to_contain_text("Answered “Reject” by you")
    bob.card.get_by_role("button", name="Allow").click()
    expect(bob.card.get_by_role("alert")).to_contain_text(re.compile("answered.*ann"))
    ann.see_end()
    assert ann.kinds.count("approval.resolved") == 1


def test_a_question_is_shown_although_the_log_no_longer_says_that_it_was_asked(
    browsing: ModuleType, visit: Visit
) -> None:
    def forget_the_question(_: Any, message: Message) -> list[Message]:
        return [{**message, "event": "debug"} if message.get("event") == "approval.requested" else message]

    visitor = visit()
    visitor.begin("play")
    visitor.say("/ask hello there")
    expect(visitor.card).to_have_count(1)
    late = visit(visitor.page.url, wire=browsing.Wire(forget_the_question))
    late.see_running("Waiting for your answer")
    late.card.get_by_role("button", name="Allow").click()
    late.see_end()
    visitor.see_end()


def test_two_questions_are_open_at_once_and_each_has_its_answer(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("asking")
    visitor.say("shall we?")
    visitor.see_running("Waiting for your answers to 2 questions")
    bell = visitor.page.get_by_role("region", name="Question: Ring the bell")
    bell.get_by_role("button", name="No").click()
    visitor.see_running("Waiting for your answer")
    door = visitor.page.get_by_role("region", name="Question: Open the door")
    door.get_by_role("button", name="Yes").press("Enter")
    visitor.see_end()
    expect(visitor.page.locator(".message")).to_have_text("door: yes, bell: no")


def test_a_question_that_nobody_answers_expires(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("hasty")
    visitor.say("/ask hello there")
    expect(visitor.card).to_contain_text("Expired: nobody answered in time", timeout=15_000)
    visitor.see_outcome("Timed out: nobody answered the agent's question within 1 s")


def test_who_may_only_watch_is_told_so_in_words(together: Together) -> None:
    ann, bob = together(role="viewer")
    ann.say("/ask hello there")
    bob.card.get_by_role("button", name="Allow").click()
    expect(bob.card.get_by_role("alert")).not_to_be_empty()
    bob.press("Stop")
    expect(bob.page.locator(".note")).to_be_visible()
    bob.say("me too")
    expect(bob.page.locator(".unsent")).to_contain_text("Not accepted: ")
    ann.card.get_by_role("button", name="Allow").click()
    ann.see_end()
    bob.see_end()
    assert ann.kinds.count("user.message") == ann.kinds.count("turn.ended") == 1


# -- stops ------------------------------------------------------------------------------------------


def test_a_stop_is_seen_at_once_in_the_other_tab_with_who_and_how_it_ended(together: Together) -> None:
    ann, bob = together()
    ann.say("/stubborn no")
    expect(bob.page.locator(".message.streaming")).to_contain_text("no no")
    bob.press("Stop")
    bob.see_running("Stopping: asked for by you")
    ann.see_running("Stopping: asked for by bob")
    ann.see_outcome("Cancelled by bob; the agent went on for 2 s and was cut off")
    bob.see_outcome("Cancelled by you; the agent went on for 2 s and was cut off")
    expect(bob.page.get_by_label("Message", exact=True)).to_be_focused()


def test_tabs_without_names_tell_each_other_apart(visit: Visit) -> None:
    one = visit()
    one.begin("play")
    other = visit(one.page.url)
    one.say("/silence after 1 hm")
    expect(other.page.locator(".message.streaming")).to_have_text("hm")
    one.press("Stop")
    one.see_outcome("Cancelled by you.")
    other.see_outcome("Cancelled in another tab.")


# -- the queue ----------------------------------------------------------------------------------------


def test_the_queue_is_in_step_in_all_tabs_and_changed_by_who_sent_it(together: Together) -> None:
    ann, bob = together()
    ann.say("/silence")
    ann.see_running("Working")
    ann.say("first thought")
    expect(ann.waiting).to_have_count(1)
    bob.say("not now")
    for visitor in (ann, bob):
        expect(visitor.waiting).to_contain_text(["first thought", "not now"])
    expect(bob.waiting.first.get_by_role("button")).to_have_count(0)
    ann.press("Edit")
    ann.page.get_by_label("Waiting message").fill("second thought")
    ann.page.keyboard.press("Enter")
    for visitor in (ann, bob):
        expect(visitor.waiting.first).to_contain_text("second thought")
    bob.press("Remove")
    for visitor in (ann, bob):
        expect(visitor.waiting).to_have_count(1)
    expect(bob.page.get_by_label("Message", exact=True)).to_be_focused()
    ann.press("Stop")
    for visitor in (ann, bob):
        visitor.see_end(turn=2)
        expect(visitor.turn(2).locator(".bubble")).to_have_text("second thought")
        expect(visitor.turn(2).locator(".message")).to_have_text("second thought")
        expect(visitor.waiting).to_have_count(0)
    ann.see_outcome("Taken back by bob before it began", turn=1)


def test_a_change_that_comes_too_late_is_not_thrown_away(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("play")
    visitor.say("/silence")
    visitor.see_running("Working")
    visitor.say("first thought")
    visitor.press("Edit")
    visitor.page.get_by_label("Waiting message").fill("second thought")
    visitor.press("Stop")
    visitor.see_end(turn=1)
    expect(visitor.page.get_by_label("Message", exact=True)).to_have_value("second thought")


def test_a_message_for_which_there_is_no_agent_says_so(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("absent")
    visitor.say("is anybody there?")
    expect(visitor.page.get_by_role("region", name="Queue")).to_contain_text("Waiting for an agent to take it · 1")
    visitor.press("Where is it?")
    expect(visitor.page.get_by_role("dialog")).to_contain_text("there is no agent that could take it")
    visitor.page.keyboard.press("Escape")
    visitor.press("Remove")
    visitor.see_outcome("Taken back by you before it began")


def test_a_message_that_comes_too_early_can_be_sent_again_when_the_broker_says(
    browsing: ModuleType, visit: Visit
) -> None:
    def be_overloaded(wire: Any, message: Message) -> list[Message]:
        if message["action"] != "turn.start" or len(wire.payloads("turn.start")) > 1:
            return [message]
        error = {"code": "overloaded", "message": "There is too much to do.", "retryable": True, "retry_after": 2}
        wire.page_side.send(json.dumps({"id": message["id"], "type": "error", "data": error}))
        return []

    wire = browsing.Wire(up=be_overloaded)
    visitor = visit(wire=wire)
    visitor.say("me first")
    unsent = visitor.page.locator(".unsent")
    expect(unsent).to_contain_text("Not accepted: There is too much to do.")
    again = unsent.get_by_role("button", name="Send again")
    expect(again).to_have_text(re.compile("^Send again in [12] s$"))
    expect(again).to_be_disabled()
    expect(again).to_have_text("Send again")
    again.click()
    visitor.see_end()
    first, second = wire.payloads("turn.start")
    assert first == second


# -- ends ---------------------------------------------------------------------------------------------


def test_a_killed_agent_is_a_lost_turn_that_can_be_tried_again(server: Any, visit: Visit) -> None:
    visitor = visit()
    visitor.begin("asking")
    visitor.say("shall we?")
    expect(visitor.card).to_have_count(2)
    for child in psutil.Process(server.process.pid).children():
        child.kill()
    visitor.see_outcome("what it did is unknown")
    visitor.see_end("lost")
    expect(visitor.card).to_contain_text(["No longer open"] * 2)
    visitor.press("Try again")
    expect(visitor.page.get_by_role("button", name="Try again")).to_have_count(0)
    expect(visitor.turn(1).locator(".author")).to_contain_text("tried again")
    answers = visitor.turn(1).get_by_role("button", name="Yes")
    for left in (2, 1):
        expect(answers).to_have_count(left)
        answers.first.click()
    visitor.see_end(turn=1)
    expect(visitor.turn(1).locator(".message")).to_have_text("door: yes, bell: yes")
    first, second = [record for record in visitor.records if record["event"] == "user.message"]
    assert second["data"]["retry_of"] == first["turn_id"]
    assert second["data"]["client_msg_id"] != first["data"]["client_msg_id"]


def test_silence_is_said_before_it_is_too_long(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("hasty")
    visitor.say("/silence after 2 well well well")
    visitor.see_running("The agent has been silent for 0.3 s and longer")
    expect(visitor.turn().get_by_role("button", name="Where did it go?")).to_be_visible()
    visitor.see_outcome("Timed out: the agent said nothing for 1.5 s. What you see is only part of an answer.")


def test_ends_are_told_in_words(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("play")
    visitor.say("/fail The well is dry.")
    visitor.see_outcome("Failed: The well is dry. Nothing was produced.", turn=0)
    visitor.say("/double")
    visitor.see_outcome("Completed, but the agent said nothing", turn=1)
    visitor.say("/garbage hello")
    visitor.see_outcome("Completed", turn=2)
    expect(visitor.turn(2).locator(".message")).to_have_text("hello")
    late = visitor.turn(2).locator(".activity")
    late.locator("summary").click()
    expect(late).to_contain_text("late text")


def test_a_message_that_its_agent_takes_back_is_shown_as_it_is_now(browsing: ModuleType, visit: Visit) -> None:
    def take_the_second_back(_: Any, message: Message) -> list[Message]:
        data = message.get("data", {})
        if message.get("event") == "message.completed":
            return [{**message, "event": "debug"}]
        if message.get("event") != "message.delta" or data["text"].strip() != "two":
            return [message]
        replaced = {"message_id": data["message_id"], "role": data["role"], "content": "not one but two "}
        return [{**message, "event": "message.replaced", "data": replaced}]

    visitor = visit(wire=browsing.Wire(take_the_second_back))
    visitor.begin("play")
    visitor.say("/delay 200ms one two three")
    visitor.see_end()
    expect(visitor.page.locator(".message")).to_have_text("not one but two three")


def test_where_it_went_is_shown_step_by_step(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("play")
    visitor.say("/crash after 1 half an answer")
    visitor.see_end("lost")
    visitor.press("Where did it go?")
    panel = visitor.page.get_by_role("dialog", name="Where it went")
    expect(panel).to_contain_text("It has ended: lost")
    expect(panel.locator("tbody tr").nth(1)).to_be_visible()
    expect(panel.locator("tbody")).to_contain_text(re.compile("accepted.*lost", re.DOTALL))
    visitor.page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(visitor.page.get_by_role("button", name="Where did it go?")).to_be_focused()


def test_what_the_broker_has_forgotten_is_said_to_be_forgotten(visit: Visit, browsing: ModuleType) -> None:
    def of_old(_: Any, message: Message) -> list[Message]:
        if message["action"] == "trace":
            message["payload"]["id"] += "-of-old"
        return [message]

    visitor = visit(wire=browsing.Wire(up=of_old))
    visitor.begin("play")
    visitor.say("/fail")
    visitor.see_end("failed")
    visitor.press("Where did it go?")
    expect(visitor.page.get_by_role("dialog").get_by_role("alert")).to_contain_text("newest")


# -- the agent ----------------------------------------------------------------------------------------


def test_an_agent_that_started_anew_is_said_to_have_forgotten(server: Any, visit: Visit) -> None:
    visitor = visit()
    visitor.begin("asking")
    visitor.say("shall we?")
    expect(visitor.page.locator(".agent-state")).to_have_text("asking 1.0")
    expect(visitor.card).to_have_count(2)
    for child in psutil.Process(server.process.pid).children():
        child.kill()
    visitor.see_end("lost")
    visitor.press("Try again")
    forgotten = "The agent started anew; it does not remember what was said before"
    expect(visitor.page.locator(".agent-state")).to_have_text(forgotten)
    expect(visitor.turn(1).locator(".note")).to_have_text(forgotten)


def test_modes_and_options_are_set_for_everybody_and_a_refusal_is_told(together: Together) -> None:
    ann, bob = together("asking")
    ann.say("shall we?")
    for visitor in (ann, bob):
        expect(visitor.page.get_by_label("Mode")).to_have_value("Ask first")
    ann.page.get_by_label("Mode").select_option("Just act")
    expect(bob.page.get_by_label("Mode")).to_have_value("Just act")
    ann.page.get_by_label("Voice").select_option("Loud")
    expect(ann.page.locator(".agent .refusal")).to_contain_text("The neighbours are asleep")
    expect(ann.page.get_by_label("Voice")).to_have_value("Low")
    ann.press("Stop")
    ann.see_end("cancelled")
    expect(ann.card).to_contain_text(["Withdrawn, because the turn was stopped"] * 2)


def test_it_all_fits_a_telephone(visit: Visit) -> None:
    visitor = visit(viewport={"width": 360, "height": 740})
    visitor.say("/ask " + "w" * 150)
    expect(visitor.card).to_be_visible()
    visitor.say("q" * 150)
    expect(visitor.waiting).to_have_count(1)
    visitor.press("Edit")
    assert visitor.overflowing == []
    visitor.press("Stop")
    visitor.see_end("cancelled")
