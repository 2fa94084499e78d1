"""Tickets: what a backend hands to a page, good for one handshake (PROTOCOL section 5, `POST tickets`).

A page cannot send an Authorization header with its handshake, and a token in an address stands in every log on the
way. A ticket may stand there: it is worth nothing once it was shown, or half a minute later.
"""

import hashlib
import secrets
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import attrs
import msgspec

from broker.clock import Clock
from broker.errors import BrokerError
from broker.ids import new_id
from broker.messages import Principal

__all__ = [
    "GRANT_SECONDS",
    "LIMIT",
    "MADE_BY",
    "MAX_CLAIMS",
    "MAX_GRANT_SECONDS",
    "TICKET_SECONDS",
    "Ticket",
    "Tickets",
    "grant",
]

TICKET_SECONDS: Final = 30.0
"""How long a ticket can be shown (PROTOCOL section 5)."""
GRANT_SECONDS: Final = 3600
"""How long somebody who came by a ticket is known, unless its maker says otherwise."""
MAX_GRANT_SECONDS: Final = 86_400
LIMIT: Final = 10_000
"""Tickets that may wait to be shown."""
MAX_CLAIMS: Final = 4096
"""Bytes of JSON of all that a ticket says: a token's worth, and with `LIMIT` of them 40 MiB."""
MADE_BY: Final = "ticket"
"""The claim that only those have who came by a ticket: its maker's user (`by`) and when it was made (`at`)."""
PATTERNED: Final = frozenset({"rooms", "sessions", "projects"})
"""The claims that hold patterns."""
USER: Final = "{user}"
"""In a pattern of rooms or sessions: whoever shows it."""
ENTROPY: Final = 24
"""Random bytes of a ticket: 192 bits, more than can be guessed at in any number of tries."""


@attrs.frozen
class Ticket:
    """A ticket that was made.

    Attributes:
        text: the ticket itself; left out of `repr`, and kept nowhere.
        expires_at: milliseconds since the epoch after which it is not taken.
        grants: whom it lets in.
    """

    text: str = attrs.field(repr=False)
    expires_at: int
    grants: Principal


@attrs.frozen
class _Waiting:
    until: float
    grants: Principal


class Tickets:
    """The tickets that were made and not shown yet: their digests, in memory alone.

    Args:
        clock: time; a ticket's end is measured by the clock that never jumps.
        limit: how many there may be.
        seconds: how long each can be shown.
    """

    def __init__(self, clock: Clock, limit: int = LIMIT, seconds: float = TICKET_SECONDS) -> None:
        self._clock = clock
        self._limit = limit
        self._seconds = seconds
        self._waiting: dict[bytes, _Waiting] = {}  # oldest first, and all live equally long

    def __len__(self) -> int:
        """Return how many can be shown."""
        self._sweep()
        return len(self._waiting)

    def issue(self, grants: Principal) -> Ticket:
        """Make a ticket that lets in as `grants`.

        Raises:
            BrokerError: `overloaded`: there are as many as there may be. `too_large`: it would say too much.
        """
        _check_size(grants)
        self._sweep()
        if len(self._waiting) >= self._limit:
            raise BrokerError("overloaded", f"{self._limit} tickets wait to be shown already.", retry_after=1.0)
        text = secrets.token_urlsafe(ENTROPY)
        self._waiting[_digest(text)] = _Waiting(self._clock.monotonic() + self._seconds, grants)
        return Ticket(text, self._clock.now() + round(self._seconds * 1000), grants)

    def redeem(self, text: str) -> Principal | None:
        """Return whom a ticket lets in, and take it; None for one that was shown, is too old, or never was."""
        found = self.look(text)
        self._waiting.pop(_digest(text), None)
        return found

    def look(self, text: str) -> Principal | None:
        """Return whom a ticket would let in now, and leave it as it is: good for somebody who is refused for now."""
        found = self._waiting.get(_digest(text))
        if found is None or self._clock.monotonic() >= found.until:
            return None
        expires_at = found.grants.expires_at
        return None if expires_at is not None and self._clock.now() >= expires_at else found.grants

    def void(self, user: str) -> int:
        """Take back all that would let in this user; return how many there were."""
        gone = [digest for digest, waiting in self._waiting.items() if waiting.grants.user == user]
        for digest in gone:
            del self._waiting[digest]
        return len(gone)

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        while self._waiting:
            oldest = next(iter(self._waiting))
            if self._waiting[oldest].until > now:
                return
            del self._waiting[oldest]


