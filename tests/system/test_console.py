"""The console at `/` in a real browser: what its panels show of a broker that works, and to whom."""

import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final
from urllib.request import Request, urlopen

import jwt
import pytest
from playwright.sync_api import Page, expect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import broker

Visit = Callable[..., Any]

STATIC: Final = Path(broker.__file__).parent / "web" / "static"
BUDGET: Final = 100_000
"""Bytes of all that the console is made of, packed."""

KEY: Final = "a-secret-of-the-test-that-is-long-enough"
HOSTILE: Final = "<img src=x onerror=alert(1)>"
GOSSIP: Final = '''
import logging

from broker.hooks import Plugin

log = logging.getLogger(__name__)


class Gossip(Plugin):
    """Tells the log who came."""

    def connected(self, connection):
        log.warning("here comes %s", connection.principal.user)
'''
AGENTS: Final = {"play": {"kind": "echo", "faults": True}, "crew": {"kind": "worker"}}
CROWD: Final = {"crowd": {"figure": "connections", "above": 2, "hold": "0s"}}

pytestmark = pytest.mark.timeout(120)


def token(user: str, *scopes: str) -> str:
    """Return what a user shows."""
    now = int(time.time())
    claims = {"iss": "actor-broker", "aud": "actor-broker", "sub": user, "iat": now, "exp": now + 600, "scopes": scopes}
    return jwt.encode(claims, KEY, algorithm="HS256")


ROOT: Final = token("root", "api", "admin")
SHOWN: Final = {"Authorization": f"Bearer {ROOT}"}

HAS_LINES: Final = """() => {
    document.dispatchEvent(new Event("visibilitychange"));
    return document.querySelector(".spark[aria-label*=now]");
}"""
"""Whether the overview has a point to draw, which the broker makes every five seconds; asks for it at once."""


BARS: Final = """(cards) => cards.map((card) => ({
    counts: [...card.querySelectorAll("tbody tr")].map((row) => Number(row.cells[1].textContent.replaceAll(",", ""))),
    heights: [...card.querySelectorAll("rect")].map((bar) => bar.height.baseVal.value),
}))"""
"""What the tables and the pictures of histograms say."""


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A broker that asks who somebody is, with turns that ended well and badly."""
    auth = {"mode": "jwt", "keys": [{"algorithm": "HS256", "secret": KEY}]}
    plugins = {"auth": auth, "gossip": {}, "alerts": {"every": "200ms", "window": "2s", "rules": CROWD}}
    server = serve({"plugins/gossip.py": GOSSIP}, agents=AGENTS, default_agent="play", plugins=plugins)
    post(server, "sessions", session_id="s1")
    for number, content in enumerate(("one", "two", "/crash")):
        post(server, "sessions/s1/turns", client_msg_id=f"m{number}", content=content)
    return server


def post(server: Any, path: str, **body: Any) -> None:
    headers = {"Content-Type": "application/json", **SHOWN}
    request = Request(f"{server.url}api/v1/{path}", json.dumps(body).encode(), headers, method="POST")
    with urlopen(request, timeout=10) as answer:
        assert answer.status < 300


@pytest.fixture
def come(server: Any) -> Iterator[Callable[..., ClientConnection]]:
    """Connect somebody, and have them join a room if one is named."""
    with ExitStack() as stack:

        def connected(user: str, room: str | None = None) -> ClientConnection:
            shown: Any = ["broker.v1.json", f"bearer.{token(user)}"]
            socket = stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/ws", subprotocols=shown))
            socket.recv(timeout=10)
            if room is not None:
                socket.send(
                    json.dumps({"id": "1", "type": "request", "action": "room.join", "payload": {"room": room}})
                )
                socket.recv(timeout=10)
            return socket

        yield connected


@pytest.fixture
def console(tabs: Any) -> Iterator[Callable[..., Page]]:
    """Open a panel; no tab may complain of anything."""

    def open_panel(panel: str = "", shown: str = ROOT, **options: bool) -> Page:
        page: Page = tabs.open(f"panel={panel}", shown, **options)
        return page

    yield open_panel
    tabs.rest()


def look_again(page: Page) -> None:
    """Have a panel ask the broker at once, as when somebody comes back to the tab."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def card(page: Page, name: str) -> Any:
    return page.get_by_role("region", name=name, exact=True)


# -- what the panels show -----------------------------------------------------------------------------


