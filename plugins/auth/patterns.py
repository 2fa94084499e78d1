"""Rooms and sessions by pattern: `*` is any run of characters, `?` is any one; case counts.

What a token says of them is kept as the JSON it is, a list of patterns or a mapping of patterns to operations, and
read when somebody is about to do something: tickets carry the same.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

__all__ = ["allows", "allows_somewhere", "check_claim", "matches"]

MOST_PATTERNS: Final = 256
"""Patterns in one claim."""
LONGEST_PATTERN: Final = 256
"""Characters of one pattern, the length of a room's name."""

USER: Final = "{user}"
_ANY: Final = "*"
_ONE: Final = "?"


class _Wild(str):
    """A piece of a pattern that stands for others; the same character in a user's name stands for itself."""

    __slots__ = ()


@lru_cache(maxsize=4096)
def _compiled(pattern: str, user: str) -> tuple[str, ...]:
    """Return the pieces of a pattern, with the user's name put in literally."""
    pieces: list[str] = []
    for index, part in enumerate(pattern.split(USER)):
        if index:
            pieces.extend(user)
        pieces.extend(_Wild(char) if char in {_ANY, _ONE} else char for char in part)
    return tuple(pieces)


def matches(pattern: str, name: str, user: str = "") -> bool:
    """Tell whether a name fits a pattern, in at most len(pattern) x len(name) steps.

    Args:
        pattern: the pattern.
        name: the name, of a room or session.
        user: what `{user}` in the pattern stands for; its characters are no wildcards.
    """
    if pattern == _ANY:
        return True
    pieces = _compiled(pattern, user)
    at = here = 0
    star, resume = -1, 0
    while here < len(name):
        piece = pieces[at] if at < len(pieces) else None
        if piece == _ANY and isinstance(piece, _Wild):
            star, resume = at, here
            at += 1
        elif piece is not None and (piece == name[here] or (piece == _ONE and isinstance(piece, _Wild))):
            at, here = at + 1, here + 1
        elif star >= 0:  # let the last star take one character more
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return all(isinstance(piece, _Wild) and piece == _ANY for piece in pieces[at:])


def check_claim(claim: Any) -> None:
    """Refuse what is neither a list of patterns nor a mapping of patterns to lists of operations.

    Raises:
        ValueError: it is neither, or has too many or too long ones.
    """
    if isinstance(claim, Mapping):
        if not all(_is_list_of_text(verbs) for verbs in claim.values()):
            raise ValueError('each pattern needs a list of operations, such as {"team-*": ["join", "history"]}')
    elif not _is_list_of_text(claim):
        raise ValueError('expected a list of patterns, such as ["team-*"]')
    if len(claim) > MOST_PATTERNS or any(len(pattern) > LONGEST_PATTERN for pattern in claim):
        raise ValueError(f"at most {MOST_PATTERNS} patterns of at most {LONGEST_PATTERN} characters")


def allows(claim: Any, verb: str, name: str | None, user: str) -> bool:
    """Tell whether a claim lets `user` do something.

    Args:
        claim: a list or a mapping as `check_claim` wants it; anything else lets nobody do anything.
        verb: what, such as `join`.
        name: to which room or session; None for one that has no name yet, which only `*` fits.
        user: who.
    """
    if isinstance(claim, list) and _ANY in claim:
        return True
    for pattern, verbs in _pairs(claim):
        if verbs is not None and verb not in verbs:
            continue
        if pattern == _ANY or (name is not None and matches(pattern, name, user)):
            return True
    return False


def allows_somewhere(claim: Any, verb: str) -> bool:
    """Tell whether a claim lets do something to any room or session at all."""
    return any(verbs is None or verb in verbs for _, verbs in _pairs(claim))


def _pairs(claim: Any) -> Sequence[tuple[str, Any]]:
    if isinstance(claim, Mapping):
        return [(pattern, verbs) for pattern, verbs in claim.items() if isinstance(verbs, list | tuple)]
    if isinstance(claim, list | tuple):
        return [(pattern, None) for pattern in claim if isinstance(pattern, str)]
    return ()


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
