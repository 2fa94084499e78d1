"""The console's panels in which people work: sessions, rooms, traces, token streams and the test client."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from typing import Any, Final
from urllib.request import Request, urlopen

import jwt
import pytest
from playwright.sync_api import Locator, Page, expect
from websockets.sync.client import connect

Console = Callable[..., Page]
Ask = Callable[..., Any]

KEY: Final = "a-secret-of-the-test-that-is-long-enough"
TIMED_OUT: Final = 28
"""What curl ends with when it was told to listen for so long."""
HOSTILE: Final = "<img src=x onerror=alert(1)>"
DASH: Final = "\N{EN DASH}"
VARIABLES: Final = {"language": "en", "cart": {"items": [1, 2], "total": 12.5}}

pytestmark = pytest.mark.timeout(120)


def token(user: str, *scopes: str) -> str:
    """Return what a user shows."""
    now = int(time.time())
    claims = {"iss": "actor-broker", "aud": "actor-broker", "sub": user, "iat": now, "exp": now + 600, "scopes": scopes}
    return jwt.encode(claims, KEY, algorithm="HS256")


ROOT: Final = token("root", "api", "admin")


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A broker that asks who somebody is, and whose agent does what it is told."""
    auth = {"mode": "jwt", "keys": [{"algorithm": "HS256", "secret": KEY}]}
    return serve(agents={"play": {"kind": "echo", "faults": True}}, default_agent="play", plugins={"auth": auth})


@pytest.fixture
def ask(server: Any) -> Iterator[Ask]:
    """Ask the broker something over a socket of root's, or of who shows another token."""
    with ExitStack() as stack:
        sockets: dict[str, Any] = {}

        def asked(action: str, shown: str = ROOT, **payload: Any) -> Any:
            if shown not in sockets:
                offer: Any = ["broker.v1.json", f"bearer.{shown}"]
                sockets[shown] = stack.enter_context(
                    connect(f"ws://127.0.0.1:{server.port}/ws", subprotocols=offer, max_size=None)
                )
            sockets[shown].send(json.dumps({"id": "1", "type": "request", "action": action, "payload": payload}))
            while (answer := json.loads(sockets[shown].recv(timeout=20))).get("id") != "1":
                pass
            assert answer["type"] == "response", answer
            return answer["data"]

        yield asked


@pytest.fixture
def console(tabs: Any) -> Iterator[Console]:
    """Open a panel; no tab may complain of anything."""

    def open_panel(fragment: str, shown: str = ROOT, **options: bool) -> Page:
        page: Page = tabs.open(fragment, shown, **options)
        return page

    yield open_panel
    tabs.rest()


def get(server: Any, path: str) -> Any:
    with urlopen(Request(f"{server.url}api/v1/{path}", headers={"Authorization": f"Bearer {ROOT}"}), timeout=10) as a:
        return json.load(a)


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def turn_row(page: Page, text: str) -> Locator:
    return card(page, "Turns").locator("tr[data-turn]").filter(has_text=text)


def test_where_there_are_no_alerts_nobody_is_asked_for_them(console: Console) -> None:
    page = console("panel=overview")
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    page.reload()
    expect(page.locator(".alerts")).to_contain_text("Alerts are off")
    assert refused == []


# -- sessions -----------------------------------------------------------------------------------------


def test_a_session_is_found_and_its_turns_and_variables_are_shown_as_they_change(console: Console, ask: Ask) -> None:
    ask("session.create", session_id="shop", title="Order 4711", variables=VARIABLES)
    ask("session.create", session_id="other", title="Something else")
    page = console("panel=sessions")
    page.get_by_label("Filter Sessions").fill("order 4711")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Order 4711").click()
    ask("turn.start", session_id="shop", client_msg_id="m1", content="two words")
    bar = turn_row(page, "two words").get_by_role("img")
    expect(bar).to_have_attribute("aria-label", re.compile(r"Starting [\d.]+ ms, .*then Completed$"))
    assert bar.locator("rect.tone-completed").count() == 1

    change = {"cart": {"items": [1, 2, 3], "total": 13}, "language": None, "express": True}
    ask("session.update", session_id="shop", variables=change)
    variables = card(page, "Variables")
    newest = variables.locator("details.snapshot").first
    expect(newest.locator("summary")).to_contain_text("root · 2 added, 1 changed, 1 removed")
    newest.locator("summary").click()
    rows = newest.locator("tbody tr").evaluate_all("rows => rows.map(r => [...r.cells].map(c => c.textContent))")
    assert sorted([word.split()[-1], *cells] for word, *cells in rows) == [
        ["added", "cart.items[2]", DASH, "3"],
        ["added", "express", DASH, "true"],
        ["changed", "cart.total", "12.5", "13"],
        ["removed", "language", '"en"', DASH],
    ]
    ask("session.update", session_id="shop", variables={"cart": VARIABLES["cart"], "language": "en", "express": None})
    expect(variables.locator("details.snapshot")).to_have_count(3)
    variables.get_by_label("Compare each with").select_option("1")
    expect(variables.locator("details.snapshot summary").first).to_contain_text("nothing changed")