def test_the_overview_shows_figures_their_lines_and_the_alerts_that_fire(
    console: Callable[..., Page], come: Callable[..., ClientConnection]
) -> None:
    for user in ("ann", "bob", "cid"):
        come(user)
    page = console()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.wait_for_function(HAS_LINES, polling=200)
    expect(card(page, "Connections").locator(".figure")).to_have_text(re.compile("^[4-9]$"), timeout=15_000)
    expect(page.locator(".alert")).to_contain_text(re.compile(r"crowd.*connections is \d.*above 2"), timeout=15_000)
    expect(card(page, "Memory").locator(".figure")).to_have_text(re.compile(r"^\d+(\.\d)? MiB$"))
    line = card(page, "Connections").get_by_role("img")
    expect(line).to_have_attribute("aria-label", re.compile(r"^Connections: now \d"))
    line.focus()
    page.keyboard.press("ArrowLeft")
    expect(card(page, "Connections").locator("output")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\s+\d$"))
    page.keyboard.press("Escape")
    expect(card(page, "Connections").locator("output")).to_be_empty()


def test_agents_and_latencies_are_those_of_the_turns_that_ended(console: Callable[..., Page]) -> None:
    page = console("agents")
    play = card(page, "play")
    expect(play).to_contain_text("2 completed")
    expect(play).to_contain_text("1 lost")
    expect(play).to_contain_text("67 % of the turns that nobody cancelled were completed")
    expect(play).to_contain_text(re.compile("Last error.*crash"))
    expect(card(page, "crew")).to_contain_text("down")
    page.get_by_role("link", name="Latency").click()
    turn = card(page, "Turn")
    expect(turn.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"^Turn: 3 observed; p50 .*p95 .*p99 "))
    seen = page.locator("section.card:has(.histogram)").evaluate_all(BARS)
    assert sum(seen[2]["counts"]) == 3
    assert any(len({*drawn["counts"]}) > 2 for drawn in seen)  # more than one height, and nothing
    for drawn in seen:
        highest, most = max(drawn["heights"]), max(drawn["counts"], default=0)
        assert drawn["heights"] == pytest.approx(
            [max(2, highest * number / most) if number else 0 for number in drawn["counts"]], abs=0.1
        )


def test_settings_are_told_with_where_they_come_from_and_secrets_are_not(console: Callable[..., Page]) -> None:
    page = console("configuration")
    page.get_by_label("Filter Settings").fill("faults")
    row = page.get_by_role("row").filter(has_text="agents.play.faults")
    expect(row).to_contain_text(re.compile(r"true.*config\.yaml:\d"))
    expect(row).to_have_class("marked")
    page.get_by_label("Filter Settings").fill("")
    expect(page.get_by_role("row").filter(has_text=re.compile(r"^listen\.host\d"))).to_contain_text("default")
    page.get_by_label("Only what is not as by default").check()
    expect(page.get_by_role("row").filter(has_text=re.compile(r"^listen\.host\d"))).to_have_count(0)
    expect(page.locator("#panel")).to_contain_text("plugins.auth")
    expect(page.locator("#panel")).not_to_contain_text(KEY)
    page.get_by_role("link", name="Plugins").click()
    expect(card(page, "gossip")).to_contain_text(re.compile("Tells the log who came.*connected"))
    expect(card(page, "alerts")).to_contain_text("GET /api/v1/alerts")


def test_what_people_call_themselves_is_text_wherever_it_is_shown(
    console: Callable[..., Page], come: Callable[..., ClientConnection]
) -> None:
    come(HOSTILE, HOSTILE)
    page = console("connections")
    row = page.get_by_role("row").filter(has_text="onerror")
    expect(row.get_by_role("cell").first).to_have_text(HOSTILE)
    expect(row).to_contain_text(re.compile(f"{re.escape(HOSTILE)}.*{re.escape(HOSTILE)}"))
    row.get_by_role("button", name="Disconnect").click()
    expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
    page.get_by_role("button", name="Keep").click()
    page.get_by_role("link", name="Log", exact=True).click()
    page.get_by_label("Filter the log").fill("here comes <img")
    lines = page.get_by_role("region", name="Lines of the log").get_by_role("listitem")
    expect(lines).to_have_count(1)
    expect(lines).to_contain_text(f"here comes {HOSTILE}")
    expect(lines).to_contain_text("warning")
    assert page.locator("#panel img, dialog img").count() == 0


