"""The pages as axe-core judges them: nothing that shuts people out, in light and in dark."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import pytest

pytestmark = pytest.mark.timeout(180)

GRAVE: Final = {"serious", "critical"}
JUDGE: Final = """async (rules) => {
    const only = rules && { runOnly: rules };
    return (await axe.run(document, { resultTypes: ["violations"], ...only })).violations;
}"""
SHOWN: Final = {
    "overview": ".figure:not(:empty)",
    "connections": "tbody tr",
    "sessions": "tr[data-turn]",
    "rooms": "details.record",
    "agents": ".meter",
    "trace": ".waterfall tbody tr",
    "stream": ".piece",
    "latency": ".bar-mark:not([height='0'])",
    "plugins": ".card",
    "configuration": "tbody tr",
    "log": ".log li",
    "client": ".template",
}
"""What is there once a panel shows what it has to show."""


@pytest.fixture(scope="module")
def axe(node_tools: Path) -> str:
    """The judge."""
    return (node_tools / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A broker with something to show in every panel."""
    agents = {"echo": {"kind": "echo", "faults": True}, "worker": {"kind": "worker"}}
    server = serve(agents=agents, plugins={"metrics": {}, "alerts": {}}, default_agent="echo", log={"level": "info"})
    post(server, "sessions", session_id="s1", title="Order 4711", variables={"city": "Rome"})
    post(server, "sessions/s1/turns", client_msg_id="m1", content="Hello, echo!")
    post(server, "rooms/lobby/events", event="shipped", data={"carrier": "bike"})
    return server


def post(server: Any, path: str, **body: Any) -> None:
    headers = {"Content-Type": "application/json"}
    request = Request(f"{server.url}api/v1/{path}", json.dumps(body).encode(), headers, method="POST")
    with urlopen(request, timeout=10) as answer:
        assert answer.status < 300


@pytest.fixture
def page(browser: Any, axe: str) -> Iterator[Any]:
    """A tab with the judge in it."""
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.add_init_script(axe)
    yield page
    context.close()


def grave(page: Any) -> list[str]:
    """Return what is wrong and where, of what shuts people out; in the dark only colours are other ones."""
    page.emulate_media(color_scheme="light")
    found = page.evaluate(JUDGE, None)
    page.emulate_media(color_scheme="dark")
    found += page.evaluate(JUDGE, ["color-contrast"])
    return [f"{wrong['id']}: {node['html']}" for wrong in found if wrong["impact"] in GRAVE for node in wrong["nodes"]]


def test_no_panel_of_the_console_shuts_anybody_out(page: Any, server: Any) -> None:
    page.goto(server.url)
    page.wait_for_selector("#panels a")
    panels = page.locator("#panels a").evaluate_all("links => links.map(({ dataset }) => dataset.panel)")
    assert panels == list(SHOWN)
    wrong = {}
    for panel, content in SHOWN.items():
        page.goto(f"{server.url}#panel={panel}&session=s1&room=lobby&id=m1")
        page.wait_for_selector(f"#panel[data-panel={panel}] {content}")
        wrong[panel] = grave(page)
    assert wrong == {panel: [] for panel in panels}


def test_the_chat_page_shuts_nobody_out(page: Any, server: Any) -> None:
    page.goto(f"{server.url}chat")
    page.get_by_label("Message", exact=True).fill("Hello, echo!")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-outcome]")
    assert grave(page) == []


def test_the_judge_finds_what_is_wrong(page: Any, server: Any) -> None:
    page.goto(f"{server.url}chat")
    page.evaluate("document.body.append(document.createElement('button'))")
    assert any(wrong.startswith("button-name") for wrong in grave(page))
    dim = "@media (prefers-color-scheme: dark) { * { color: #333 !important; } }"
    page.evaluate("(rule) => document.styleSheets[0].insertRule(rule)", dim)
    assert any(wrong.startswith("color-contrast") for wrong in grave(page))
