"""Whether somebody who was let in once would be let in still."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from broker.hooks import Principal

from .revocations import Kind, Revocations, of_issuer
from .settings import Revoked

__all__ = ["Standing", "is_named"]

TICKET: Final = "ticket"
"""The claim of those who came by a ticket of the broker's: who made it (`by`) and when (`at`, milliseconds)."""


class Standing:
    """Judges principals by what the settings hold now, and by what was revoked while running.

    Args:
        marks: of all keys in the settings; who was let in with another is not any more.
        revoked: what the settings refuse by name.
        revocations: what was revoked while running.
        leeway: seconds that an issuer's clock may be ahead, so that what it issued before a revocation says later.
    """

    def __init__(self, marks: Collection[str], revoked: Revoked, revocations: Revocations, leeway: float) -> None:
        self._marks = frozenset([*marks, None])  # nobody's: somebody whom another plugin let in
        self._users, self._tokens = frozenset(revoked.users), frozenset(revoked.tokens)
        self._revocations = revocations
        self._leeway = round(leeway * 1000)
        self._names_somebody = bool(self._users or self._tokens)

    def is_lost(self, who: Principal) -> bool:
        """Tell whether it would not be let in any more; asked before each operation, so quick."""
        if who.claims.get("by") not in self._marks:
            return True
        if self._names_somebody and self._is_named(who):
            return True
        return self._revocations.some and self._was_revoked(who)

    def _is_named(self, who: Principal) -> bool:
        users = (who.user, _ticket(who).get("by"))
        return not self._users.isdisjoint(users) or not self._tokens.isdisjoint(_token_names(who))

    def _was_revoked(self, who: Principal) -> bool:
        if any(self._revocations.of_token(name) is not None for name in _token_names(who)):
            return True
        ticket = _ticket(who)
        if ticket and self._revoked_before(who.user, ticket.get("at"), 0):
            return True
        if "api_key" in who.claims:  # which the settings alone take away
            return False
        shown_by = ticket.get("by") if ticket else who.user
        return self._revoked_before(shown_by, who.claims.get("iat"), self._leeway)

    def _revoked_before(self, user: Any, made: Any, leeway: int) -> bool:
        """Tell whether a user was revoked after something of theirs was made, as far as the clocks can tell."""
        at = self._revocations.of_user(user) if isinstance(user, str) else None
        return at is not None and (made is None or bool(made <= at + leeway))


def is_named(who: Principal, kind: Kind, name: str) -> bool:
    """Tell whether a revocation is about somebody who is connected."""
    if kind == "jti":
        return name in _token_names(who)
    ticket, by_key = _ticket(who), "api_key" in who.claims
    if ticket:
        return who.user == name or (ticket.get("by") == name and not by_key)
    return who.user == name and not by_key


def _ticket(who: Principal) -> Mapping[str, Any]:
    noted = who.claims.get(TICKET)
    return noted if isinstance(noted, Mapping) else {}


def _token_names(who: Principal) -> tuple[str, ...]:
    """Return what the token that was shown, or by which the ticket was made, can be revoked as."""
    jti, issuer = who.claims.get("jti"), who.claims.get("iss")
    return (jti, of_issuer(jti, issuer)) if isinstance(jti, str) else ()
