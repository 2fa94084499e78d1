"""Who is connected, over HTTP: told, counted, and sent away."""

from typing import Annotated, Any, Final

import attrs
import msgspec
from msgspec import Meta

from broker.actors.requests import HangSome, SendTo, ToAll
from broker.errors import BrokerError, CloseCode
from broker.protocol import payloads
from broker.protocol.checks import check_recipients
from broker.web.api import answers
from broker.web.api.endpoint import Call, endpoint
from broker.web.views import ask_for_connections, page_of_connections

REASON: Final = 123
"""Bytes of a close frame's reason (RFC 6455 section 5.5); a character may take four of them, so they are cut."""


@endpoint("POST", "/broadcast", "broadcast", msgspec.Raw, answer=answers.Delivered)
async def broadcast(call: Call, data: msgspec.Raw) -> Any:
    """Tell every connection; the body is what they are told, any JSON."""
    return {"delivered": await call.ask(ToAll(call.sender, bytes(data)))}


@endpoint("POST", "/send", "send", payloads.Send, answer=answers.Delivered)
async def send(call: Call, message: payloads.Send) -> Any:
    """Tell chosen connections, or all of chosen users."""
    check_recipients(message)
    targets = SendTo(tuple(message.to.connections), tuple(message.to.users), call.sender, bytes(message.data))
    return {"delivered": await call.ask(targets)}


@endpoint("GET", "/connections", "get_connections", payloads.Listing, answer=answers.Connections)
async def list_connections(call: Call, listing: payloads.Listing) -> Any:
    """Count who is connected; with scope `admin` list them too, oldest first.

    A list tells who is in which room and session, so the scope `api` alone is not enough for it.
    """
    return page_of_connections(await call.ask(ask_for_connections(call.by, listing)), listing)


@attrs.define
class UsersConnections(payloads.Listing):
    """Whose connections, and which page of them."""

    user: payloads.User = attrs.field(kw_only=True)


@endpoint(
    *("GET", "/users/{user}/connections", "get_connections", UsersConnections),
    answer=answers.Connections,
    resource="user",
)
async def list_users_connections(call: Call, wanted: UsersConnections) -> Any:
    """Count a user's connections; with scope `admin` list them too, oldest first.

    What is sent to the user (`POST /send`) goes to all of them.
    """
    return page_of_connections(await call.ask(ask_for_connections(call.by, wanted, wanted.user)), wanted)


@attrs.define
class ConnectionNamed:
    """A connection."""

    id: payloads.Id


@endpoint(
    *("DELETE", "/connections/{id}", "connection.disconnect", ConnectionNamed),
    answer=answers.Disconnected,
    resource="id",
    errors=("not_found",),
)
async def close_connection(call: Call, named: ConnectionNamed) -> Any:
    """Disconnect a client: its connection is closed with 4510, which says not to come back."""
    code = CloseCode.DISCONNECTED_BY_OPERATOR
    closed = await call.ask(HangSome(lambda peer: peer.connection_id == named.id, code))
    if not closed:
        raise BrokerError("not_found", "There is no such connection.", field="id")
    return {"disconnected": closed}


@attrs.define
class Disconnect:
    """Whom to disconnect, and what to tell them."""

    user: payloads.User
    reason: Annotated[str, Meta(max_length=REASON)] | None = None


@endpoint(
    *("POST", "/users/{user}/disconnect", "user.disconnect", Disconnect), answer=answers.Disconnected, resource="user"
)
async def disconnect_user(call: Call, whom: Disconnect) -> Any:
    """Disconnect a user everywhere: connections are closed with 4510, tickets not shown yet and passes are void.

    What the user shows next is taken as before; to have it refused is the affair of whoever issues tokens.
    """
    call.services.tickets.void(whom.user)
    call.services.passes.void(whom.user)
    code = CloseCode.DISCONNECTED_BY_OPERATOR
    return {"disconnected": await call.ask(HangSome(lambda peer: peer.principal.user == whom.user, code, whom.reason))}
