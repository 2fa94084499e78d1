"""People at the page: their tabs, and the network between a tab and the broker."""

import json
import re
from collections.abc import Callable
from typing import Any

import attrs
from playwright.sync_api import Locator, Page, WebSocketRoute, expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]

WIDER = """(elements) => elements
    .filter((element) => element.scrollWidth > element.clientWidth)
    .map((element) => element.className || element.localName)"""

__all__ = ["FLAGS", "Tabs", "Visitor", "Wire", "expect", "sync_playwright"]

Message = dict[str, Any]


@attrs.define
class Visitor:
    """One tab, and what the browser complained about in it."""

    page: Page
    complaints: list[str] = attrs.Factory(list)

    def attend(self, wire: "Wire | None" = None) -> None:
        """Write down what the browser complains about, and stand between the page and the broker if need be."""
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        if wire is not None:
            self.page.route_web_socket(re.compile("/ws$"), wire.connect)

    def say(self, text: str) -> None:
        """Send a message."""
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def begin(self, agent: str) -> None:
        """Begin a session with an agent."""
        self.page.get_by_text("Options").click()
        self.page.get_by_label("Agent", exact=True).fill(agent)
        self.page.get_by_role("button", name="New session").click()
        expect(self.page.locator("#facts")).to_contain_text(agent)

    def join(self, room: str) -> None:
        """Join a room."""
        self.page.locator(".inspector-tabs").get_by_role("button", name="Room").click()
        self.page.get_by_label("Name of the room").fill(room)
        self.page.get_by_role("button", name="Join").click()

    def press(self, name: str) -> None:
        """Press the one button of that name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def turn(self, number: int = 0) -> Locator:
        """Return a turn of the conversation."""
        return self.page.locator(".log article.turn").nth(number)

    def see_end(self, outcome: str = "completed", turn: int = 0) -> None:
        """Wait until a turn has ended in that way."""
        expect(self.turn(turn)).to_have_attribute("data-outcome", outcome, timeout=30_000)

    def see_outcome(self, words: str, turn: int = 0) -> None:
        """Wait until a turn says that it has ended in these words."""
        expect(self.turn(turn).locator("footer.outcome")).to_contain_text(words, timeout=30_000)

    def see_running(self, words: str) -> None:
        """Wait until the line above the box says what the running turn does."""
        expect(self.page.locator(".running-text")).to_have_text(words, timeout=15_000)

    @property
    def card(self) -> Locator:
        """The questions of the agent."""
        return self.page.locator(".approval")

    @property
    def waiting(self) -> Locator:
        """The turns in the queue."""
        return self.page.locator(".queue li")

    @property
    def trouble(self) -> Locator:
        """What is said of a connection that is not there."""
        return self.page.locator(".trouble")

    @property
    def overflowing(self) -> list[str]:
        """What is wider inside than outside, of what is to fit whatever the screen."""
        boxes = self.page.locator("html, main, .bar, .panel, .scroller, .queue, .approval, .agent, .trouble")
        names: list[str] = boxes.evaluate_all(WIDER)
        return names

    @property
    def session_id(self) -> str:
        """The session that is shown."""
        found = re.search(r"session=([^&]+)", self.page.url)
        assert found, self.page.url
        return found[1]

    @property
    def records(self) -> list[Message]:
        """The records that the page has received."""
        records: list[Message] = self.page.evaluate("broker.records()")
        return records

    @property
    def kinds(self) -> list[str]:
        """The kinds of these."""
        return [record["event"] for record in self.records]


@attrs.define
class Tabs:
    """Tabs of the console, one for each token; a test finds the page loaded, and nothing of the test before in it.

    Attributes:
        browser: where they are.
        url: the console's.
        complaints: what the browser said that nobody foresaw.
    """

    browser: Any
    url: str
    complaints: list[str] = attrs.Factory(list)
    _pages: dict[str, Page] = attrs.Factory(dict)
    _fresh: list[Page] = attrs.Factory(list)
    _opened: int = 0

    def open(self, fragment: str, token: str, *, is_fresh: bool = False) -> Page:
        """Show a panel; in a page of its own, which is not loaded yet, if it has to be fresh."""
        if is_fresh:
            self._fresh.append(self._made(token))
            return self._fresh[-1]
        page = self._pages.get(token)
        self._opened += 1
        anew = f"{fragment or 'panel='}&try={self._opened}"  # the same fragment would show nothing anew
        if page is None:
            page = self._pages[token] = self._made(token)
            page.goto(f"{self.url}#{anew}")
            expect(page.get_by_text("Connected", exact=True)).to_be_visible()
            return page
        forget = "for (const name in sessionStorage) if (name !== 'broker.token') sessionStorage.removeItem(name);"
        page.evaluate(f"(hash) => {{ {forget} localStorage.clear(); location.hash = hash; }}", anew)
        return page

    def rest(self) -> None:
        """Leave all panels, and see that nobody complained."""
        for page in self._fresh:
            page.context.close()
        for page in self._pages.values():
            page.evaluate("location.hash = 'panel=plugins'")
        complaints = self.complaints[:]
        self.complaints.clear()
        self._fresh.clear()
        assert complaints == []

    def close(self) -> None:
        """Close them all."""
        for page in self._pages.values():
            page.context.close()

    def _made(self, token: str) -> Page:
        context = self.browser.new_context()
        context.add_init_script(f"sessionStorage['broker.token'] ??= {json.dumps(token)}")
        page: Page = context.new_page()
        page.on("console", lambda message: self._complain(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        return page

    def _complain(self, text: str) -> None:
        if "404" not in text:  # what is looked for may not be there, and the browser says so itself
            self.complaints.append(text)


@attrs.define(slots=False)  # Playwright leaves a mark on whoever handles its routes
class Wire:
    """The network between a page and the broker, made worse: each rule says what becomes of a message."""

    down: Callable[["Wire", Message], list[Message]] = lambda _, message: [message]
    up: Callable[["Wire", Message], list[Message]] = lambda _, message: [message]
    asked: list[Message] = attrs.Factory(list)
    page_side: WebSocketRoute | None = None

    def connect(self, page_side: WebSocketRoute) -> None:
        """Stand between a page and the broker."""
        self.page_side = page_side
        broker_side = page_side.connect_to_server()
        page_side.on_message(lambda text: self._carry(self.up, text, broker_side))
        broker_side.on_message(lambda text: self._carry(self.down, text, page_side))

    def _carry(self, rule: Callable[["Wire", Message], list[Message]], text: str | bytes, to: WebSocketRoute) -> None:
        message = json.loads(text)
        if "action" in message:
            self.asked.append(message)
        for carried in rule(self, message):
            to.send(json.dumps(carried))

    def payloads(self, action: str) -> list[Message]:
        """Return what the page has asked for under this action."""
        return [message["payload"] for message in self.asked if message["action"] == action]

    def cut(self, code: int) -> None:
        """Close the connection towards the page."""
        assert self.page_side is not None
        self.page_side.close(code=code, reason="the test cuts it")
