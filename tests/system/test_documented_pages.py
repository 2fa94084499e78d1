"""The pages that the documentation shows work in a browser, served from the address that they are to come from."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Page, expect

ROOT: Final = Path(__file__).parents[2]
TUTORIAL: Final = (ROOT / "docs/tutorial.md").read_text()
CLIENTS: Final = (ROOT / "docs/clients.md").read_text()

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], site: tuple[str, Path]) -> Any:
    """A broker that lets the site's pages in, with an echo where the tutorial has its weather."""
    agents = {"weather": {"kind": "echo", "delay": "60ms"}, "echo": {"kind": "echo"}}
    return serve(agents=agents, default_agent="weather", listen={"origins": [site[0]]})


@pytest.fixture
def show(browser: Any, server: Any, site: tuple[str, Path]) -> Iterator[Callable[[str], Page]]:
    """Put the one page in HTML that a text shows onto the site, and open it; no tab may complain of anything."""
    origin, folder = site
    context = browser.new_context()
    complaints: list[str] = []

    def open_page(text: str) -> Page:
        (page,) = re.findall(r"^```html\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        (folder / "index.html").write_text(page.replace("127.0.0.1:3000", f"127.0.0.1:{server.port}"))
        tab: Page = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        tab.goto(origin)
        return tab

    yield open_page
    context.close()
    assert complaints == []


def test_the_page_of_the_tutorial_streams_survives_a_reload_and_is_the_same_in_two_tabs(
    show: Callable[[str], Page],
) -> None:
    page = show(TUTORIAL)
    words = "What is the weather like in Bergen today, and will it stay so?"
    page.get_by_placeholder("Ask about the weather").fill(words)
    page.get_by_role("button", name="Send").click()
    answer = page.locator(".agent")
    expect(answer).to_have_text(re.compile("^What is"))
    page.reload()
    other = show(TUTORIAL)
    for tab in (page, other):
        expect(tab.locator(".user")).to_have_text([words])
        expect(tab.locator(".agent")).to_have_text([words])
    other.get_by_placeholder("Ask about the weather").fill("Thank you.")
    other.keyboard.press("Enter")
    expect(page.locator(".agent")).to_have_text([words, "Thank you."])


def test_the_page_of_the_tutorial_comes_from_where_its_broker_lets_pages_in() -> None:
    (origin,) = re.findall(r'^  origins: \["(\S+)"\]', TUTORIAL, re.MULTILINE)
    address, port = re.findall(
        r"^python3 -m http\.server --bind (\S+) --directory site (\d+)$", TUTORIAL, re.MULTILINE
    )[0]
    assert origin == f"http://{address}:{port}"
    assert f"Open {origin}/ " in TUTORIAL


def test_a_whole_conversation_is_one_call(show: Callable[[str], Page]) -> None:
    page = show(CLIENTS)
    page.get_by_label("Message", exact=True).fill("Good morning, all of you")
    page.keyboard.press("Enter")
    expect(page.locator("article.turn")).to_have_attribute("data-outcome", "completed")
    expect(page.locator("article.turn")).to_contain_text("Good morning, all of you")
