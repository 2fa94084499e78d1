"""The HTTP API by its thin client: asked, refused, and sent again where that is safe."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest
from aiohttp import web

from broker.app import App
from broker.client import BrokerError, Conflict, Disconnected, Invalid, NotFound, TimedOut, Unauthenticated
from broker.client.api import Api

Start = Callable[..., Awaitable[App]]


@pytest.fixture
async def api(app: App) -> AsyncIterator[Api]:
    async with Api(f"http://127.0.0.1:{app.port}/") as api:
        yield api


async def test_what_is_asked_is_answered(api: Api) -> None:
    assert (await api.get("stats"))["connections"] == 0
    made = await api.post("sessions", {"title": "a / b", "session_id": "s~1"})
    assert made["session_id"] == "s~1"
    await api.post("sessions/{}/turns", {"content": "hi"}, "s~1")
    assert [row["session_id"] for row in (await api.get("sessions", limit=1, cursor=None))["sessions"]] == ["s~1"]
    assert (await api.post("rooms/{}/events", {"event": "x", "data": 1}, "a/b ü?"))["seq"] == 1
    assert (await api.get("rooms/{}/events", "a/b ü?", limit=5))["events"][0]["data"] == {"event": "x", "data": 1}
    assert (await api.post("broadcast", "noon"))["delivered"] == 0


async def test_what_is_refused_is_raised_by_its_kind(api: Api, start: Start) -> None:
    with pytest.raises(NotFound, match="no such session"):
        await api.get("sessions/nobody")
    with pytest.raises(Invalid) as wrong:
        await api.post("sessions", {"titel": "x"})
    assert wrong.value.field is not None
    await api.post("sessions", {"session_id": "s1"}, key="k1")
    assert (await api.post("sessions", {"session_id": "s1"}, key="k1"))["session_id"] == "s1"
    with pytest.raises(Conflict):
        await api.post("sessions", {"session_id": "s1"})
    with pytest.raises(NotFound):
        await api.delete("connections/{}", "nobody")
    secret = "a secret of at least thirty-two bytes"
    guarded = await start(plugins={"auth": {"mode": "jwt", "keys": [{"algorithm": "HS256", "secret": secret}]}})
    async with Api(f"http://127.0.0.1:{guarded.port}", token=lambda: "opaque") as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.get("stats")
        assert "opaque" not in repr((stranger, stranger.__dict__))


@attrs.define
class Other:
    """What is no broker, or one that fails: a server that does with requests what a test says."""

    url: str
    seen: list[web.Request]
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    over = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    other = Other("", [], hang)

    async def take(request: web.Request) -> web.StreamResponse:
        other.seen.append(request)
        return await other.answer(request)

    runner = web.AppRunner(app := web.Application())
    app.router.add_route("*", "/{path:.*}", take)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    other.url = f"http://127.0.0.1:{site.port}"
    yield other
    over.set()
    await runner.cleanup()


async def test_what_breaks_on_the_way_is_sent_once_more_under_the_same_key(other: Other) -> None:
    async def fail_once(request: web.Request) -> web.StreamResponse:
        if len(other.seen) == 1:
            request.transport.abort()
        return web.json_response({"seq": await request.json()})

    other.answer = fail_once
    async with Api(other.url, token="opaque") as api:
        assert await api.post("x", 4) == {"seq": 4}
    assert len(other.seen) == 2
    assert len({request.headers["Idempotency-Key"] for request in other.seen}) == 1


async def test_who_does_not_answer_as_a_broker_does(other: Other) -> None:
    async with Api(other.url, token="opaque", timeout=0.1) as api:
        with pytest.raises(TimedOut):
            await api.get("x")

        async def refuse(_: web.Request) -> web.StreamResponse:
            return web.Response(status=502, text="<html>")

        other.answer = refuse
        with pytest.raises(BrokerError, match="HTTP 502"):
            await api.get("x")

        async def redirect(_: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})

        other.answer = redirect
        with pytest.raises(BrokerError, match="HTTP 307"):
            await api.post("x", {})
    assert json.dumps([str(request.url) for request in other.seen]).count("opaque") == 0


async def test_nobody_is_there() -> None:
    async with Api("http://127.0.0.1:1", token="opaque") as api:
        with pytest.raises(Disconnected, match=r"no broker at http://127\.0\.0\.1:1") as told:
            await api.get("stats")
    assert "opaque" not in repr((told.value, told.value.__context__))
    with pytest.raises(RuntimeError, match="async with"):
        await Api("http://127.0.0.1:1").get("stats")
    for url in ("", "ws://h", "h:80"):
        with pytest.raises(ValueError, match="looks like"):
            Api(url)
