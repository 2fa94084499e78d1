"""Mistakes in the configuration, told as a compiler tells them."""

from collections.abc import Iterable
from difflib import get_close_matches

import attrs

from broker.config.tree import Place

__all__ = ["ConfigErrors", "Problem", "suggest"]

_WIDEST = 160
_INDENT = "    "


@attrs.frozen
class Problem:
    """One mistake.

    Attributes:
        path: dotted name of the setting, empty where there is none.
        message: what is wrong, and what to do where that can be said.
        place: where it was written.
    """

    path: str
    message: str
    place: Place

    def render(self) -> str:
        """Return `file:line:column: path: message`, the line and carets under it (PROTOCOL section 7)."""
        place = self.place
        at = f"{place.source}:{place.line}:{place.column}" if place.line else place.source
        head = _printable(": ".join(part for part in (at, self.path, self.message) if part))
        if not place.text.strip():
            return head
        text, start = place.text, place.column - 1
        cut = max(0, start - _WIDEST // 2, len(text) - len(text.lstrip()) if start else 0)
        cut = min(cut, start)
        text, start = text[cut : cut + _WIDEST].rstrip(), start - cut
        carets = "^" * max(1, min(place.width, len(text) - start))
        blank = "".join("\t" if char == "\t" else " " for char in text[:start])
        return f"{head}\n{_INDENT}{text}\n{_INDENT}{blank}{carets}"


class ConfigErrors(Exception):  # noqa: N818 - it holds several, each of them an error
    """All mistakes of one configuration at once, in the order of the file.

    Args:
        problems: at least one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.place.line, problem.place.column))
        super().__init__(f"{len(self.problems)} mistakes in the configuration")

    def render(self) -> str:
        """Return all problems as text for a terminal."""
        return "\n".join(problem.render() for problem in self.problems)

    def __str__(self) -> str:
        return self.render()


def _printable(text: str) -> str:
    """Return text without what would steer a terminal or cannot be written: a message may quote the file."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known word nearest to `word`, or nothing if none is near."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
