"""Inboxes that are full: whoever finds no room in one is told so, typed, and nobody else notices (PROTOCOL P8)."""

from collections.abc import Awaitable, Callable
from typing import Any

from broker.actors.requests import ToRoom
from broker.app import App
from broker.messages import Principal
from broker.operations import Presence

Dial = Callable[..., Awaitable[Any]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]


async def test_a_full_registry_refuses_typed_and_goes_on_when_it_can(app: App, dial: Dial, get: Get) -> None:
    client = await dial(app.port)
    app.registry.hold()
    noise = ToRoom("noise", Presence(Principal()))
    while len(app.registry.actor_inbox) < 100_000:
        app.registry.tell(noise, urgent=True)
    for action, payload in (("broadcast", {}), ("room.join", {"room": "r"}), ("session.create", {})):
        refusal = await client.refused(action, **payload)
        assert (refusal["code"], refusal["retry_after"]) == ("overloaded", 1.0)
    await client.do("ping")
    status, headers, body = await get(app, "/api/v1/connections")
    assert (status, headers["Retry-After"], body["code"]) == (503, "1", "overloaded")
    app.registry.actor_inbox.clear()
    app.registry.release()
    await client.do("room.join", room="r")


async def test_a_broker_that_may_take_nothing_new_says_so_over_http_too(app: App, get: Get) -> None:
    app.services.load.memory_short = lambda: True
    status, _, body = await get(app, "/api/v1/sessions/s/turns", "POST", json={"client_msg_id": "1", "content": "hi"})
    assert (status, body["code"]) == (503, "overloaded")
    status, _, body = await get(app, "/readyz")
    assert (status, body["title"]) == (503, "The broker is short of memory.")
    assert (await get(app, "/livez"))[0] == 200
