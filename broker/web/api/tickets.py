"""Tickets over HTTP."""

from typing import Annotated, Any, TypedDict

import attrs
from msgspec import Meta

from broker.clock import rfc3339
from broker.protocol.checks import check_name
from broker.protocol.payloads import User
from broker.tickets import GRANT_SECONDS, MAX_GRANT_SECONDS, grant
from broker.web.api.answers import Time
from broker.web.api.endpoint import Call, endpoint

Scope = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[!#-\[\]-~]+$")]
Pattern = Annotated[str, Meta(min_length=1, max_length=255)]
Patterns = Annotated[list[Pattern], Meta(max_length=100)]


@attrs.define
class Claims:
    """Patterns of what whoever comes by the ticket may touch, as in tokens; as its maker may where left out."""

    rooms: Patterns | None = None
    sessions: Patterns | None = None


@attrs.define
class TicketWanted:
    """Whom a ticket is to let in."""

    user: User | None = None
    scopes: Annotated[list[Scope], Meta(max_length=32)] = attrs.Factory(list)
    claims: Claims = attrs.Factory(Claims)
    expires_in: Annotated[float, Meta(ge=1, le=MAX_GRANT_SECONDS)] = GRANT_SECONDS


class Grants(TypedDict):
    """Whom a ticket lets in, and until when."""

    user: str | None
    scopes: list[str]
    expires_at: Time


class Ticketed(TypedDict):
    """A ticket, when it has to have been shown, and whom it lets in."""

    ticket: str
    expires_at: Time
    grants: Grants


@endpoint(
    *("POST", "/tickets", "ticket.issue", TicketWanted),
    answer=Ticketed,
    status=201,
    resource="user",
    errors=("overloaded",),
    replayed=False,
)
async def issue_ticket(call: Call, wanted: TicketWanted) -> Any:
    """Make a ticket with which a page connects: good once, for 30 seconds.

    Whoever shows it is `user` (the one who asks, if left out) for `expires_in` seconds, but no longer than who asks,
    and may do what stands here and is also the asker's to do. Asked again, it makes another: no answer with a ticket in
    it is kept, so an Idempotency-Key means nothing here.
    """
    if wanted.user is not None:
        check_name(wanted.user, "$.user")
    claims = {name: value for name, value in attrs.asdict(wanted.claims).items() if value is not None}
    services = call.services
    principal = grant(
        call.by,
        services.clock.now(),
        user=wanted.user,
        scopes=frozenset(wanted.scopes),
        claims=claims,
        expires_in=wanted.expires_in,
    )
    ticket = services.tickets.issue(principal)
    grants = {
        "user": principal.user,
        "scopes": sorted(principal.scopes),
        "expires_at": rfc3339(principal.expires_at or ticket.expires_at),
    }
    return {"ticket": ticket.text, "expires_at": rfc3339(ticket.expires_at), "grants": grants}
