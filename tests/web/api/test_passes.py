"""Signing in with a link: the invitation becomes a token, which is taken wherever one is."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from broker.app import App
from broker.errors import CloseCode
from broker.messages import Principal

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

ROOT = Principal(user="root", scopes=frozenset({"api", "admin"}))
AUTH = {"auth": {"mode": "jwt", "keys": [{"algorithm": "HS256", "secret": "s" * 40}]}}


@pytest.fixture(params=["nobody is asked", "tokens are asked for"])
async def app(request: pytest.FixtureRequest, start: Start) -> App:
    """A broker with a plugin that asks for tokens, and one without."""
    return await start(plugins=AUTH if request.param == "tokens are asked for" else {})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def signed_in(app: App, ask: Ask, who: Principal = ROOT) -> str:
    made = await ask(app, "POST /passes", {"ticket": app.services.passes.invite(who).text})
    assert made.status == 201, made
    return str(made.body["token"])


async def test_a_pass_is_taken_wherever_a_token_is(app: App, ask: Ask, dial: Dial) -> None:
    token = await signed_in(app, ask)
    header = await dial(app.port, additional_headers=bearer(token))
    offer = await dial(app.port, subprotocols=["broker.v1.json", f"bearer.{token}"])
    assert (header.welcome["user"], offer.welcome["user"]) == ("root", "root")
    assert (await offer.do("auth", token=token))["scopes"] == ["admin", "api"]
    listed = await ask(app, "GET /connections", **bearer(token))
    assert {one["user"] for one in listed.body["connections"]} == {"root"}


async def test_what_was_made_for_something_else_is_no_invitation(app: App, ask: Ask, dial: Dial) -> None:
    """Tickets open one socket; invitations open none, and neither is used up by being shown at the wrong door."""
    invitation, ticket = app.services.passes.invite(ROOT).text, app.services.tickets.issue(ROOT).text
    for shown in (ticket, "x" * 43):
        refused = await ask(app, "POST /passes", {"ticket": shown})
        assert (refused.status, refused.body["code"]) == (401, "unauthenticated")
    with pytest.raises(ConnectionClosed):
        await dial(app.port, f"?ticket={invitation}")
    assert app.services.tickets.look(ticket) == ROOT
    first = await ask(app, "POST /passes", {"ticket": invitation})
    assert (first.body["user"], first.body["scopes"]) == ("root", ["admin", "api"])
    assert (await ask(app, "POST /passes", {"ticket": invitation})).status == 401


async def test_a_pass_may_no_more_than_its_invitation(app: App, ask: Ask) -> None:
    token = await signed_in(app, ask, Principal(user="ann"))
    assert (await ask(app, "GET /connections", **bearer(token))).status == 403


async def test_who_is_disconnected_has_no_pass_any_more(start: Start, ask: Ask, dial: Dial) -> None:
    app = await start(plugins=AUTH)
    token = await signed_in(app, ask)
    page = await dial(app.port, additional_headers=bearer(token))
    assert (await ask(app, "POST /users/root/disconnect", {}, **bearer(token))).body == {"disconnected": 1}
    assert (await page.closed())[0] == CloseCode.DISCONNECTED_BY_OPERATOR
    assert (await ask(app, "GET /connections", **bearer(token))).status == 401
    with pytest.raises(ConnectionClosed) as closed:
        await dial(app.port, additional_headers=bearer(token))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == CloseCode.BAD_TOKEN


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"ticket": ""}, 400), ({"ticket": 5}, 400), (b'{"ticket":"%s"}' % (b"x" * 2000), 413)],
)
async def test_what_is_no_invitation_is_refused_with_little_read(
    start: Start, ask: Ask, body: Any, status: int
) -> None:
    assert (await ask(await start(plugins=AUTH), "POST /passes", body)).status == status


async def test_who_tries_too_often_is_slowed_down(start: Start, ask: Ask) -> None:
    limited = {"address": {"requests": "1/s"}, "burst": 1}
    app = await start(plugins={"rate_limit": limited, **AUTH})
    answers = [await ask(app, "POST /passes", {"ticket": "guess"}) for _ in range(5)]
    assert 429 in [answer.status for answer in answers]


async def test_a_gate_that_refuses_leaves_the_link_good(start: Start, ask: Ask) -> None:
    app = await start(plugins={"auth": {**AUTH["auth"], "revoked": {"users": ["root"]}}})
    invitation = app.services.passes.invite(ROOT).text
    assert (await ask(app, "POST /passes", {"ticket": invitation})).status == 401
    assert app.services.passes.invited(invitation) == ROOT
