"""Who may do what: by the patterns and scopes of who asks. What belongs to whom is the core's affair."""

from functools import lru_cache
from typing import Final

from broker.errors import BrokerError
from broker.hooks import Permission

from .patterns import allows, allows_somewhere, matches
from .settings import Settings

__all__ = ["permit"]

CLAIM_OF: Final = {"room": "rooms", "session": "sessions", "turn": "sessions", "approval": "sessions"}
"""Which claim an operation is judged by, by its first word; the rest of it is the verb that mappings list."""

LEAVING: Final = frozenset({"room.leave", "session.detach"})
"""What needs nothing: nobody is kept against their will."""

LISTING: Final = frozenset({"list"})
"""Verbs that are about several at once: the core shows one's own, where any pattern lets list at all."""


def permit(check: Permission, settings: Settings) -> None:
    """Let somebody do something, or refuse it.

    Raises:
        BrokerError: `unauthenticated` for nobody, `forbidden` with a hint.
    """
    who, operation = check.principal, check.operation
    if "admin" in who.scopes or operation in LEAVING:
        return
    if who.user is None:
        raise BrokerError("unauthenticated")
    for pattern, scope in settings.require.items():
        if scope not in who.scopes and matches(pattern, operation):
            raise BrokerError("forbidden", f"That takes the scope {scope}.")
    claim, verb = _judged(operation)
    if claim is None:
        return
    granted = who.claims.get(claim)
    if verb in LISTING and check.resource is None:
        allowed = allows_somewhere(granted, verb)
    else:
        allowed = allows(granted, verb, check.resource, who.user)
    if not allowed:
        raise BrokerError("forbidden", f"What you showed does not allow {operation} here.", hint=f"the claim {claim}")


@lru_cache(maxsize=1024)
def _judged(operation: str) -> tuple[str | None, str]:
    domain, _, verb = operation.partition(".")
    return CLAIM_OF.get(domain), verb
