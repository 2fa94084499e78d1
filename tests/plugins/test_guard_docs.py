"""docs/validation.md, content-filter.md and access.md name every setting with its default, and what they show works."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from broker import config
from broker.config.units import format_duration
from broker.extensions.loader import load
from broker.plugins.access import AccessSettings
from broker.plugins.content_filter import FilterSettings, Rule
from broker.plugins.validation import ValidationSettings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"validation": ValidationSettings, "content-filter": FilterSettings, "access": AccessSettings}
BLOCKS = [
    (page, yaml)
    for page in PAGES
    for yaml in re.findall(r"```yaml\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
]


def rows(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in attrs.fields(cls):
        if not field.init:
            continue
        if attrs.has(field.type):
            yield from rows(field.type, f"{field.name}.")
            continue
        yield prefix + field.name, field
        if field.name == "rules":
            yield from rows(Rule, "rules[].")


def default(field: Any) -> str:
    """Return a default as the tables have it."""
    value = field.default
    if value is attrs.NOTHING:
        return ""
    if value is None:
        return "null"
    if value == () or isinstance(value, attrs.Factory):  # type: ignore[arg-type]  # it is a class
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f"`{format_duration(value) if isinstance(value, float) else value}`"


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_has_its_row_and_its_default(page: str) -> None:
    text = (DOCS / f"{page}.md").read_text()
    table = text[text.index("## Settings") :].partition("\n\n")[2].partition("\n\n")[0]
    found = re.findall(r"^\| `([\w.\[\]]+)` \| (.*?) ?\| ", table, re.MULTILINE)
    assert found == [(name, default(field)) for name, field in rows(PAGES[page])]


@pytest.mark.parametrize(("page", "yaml"), BLOCKS, ids=[page for page, _ in BLOCKS])
def test_each_configuration_is_a_good_one(tmp_path: Path, page: str, yaml: str) -> None:
    for name in ("auth.key", "access.key"):
        (tmp_path / name).write_text("0123456789abcdef" * 4)
    (tmp_path / "config.yaml").write_text(yaml)
    loaded = config.load(tmp_path / "config.yaml", {}, {})
    assert load(loaded.settings, loaded.file).problems == []


async def test_the_service_on_the_page_answers_as_the_page_says() -> None:
    page = (DOCS / "access.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    application: web.Application = names["service"]()
    (question,) = re.findall(r'^(\{"user".*\})$', page, re.MULTILINE)
    async with TestClient(TestServer(application)) as client:
        assert await (await client.post("/may", data=question)).json() == {"allow": True, "reason": ""}
        other = question.replace('"ann"', '"bob"')
        assert (await (await client.post("/may", data=other)).json())["allow"] is False
