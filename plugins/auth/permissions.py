"""Who may do what: by the patterns and scopes of who asks. What belongs to whom is the core's affair."""

from functools import lru_cache
from typing import Final

import attrs

from broker.errors import BrokerError
from broker.hooks import Permission

from .patterns import allows, allows_somewhere, matches
from .settings import Settings

__all__ = ["Permissions"]

CLAIM_OF: Final = {
    "room": "rooms",
    "project": "rooms",
    "session": "sessions",
    "turn": "sessions",
    "approval": "sessions",
}
"""Which claim an operation is judged by, by its first word; the rest of it is the verb that mappings list."""

PROJECT: Final = "project:"
"""Begins the names of the rooms that are projects, before the project's guid; the claim `projects` narrows them."""

LEAVING: Final = frozenset({"room.leave", "session.detach"})
"""What needs nothing: nobody is kept against their will."""

LISTING: Final = frozenset({"list"})
"""Verbs that are about several at once: the core shows one's own, where any pattern lets list at all."""


KNOWN: Final = 1024
"""Operations whose rule is remembered; there are some thirty, and those of plugins."""


@attrs.frozen
class _Rule:
    """What an operation takes.

    Attributes:
        scopes: all of these.
        claim: the claim that has to allow it; None for none.
        verb: what the claim calls it.
    """

    scopes: frozenset[str]
    claim: str | None
    verb: str


class Permissions:
    """Lets do, or refuses, by one version of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._require = tuple(settings.require.items())
        # Not on the class: the rules are gone with their settings.
        self._rule_of = lru_cache(maxsize=KNOWN)(self._make)

    def check(self, check: Permission) -> None:
        """Let somebody do something, or refuse it.

        Raises:
            BrokerError: `unauthenticated` for nobody, `forbidden` with a hint.
        """
        who, operation = check.principal, check.operation
        rule = self._rule_of(operation)
        if rule is None or "admin" in who.scopes:
            return
        if who.user is None:
            raise BrokerError("unauthenticated")
        if not rule.scopes <= who.scopes:
            missing = ", ".join(sorted(rule.scopes - who.scopes))
            raise BrokerError("forbidden", f"That takes the scope {missing}.")
        if rule.claim is None:
            return
        _judge(check, rule.claim, rule.verb, check.resource)
        # Both have to allow it, so nobody who adds the claim, as the maker of a ticket may, can widen anything.
        if rule.claim == "rooms" and "projects" in who.claims and (check.resource or "").startswith(PROJECT):
            _judge(check, "projects", rule.verb, (check.resource or "").removeprefix(PROJECT))

    def _make(self, operation: str) -> _Rule | None:
        """Return what an operation takes; None if nothing."""
        if operation in LEAVING:
            return None
        domain, _, verb = operation.partition(".")
        scopes = frozenset(scope for pattern, scope in self._require if matches(pattern, operation))
        return _Rule(scopes, CLAIM_OF.get(domain), verb)


def _judge(check: Permission, claim: str, verb: str, name: str | None) -> None:
    """Refuse what a claim does not allow."""
    granted, user = check.principal.claims.get(claim), check.principal.user or ""
    at_all = verb in LISTING and name is None
    if not (allows_somewhere(granted, verb) if at_all else allows(granted, verb, name, user)):
        message = f"What you showed does not allow {check.operation} here."
        raise BrokerError("forbidden", message, hint=f"the claim {claim}")
