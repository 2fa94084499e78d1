"""Rooms and sessions by pattern: `*` is any run of characters, `?` is any one; case counts.

What a token says of them is kept as the JSON it is, a list of patterns or a mapping of patterns to operations, and
read when somebody is about to do something: tickets carry the same.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

__all__ = ["allows", "allows_somewhere", "check_claim", "matches"]

MOST_PATTERNS: Final = 256
"""Patterns in one claim."""
LONGEST_PATTERN: Final = 256
"""Characters of one pattern."""
LONGEST_NAME: Final = 256
"""Characters of the longest name that there is, of a room, a session or a user; no other fits any pattern."""

USER: Final = "{user}"
_ANY: Final = "*"
_ONE: Final = "?"


def matches(pattern: str, name: str, user: str = "") -> bool:
    """Tell whether a name fits a pattern, in at most len(pattern) x len(name) steps.

    Args:
        pattern: the pattern.
        name: the name, of a room or session.
        user: what `{user}` in the pattern stands for; its characters are no wildcards.
    """
    return pattern == _ANY or bool(_matcher(pattern, user)(name))


@lru_cache(maxsize=1024)
def _matcher(pattern: str, user: str) -> Callable[[str], object]:
    """Return what tells whether a name fits; most patterns are a name, or the beginning of one."""
    shortest = len(pattern) - pattern.count(_ANY) + pattern.count(USER) * (len(user) - len(USER))
    if shortest > LONGEST_NAME:
        return lambda _: False
    begins = pattern.removesuffix(_ANY)
    if not {_ANY, _ONE} & set(begins):
        text = begins.replace(USER, user)
        return text.__eq__ if begins == pattern else lambda name: name.startswith(text)
    return re.compile(_expression(pattern, user), re.DOTALL).fullmatch


def _expression(pattern: str, user: str) -> str:
    """Return a pattern as a regular expression that tries nothing twice: each piece is found where it comes first."""
    first, *others = (_literally(piece, user) for piece in re.sub(r"\*+", _ANY, pattern).split(_ANY))
    if not others:
        return first
    return first + "".join(f"(?>.*?{piece})" for piece in others[:-1]) + f".*{others[-1]}"


def _literally(piece: str, user: str) -> str:
    # The name is put in last, and as it is: what looks like a wildcard in it is none.
    parts = ("".join("." if char == _ONE else re.escape(char) for char in part) for part in piece.split(USER))
    return re.escape(user).join(parts)


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
    if isinstance(claim, list):  # the usual case, at every message about a room or a session
        if _ANY in claim:
            return True
        if name is not None:
            for one in claim:
                if isinstance(one, str) and _matcher(one, user)(name):
                    return True
        return False
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
