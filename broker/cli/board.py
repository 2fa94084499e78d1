"""What `broker top` shows, drawn from the answers of the HTTP API."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from broker.cli.output import one_line
from broker.cli.talk import age_in_words, in_words, size_in_words

__all__ = ["Seen", "board", "sparkline"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_LONGEST: Final = 500
"""Characters of a text that are looked at: more than a screen is wide."""
_FRAME: Final = 3
"""Rows of a table beside those of its data: its title, its head and the empty one above."""
_STATES: Final = {"ready": "green", "busy": "yellow", "down": "red", "idle": "dim"}
_WIDE: Final = 100
"""Columns from which on figures stand three beside each other."""


@attrs.frozen
class Seen:
    """What one look at the broker has shown.

    Attributes:
        url: where it is.
        overview: its figures.
        agents: its agents.
        sessions: its newest sessions.
        connections: who is connected, as far as one may know.
        trouble: why the newest look failed, if it did: what is shown is from before.
    """

    url: str
    overview: dict[str, Any]
    agents: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    connections: list[dict[str, Any]]
    trouble: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"at": self.overview["at"], **attrs.asdict(self, filter=attrs.filters.exclude("trouble"))}


def board(seen: Seen, width: int, height: int | None = None) -> RenderableType:
    """Draw it for a screen of this width and height; without a height there is room for all."""
    beside = 3 if width >= _WIDE else 2
    figures = _figures(seen.overview, beside, width)
    parts: list[RenderableType] = [_head(seen), Text(), figures]
    left = None if height is None else height - 2 - figures.row_count
    tables = [
        ("Agents", seen.agents, _AGENT),
        ("Newest sessions", seen.sessions, _SESSION),
        ("Connections", seen.connections, _CONNECTION),
    ]
    tables = [table for table in tables if table[1]]
    for place, (title, rows, columns) in enumerate(tables):
        room = len(rows) if left is None else min(len(rows), left // (len(tables) - place) - _FRAME)
        if room > 0:
            parts += [Text(), _table(title, rows[:room], len(rows), columns)]
            left = None if left is None else left - room - _FRAME
    return Group(*parts)


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Return the newest of these values as a line of bars from 0 to the highest; a blank where nothing was seen."""
    shown = values[-width:]
    most = max((value for value in shown if value), default=0)
    top = len(_BARS) - 1
    return "".join(" " if one is None else _BARS[round(one / most * top) if most else 0] for one in shown)


# -- the head and the figures -----------------------------------------------------------------------


def _head(seen: Seen) -> Text:
    now = seen.overview["now"]
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(f"actor-broker {now['version']}", "bold")
    head.append(f"  {seen.url}  up {age_in_words(now['uptime'])}")
    if trouble := seen.trouble or now["trouble"]:
        head.append(f"  {one_line(trouble)}", "bold red")
    return head


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.{0 if value >= 100 else 1}f}/s"  # noqa: PLR2004 - three digits do


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


_SHOWN: Final[tuple[tuple[str, str, Callable[[float | None], str]], ...]] = (
    ("connections", "connections", _count),
    ("sessions", "sessions", _count),
    ("turns_open", "open turns", _count),
    ("rooms", "rooms", _count),
    ("messages_in", "messages in", _rate),
    ("messages_out", "messages out", _rate),
    ("errors", "errors", _rate),
    ("error_rate", "error rate", _share),
    ("delivery_p95", "delivery p95", in_words),
    ("first_token_p95", "1st token p95", in_words),
    ("commit_p95", "commit p95", in_words),
    ("loop_lag", "loop lag", in_words),
    ("memory", "memory", size_in_words),
    ("store_backlog", "store backlog", _count),
)
"""The figures: their name in the answer, what people call them, and how they are written."""


