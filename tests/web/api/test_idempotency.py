"""`Idempotency-Key` over HTTP: done once, answered with the same."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from broker.app import App

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

AGAIN = "Idempotent-Replayed"


async def test_a_repeated_request_is_answered_as_the_first_was(app: App, ask: Ask) -> None:
    first = await ask(app, "POST /rooms/lobby/events", {"data": 1}, Idempotency_Key="k1")
    again = await ask(app, "POST /rooms/lobby/events", {"data": 1}, Idempotency_Key="k1")
    assert (again.status, again.body) == (first.status, first.body)
    assert (AGAIN in first.headers, again.headers[AGAIN]) == (False, "true")
    assert len((await ask(app, "GET /rooms/lobby/events")).body["events"]) == 1


async def test_without_a_key_it_is_done_again(app: App, ask: Ask) -> None:
    for _ in range(2):
        await ask(app, "POST /rooms/lobby/events", {"data": 1})
    assert len((await ask(app, "GET /rooms/lobby/events")).body["events"]) == 2


async def test_a_key_that_was_used_for_something_else_is_refused(app: App, ask: Ask) -> None:
    await ask(app, "POST /rooms/lobby/events", {"data": 1}, Idempotency_Key="k1")
    refused = await ask(app, "POST /rooms/lobby/events", {"data": 2}, Idempotency_Key="k1")
    assert (refused.status, refused.body["code"]) == (422, "conflict")


async def test_a_refusal_that_is_final_is_given_again(app: App, ask: Ask, dial: Dial) -> None:
    for replayed in (None, "true"):
        refused = await ask(app, "DELETE /connections/gone", Idempotency_Key="k1")
        assert (refused.status, refused.headers.get(AGAIN)) == (404, replayed)
        assert refused.headers["Content-Type"] == "application/problem+json"


async def test_a_refusal_that_is_not_final_is_tried_again(app: App, ask: Ask, dial: Dial) -> None:
    client = await dial(app.port)
    await ask(app, "POST /sessions", {"session_id": "s", "agent": "endless"})
    running = await ask(app, "POST /sessions/s/turns", {"client_msg_id": "1", "content": "one two"})
    turn = {"client_msg_id": "2", "content": "hi", "if_busy": "reject"}
    assert (await ask(app, "POST /sessions/s/turns", turn, Idempotency_Key="k1")).status == 409
    await client.do("session.attach", session_id="s")
    await client.do("turn.cancel", session_id="s", turn_id=running.body["turn_id"])
    await client.event("turn.ended")
    accepted = await ask(app, "POST /sessions/s/turns", turn, Idempotency_Key="k1")
    assert (accepted.status, AGAIN in accepted.headers) == (202, False)


async def test_keys_of_different_people_are_different(start: Start, people: dict[str, Any], ask: Ask) -> None:
    app = await start(**people)
    made = [
        await ask(app, "POST /sessions", {}, who=f"name={name}&scopes=api", Idempotency_Key="k1")
        for name in ("ann", "bob", "ann")
    ]
    ids = [answer.body["session_id"] for answer in made]
    assert ids[0] == ids[2] != ids[1]


async def test_keys_of_one_user_who_may_do_less_are_different(start: Start, people: dict[str, Any], ask: Ask) -> None:
    """What a strong credential was answered is nothing for a weak one of the same user's."""
    app = await start(**people)
    answers = [
        await ask(app, "POST /sessions", {}, who=f"name=ann&scopes={scopes}", Idempotency_Key="k1")
        for scopes in ("api+admin", "api", "api+admin")
    ]
    assert [answer.headers.get(AGAIN) for answer in answers] == [None, None, "true"]


async def test_of_many_at_once_one_is_done(app: App, ask: Ask) -> None:
    answers = await asyncio.gather(
        *(ask(app, "POST /sessions", {"title": "once"}, Idempotency_Key="k1") for _ in range(20))
    )
    assert {answer.status for answer in answers} <= {201, 409}
    assert len((await ask(app, "GET /sessions")).body["sessions"]) == 1
    assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status == 409)


async def test_a_key_that_is_none_is_refused(app: App, ask: Ask) -> None:
    refused = await ask(app, "POST /sessions", {}, Idempotency_Key="k" * 256)
    assert (refused.status, refused.body["field"]) == (400, "Idempotency-Key")
