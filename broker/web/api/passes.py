"""Passes over HTTP: how a page signs in with the link that somebody was given."""

from typing import Annotated, Any, TypedDict

import attrs
from msgspec import Meta

from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.hooks import Permission
from broker.web.api.answers import Time
from broker.web.api.endpoint import Call, endpoint
from broker.web.identity import permit

LONGEST = 256
"""Characters of what is shown as an invitation."""


@attrs.define
class PassWanted:
    """The invitation from a link."""

    ticket: Annotated[str, Meta(min_length=1, max_length=LONGEST)]


class Passed(TypedDict):
    """A pass, which is shown as any token, and whom it lets in until when."""

    token: str
    user: str | None
    scopes: list[str]
    expires_at: Time


@endpoint(
    *("POST", "/passes", "pass.issue", PassWanted),
    answer=Passed,
    status=201,
    errors=("overloaded",),
    replayed=False,
    public=True,
)
async def issue_pass(call: Call, wanted: PassWanted) -> Any:
    """Exchange the invitation from a one-time link for a token that is good for hours, as long as the broker runs.

    The only request that needs no token: the invitation stands for one. It can be exchanged once.
    """
    passes = call.services.passes
    invited = passes.invited(wanted.ticket)
    if invited is not None:  # so that a gate which refuses leaves the link as good as it was
        await permit(call.services, Permission(invited, "pass.issue", None))
    issued = passes.exchange(wanted.ticket)
    principal = issued.principal
    if principal.expires_at is None:
        raise BrokerError("internal", "A pass without an end was made.")
    return {
        "token": issued.text,
        "user": principal.user,
        "scopes": sorted(principal.scopes),
        "expires_at": rfc3339(principal.expires_at),
    }
