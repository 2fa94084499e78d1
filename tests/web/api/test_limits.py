"""What the limiter counts of requests: each is a message of its user and its address, as large as its body."""

from collections.abc import Awaitable, Callable
from typing import Any

from broker.app import App

Ask = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]


def limits(people: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"plugins": {"rate_limit": {"burst": 3600, **settings}, **people["plugins"]}}


async def codes(app: App, ask: Ask, what: str, body: Any = None, who: str = "scopes=api", times: int = 1) -> list[Any]:
    answers = [await ask(app, what, body, who=who) for _ in range(times)]
    return [answer.body.get("code") for answer in answers]


async def test_the_limit_of_an_action_holds_for_requests(start: Start, ask: Ask, people: dict[str, Any]) -> None:
    app = await start(**limits(people, actions={"broadcast": "2/h"}))
    assert await codes(app, ask, "POST /broadcast", 1, times=3) == [None, None, "rate_limited"]
    assert await codes(app, ask, "POST /broadcast", 1, "name=ann&scopes=api", times=3) == [None, None, "rate_limited"]
    assert await codes(app, ask, "GET /connections") == [None]
    refused = await ask(app, "POST /broadcast", 1, who="scopes=api")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1800")
    assert app.services.stats.rate_limited == {"actions": 3}


async def test_what_requests_carry_counts_for_user_and_address(start: Start, ask: Ask, people: dict[str, Any]) -> None:
    app = await start(**limits(people, user={"bytes": "1KiB/h"}, address={"bytes": "100KiB/h"}))
    ann, bob = "name=ann&scopes=api", "name=bob&scopes=api"
    assert await codes(app, ask, "POST /broadcast", "x" * 2000, ann, times=2) == [None, "rate_limited"]
    assert await codes(app, ask, "GET /connections", None, ann) == ["rate_limited"]
    assert await codes(app, ask, "POST /broadcast", "x" * 99_000, bob) == [None]
    assert await codes(app, ask, "POST /broadcast", "x" * 2000) == ["rate_limited"]
    assert app.services.stats.rate_limited == {"user_bytes": 2, "address_bytes": 1}


async def test_a_body_that_cannot_be_read_counts_too(start: Start, ask: Ask, people: dict[str, Any]) -> None:
    app = await start(**limits(people, actions={"send": "2/h"}))
    assert await codes(app, ask, "POST /send", b"{", times=3) == ["invalid_json", "invalid_json", "rate_limited"]


async def test_a_connection_s_limits_are_not_those_of_requests(start: Start, ask: Ask, people: dict[str, Any]) -> None:
    app = await start(**limits(people, messages="1/h", bytes="1KiB/h"))
    assert await codes(app, ask, "POST /broadcast", "x" * 100, times=5) == [None] * 5
