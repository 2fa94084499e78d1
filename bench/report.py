"""What a measurement came to: lines of a table, each with its mark where one is set."""

import statistics
from collections.abc import Iterable
from typing import Any, Literal

import attrs

__all__ = ["Line", "Mark", "as_json", "table"]


@attrs.frozen
class Mark:
    """What a figure is meant to reach.

    Attributes:
        of: our own figure, or its ratio to the peer's.
        relation: whether the limit is the most or the least that meets it.
        limit: the limit, which still meets it.
    """

    of: Literal["ours", "ratio"]
    relation: Literal["<=", ">="]
    limit: float

    def met(self, value: float) -> bool:
        """Tell whether `value` reaches it."""
        return value <= self.limit if self.relation == "<=" else value >= self.limit

    def __str__(self) -> str:
        return f"{self.relation} {_figure(self.limit)}{' x' if self.of == 'ratio' else ''}"


@attrs.frozen
class Line:
    """One measured thing, a value per round.

    Attributes:
        title: what was measured.
        unit: of all values.
        ours: the broker's values.
        peer: the peer's, round by round beside ours; empty without one.
        best: which end of the values is the good one.
        mark: what it is meant to reach, None for a figure that only informs.
    """

    title: str
    unit: str
    ours: list[float]
    peer: list[float] = attrs.field(factory=list)
    best: Literal["least", "most"] = "least"
    mark: Mark | None = None

    @property
    def ratio(self) -> float | None:
        """The median of ours to the peer's of the same moment, so that a busy machine weighs on both."""
        if not self.peer:
            return None
        return statistics.median(a / b for a, b in zip(self.ours, self.peer, strict=True))

    @property
    def verdict(self) -> str:
        """`met` or `missed`; empty without a mark."""
        if self.mark is None:
            return ""
        value = self.ratio if self.mark.of == "ratio" else statistics.median(self.ours)
        assert value is not None, "a mark on a ratio needs a peer"
        return "met" if self.mark.met(value) else "missed"

    def cells(self) -> list[str]:
        """Return the line as words."""
        ratio = f"{self.ratio:.2f} x" if self.ratio is not None else ""
        mark = str(self.mark) if self.mark is not None else ""
        return [self.title, self.unit, *self._both(self.ours), *self._both(self.peer), ratio, mark, self.verdict]

    def _both(self, values: list[float]) -> list[str]:
        if not values:
            return ["", ""]
        if len(values) == 1:
            return [_figure(values[0]), ""]
        best = min(values) if self.best == "least" else max(values)
        return [_figure(statistics.median(values)), _figure(best)]


_HEADS = ["", "unit", "ours", "best", "aiohttp", "best", "ratio", "mark", ""]


def table(lines: Iterable[Line]) -> str:
    """Return the lines as an aligned table; the first figure of each pair is the median of the rounds."""
    rows = [_HEADS, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    rows.insert(1, ["-" * width for width in widths])
    left = {0, 1, len(_HEADS) - 1}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_json(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Return the lines with every round's value, for a program to read."""
    return [attrs.asdict(line) | {"ratio": line.ratio, "verdict": line.verdict} for line in lines]


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