def _figures(overview: dict[str, Any], beside: int, width: int) -> Table:
    cell = width // beside
    bars = max(4, cell - 29)
    grid = Table.grid(padding=(0, 1))
    for _ in range(beside):
        grid.add_column(width=13, no_wrap=True, style="dim")
        grid.add_column(width=11, no_wrap=True, justify="right")
        grid.add_column(width=bars, no_wrap=True, style="cyan")
    cells = [_figure(overview, *shown, bars) for shown in _SHOWN]
    for first in range(0, len(cells), beside):
        grid.add_row(*(part for one in cells[first : first + beside] for part in one))
    return grid


def _figure(
    overview: dict[str, Any], name: str, title: str, write: Callable[[float | None], str], bars: int
) -> tuple[str, str, str]:
    series = overview["series"].get(name, [])
    return title, write(overview["now"].get(name)), sparkline(series, bars)


# -- the tables -------------------------------------------------------------------------------------


@attrs.frozen
class _Column:
    """A column: its head, what it says of a row, and how it is laid out."""

    title: str
    say: Callable[[dict[str, Any]], str | Text]
    right: bool = False
    ratio: int | None = None


def _table(title: str, rows: list[dict[str, Any]], all_rows: int, columns: Sequence[_Column]) -> Table:
    left_out = f", {len(rows)} of {all_rows}" if len(rows) < all_rows else ""
    table = Table(title=f"{title}{left_out}", title_justify="left", title_style="bold", box=None, expand=True)
    table.pad_edge = False
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            ratio=column.ratio,
            no_wrap=True,
            overflow="ellipsis",
            header_style="dim",
        )
    for row in rows:
        table.add_row(*(column.say(row) for column in columns))
    return table


def _text(name: str) -> Callable[[dict[str, Any]], str | Text]:
    return lambda row: Text(one_line(str(row.get(name) or "")[:_LONGEST]) or "-")


def _state(row: dict[str, Any]) -> Text:
    return Text(row["state"], _STATES.get(row["state"], ""))


def _places(row: dict[str, Any]) -> str:
    capacity = row["capacity"]
    return str(row["in_flight"]) if capacity is None else f"{row['in_flight']} of {capacity}"


def _success(row: dict[str, Any]) -> str:
    rate = row["success_rate"]
    return "-" if rate is None else f"{rate:.0%} of {sum(row['outcomes'].values())}"


def _first_token(row: dict[str, Any]) -> str:
    seen = row["first_token"]
    return "-" if seen is None else in_words(seen["p95"])


def _error(row: dict[str, Any]) -> Text:
    error = row["last_error"]
    return Text("" if error is None else one_line(error["message"][:_LONGEST]), "red")


def _since(name: str) -> Callable[[dict[str, Any]], str | Text]:
    def say(row: dict[str, Any]) -> str:
        return age_in_words((datetime.now(UTC) - datetime.fromisoformat(row[name])).total_seconds())

    return say


_AGENT: Final = (
    _Column("name", _text("name"), ratio=2),
    _Column("kind", _text("kind")),
    _Column("state", _state),
    _Column("at work", _places, right=True),
    _Column("waiting", lambda row: str(row["queued"]), right=True),
    _Column("completed", _success, right=True),
    _Column("1st token", _first_token, right=True),
    _Column("restarts", lambda row: str(row["restarts"]), right=True),
    _Column("last error", _error, ratio=3),
)
_SESSION: Final = (
    _Column("session", _text("session_id")),
    _Column("title", _text("title"), ratio=1),
    _Column("agent", _text("agent")),
    _Column("owner", _text("owner")),
    _Column("state", _text("state")),
    _Column("changed", _since("updated_at"), right=True),
)
_CONNECTION: Final = (
    _Column("connection", _text("connection_id")),
    _Column("user", _text("user"), ratio=1),
    _Column("speaks", lambda row: row["protocol"].partition(".")[0]),
    _Column("address", _text("address"), ratio=1),
    _Column("waiting", lambda row: size_in_words(row.get("outbox_bytes")), right=True),
    _Column("since", _since("connected_at"), right=True),
)
