"""Whatever is wrong with a request is said as problem details (RFC 9457), to who sent it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.http_parser import HttpRequestParser

from broker.app import App
from broker.errors import ERRORS

Ask = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]
Get = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_message"),
        (b"{", "invalid_json"),
        (b"{} {}", "invalid_json"),
        (b'{"to":{"users":["a"]},"data":NaN}', "invalid_json"),
        (b'{"to":{"users":["\\ud800"]}}', "invalid_json"),
        (b'{"to":{"users":["\xff"]}}', "invalid_json"),
        (b'{"to":{"users":["a"]},"data":"\xff"}', "invalid_json"),
        (b"[]", "invalid_message"),
        (b"null", "invalid_message"),
        (b'"to"', "invalid_message"),
        (b'{"to":{"users":["a"]},"data":' + b"[" * 70 + b"]" * 70 + b"}", "invalid_message"),
        (b'{"to":{"users":["a"]},"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_message"),
        (b'{"to":{"users":["' + b"a" * 257 + b'"]}}', "invalid_message"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(app: App, ask: Ask, body: bytes, code: str) -> None:
    refused = await ask(app, "POST /send", body)
    assert (refused.status, refused.body["code"], refused.body["status"]) == (400, code, 400)
    assert refused.body["type"] == f"urn:actor-broker:error:{code}"
    assert refused.headers["X-Content-Type-Options"] == "nosniff"
    assert refused.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("what", "body", "place"),
    [
        ("POST /send", b'{"to":{"users":[""]}}', {"field": "$.to.users[0]", "pointer": "/to/users/0"}),
        ("POST /send", b"[]", {"field": "$", "pointer": ""}),
        ("POST /sessions", b'{"a/b~":1}', {"field": "$.a/b~", "pointer": "/a~1b~0"}),
        ("GET /sessions?limit=0", None, {"field": "limit"}),
        ("GET /sessions/none", None, {"field": "session_id"}),
        ("POST /send", b"{", None),
    ],
)
async def test_a_refusal_says_what_where_and_what_to_do(app: App, ask: Ask, what: str, body: Any, place: Any) -> None:
    refused = (await ask(app, what, body)).body
    row = ERRORS[refused["code"]]
    assert (refused["category"], refused["recovery"]) == (row.category, row.recovery)
    assert refused.get("place") == place


@pytest.mark.parametrize("body", [b"", b"nul", b"\xff", b"[" * 70 + b"]" * 70, b'{"a":1}}'])
async def test_a_body_that_may_be_any_json_has_to_be_json(app: App, ask: Ask, body: bytes) -> None:
    assert (await ask(app, "POST /broadcast", body)).status == 400


async def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_so(start: Start, ask: Ask) -> None:
    app = await start(limits={"message_bytes": "2KiB"})
    large = json.dumps("x" * 3000).encode()
    assert (await ask(app, "POST /broadcast", large)).status == 413
    assert (await ask(app, "POST /broadcast", json.dumps("x" * 2000).encode())).status == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    head = f"POST /api/v1/broadcast HTTP/1.1\r\nHost: 127.0.0.1:{app.port}\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + b"BB8\r\n" + b" " * 3000 + b"\r\n0\r\n\r\n")
    assert b" 413 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("size", [1, 3, 20_000])
async def test_a_body_in_tiny_chunks_is_parsed_a_little_at_a_time(
    start: Start, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is read at once: others have their turn after 16 KiB."""
    fed: list[int] = []

    class Parser:
        def __init__(self, *args: Any, **options: Any) -> None:
            self._parser = HttpRequestParser(*args, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._parser, name)

        def feed_data(self, data: bytes) -> Any:
            fed.append(len(data))
            return self._parser.feed_data(data)

    monkeypatch.setattr("aiohttp.web_protocol.HttpRequestParser", Parser)
    app = await start()
    body = b'"' + b"x" * 199_998 + b'"'
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    head = f"POST /api/v1/broadcast HTTP/1.1\r\nHost: 127.0.0.1:{app.port}\r\nContent-Type: application/json\r\n"
    whole = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
    after = f"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{app.port}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + whole + after.encode())
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert b'{"delivered":0}' in answers
    assert max(fed) <= 16 * 1024
    assert sum(fed) == len(head) + 30 + len(whole) + len(after)
    writer.close()
    await writer.wait_closed()


async def test_a_charset_other_than_that_of_json_is_refused(app: App, ask: Ask) -> None:
    assert (await ask(app, "POST /broadcast", b"{}", Content_Type="application/json; charset=utf-16")).status == 415
    assert (await ask(app, "POST /broadcast", b"{}", Content_Type="Application/JSON; charset=UTF-8")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/api/v1/nowhere", 404, None),
        ("GET", "/api/v1", 404, None),
        ("GET", "/api/v1/sessions/", 404, None),
        ("GET", "/api/v1/sessions/a/b/c", 404, None),
        ("PUT", "/api/v1/sessions", 405, {"GET", "HEAD", "POST", "OPTIONS"}),
        ("PATCH", "/api/v1/sessions/s", 405, {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/api/v1/broadcast", 405, {"POST", "OPTIONS"}),
        ("TRACE", "/api/v1/stats", 405, {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_what_is_not_there_is_refused(
    app: App, get: Get, method: str, path: str, status: int, allow: set[str] | None
) -> None:
    answered, headers, body = await get(app, path, method)
    assert (answered, headers["Content-Type"], body["status"]) == (status, "application/problem+json", status)
    if allow is not None:
        assert set(headers["Allow"].replace(" ", "").split(",")) == allow


@pytest.mark.parametrize(
    "path", ["%FF", "%00", "%ED%A0%80", "a%2Fb", "%C3", "..%2f..%2fetc", "%25", "{}", "%C3%A9", "~" * 129]
)
@pytest.mark.parametrize("place", ["/sessions/{}", "/sessions/{}/records", "/rooms/{}/events", "/trace/{}"])
async def test_an_id_may_be_anything_and_breaks_nothing(app: App, ask: Ask, place: str, path: str) -> None:
    answer = await ask(app, "GET " + place.replace("{}", path))
    assert answer.status in {200, 400, 404}


async def test_head_is_get_without_a_body(app: App, ask: Ask) -> None:
    for path, status in (("/sessions", 200), ("/sessions/none", 404)):
        answer = await ask(app, f"HEAD {path}")
        assert (answer.status, answer.body) == (status, None)
        assert int(answer.headers["Content-Length"]) > 0


async def test_an_error_nobody_foresaw_is_told_by_an_id_alone(app: App, ask: Ask) -> None:
    app.services.tickets = None  # type: ignore[assignment]
    refused = await ask(app, "POST /tickets", {})
    assert (refused.status, refused.body["code"]) == (500, "internal")
    trace_id = refused.body["hint"].removeprefix("trace ")
    assert "NoneType" not in json.dumps(refused.body)
    assert (await ask(app, f"GET /trace/{trace_id}")).body["stopped"]["reason"] == "AttributeError"