def test_records_come_live_are_filtered_by_kind_and_unfold(console: Console, ask: Ask) -> None:
    ask("session.create", session_id="log")
    page = console("panel=sessions&session=log")
    records = card(page, "Records")
    expect(records.locator("details.record")).to_have_count(1)
    ask("turn.start", session_id="log", client_msg_id="m1", content="one two three")
    expect(records.locator("details.record .kind")).to_have_text(
        ["session.opened", "user.message", "turn.started", "message.completed", "turn.ended"]
    )
    records.get_by_role("button", name=re.compile(r"^message\.delta \d")).click()
    seqs = records.locator("details.record .seq").all_inner_texts()
    assert seqs == [str(seq + 1) for seq in range(len(seqs))]
    assert "message.delta" in records.locator("details.record .kind").all_inner_texts()
    said = records.locator("details.record").filter(has_text="user.message")
    said.locator("summary").press("Enter")
    assert json.loads(said.locator("pre").inner_text())["data"]["content"] == "one two three"
    page.reload()
    expect(records.get_by_role("button", name=re.compile(r"^message\.delta \d"))).to_have_attribute(
        "aria-pressed", "true"
    )


def test_a_question_is_answered_and_turns_are_stopped_from_the_console(console: Console, ask: Ask) -> None:
    ask("session.create", session_id="asks")
    page = console("panel=sessions&session=asks")
    ask("turn.start", session_id="asks", client_msg_id="m1", content="/ask words")
    ask("turn.start", session_id="asks", client_msg_id="m2", content="/silence")
    ask("turn.start", session_id="asks", client_msg_id="m3", content="a third")
    question = page.get_by_role("region", name=re.compile("^Question: May I"))
    expect(question).to_be_visible()
    expect(turn_row(page, "/ask words").locator(".state")).to_contain_text("Waiting for an answer")
    waiting = card(page, "Queue").locator("li")
    expect(waiting).to_contain_text(["/silence", "a third"])
    question.get_by_role("button", name="Allow").click()
    expect(question).to_have_count(0)
    expect(turn_row(page, "/ask words").locator(".state")).to_contain_text("Completed")
    answered = turn_row(page, "/ask words").get_by_role("img")
    expect(answered).to_have_attribute("aria-label", re.compile(r"Waiting for an answer .*Running"))

    expect(waiting).to_contain_text(["a third"])
    waiting.get_by_role("button", name="Stop").click()
    expect(turn_row(page, "a third").locator(".state")).to_contain_text("Cancelled")
    turn_row(page, "/silence").get_by_role("button", name=re.compile("^Stop turn")).click()
    expect(turn_row(page, "/silence").locator(".state")).to_contain_text("Cancelled")
    expect(turn_row(page, "/silence").get_by_role("button")).to_be_hidden()


