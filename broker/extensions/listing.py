"""What `broker plugins` prints: a table that fits the terminal, and everything about one plugin."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

__all__ = ["detail", "table"]

Row = Mapping[str, Any]

_COLUMNS: Final = ("name", "status", "version", "source")
_GAP: Final = "  "
NARROW: Final = 24
"""The least characters that hooks get: a terminal may be too narrow for anything."""


def table(rows: Sequence[Row], width: int) -> str:
    """Return a line for each plugin, its hooks wrapped in a column of their own, and below what is wrong.

    Args:
        rows: of `broker.extensions.loader.describe`.
        width: of the terminal, in characters.
    """
    cells = [[str(row[name] or "-") for name in _COLUMNS] for row in rows]
    head = [name.upper() for name in _COLUMNS]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = list(_line([*head, "HOOKS"], widths, width))
    for row, line in zip(rows, cells, strict=True):
        lines += _line([*line, ", ".join(row["hooks"]) or "-"], widths, width)
    remarks = [text for row in rows for text in _remarks(row)]
    return "\n".join([*lines, *([""] * bool(remarks)), *remarks])


def detail(row: Row) -> str:
    """Return all there is to say about one plugin, a line for each thing.

    Args:
        row: of `broker.extensions.loader.describe`.
    """
    facts = {name: row[name] for name in ("name", "about", "status", "version", "source", "location", "hides")}
    facts["hooks"] = ", ".join(row["hooks"])
    lines = [f"{name + ':':<10} {value}" for name, value in facts.items() if value]
    if row["settings"]:
        lines += ["settings:", *_settings(row["settings"], 1)]
    if row["error"]:
        lines += ["error:", textwrap.indent(row["error"], _GAP)]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], width: int) -> Iterator[str]:
    start = _GAP.join(cell.ljust(size) for cell, size in zip(cells, widths, strict=False))
    first, *more = textwrap.wrap(cells[-1], max(NARROW, width - len(start) - len(_GAP)), break_long_words=False)
    yield f"{start}{_GAP}{first}".rstrip()
    yield from (" " * (len(start) + len(_GAP)) + text for text in more)


def _remarks(row: Row) -> Iterator[str]:
    """Yield what an operator must not overlook; tracebacks are left to `detail`."""
    if row["hides"] and row["source"] == "drop-in":
        yield f"{row['name']}: {row['location']} takes the place of the {row['hides']} of that name"
    if row["error"]:
        first, *more = row["error"].splitlines()
        yield f"{row['name']}: {first}" + (f" (more: broker plugins {row['name']})" if more else "")


def _settings(settings: Mapping[str, Any], depth: int) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield f"{_GAP * depth}{name}:"
            yield from _settings(value, depth + 1)
        else:
            yield f"{_GAP * depth}{name}: {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_shown(child)}' for name, child in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return value if isinstance(value, str) and value else json.dumps(value)
