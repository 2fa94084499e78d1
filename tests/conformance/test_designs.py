"""The pages that map each design to what became of it name tests, modules and pages that are there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted((ROOT / "docs/designs").glob("[0-9]*.md"))
FOLDERS: Final = "actors|bench|broker|deploy|docs|examples|plugins|tests"
PATH: Final = re.compile(rf"`((?:{FOLDERS})/[\w./-]*|[A-Z_]+\.md|config\.yaml|Makefile)(?:::(\w+))?`")
LINK: Final = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def names_in(file: Path) -> set[str]:
    """Return what a Python file defines: functions, classes and their methods."""
    tree = ast.parse(file.read_text())
    return {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


def astray(text: str, folder: Path) -> Iterator[str]:
    """Yield what a page names that is not there; what the first column quotes is the design's own."""
    ours = re.sub(r"^\|.*?(?<!\\)\|", "", text, flags=re.MULTILINE)
    for path, name in PATH.findall(ours):
        file = ROOT / path
        if not file.exists() or (name and name not in names_in(file)):
            yield f"{path}::{name}" if name else path
    for link in LINK.findall(text):
        if not link.startswith("https://") and not (folder / link).exists():
            yield link


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables' rows, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if row[-1] != "test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_all_that_a_page_names_is_there(page: Path) -> None:
    assert list(astray(page.read_text(), page.parent)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_sentence_says_where_it_is_and_what_shows_it_or_why_not(page: Path) -> None:
    found = rows(page.read_text())
    assert found
    assert [row for row in found if len(row) != 3 or not all(row)] == []
    assert [row for row in found if "::" not in row[2] and not row[2].startswith("-")] == []


def test_what_is_not_there_is_found() -> None:
    row = "| `plugins/theirs` | `tests/nowhere.py` | `tests/conformance/test_designs.py::test_nothing` |"
    text = f"{row}\n`broker/errors.py` [a](nowhere.md)"
    found = list(astray(text, ROOT / "docs/designs"))
    assert found == ["tests/nowhere.py", "tests/conformance/test_designs.py::test_nothing", "nowhere.md"]
