"""The page where tokens are asked for: one is kept in the tab, asked for again, and brought by links that work once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
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
    expect(visitor.trouble).to_contain_text("Next attempt in 2 s")
    expect(visitor.page.get_by_text("Connected", exact=True)).to_be_visible()
    assert visitor.complaints == []
    context.close()


def test_who_signs_out_leaves_nothing_unsent_for_the_next_one(browser: Any, server: Any, browsing: ModuleType) -> None:
    def hold_back(_: Any, message: dict[str, Any]) -> list[dict[str, Any]]:
        return [] if message["action"] == "turn.start" else [message]

    context = browser.new_context()
    visitor = browsing.Visitor(context.new_page())
    visitor.attend(browsing.Wire(up=hold_back))
    visitor.page.goto(f"{server.url}chat")
    show(visitor.page, "ann")
    expect(visitor.page.get_by_text("Connected", exact=True)).to_be_visible()
    visitor.say("a secret")
    expect(visitor.page.locator(".unsent")).to_contain_text("Sending")
    assert "a secret" in visitor.page.evaluate("JSON.stringify(sessionStorage)")
    visitor.press("Sign out")
    expect(visitor.page.get_by_role("dialog", name="Who are you?")).to_be_visible()
    assert visitor.page.evaluate("sessionStorage.length") == 0
    context.close()


def test_it_is_asked_for_again_when_it_has_expired(page: Page, server: Any) -> None:
    seconds = server.get("/health")["uptime"] + 3
    show(page, f"ann.{seconds}")
    expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    expect(page.get_by_role("dialog", name="Who are you?")).to_contain_text("expired", timeout=15_000)
    assert page.evaluate("sessionStorage.length") == 0


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What `broker dev` says of itself, while it runs."""
    command = [sys.executable, "-u", "-m", "broker", "dev", "--port", "0", "--json"]
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)


def test_a_link_signs_in_once_and_leaves_nothing_in_the_address(
    browser: Any, dev: dict[str, Any], browsing: ModuleType
) -> None:
    context = browser.new_context()
    visitor = browsing.Visitor(context.new_page())
    visitor.attend()
    visitor.page.goto(dev["chat"])
    expect(visitor.page.get_by_text("Connected", exact=True)).to_be_visible()
    assert "ticket" not in visitor.page.url
    visitor.say("hello")
    expect(visitor.page.locator(".message").first).to_contain_text("hello", timeout=10_000)
    visitor.page.get_by_role("link", name="Console").click()
    expect(visitor.page.locator("#who")).to_contain_text("dev")
    visitor.page.go_back()
    expect(visitor.page.locator(".message").first).to_contain_text("hello")
    visitor.press("Sign out")
    expect(visitor.page.get_by_role("dialog", name="Who are you?")).to_be_visible()
    assert visitor.complaints == []
    visitor.page.goto("about:blank")
    visitor.page.goto(dev["chat"])
    expect(visitor.page.get_by_role("dialog", name="Who are you?")).to_contain_text("used before")
    assert "ticket" not in visitor.page.url
    context.close()
