"""The conversation in a page of somebody else's, at another address and with styles of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

SHOP = """<!doctype html>
<title>Shop</title>
<link rel="icon" href="data:,">
<style>
  * { letter-spacing: 0.5em; color: rgb(255, 0, 0); }
  h2 { font-size: 60px; }
  button, dialog { display: none; }
</style>
<h2>Our shop</h2>
<div id="one" style="height: 300px"></div>
<div id="other" style="height: 300px"></div>
<script type="module">
  import { Broker } from "%(broker)sstatic/client.js";
  import { mountChat } from "%(broker)sstatic/chat/embed.js";

  const broker = new Broker({ url: "%(broker)sws" });
  const create = { agent: "slow", title: "From the shop" };
  window.one = mountChat(document.getElementById("one"), { broker, create });
  window.other = mountChat(document.getElementById("other"), { broker, create });
</script>
"""
LOOKS = """(element, of) => of.map((name) => getComputedStyle(element)[name])"""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], site: tuple[str, Path]) -> Any:
    """A broker that admits the shop's pages."""
    origin, folder = site
    broker = serve(
        agents={"slow": {"kind": "echo", "delay": "20ms"}, "echo": {"kind": "echo"}}, listen={"origins": [origin]}
    )
    (folder / "index.html").write_text(SHOP % {"broker": broker.url})
    return broker


@pytest.fixture
def page(browser: Any, browsing: ModuleType, server: Any, site: tuple[str, Path]) -> Iterator[Page]:
    """The shop's page, by somebody who likes it dark, which the shop does not offer."""
    assert server.port
    context = browser.new_context(color_scheme="dark")
    visitor = browsing.Visitor(context.new_page())
    visitor.attend()
    visitor.page.goto(site[0])
    yield visitor.page
    context.close()
    assert visitor.complaints == []


def say(place: Locator, text: str) -> None:
    place.get_by_label("Message", exact=True).fill(text)
    place.get_by_role("button", name="Send").click()
    expect(place.locator("article.turn").last).to_have_attribute("data-outcome", "completed")
    expect(place.locator(".message").last).to_have_text(text)


def test_neither_page_nor_conversation_takes_the_others_looks(page: Page, server: Any) -> None:
    place = page.locator("#one")
    say(place, "how much is the fish?")
    grey, dark = "rgb(244, 245, 248)", "rgb(26, 30, 39)"
    looks = place.locator(".conversation").evaluate(LOOKS, ["backgroundColor", "color", "letterSpacing"])
    assert looks == [grey, dark, "normal"]
    assert page.locator("h2").first.evaluate(LOOKS, ["fontSize", "color"]) == ["60px", "rgb(255, 0, 0)"]
    assert page.locator("body").evaluate(LOOKS, ["marginTop"]) == ["8px"]
    box = place.locator(".conversation").bounding_box()
    assert box is not None
    assert box["height"] == 300  # it fills its place and scrolls inside
    page.evaluate("one.close()")
    expect(place.locator("*")).to_have_count(0)
    newest = server.get("/api/v1/sessions?limit=1")["sessions"][0]
    assert (newest["agent"], newest["title"]) == ("slow", "From the shop")


def test_conversations_of_one_page_are_told_apart_and_shown_again(page: Page) -> None:
    one, other = page.locator("#one"), page.locator("#other")
    say(one, "red")
    say(other, "green")
    expect(one.locator(".message")).to_have_text(["red"])
    first, second = page.evaluate("[one.session.id, other.session.id]")
    page.evaluate("other.show(null)")
    for chosen, text in ((second, "green"), (first, "red")):
        page.evaluate("(id) => one.show(id)", chosen)
        expect(one.locator(".message")).to_have_text([text])
        expect(one.locator("article.turn")).to_have_attribute("data-outcome", "completed")
    say(one, "blue")


def test_the_brokers_page_shows_the_conversation_alone_if_asked_to(browser: Any, server: Any) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 640})
    page = context.new_page()
    page.goto(f"{server.url}chat?embed#agent=slow")
    say(page.locator("main"), "just us")
    expect(page.locator(".bar")).to_be_hidden()
    expect(page.locator("#inspector")).to_be_hidden()
    expect(page.get_by_role("button", name="New session")).to_be_hidden()
    assert page.evaluate("broker.records()[0].data.agent") == "slow"
    context.close()
