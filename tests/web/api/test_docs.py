"""docs/http.md says what the API does: its examples are run, its table is compared."""

import asyncio
import json
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker import tickets
from broker.app import App
from broker.web.api import replays, sessions
from broker.web.api.endpoint import ENDPOINTS, Endpoint
from broker.web.api.openapi import openapi

Start = Callable[..., Awaitable[App]]

PAGE = (Path(__file__).parents[3] / "docs/http.md").read_text()
ANY = "…"


def examples() -> Iterator[tuple[str, list[Any]]]:
    """Yield each example's commands, and what the page says that they answer."""
    for commands, _, answers in re.findall(r"```sh\n(.*?)```\n(\n```json\n(.*?)```)?", PAGE, re.DOTALL):
        yield commands, list(documents(answers))


def documents(text: str) -> Iterator[Any]:
    """Yield the JSON documents that follow each other in a text."""
    while text := text.strip():
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:]


def fits(shown: Any, real: Any) -> bool:
    """Tell whether an answer is the one shown, but for what is shown as an ellipsis."""
    if isinstance(shown, dict):
        return isinstance(real, dict) and shown.keys() == real.keys() and all(fits(shown[k], real[k]) for k in shown)
    if isinstance(shown, list):
        return isinstance(real, list) and len(shown) == len(real) and all(map(fits, shown, real))
    return isinstance(real, str) if shown == ANY else shown == real


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's examples need curl")
async def test_the_examples_answer_what_is_shown(start: Start, tmp_path: Path) -> None:
    app = await start(store={"url": f"sqlite:///{tmp_path}/broker.db"})
    found = list(examples())
    assert len(found) >= 8
    for commands, shown in found:
        text = commands.replace("curl ", "curl --silent --show-error ").replace(":3000/", f":{app.port}/")
        process = await asyncio.create_subprocess_shell(f"set -e\n{text}", stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        answers = list(documents(out.decode()))
        assert process.returncode == 0
        assert answers
        if shown:
            assert all(fits(shown[min(index, len(shown) - 1)], answer) for index, answer in enumerate(answers)), answers


def told(row: Endpoint, document: Any) -> str:
    """Return what an endpoint takes, as the page writes it."""
    operation = document["paths"]["/api/v1" + row.path][row.method.lower()]
    if row.takes_body:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        needed, names = schema.get("required", ()), schema.get("properties", {})
    else:
        needed, names = (), [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    return " ".join(f"`{name}`" if name in needed else f"`{name}?`" for name in names)


def test_the_table_has_every_endpoint_with_what_it_takes(app: App) -> None:
    document = json.loads(openapi(app.services))
    rows = re.findall(r"^\| `([A-Z]+ /\S*)` \| .+? \| (.*?) ?\| `(.+?)` \|$", PAGE, re.MULTILINE)
    expected = {f"{row.method} {row.path}": (set(told(row, document).split()), row.operation) for row in ENDPOINTS}
    assert {path: (set(takes.split()), operation) for path, takes, operation in rows} == expected


@pytest.mark.parametrize("text", ["10 minutes", "10,000", "16 MiB", "30 seconds", "86,400", "1 to 255"])
def test_the_figures_are_those_of_the_code(text: str) -> None:
    figures = {
        f"{replays.KEEP_SECONDS / 60:.0f} minutes",
        f"{replays.MOST:,}",
        f"{replays.MEMORY >> 20} MiB",
        f"{tickets.TICKET_SECONDS:.0f} seconds",
        f"{tickets.MAX_GRANT_SECONDS:,}",
        f"1 to {replays.LONGEST_KEY}",
    }
    assert text in figures
    assert text in PAGE
    assert tickets.LIMIT == replays.MOST
    assert sessions.LONGEST_ID < replays.LONGEST_KEY
