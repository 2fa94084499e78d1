"""The page at `/chat` in a real browser, against a real broker with real agents."""

import json
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

Message = dict[str, Any]

SCRIPTS = Path(__file__).parents[1] / "agents" / "acp" / "scripts"
STORY = "Once upon a time a message was sent, and this time the reply came, whole and once, to all who waited for it."
AGENTS = {
    "slow": {"kind": "echo", "delay": "60ms"},
    "pydantic": {"kind": "acp", "command": [sys.executable, str(SCRIPTS / "pydantic_agent.py")]},
    "clerk": {"kind": "acp", "command": [sys.executable, str(SCRIPTS / "sdk_agent.py")]},
}

pytestmark = pytest.mark.timeout(180)

Visit = Callable[..., Any]


def essence(records: list[Message]) -> list[tuple[Any, ...]]:
    """Return what must be the same whichever way a record was read."""
    return [(record["seq"], record["at"], record.get("turn_id"), record["data"]) for record in records]


def records_of(server: Any, session_id: str) -> list[Message]:
    """Return what the broker itself says the log of a session is."""
    page: dict[str, list[Message]] = server.get(f"/api/v1/sessions/{session_id}/records?limit=1000")
    return page["records"]


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A running broker."""
    return serve(agents=AGENTS, default_agent="slow")


def test_a_sent_message_is_answered_as_a_stream(visit: Visit) -> None:
    visitor = visit()
    visitor.say(STORY)
    streaming = visitor.page.locator(".message.streaming")
    expect(streaming).to_have_text(re.compile("^Once upon a time"))
    assert streaming.inner_text() != STORY
    visitor.see_end()
    expect(visitor.page.locator(".message")).to_have_text(STORY)
    expect(visitor.page.locator("footer.outcome")).to_have_text(re.compile(r"^Completed · \d"))
    assert [record["seq"] for record in visitor.records] == list(range(1, len(visitor.records) + 1))


def test_a_tab_that_reloads_in_mid_stream_has_the_records_of_one_that_never_left(visit: Visit, server: Any) -> None:
    restless = visit()
    restless.begin("slow")
    calm = visit(restless.page.url)
    restless.say(STORY)
    for word in ("upon", "message", "reply"):
        expect(restless.page.locator(".message")).to_contain_text(word)
        restless.page.reload()
    restless.see_end()
    calm.see_end()
    expect(restless.page.locator(".message")).to_have_text(STORY)
    assert restless.records == calm.records
    assert essence(calm.records) == essence(records_of(server, calm.session_id))
    assert calm.kinds.count("turn.ended") == 1


def test_a_real_agent_shows_its_tool_call_and_its_answer(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("pydantic")
    visitor.say("How is the weather?")
    visitor.see_end()
    tool = visitor.page.locator("details.tool")
    expect(tool).to_contain_text("completed")
    tool.locator("summary").click()
    expect(tool).to_contain_text("fine in a")
    expect(visitor.page.locator(".message").last).to_contain_text("The weather is fine today.")
    assert visitor.kinds.count("message.delta") >= 1


def test_an_agents_question_is_answered_with_a_button(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("clerk")
    visitor.say("this letter")
    expect(visitor.page.get_by_text("Waiting for your answer")).to_be_visible(timeout=30_000)
    visitor.page.get_by_role("button", name="File it").click()
    visitor.see_end()
    expect(visitor.page.locator(".approval")).to_contain_text("Answered “File it”")


def test_stop_ends_the_running_turn_and_the_next_one_goes_on(visit: Visit) -> None:
    visitor = visit()
    visitor.say(STORY)
    expect(visitor.page.locator(".message.streaming")).to_contain_text("Once")
    visitor.say("next")
    expect(visitor.waiting).to_contain_text(["next"])
    visitor.page.get_by_role("button", name="Stop").click()
    visitor.see_end("cancelled", turn=0)
    visitor.see_end("completed", turn=1)
    expect(visitor.page.locator("footer.outcome").first).to_contain_text("Cancelled by you. What you see is only part")


def test_two_tabs_meet_in_a_room(visit: Visit) -> None:
    one, other = visit(), visit()
    for visitor in (one, other):
        visitor.join("harbour")
    for visitor in (one, other):
        expect(visitor.page.locator("#members li")).to_have_count(2, timeout=15_000)
    one.page.get_by_label("Message to the room").fill("low water at six")
    one.page.keyboard.press("Enter")
    for visitor in (one, other):
        expect(visitor.page.locator("#events li")).to_contain_text(["low water at six"])
    other.page.reload()
    expect(other.page.locator("#events li")).to_contain_text(["low water at six"])


def test_what_people_write_is_never_markup(visit: Visit) -> None:
    visitor = visit()
    hostile = "<img src=/x onerror=alert(1)><script>alert(2)</script>"
    visitor.say(hostile)
    visitor.see_end()
    expect(visitor.page.locator(".bubble")).to_have_text(hostile)
    expect(visitor.page.locator(".message")).to_have_text(hostile)
    assert visitor.page.locator(".log img, .log script").count() == 0


def test_a_policy_forbids_everything_that_is_not_the_pages_own(visit: Visit, server: Any) -> None:
    with urlopen(server.url, timeout=5) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    visitor = visit()
    outcome = visitor.page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')")
    assert outcome == "refused"
    assert any("Content Security Policy" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_a_record_lost_on_the_way_is_asked_for_and_a_double_is_dropped(
    browsing: ModuleType, visit: Visit, server: Any
) -> None:
    lost: list[int] = []

    def lose_one_and_double_the_others(wire: Any, message: Message) -> list[Message]:
        if message.get("event") == "message.delta" and not lost:
            lost.append(message["seq"])
            return []
        return [message, message] if "seq" in message else [message]

    wire = browsing.Wire(lose_one_and_double_the_others)
    visitor = visit(wire=wire)
    visitor.say(STORY)
    visitor.see_end()
    assert essence(visitor.records) == essence(records_of(server, visitor.session_id))
    assert [payload["after_seq"] for payload in wire.payloads("session.attach")] == [0, lost[0] - 1]


def test_a_message_without_an_answer_is_sent_again_under_its_id(browsing: ModuleType, visit: Visit) -> None:
    cuts: list[str] = []

    def cut_before_the_answer(wire: Any, message: Message) -> list[Message]:
        starts = [asked["id"] for asked in wire.asked if asked["action"] == "turn.start"]
        if cuts or message.get("id") not in starts:
            return [message]
        cuts.append(message["id"])
        wire.cut(4002)
        return []

    wire = browsing.Wire(cut_before_the_answer)
    visitor = visit(wire=wire)
    visitor.say("once only")
    visitor.see_end()
    first, second = wire.payloads("turn.start")
    assert first == second
    assert visitor.kinds.count("user.message") == visitor.kinds.count("turn.ended") == 1


def test_two_messages_that_are_there_before_the_session_begin_one(browsing: ModuleType, visit: Visit) -> None:
    answers: list[Message] = []

    def keep_the_session_back(wire: Any, message: Message) -> list[Message]:
        creates = [asked["id"] for asked in wire.asked if asked["action"] == "session.create"]
        if message.get("id") not in creates:
            return [message]
        answers.append(message)
        return []

    wire = browsing.Wire(keep_the_session_back)
    visitor = visit(wire=wire)
    visitor.say("one")
    visitor.say("two")
    while not answers:
        visitor.page.evaluate("0")
    wire.page_side.send(json.dumps(answers[0]))
    visitor.see_end(turn=1)
    expect(visitor.page.locator(".bubble")).to_have_text(["one", "two"])
    assert len(wire.payloads("session.create")) == 1


def test_a_message_that_is_not_taken_goes_back_into_the_box_before_what_is_written_there(
    browsing: ModuleType, visit: Visit
) -> None:
    asked: list[str] = []

    def answer_nothing(_: Any, message: Message) -> list[Message]:
        if message["action"] != "session.create":
            return [message]
        asked.append(message["id"])
        return []

    wire = browsing.Wire(up=answer_nothing)
    visitor = visit(wire=wire)
    visitor.say("too early")
    box = visitor.page.get_by_label("Message", exact=True)
    box.fill("and more")
    while not asked:
        visitor.page.evaluate("0")
    error = {"code": "overloaded", "message": "There is too much to do.", "retryable": True}
    wire.page_side.send(json.dumps({"id": asked[0], "type": "error", "data": error}))
    expect(box).to_have_value("too early\nand more")
    expect(visitor.page.locator(".note")).to_have_text("There is too much to do.")


def test_a_reset_clears_the_page_and_shows_all_there_is(browsing: ModuleType, visit: Visit) -> None:
    def forget_the_epoch(wire: Any, message: Message) -> list[Message]:
        if message["action"] == "session.attach" and message["payload"]["after_seq"]:
            message["payload"]["epoch"] = "another"
        return [message]

    wire = browsing.Wire(up=forget_the_epoch)
    visitor = visit(wire=wire)
    visitor.say("one two three")
    visitor.see_end()
    before = visitor.records
    visitor.turn().evaluate("turn => (turn.dataset.before = 'the reset')")
    wire.cut(4002)
    expect(visitor.page.locator("[data-before]")).to_have_count(0, timeout=10_000)
    expect(visitor.page.locator(".log")).to_have_attribute("data-live", "true")
    assert visitor.records == before
    expect(visitor.page.locator(".log article.turn")).to_have_count(1)


def test_the_close_code_alone_decides_whether_the_page_comes_back(browsing: ModuleType, visit: Visit) -> None:
    wire = browsing.Wire()
    visitor = visit(wire=wire)
    wire.cut(4002)
    expect(visitor.page.locator("#connection-text")).to_have_text("Connected", timeout=10_000)
    wire.cut(4510)
    expect(visitor.page.locator("#connection-text")).to_have_text("Disconnected: an operator disconnected you")
    expect(visitor.trouble).to_contain_text("An operator disconnected you.")
    visitor.press("Connect now")
    expect(visitor.page.locator("#connection-text")).to_have_text("Connected", timeout=10_000)
    expect(visitor.trouble).to_be_hidden()


def test_after_kill_9_the_page_comes_back_and_says_that_the_turn_is_lost(visit: Visit, server: Any) -> None:
    visitor = visit()
    visitor.say(STORY)
    expect(visitor.page.locator(".message.streaming")).to_contain_text("Once")
    server.end(signal.SIGKILL)
    expect(visitor.page.locator("#connection-text")).to_contain_text("the connection broke")
    expect(visitor.trouble).to_contain_text("The connection broke. What you write stays here until the broker is back.")
    visitor.say("two words")
    expect(visitor.page.locator(".unsent")).to_contain_text("Waiting for the connection")
    server.start()
    visitor.see_end("lost")
    visitor.see_outcome("What you see is only part of an answer.")
    visitor.see_end(turn=1)
    assert essence(visitor.records) == essence(records_of(server, visitor.session_id))
    visitor.complaints = [text for text in visitor.complaints if "WebSocket connection to" not in text]


def test_a_deleted_session_is_gone_from_the_list(visit: Visit) -> None:
    visitor = visit()
    visitor.begin("slow")
    entry = visitor.page.locator(f'#session-list a[data-session="{visitor.session_id}"]')
    expect(entry).to_be_visible()
    visitor.page.get_by_role("button", name="Delete").click()
    visitor.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(entry).to_have_count(0)
    expect(visitor.page.get_by_text("Say something to your agent")).to_be_visible()


def test_the_page_fits_a_telephone(visit: Visit) -> None:
    visitor = visit(viewport={"width": 360, "height": 740})
    visitor.say("w" * 300)
    visitor.see_end()
    for panel in ("Sessions", "Records", "Room", "Chat"):
        visitor.page.locator(".panels").get_by_role("button", name=panel).click()
        assert visitor.overflowing == []
    expect(visitor.page.locator(".message")).to_be_visible()