def test_without_the_scope_admin_there_is_nothing_to_press_but_what_is_ones_own(console: Console, ask: Ask) -> None:
    reader = token("reader", "api")
    ask("session.create", reader, session_id="mine")
    turn = ask("turn.start", reader, session_id="mine", client_msg_id="m1", content="/ask something")
    page = console("panel=sessions&session=mine", reader)
    expect(page.get_by_role("region", name=re.compile("^Question")).get_by_role("button", name="Allow")).to_be_visible()
    expect(turn_row(page, "/ask")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Stop"))).to_have_count(0)
    ask("room.publish", room="hall", data=1)
    page.goto(page.url.split("#")[0] + "#panel=rooms&room=hall")
    expect(card(page, "Events").locator("details")).to_have_count(1)
    expect(page.get_by_role("button", name="Send")).to_have_count(0)
    ask("turn.cancel", reader, session_id="mine", turn_id=turn["turn_id"])


@pytest.mark.parametrize("has_socket", [True, False])
def test_a_session_that_is_deleted_is_said_to_be_gone_and_made_anew_it_is_another(
    console: Console, ask: Ask, server: Any, *, has_socket: bool
) -> None:
    session = f"again-{has_socket}"
    ask("session.create", session_id=session)
    page = console("", is_fresh=True)
    if not has_socket:  # then the log is asked for again and again
        page.route_web_socket(re.compile("/ws$"), lambda socket: socket.close())
    page.goto(f"{server.url}#panel=sessions&session={session}")
    expect(page.locator("#connection-text")).to_have_text("Connected" if has_socket else re.compile("^Reconnecting"))
    ask("turn.start", session_id=session, client_msg_id="m1", content="before")
    expect(turn_row(page, "before").locator(".state")).to_contain_text("Completed")
    ask("session.update", session_id=session, variables={"city": "Oslo"})
    expect(card(page, "Variables").locator("details.snapshot")).to_have_count(2)
    ask("session.delete", session_id=session)
    expect(page.locator("#stale")).to_contain_text("There is no such session.")
    ask("session.create", session_id=session, variables={"city": "Rome"})
    ask("turn.start", session_id=session, client_msg_id="m2", content="after")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(turn_row(page, "after").locator(".state")).to_contain_text("Completed")
    expect(turn_row(page, "before")).to_have_count(0)
    expect(page.locator("#stale")).to_be_hidden()
    expect(card(page, "Records").locator(".seq").first).to_have_text("1")
    expect(card(page, "Variables").locator("details.snapshot")).to_have_count(1)


# -- rooms --------------------------------------------------------------------------------------------


def test_a_room_shows_its_members_and_events_and_takes_one(console: Console, ask: Ask) -> None:
    ask("room.publish", room="harbour", event="tide", data={"height": HOSTILE})
    ask("room.join", room="harbour")
    page = console("panel=rooms")
    page.get_by_role("link", name="harbour").click()
    events = card(page, "Events").locator("details.record")
    expect(events).to_have_count(1)
    expect(events.first).to_contain_text(f'tideroot: {{"height":"{HOSTILE}"}}')
    expect(card(page, "Members").locator("li")).to_have_count(1)
    page.get_by_label("Event", exact=True).fill("call")
    page.get_by_label("Data").fill(HOSTILE)
    expect(page.get_by_text("Sent as text.")).to_be_visible()
    page.get_by_label("Data").fill('{"n": 1}')
    expect(page.get_by_text("Sent as JSON.")).to_be_visible()
    page.get_by_role("button", name="Send", exact=True).click()
    expect(events.last).to_contain_text('callroot: {"n":1}')
    expect(card(page, "Rate").get_by_role("img")).to_have_attribute("aria-label", re.compile("highest 0.[24]"))
    page.get_by_role("button", name="Watch it live").click()
    expect(page.get_by_text("Watched live")).to_be_visible()
    ask("room.publish", room="harbour", data="at once")
    expect(events.last).to_contain_text("at once")
    assert len(ask("room.presence", room="harbour")["members"]) == 2
    page.get_by_role("link", name="Trace").click()
    expect(page.get_by_role("heading", name="Trace")).to_be_visible()
    deadline = time.monotonic() + 10
    while len(ask("room.presence", room="harbour")["members"]) == 2:
        assert time.monotonic() < deadline, "the panel was left, and is a member still"
    assert page.locator("img[onerror]").count() == 0


# -- traces and streams -------------------------------------------------------------------------------


def test_a_trace_is_found_by_what_was_pasted_and_says_where_time_went(console: Console, ask: Ask, server: Any) -> None:
    ask("session.create", session_id="traced")
    turn = ask("turn.start", session_id="traced", client_msg_id="order-7", content="/delay 300ms slow")
    page = console("panel=trace")
    page.get_by_label("Id", exact=True).fill(json.dumps({"code": "timeout", "turn_id": turn["turn_id"]}))
    page.keyboard.press("Enter")
    expect(card(page, "Where it is").locator(".verdict")).to_contain_text("It has ended")
    steps = card(page, "Steps").locator("tbody tr")
    told = get(server, "trace/order-7")["steps"]
    assert steps.count() == len(told)
    assert [row.locator("td").nth(3).inner_text() for row in steps.all()] == [step["what"] for step in told]
    longest = steps.filter(has_text="the longest")
    expect(longest).to_have_count(1)
    expect(longest.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"^taken: [\d.]+ m?s"))
    page.get_by_role("link", name="Token stream", exact=True).last.click()
    expect(page.get_by_role("region", name="Text").last).to_contain_text("slow")
    page.goto(page.url.split("#")[0] + "#panel=trace&id=nobody-knows")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Nothing is remembered under that id.")


