"""Passes: how a person signs in with a link that works once, without any account (PROTOCOL section 5, `POST passes`).

The link holds an invitation behind its `#`, where no server and no log sees it. The page exchanges it for a pass: a
token that this broker alone knows, in memory, so that it is worth nothing when the broker has ended.
"""

import hashlib
import secrets
from typing import Final

import attrs

from broker.clock import Clock
from broker.errors import BrokerError
from broker.ids import new_id
from broker.messages import Principal
from broker.tickets import Ticket, Tickets

__all__ = ["INVITATION_SECONDS", "LIMIT", "PASS_SECONDS", "Pass", "Passes"]

INVITATION_SECONDS: Final = 900.0
"""How long an invitation can be exchanged: until somebody has found the window that it was printed in."""
PASS_SECONDS: Final = 12 * 3600.0
"""How long a pass is good: a day's work."""
LIMIT: Final = 1000
"""Invitations, and passes, that there may be."""
ENTROPY: Final = 32
"""Random bytes of a pass: it is shown for hours, so it has no fewer than a key."""


@attrs.frozen
class Pass:
    """A pass that was made.

    Attributes:
        text: the token; left out of `repr`, and kept nowhere.
        principal: whom it lets in, and until when.
    """

    text: str = attrs.field(repr=False)
    principal: Principal


@attrs.frozen
class _Known:
    until: float
    principal: Principal


class Passes:
    """The invitations that were not exchanged yet and the passes that are good: their digests, in memory alone.

    Looking one up compares digests, so how long it takes says nothing of any text that is known.

    Args:
        clock: time; ends are measured by the clock that never jumps.
        limit: how many invitations, and how many passes, there may be.
    """

    def __init__(self, clock: Clock, limit: int = LIMIT) -> None:
        self._clock = clock
        self._limit = limit
        self._invitations = Tickets(clock, limit, INVITATION_SECONDS)
        self._known: dict[bytes, _Known] = {}

    def __len__(self) -> int:
        """Return how many passes are good."""
        self._sweep()
        return len(self._known)

    def invite(self, principal: Principal) -> Ticket:
        """Make an invitation, which whoever shows it first can exchange for a pass as `principal`.

        Raises:
            BrokerError: `overloaded`: there are as many as there may be.
        """
        return self._invitations.issue(principal)

    def invited(self, invitation: str) -> Principal | None:
        """Return whom an invitation is for, and leave it as it is; None if it is none."""
        return self._invitations.look(invitation)

    def exchange(self, invitation: str) -> Pass:
        """Take an invitation and return a pass, for no more and no longer than the invitation is for.

        Raises:
            BrokerError: `unauthenticated`: it was used, is too old, or never was one. `overloaded`: there are as many
                passes as there may be; the invitation is still good.
        """
        self._sweep()
        if len(self._known) >= self._limit:
            raise BrokerError("overloaded", f"{self._limit} people are signed in already.", retry_after=60.0)
        invited = self._invitations.redeem(invitation)
        if invited is None:
            raise BrokerError("unauthenticated", "That link was used before, or is too old; ask for a new one.")
        ends = self._clock.now() + round(PASS_SECONDS * 1000)
        if invited.expires_at is not None:
            ends = min(ends, invited.expires_at)
        principal = attrs.evolve(invited, expires_at=ends, credential=f"pass:{new_id()}")
        text = secrets.token_urlsafe(ENTROPY)
        self._known[_digest(text)] = _Known(self._clock.monotonic() + PASS_SECONDS, principal)
        return Pass(text, principal)

    def look(self, text: str) -> Principal | None:
        """Return whom a pass lets in now; None if it is none, or no longer."""
        found = self._known.get(_digest(text))
        if found is None or self._clock.monotonic() >= found.until:
            return None
        expires_at = found.principal.expires_at
        return None if expires_at is not None and self._clock.now() >= expires_at else found.principal

    def void(self, user: str) -> int:
        """Take back all invitations and passes of this user; return how many there were."""
        gone = [digest for digest, known in self._known.items() if known.principal.user == user]
        for digest in gone:
            del self._known[digest]
        return len(gone) + self._invitations.void(user)

    def _sweep(self) -> None:
        """Forget what is over; with ends of their own, passes need not end in the order in which they were made."""
        now, at = self._clock.monotonic(), self._clock.now()
        over = [
            digest
            for digest, known in self._known.items()
            if now >= known.until or (known.principal.expires_at is not None and at >= known.principal.expires_at)
        ]
        for digest in over:
            del self._known[digest]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