def test_the_log_is_followed_filtered_and_held(
    console: Callable[..., Page], come: Callable[..., ClientConnection]
) -> None:
    page = console("log")
    lines = page.get_by_role("region", name="Lines of the log")
    come("dora")
    expect(lines).to_contain_text("here comes dora")
    page.get_by_role("button", name="Pause").click()
    come("emil")
    page.get_by_label("From level").select_option("error")  # what is chosen anew is read, held or not
    expect(page.get_by_text("Nothing of that kind")).to_be_visible()
    page.get_by_label("From level").select_option("warning")
    expect(lines).to_contain_text("here comes emil")
    come("fritz")
    page.get_by_role("button", name="Go on").click()
    expect(lines).to_contain_text("here comes fritz")
    page.get_by_label("Filter the log").fill("COMES dora")
    expect(lines.get_by_role("listitem")).to_have_count(1)
    page.get_by_label("Filter the log").fill("comes")
    expect(lines).to_contain_text(re.compile("dora.*emil.*fritz"))


# -- what can be done -----------------------------------------------------------------------------------


def test_a_client_is_disconnected_once_that_was_meant_or_all_of_a_user(
    console: Callable[..., Page], come: Callable[..., ClientConnection]
) -> None:
    stays, *gone = come("hanna"), come("gustav"), come("gustav")
    page = console("connections")
    page.get_by_label("Filter Connections").fill("gustav")
    rows = page.get_by_role("row").filter(has_text="gustav")
    dialog = page.get_by_role("dialog")
    rows.first.get_by_role("button", name="Disconnect").click()
    page.get_by_role("button", name="Keep").click()
    assert all(socket.ping().wait(10) for socket in (stays, *gone))
    rows.first.get_by_role("button", name="Disconnect").click()
    dialog.get_by_role("button", name="Disconnect", exact=True).click()
    expect(page.locator("#announcer")).to_have_text("gustav was disconnected")
    expect(rows).to_have_count(1)
    gone.append(come("gustav"))
    rows.first.get_by_role("button", name="Disconnect").click()
    dialog.get_by_role("button", name="Disconnect everywhere").click()
    expect(page.locator("#announcer")).to_have_text("gustav was disconnected everywhere")
    expect(rows).to_have_count(0)
    for socket in gone:
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4510
    assert stays.ping().wait(10)


def test_what_has_the_focus_keeps_it_while_rows_come_and_go(
    console: Callable[..., Page], come: Callable[..., ClientConnection]
) -> None:
    come("zoe")
    page = console("connections")
    page.get_by_role("button", name="User").click()
    button = page.get_by_role("row").filter(has_text="zoe").get_by_role("button", name="Disconnect")
    button.focus()
    before = come("adam")
    look_again(page)
    expect(page.get_by_role("row").filter(has_text="adam")).to_be_visible()
    expect(button).to_be_focused()
    users = page.locator("tbody tr td:first-child").all_text_contents()
    assert users == sorted(users)
    page.get_by_role("button", name="User").evaluate("button => button.click()")  # the row goes to the other end
    expect(page.locator("tbody tr").first).to_contain_text("zoe")
    expect(button).to_be_focused()
    before.close()
    look_again(page)
    expect(page.get_by_role("row").filter(has_text="adam")).to_have_count(0)
    expect(button).to_be_focused()


def test_the_keyboard_reaches_everything(console: Callable[..., Page], server: Any) -> None:
    page = console(is_fresh=True)
    page.goto(server.url)
    expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the panel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("]")
    expect(page.get_by_role("heading", name="Connections")).to_be_focused()
    expect(page.get_by_role("link", name="Connections")).to_have_attribute("aria-current", "page")
    expect(page.get_by_label("Filter Connections")).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("Filter Connections")).to_be_focused()
    page.keyboard.type("[?")
    expect(page.get_by_label("Filter Connections")).to_have_value("[?")
    page.get_by_role("link", name="Connections").focus()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("link", name="Overview")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.get_by_label("Keys without Ctrl or Alt do something").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("]")
    expect(page.get_by_role("heading", name="Connections")).to_be_visible()


# -- who may --------------------------------------------------------------------------------------------


def test_who_may_only_read_is_shown_no_button_and_nobody_else(
    console: Callable[..., Page], come: Callable[..., ClientConnection]
) -> None:
    come("ida")
    page = console("connections", token("reader", "api"))
    expect(page.locator("#panel")).to_contain_text(re.compile(r"[2-9] connections"))
    expect(page.locator("#panel")).not_to_contain_text("ida")
    expect(page.get_by_role("button", name="Disconnect")).to_have_count(0)
    page.get_by_role("link", name="Log").click()
    expect(page.locator("#panel")).to_contain_text("scope “admin”")