def test_a_stream_grows_with_its_silences_marked_and_its_numbers_checked(
    console: Console, ask: Ask, server: Any
) -> None:
    ask("session.create", session_id="slow")
    page = console("panel=stream&session=slow")
    page.get_by_text("This session has no turn yet.").wait_for()
    turn = ask("turn.start", session_id="slow", client_msg_id="m1", content=f"/delay 250ms one two {HOSTILE} four")
    page.goto(f"{page.url.split('#')[0]}#panel=stream&session=slow&turn={turn['turn_id']}")
    text = card(page, "Text").locator(".flow")
    expect(text).to_contain_text("one")
    assert "four" not in text.inner_text()
    page.get_by_label("Mark silences from").fill("0.2")
    expect(text).to_contain_text("four")
    expect(page.locator(".badge")).to_have_text("Completed")
    assert "".join(
        text.locator("p.piece").evaluate("p => [...p.childNodes].filter(n => n.nodeType === 3).map(n => n.data)")
    ) == (f"one two {HOSTILE} four")
    gaps = card(page, "Silences").locator("ol.gaps li")
    told = get(server, f"sessions/slow/turns/{turn['turn_id']}")["records"]
    times = [datetime.fromisoformat(one["at"]) for one in told if one["event"] in {"turn.started", "message.delta"}]
    silences = sum((after - before).total_seconds() >= 0.2 for before, after in pairwise(times))
    assert gaps.count() == text.locator("mark").count() == silences > 0
    expect(gaps.first).to_contain_text(re.compile(r"^[\d.]+ m?s before the first delta$"))
    gaps.last.get_by_role("button").click()
    expect(text.locator("mark").last).to_be_focused()
    expect(card(page, "Order")).to_contain_text(
        re.compile(r"Records № \d+ to \d+, \d+ of this turn\. None out of order\. None missing\.")
    )
    page.get_by_label("Mark silences from").fill("30")
    expect(text.locator("mark")).to_have_count(0)
    expect(page.get_by_text("First token after")).to_be_visible()
    turn = ask("turn.start", session_id="slow", client_msg_id="m2", content="/silence")
    page.goto(f"{page.url.split('#')[0]}#panel=stream&session=slow&turn={turn['turn_id']}")
    page.get_by_role("button", name="Stop").press("Enter")
    expect(page.locator(".badge")).to_contain_text("Cancelled")
    expect(page.get_by_role("heading", name="Token stream")).to_be_focused()


def test_what_is_out_of_order_missing_or_different_is_seen(console: Console) -> None:
    page = console("panel=trace")
    found = page.evaluate(
        """async () => {
            const { Pace, holes } = await import("./static/console/lib/pace.js");
            const { differences } = await import("./static/console/lib/diff.js");
            const at = (ms) => new Date(1e12 + ms).toISOString();
            const pace = new Pace();
            const said = (seq, ms, event, data = {}) => pace.take({ seq, at: at(ms), event, data });
            said(1, 0, "turn.started");
            said(2, 100, "message.delta", { text: "a" });
            said(4, 1400, "message.delta", { text: "b" });
            said(3, 1450, "approval.requested", { approval_id: "q" });
            said(5, 9450, "approval.resolved", { approval_id: "q" });
            said(6, 9500, "message.delta", { text: "c" });
            said(9, 9600, "debug", { missing: [4, 6] });
            const gaps = pace.gaps(1).map(({ seq, gap, asked }) => [seq, gap, asked]);
            const odd = differences({ constructor: 1, a: null, "x y": [] }, { a: {}, "x y": {}, toString: 1 });
            const { idIn } = await import("./static/console/panels/trace.js");
            const pasted = ['{"code": "internal", "hint": "trace 01a1-b"}', " m1 ", "turn_id=t-9, id=4", "of no kind"];
            const kinds = odd.map(({ path, kind }) => [path, kind]);
            return [pace.disorder, pace.missing, gaps, pace.perSecond, holes(pace.seqs, [8]), kinds, pasted.map(idIn)];
        }"""
    )
    assert found == [
        [{"seq": 3, "after": 4}],
        [[4, 6]],
        [[4, 1.3, False], [6, 8.1, True]],
        [1, 1, 0, 0, 0, 0, 0, 0, 0, 1],
        [[7, 7]],
        [["constructor", "removed"], ["a", "changed"], ['["x y"]', "changed"], ["toString", "added"]],
        ["01a1-b", "m1", "t-9", "of no kind"],
    ]