def _check_size(grants: Principal) -> None:
    said = msgspec.json.encode([grants.user, sorted(grants.scopes), grants.claims], enc_hook=str)
    if len(said) > MAX_CLAIMS:
        hint = "narrow claims: what is left out is all that you have"
        raise BrokerError(
            "too_large", f"A ticket says at most {MAX_CLAIMS} bytes of JSON.", field="$.claims", hint=hint
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


# -- what a ticket may grant --------------------------------------------------------------------------


def grant(
    maker: Principal,
    now: int,
    *,
    user: str | None = None,
    scopes: frozenset[str] = frozenset(),
    claims: Mapping[str, Any] | None = None,
    expires_in: float = GRANT_SECONDS,
) -> Principal:
    """Return whom a ticket of `maker` lets in: never one who may do, or stay, more than its maker.

    A backend speaks for its users, so it may name any user; the scopes have to be among its own, each pattern of the
    claims within one of its own, and its own end is the ticket's too. Where its own patterns say `{user}` that is
    itself, whomever the ticket names. The claim `MADE_BY` tells plugins whose ticket it was, so that it can be taken
    back with its maker.

    Args:
        maker: who asks for the ticket.
        now: milliseconds since the epoch.
        user: who is let in; the maker itself if left out.
        scopes: what that one may do beyond the ordinary.
        claims: patterns of `rooms` and `sessions`, as in tokens; the maker's own where left out.
        expires_in: seconds after which whoever came by the ticket is nobody any more.

    Raises:
        BrokerError: `forbidden`: it would grant more than its maker has, or its maker came by a ticket itself.
    """
    if MADE_BY in maker.claims:
        raise BrokerError("forbidden", "Who came by a ticket makes none; its maker can make another.")
    if extra := scopes - maker.scopes:
        raise BrokerError("forbidden", f"Only what you have can be granted, not {', '.join(sorted(extra))}.")
    named = maker.user if user is None else user
    merged = dict(maker.claims) if named == maker.user else _spelt_out(maker)
    for name, wanted in (claims or {}).items():
        _check_within(name, merged.get(name), wanted, named or "")
        merged[name] = wanted
    merged[MADE_BY] = {"by": maker.user, "at": now}
    ends = now + round(expires_in * 1000)
    if maker.expires_at is not None:
        ends = min(ends, maker.expires_at)
    return Principal(
        user=named,
        scopes=scopes,
        expires_at=ends,
        credential=f"ticket:{new_id()}",
        claims=merged,
    )


def _spelt_out(maker: Principal) -> dict[str, Any]:
    """Return somebody's claims as they are in the hands of others: `{user}` in patterns is the maker's name.

    Where the name looks like a pattern itself, that cannot be said, and what it stands in is left out.
    """
    name = maker.user or ""
    sayable = bool(name) and not set("*?[{") & set(name)

    def spell(patterns: Any) -> Any:
        if isinstance(patterns, Mapping):
            return {spelt: patterns[one] for one in patterns for spelt in spell([one])}
        if not isinstance(patterns, list | tuple | frozenset):
            return patterns
        said = (one for one in patterns if sayable or USER not in str(one))
        return [one.replace(USER, name) if isinstance(one, str) else one for one in said]

    return {claim: spell(value) if claim in PATTERNED else value for claim, value in maker.claims.items()}


def _check_within(name: str, own: Any, wanted: Any, user: str) -> None:
    if own is None:
        return
    if not isinstance(own, Mapping | list | tuple | frozenset):
        raise BrokerError("forbidden", f"Your own {name} cannot be narrowed; leave it out.")
    for pattern in wanted:
        meant = pattern.replace(USER, user)
        covering = (mine for mine in own if mine == pattern or _covers(mine, meant))
        if not any(_operations(own, mine, wanted, pattern) for mine in covering):
            raise BrokerError("forbidden", f"Your own {name} do not cover {pattern!r}.")


def _covers(mine: str, pattern: str) -> bool:
    """Tell whether all that `pattern` can mean is within `mine`; of two that are hard to compare, no."""
    if mine in {"*", pattern}:
        return True
    if not set("*?[") & set(pattern):
        return fnmatchcase(pattern, mine.replace("[", "[[]"))
    start = mine.removesuffix("*")
    return mine.endswith("*") and not set("*?") & set(start) and pattern.startswith(start)


def _operations(own: Any, mine: str, wanted: Any, pattern: str) -> bool:
    """Tell whether the operations that one's own pattern is limited to hold those that are wanted."""
    if not isinstance(own, Mapping):
        return True
    return isinstance(wanted, Mapping) and set(wanted[pattern]) <= set(own[mine])
