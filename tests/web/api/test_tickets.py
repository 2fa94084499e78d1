"""Tickets by way of the HTTP API; what they are worth stands in tests/test_tickets.py."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from broker.app import App
from broker.errors import CloseCode

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

BACKEND = "name=backend&scopes=api+debug"


@pytest.fixture
async def app(start: Start, people: dict[str, Any]) -> App:
    """A broker that believes what names people give."""
    return await start(**people)


async def test_a_ticket_lets_in_whom_it_names_once(app: App, ask: Ask) -> None:
    wanted = {"user": "ann", "scopes": ["debug"], "claims": {"rooms": ["team-*"]}, "expires_in": 600}
    made = await ask(app, "POST /tickets", wanted, who=BACKEND)
    assert made.status == 201
    assert (made.body["grants"]["user"], made.body["grants"]["scopes"]) == ("ann", ["debug"])
    principal = app.services.tickets.redeem(made.body["ticket"])
    assert principal is not None
    assert (principal.user, principal.scopes) == ("ann", {"debug"})
    assert principal.claims["rooms"] == ["team-*"]
    assert principal.claims["ticket"]["by"] == "backend"
    assert principal.expires_at - app.clock.now() <= 600_000
    assert app.services.tickets.redeem(made.body["ticket"]) is None


async def test_a_ticket_is_for_oneself_with_no_scopes_unless_it_says_more(app: App, ask: Ask) -> None:
    made = await ask(app, "POST /tickets", who=BACKEND)
    principal = app.services.tickets.redeem(made.body["ticket"])
    assert principal is not None
    assert (principal.user, principal.scopes) == ("backend", frozenset())


@pytest.mark.parametrize("scopes", [["admin"], ["debug", "agent"]])
async def test_a_ticket_grants_no_scope_that_its_maker_lacks(app: App, ask: Ask, scopes: list[str]) -> None:
    refused = await ask(app, "POST /tickets", {"user": "ann", "scopes": scopes}, who=BACKEND)
    assert (refused.status, refused.body["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"expires_in": 0}, "$.expires_in"),
        ({"expires_in": 86_401}, "$.expires_in"),
        ({"scopes": [f"s{number}" for number in range(33)]}, "$.scopes"),
        ({"scopes": ["two words"]}, "$.scopes[0]"),
        ({"claims": {"room": ["a"]}}, "$.claims.room"),
        ({"claims": None}, "$.claims"),
        ({"user": ""}, "$.user"),
        ({"user": "a\x00"}, "$.user"),
        ({"user": "a" * 257}, "$.user"),
    ],
)
async def test_what_is_wrong_with_a_ticket_is_named(app: App, ask: Ask, body: Any, field: str) -> None:
    refused = await ask(app, "POST /tickets", body, who=BACKEND)
    assert (refused.status, refused.body["field"]) == (400, field)


async def test_a_ticket_is_not_made_without_the_scope(app: App, ask: Ask) -> None:
    assert (await ask(app, "POST /tickets", {}, who="name=ann")).status == 403
    assert (await ask(app, "POST /tickets", {})).status == 401


async def test_a_page_connects_with_a_ticket_once(app: App, ask: Ask, dial: Dial) -> None:
    ticket = (await ask(app, "POST /tickets", {"user": "ann"}, who=BACKEND)).body["ticket"]
    page = await dial(app.port, f"?ticket={ticket}")
    assert page.welcome["user"] == "ann"
    (shown,) = (await ask(app, "GET /connections", who="name=root&scopes=api+admin")).body["connections"]
    assert shown["user"] == "ann"
    with pytest.raises(ConnectionClosed) as closed:
        await dial(app.port, f"?ticket={ticket}")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == CloseCode.BAD_TOKEN


async def test_no_answer_with_a_ticket_in_it_is_given_again(app: App, ask: Ask) -> None:
    made = [await ask(app, "POST /tickets", {"user": "ann"}, who=BACKEND, Idempotency_Key="k1") for _ in range(2)]
    assert [answer.status for answer in made] == [201, 201]
    assert made[0].body["ticket"] != made[1].body["ticket"]
    assert not any("Idempotent-Replayed" in answer.headers for answer in made)


async def test_a_users_name_is_as_long_everywhere(app: App, ask: Ask, dial: Dial) -> None:
    """A token may name a user of 256 characters; what speaks of users has to be able to."""
    name = "u" * 256
    ann = await dial(app.port, f"?name={name}")
    assert (await ask(app, "POST /tickets", {"user": name}, who=BACKEND)).status == 201
    sent = await ask(app, "POST /send", {"to": {"users": [name]}, "data": 1}, who=BACKEND)
    assert sent.body == {"delivered": 1}
    bob = await dial(app.port, "?name=bob")
    session_id = (await bob.do("session.create"))["session_id"]
    await bob.do("session.share", session_id=session_id, user=name, role="viewer")
    gone = await ask(app, f"POST /users/{name}/disconnect", {}, who=BACKEND)
    assert gone.body == {"disconnected": 1}
    assert (await ann.closed())[0] == CloseCode.DISCONNECTED_BY_OPERATOR