# -- the test client ----------------------------------------------------------------------------------


def choose(page: Page, template: str) -> None:
    page.get_by_label("Search the templates").fill(template)
    page.locator("button.template").first.click()


def send(page: Page) -> None:
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_text(re.compile("nswered after"))).to_be_visible()


def copied(page: Page, language: str) -> str:
    page.get_by_role("button", name=language, exact=True).click()
    return page.locator("pre.snippet").inner_text()


def test_requests_are_sent_kept_without_tokens_and_replayed(console: Console, server: Any) -> None:
    page = console("panel=client")
    choose(page, "session.create")
    page.get_by_label("Payload").fill('{"title": "Replayed"')
    expect(page.locator("#payload-fault")).to_contain_text("This is not JSON")
    page.get_by_label("Payload").fill('{"titel": "Replayed"}')
    expect(page.locator("#payload-fault")).to_contain_text("This action knows no titel; it takes")
    page.get_by_label("Payload").fill(json.dumps({"title": "Replayed", "variables": {"note": ROOT}}))
    send(page)
    choose(page, "turn.start")
    expect(page.get_by_label("Payload")).to_have_value(re.compile(r"\$last\.session_id"))
    send(page)
    frames = card(page, "Transcript")
    expect(frames.locator(".kind").filter(has_text="turn.ended")).to_be_visible()
    expect(frames.locator("li").filter(has_text="response").first).to_contain_text(" ms")
    choose(page, "auth")
    send(page)
    page.get_by_label("Name of what is kept").fill("tour")
    page.get_by_role("button", name="Save all I have sent").click()
    for details in frames.locator("details").all():
        details.locator("summary").click()
    assert ROOT not in page.content()
    assert "$TOKEN" in frames.inner_text()
    assert ROOT not in page.evaluate("JSON.stringify(localStorage)")
    page.reload()
    page.get_by_role("button", name="Replay tour").click()
    expect(page.get_by_text("All 3 answered after")).to_be_visible()
    assert len([one for one in get(server, "sessions")["sessions"] if one["title"] == "Replayed"]) == 2
    page.get_by_label("Connect", exact=True).select_option("nobody")
    page.get_by_role("button", name="Replay tour").click()
    expect(page.get_by_text(re.compile("Request 1 of 3, session.create: "))).to_be_visible()
    page.get_by_role("button", name="Delete tour").click()
    expect(page.get_by_text("Nothing is kept yet.")).to_be_visible()


def run(text: str, *program: str) -> str:
    """Run what was copied, and return what it says."""
    command = [*program, text]
    environ = {**os.environ, "TOKEN": ROOT}
    ran = subprocess.run(command, env=environ, capture_output=True, timeout=30, check=False)
    assert ran.returncode in {0, TIMED_OUT}, ran.stderr
    return ran.stdout.decode(errors="replace")  # a frame has bytes before its text


def test_what_is_copied_runs(console: Console, server: Any) -> None:
    page = console("panel=client")
    payload = page.get_by_label("Payload")
    choose(page, "session.create")
    payload.fill(json.dumps({"session_id": "copied", "title": "it's mine", "variables": {"n": 1}}))
    text = copied(page, "curl")
    assert "$TOKEN" in text
    assert json.loads(run(text, "sh", "-c"))["session_id"] == "copied"
    assert get(server, "sessions/copied")["title"] == "it's mine"
    choose(page, "session.history")
    payload.fill(json.dumps({"session_id": "copied", "limit": 5, "kind": "records"}))
    read = json.loads(run(copied(page, "curl"), "sh", "-c"))
    assert [record["event"] for record in read["records"]] == ["session.opened"]

    page.get_by_label("Action").fill("echo")
    asked = {"text": f"{HOSTILE} \"'\\", "flags": [True, None, 1.5], "token": "$TOKEN"}
    payload.fill(json.dumps(asked))
    meant = {**asked, "token": ROOT}
    assert run(copied(page, "Python"), sys.executable, "-c").strip() == str(meant)
    hello = run(copied(page, "curl"), "sh", "-c")  # an action without an endpoint
    assert "101 Switching Protocols" in hello
    assert '"user":"root"' in hello
    text = copied(page, "JavaScript")
    assert ROOT not in text
    program = text.replace("$TOKEN", ROOT)
    body = f"const said = []; const console = {{ log: (text) => said.push(text) }};\n{program}\nreturn said;"
    assert page.evaluate(f"async () => {{ {body} }}") == [meant]
