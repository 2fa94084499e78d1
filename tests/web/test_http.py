"""Everything that is no socket: health, the page, and the API for backends (PROTOCOL section 5)."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from broker import __version__
from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]
Get = Callable[..., Awaitable[Any]]


async def converse(client: Any, turns: int = 1, **create: Any) -> str:
    """Return a session in which so many turns have ended."""
    session_id = str((await client.do("session.create", **create))["session_id"])
    for number in range(turns):
        await client.do("turn.start", session_id=session_id, client_msg_id=str(number), content=f"word {number}")
        await client.event("turn.ended")
    return session_id


# -- health ------------------------------------------------------------------------------------------


async def test_health_says_how_it_is(app: App, dial: Dial, get: Get) -> None:
    client = await dial(app.port)
    status, _, body = await get(app, "/health")
    assert status == 200
    assert 0 <= body.pop("uptime") < 60
    assert body == {
        "status": "ok",
        "version": __version__,
        "connections": 1,
        "node": client.welcome["node"],
    }


async def test_a_live_and_ready_broker_says_so(app: App, get: Get) -> None:
    for path in ("/livez", "/readyz"):
        assert (await get(app, path))[::2] == (200, {"status": "ok"})


async def test_a_draining_broker_is_alive_but_not_ready(app: App, get: Get) -> None:
    app.services.ready = False
    status, headers, body = await get(app, "/readyz")
    assert (status, headers["Retry-After"], body["code"]) == (503, "1", "unavailable")
    assert (await get(app, "/livez"))[0] == 200
    assert (await get(app, "/health"))[2]["status"] == "unavailable"


async def test_a_broker_whose_store_fails_is_alive_but_not_ready(app: App, get: Get) -> None:
    app.store._actor.healthy = False
    status, _, body = await get(app, "/readyz")
    assert (status, body["code"]) == (503, "unavailable")
    assert "store" in body["message"]
    assert (await get(app, "/livez"))[0] == 200


async def test_metrics_are_there_with_their_plugin_and_not_without(start: Start, dial: Dial, get: Get) -> None:
    assert (await get(await start(), "/metrics"))[0] == 404
    app = await start(plugins={"metrics": {}})
    await converse(await dial(app.port))
    status, headers, body = await get(app, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert re.search(rb'\nbroker_turns_total\{outcome="completed"\} 1.0\n', body)


# -- the API -----------------------------------------------------------------------------------------


async def test_sessions_come_in_pages_newest_first(app: App, dial: Dial, get: Get) -> None:
    client = await dial(app.port)
    ids = [await converse(client, 0, title=str(number)) for number in range(5)]
    seen, query = [], "limit=2"
    for size in (2, 2, 1):
        status, headers, body = await get(app, f"/api/v1/sessions?{query}")
        assert (status, headers["Content-Type"], len(body["sessions"])) == (200, "application/json", size)
        seen += [row["session_id"] for row in body["sessions"]]
        query = f"limit=2&cursor={body.get('cursor')}"
    assert "cursor" not in body
    assert sorted(seen) == sorted(ids)


async def test_one_session_is_shown_as_it_stands(app: App, dial: Dial, get: Get) -> None:
    session_id = await converse(await dial(app.port), title="Mine", variables={"a": 1})
    status, _, body = await get(app, f"/api/v1/sessions/{session_id}")
    assert (status, body["title"], body["state"], body["variables"]) == (200, "Mine", "open", {"a": 1})
    assert (body["turn"], body["queue"], body["approvals"], body["floor"]) == (None, [], [], 1)
    records = (await get(app, f"/api/v1/sessions/{session_id}/records"))[2]["records"]
    assert body["head"] == records[-1]["seq"]
    assert (await get(app, "/api/v1/sessions/nobody"))[0] == 404


async def test_records_are_those_of_the_socket_with_the_same_bytes(app: App, dial: Dial, get: Get) -> None:
    session_id = await converse(await dial(app.port))
    viewer = await dial(app.port)
    await viewer.do("session.attach", session_id=session_id)
    live = (await viewer.records("session.caught_up"))[:-1]
    status, _, body = await get(app, f"/api/v1/sessions/{session_id}/records")
    assert status == 200
    shown = [{key: value for key, value in message.items() if key not in {"type", "session_id"}} for message in live]
    assert body["records"] == shown


async def test_records_come_in_pages_from_the_end(app: App, dial: Dial, get: Get) -> None:
    session_id = await converse(await dial(app.port), 2)
    seqs: list[int] = []
    before = ""
    while True:
        _, _, body = await get(app, f"/api/v1/sessions/{session_id}/records?limit=4{before}")
        if not body["records"]:
            break
        seqs = [record["seq"] for record in body["records"]] + seqs
        before = f"&before_seq={seqs[0]}"
        if seqs[0] == 1:
            break
    assert seqs == list(range(1, len(seqs) + 1))


async def test_messages_are_the_conversation(app: App, dial: Dial, get: Get) -> None:
    session_id = await converse(await dial(app.port), 2)
    _, _, body = await get(app, f"/api/v1/sessions/{session_id}/messages")
    said = [(message["role"], message["content"]) for message in body["messages"]]
    assert said == [("user", "word 0"), ("assistant", "word 0"), ("user", "word 1"), ("assistant", "word 1")]


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/static/../../etc/passwd", 404, "not_found"),
        ("GET", "/static/%2e%2e/app.py", 404, "not_found"),
        ("GET", "/api/v1/sessions/none/records", 404, "not_found"),
        ("GET", "/api/v1/sessions/none/messages", 404, "not_found"),
        ("POST", "/health", 405, "invalid_message"),
        ("DELETE", "/api/v1/sessions", 405, "invalid_message"),
        ("GET", "/api/v1/sessions?limit=0", 400, "invalid_message"),
        ("GET", "/api/v1/sessions?limit=1001", 400, "invalid_message"),
        ("GET", "/api/v1/sessions?limit=ten", 400, "invalid_message"),
        ("GET", "/api/v1/sessions?limit=%C2%B2", 400, "invalid_message"),
        ("GET", "/api/v1/sessions?cursor=%FF", 400, "invalid_message"),
        ("GET", "/api/v1/sessions?cursor=abc", 400, "invalid_message"),
        ("GET", "/api/v1/sessions/none/records?before_seq=-1", 400, "invalid_message"),
        ("GET", "/ws", 400, "invalid_message"),
    ],
)
async def test_refusals_are_problem_details(app: App, get: Get, method: str, path: str, status: int, code: str) -> None:
    answered, headers, body = await get(app, path, method)
    assert (answered, headers["Content-Type"]) == (status, "application/problem+json")
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:actor-broker:error:{code}")
    assert body["title"]
    if status == 405:
        assert "GET" in headers["Allow"]


# -- the page ----------------------------------------------------------------------------------------


async def test_the_page_allows_itself_only_what_it_needs(app: App, get: Get) -> None:
    status, headers, body = await get(app, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert b"<!doctype html>" in body.lower()
    assert b"http://" not in body.replace(b"http://www.w3.org/", b"")


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip, br", True),
        ("GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("br, gzip; q=0.0", False),
        ("x-gzip", False),
        ("", False),
    ],
)
async def test_files_are_packed_for_who_takes_them_so(app: App, accepted: str, packed: bool) -> None:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(f"http://127.0.0.1:{app.port}/client.js", headers={"Accept-Encoding": accepted}) as answer,
    ):
        assert (answer.headers.get("Content-Encoding") == "gzip") == packed
        assert ((await answer.read())[:2] == b"\x1f\x8b") == packed


async def test_whatever_the_page_asks_for_is_there(app: App, get: Get) -> None:
    _, _, page = await get(app, "/")
    files = [part.split(b'"')[0].decode() for part in page.split(b'"static/')[1:]]
    assert files
    for name in files:
        status, headers, _ = await get(app, f"/static/{name}")
        assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
