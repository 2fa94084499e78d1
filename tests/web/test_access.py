"""`access` in a broker: what a client and a backend see of a service that is asked about rooms and sessions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import pytest
from aiohttp import web

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]
Start = Callable[..., Awaitable[App]]


@attrs.define
class Service:
    """Says yes to the members of a project, and to everything about sessions but what it was told to hide."""

    url: str = ""
    members: dict[str, set[str | None]] = attrs.Factory(dict)
    hidden: set[str] = attrs.Factory(set)
    asked: int = 0
    down: bool = False

    async def serve(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.down:
            return web.Response(status=500)
        question = await request.json()
        if question["operation"].startswith("session."):
            return web.json_response({"allow": question["resource"] not in self.hidden})
        allow = question["user"] in self.members.get(question["resource"], set())
        return web.json_response({"allow": allow, "reason": "You are no member of this project."})


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    served = Service()
    app = web.Application()
    app.router.add_post("/may", served.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/may"
    yield served
    await runner.cleanup()


@pytest.fixture
async def app(start: Start, people: dict[str, Any], service: Service) -> App:
    block = {"url": service.url, "rooms": ["project:*"], "sessions": ["*"]}
    return await start(plugins={**people["plugins"], "access": block})


async def test_members_are_let_into_a_project_and_others_are_told_why_not(
    app: App, service: Service, dial: Dial
) -> None:
    service.members["project:1"] = {"ann"}
    ann, bob = await dial(app.port, "?name=ann"), await dial(app.port, "?name=bob")
    await ann.do("room.join", room="project:1")
    for action, payload in [("room.join", {}), ("room.publish", {"data": 1}), ("room.history", {})]:
        refused = await bob.refused(action, room="project:1", **payload)
        assert (refused["code"], refused["message"]) == ("forbidden", "You are no member of this project.")
        assert not refused["retryable"]
    assert (await ann.do("room.publish", room="project:1", data=1))["delivered"] == 1
    await bob.do("room.join", room="lobby")
    await ann.do("room.leave", room="project:1")


async def test_while_the_service_is_down_nobody_comes_in_and_everything_else_goes_on(
    app: App, service: Service, dial: Dial, get: Get
) -> None:
    service.down = True
    ann = await dial(app.port, "?name=ann")
    refused = await ann.refused("room.join", room="project:1")
    assert (refused["code"], refused["retryable"], refused["retry_after"]) == ("unavailable", True, 1.0)
    assert "500" not in str(refused)
    assert service.url not in str(refused)
    assert await ann.do("echo", n=1) == {"n": 1}
    await ann.do("room.join", room="lobby")
    assert (await get(app, "/readyz"))[0] == 200


async def test_backends_are_judged_likewise(app: App, service: Service, get: Get) -> None:
    path = "/api/v1/rooms/project:1/events?name=backend&scopes=api"
    status, _, problem = await get(app, path, "POST", json={"data": 1})
    assert (status, problem["code"]) == (403, "forbidden")
    service.members["project:1"] = {"backend"}
    path = path.replace("project:1", "project:2")
    service.members["project:2"] = {"backend"}
    assert (await get(app, path, "POST", json={"data": 1}))[0] in {200, 201}
    service.down = True
    status, headers, problem = await get(app, path.replace("project:2", "project:3"), "POST", json={"data": 1})
    assert (status, problem["code"], headers["Retry-After"]) == (503, "unavailable", "1")


async def test_a_list_shows_only_sessions_that_are_allowed(app: App, service: Service, dial: Dial, get: Get) -> None:
    ann = await dial(app.port, "?name=ann")
    seen, hidden = [(await ann.do("session.create"))["session_id"] for _ in range(2)]
    service.hidden.add(hidden)
    fresh = await dial(app.port, "?name=ann")
    await fresh.do("session.attach", session_id=seen)
    await forget(get, app, {})
    assert [row["session_id"] for row in (await fresh.do("session.list"))["sessions"]] == [seen]


async def forget(get: Get, app: App, body: Any, scopes: str = "admin") -> tuple[int, Any]:
    path = f"/api/v1/access/forget?name=backend&scopes={scopes}"
    status, _, answer = await get(app, path, "POST", json=body)
    return status, answer


async def test_what_was_answered_can_be_forgotten_by_administrators(
    app: App, service: Service, dial: Dial, get: Get
) -> None:
    service.members = {"project:1": {"ann", "bob"}, "project:2": {"ann"}}
    ann, bob = await dial(app.port, "?name=ann"), await dial(app.port, "?name=bob")
    for client, room in [(ann, "project:1"), (ann, "project:2"), (bob, "project:1")]:
        await client.do("room.join", room=room)
    assert service.asked == 3
    service.members["project:1"].clear()
    assert (await ann.do("room.join", room="project:1"))["room"] == "project:1", "it is still remembered"
    assert (await forget(get, app, {}, scopes="api"))[0] == 403
    assert (await forget(get, app, {"users": "ann"}))[0] == 400
    assert await forget(get, app, {"user": "ann", "resource": "project:1"}) == (200, {"forgotten": 1})
    assert (await ann.refused("room.join", room="project:1"))["code"] == "forbidden"
    await bob.do("room.join", room="project:1")
    assert await forget(get, app, {"resource": "project:1"}) == (200, {"forgotten": 2})
    assert (await bob.refused("room.join", room="project:1"))["code"] == "forbidden"
    await ann.do("room.join", room="project:2")
    assert service.asked == 5
