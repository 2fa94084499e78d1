"""The page where an auth plugin asks for tokens: it asks for one, keeps it in the tab, and asks again when it ends."""

import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from playwright.sync_api import Page, expect

DOOR = '''
from broker.errors import BrokerError
from broker.hooks import Plugin, Principal


class Door(Plugin):
    """A token is `NAME` or `NAME.SECONDS`, good for so long since the broker's start."""

    async def start(self):
        self.began = self.broker.now()

    def on_handshake(self, handshake):
        items = [item.strip() for item in handshake.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        shown = [item.removeprefix("bearer.") for item in items if item.startswith("bearer.")]
        if not shown:
            raise BrokerError("unauthenticated", "Show a token.")
        name, _, seconds = shown[0].partition(".")
        if name == "mallory":
            raise BrokerError("unauthenticated", "That token is not good.")
        at = self.began + round(float(seconds) * 1000) if seconds else None
        return Principal(name, frozenset(), at)
'''

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A broker that asks for tokens."""
    return serve({"plugins/door.py": DOOR}, plugins={"door": {}}, agents={"echo": {"kind": "echo"}})


@pytest.fixture
def page(browser: Any, server: Any) -> Iterator[Page]:
    """The page, by somebody who has shown nothing yet."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}chat")
    yield page
    context.close()


def show(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Connect", exact=True).click()


def test_a_token_is_asked_for_kept_in_the_tab_and_never_in_the_url(page: Page, browsing: ModuleType) -> None:
    dialog = page.get_by_role("dialog", name="Who are you?")
    expect(dialog).to_contain_text("Show a token.")
    show(page, "mallory")
    expect(dialog).to_contain_text("That token is not good.")
    show(page, "two words")
    expect(dialog).to_contain_text("Show a token.")
    show(page, " ann\n")
    expect(dialog).to_be_hidden()
    expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    visitor = browsing.Visitor(page)
    visitor.say("hello")
    visitor.see_end()
    page.reload()
    expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    visitor.see_end()
    assert "ann" not in page.url
    assert page.evaluate("[sessionStorage['broker.token'], localStorage.length, document.cookie]") == ["ann", 0, ""]


def test_the_page_stays_away_for_as_long_as_the_broker_says(browser: Any, server: Any, browsing: ModuleType) -> None:
    context = browser.new_context()
    context.add_init_script("sessionStorage['broker.token'] = 'ann'")
    visitor, wire = browsing.Visitor(context.new_page()), browsing.Wire()
    visitor.attend(wire)
    visitor.page.goto(f"{server.url}chat")
    expect(visitor.page.get_by_text("Connected", exact=True)).to_be_visible()
    wire.page_side.send(json.dumps({"type": "notification", "event": "restarting", "data": {"retry_after": 2.5}}))
    wire.cut(1012)
    expect(visitor.page.get_by_text("Reconnecting in 2.5 s: the broker restarts")).to_be_visible()
    expect(visitor.page.get_by_text("Connected", exact=True)).to_be_visible()
    assert visitor.complaints == []
    context.close()


def test_it_is_asked_for_again_when_it_has_expired(page: Page, server: Any) -> None:
    seconds = server.get("/health")["uptime"] + 3
    show(page, f"ann.{seconds}")
    expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    expect(page.get_by_role("dialog", name="Who are you?")).to_contain_text("expired", timeout=15_000)
    assert page.evaluate("sessionStorage.length") == 0