def test_who_has_no_scope_has_the_test_client_with_a_few_templates_and_is_told_why(
    console: Callable[..., Page],
) -> None:
    page = console(shown=token("pia"))
    expect(page.get_by_role("heading", name="Test client")).to_be_visible()
    page.get_by_role("link", name="Overview").click()
    expect(page.locator("#panel")).to_contain_text("broker gentoken --user pia --scope api --scope admin")
    expect(page.locator("#panel").get_by_role("link", name="chat page")).to_have_attribute("href", "chat")
    page.get_by_role("link", name="Test client").first.click()
    expect(page.locator("button.template .name")).to_contain_text(["session.create", "turn.start"])
    expect(card(page, "Templates")).to_contain_text("The scope “api” brings all")


def test_a_stranger_is_asked_for_a_token_and_goes_on_where_he_wanted(browser: Any, server: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}#panel=agents")
    field = page.get_by_label("Token")
    expect(field).to_be_focused()
    expect(page.get_by_role("alert")).to_have_count(0)
    field.fill("two words")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("That is no token")
    field.fill(ROOT[:-3] + "xyz")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(re.compile("token", re.IGNORECASE))
    page.get_by_label("Token").fill(ROOT)
    page.keyboard.press("Enter")
    expect(card(page, "play")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert page.evaluate("sessionStorage['broker.token']") is None
    context.close()


# -- the broker goes ------------------------------------------------------------------------------------


def test_a_broker_that_is_gone_is_said_so_and_what_it_forgot_is_not_shown_when_it_is_back(
    browser: Any, make_broker: Callable[..., Any]
) -> None:
    broker = make_broker(agents={"play": {"kind": "echo"}}, default_agent="play", store={"url": "memory:"})
    broker.start()
    post(broker, "rooms/hall/events", event="old", data=1)
    post(broker, "rooms/hall/events", event="old", data=2)
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{broker.url}#panel=rooms&room=hall")
    events = card(page, "Events").locator("details.record .kind")
    expect(events).to_have_text(["old", "old"])
    broker.end(SIGKILL)
    expect(page.locator("#stale")).to_contain_text(re.compile(r"The broker does not answer.*What you see is \d+ s old"))
    expect(page.locator("main")).to_have_attribute("data-stale", "")
    expect(events).to_have_text(["old", "old"])
    broker.start()
    post(broker, "rooms/hall/events", event="new", data=3)
    look_again(page)
    expect(events).to_have_text(["new"], timeout=30_000)
    expect(page.locator("#stale")).to_be_hidden()
    expect(page.get_by_text("Connected", exact=True)).to_be_visible(timeout=30_000)
    context.close()


def test_a_panel_that_is_left_leaves_nothing(console: Callable[..., Page], server: Any) -> None:
    page = console("configuration")
    chrome = page.context.new_cdp_session(page)
    panels = page.locator("#panels a").evaluate_all("links => links.map(({ hash }) => hash)")
    panels += ["#panel=sessions&session=s1", "#panel=rooms&room=hall", "#panel=stream&session=s1"]

    def listeners() -> Any:
        page.evaluate("location.hash = '#panel=configuration&still'")
        expect(page.get_by_role("row").filter(has_text="listen.port")).to_be_visible()
        chrome.send("HeapProfiler.collectGarbage")
        return chrome.send("Memory.getDOMCounters")["jsEventListeners"]

    counts = []
    for _ in range(3):
        for panel in panels:
            page.evaluate("(hash) => new Promise((done) => { location.hash = hash; setTimeout(done, 30); })", panel)
        counts.append(listeners())
    assert counts[0] == counts[2], counts
    page.evaluate("location.hash = '#panel=sessions&session=s1'")
    eventually(lambda: followed(server) == {"s1"})
    page.evaluate("location.hash = '#panel=log'")
    eventually(lambda: followed(server) == set())


def followed(server: Any) -> set[str]:
    """Return the sessions and rooms that root's pages follow."""
    with urlopen(Request(f"{server.url}api/v1/connections", headers=SHOWN), timeout=10) as answer:
        found = [one for one in json.load(answer)["connections"] if one["user"] == "root"]
    return {name for one in found for name in one["sessions"] + one["rooms"]}


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline


def test_the_console_is_small() -> None:
    files = [file for file in STATIC.rglob("*.*") if file.relative_to(STATIC).parts[0] != "chat"]
    sizes = {str(file.relative_to(STATIC)): len(gzip.compress(file.read_bytes(), 9)) for file in files}
    assert {"console/app.js", "console/panels/overview.js", "client.js", "shared/base.css"} <= sizes.keys()
    assert sum(sizes.values()) <= BUDGET, sizes
