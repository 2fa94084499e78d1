"""Whether somebody who was let in once would be let in still."""

from collections.abc import Callable, Collection
from typing import Final

from broker.hooks import Principal

from .revocations import Kind, Revocations
from .settings import Revoked

__all__ = ["Standing", "is_named"]

TICKET: Final = "ticket:"
"""Begins the `credential` of those who came by a ticket of the broker's."""
TICKET_MILLISECONDS: Final = 30_000
"""How long a ticket can be shown: one that is shown later than that after a revocation was made after it."""


class Standing:
    """Judges principals by what the settings hold now, and by what was revoked while running.

    Args:
        marks: of all keys in the settings; who was let in with another is not any more.
        revoked: what the settings refuse by name.
        revocations: what was revoked while running.
        now: milliseconds since the epoch.
    """

    def __init__(
        self, marks: Collection[str], revoked: Revoked, revocations: Revocations, now: Callable[[], int]
    ) -> None:
        self._marks = marks
        self._users, self._tokens = frozenset(revoked.users), frozenset(revoked.tokens)
        self._revocations = revocations
        self._now = now
        self._names_nobody = not self._users and not self._tokens

    def is_lost(self, who: Principal) -> bool:
        """Tell whether it would not be let in any more; asked before each operation, so quick."""
        mark = who.claims.get("by")
        if mark is not None and mark not in self._marks:
            return True
        if not self._names_nobody and (who.user in self._users or who.claims.get("jti") in self._tokens):
            return True
        return self._revocations.some and self._was_revoked(who)

    def _was_revoked(self, who: Principal) -> bool:
        jti, issued = who.claims.get("jti"), who.claims.get("iat")
        if isinstance(jti, str) and self._revocations.of_token(jti) is not None:
            return True
        at = self._revocations.of_user(who.user or "")
        if at is None or _is_backend(who):
            return False
        if _by_ticket(who):
            return self._now() - at < TICKET_MILLISECONDS
        return issued is None or bool(issued <= at)


def is_named(who: Principal, kind: Kind, name: str) -> bool:
    """Tell whether a revocation is about somebody who is connected."""
    if kind == "jti":
        return bool(who.claims.get("jti") == name)
    return who.user == name and not _is_backend(who)


def _is_backend(who: Principal) -> bool:
    """Tell whether it is known by an API key, which the settings alone take away."""
    return who.expires_at is None and not _by_ticket(who)


def _by_ticket(who: Principal) -> bool:
    return (who.credential or "").startswith(TICKET)
