"""Who may use the HTTP API, and from which pages (PROTOCOL sections 5 and 7)."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.app import App
from broker.web.api.endpoint import ENDPOINTS

Ask = Callable[..., Awaitable[Any]]
Get = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

CHAT = "https://chat.example.org"
SCOPELESS = "name=ann&scopes=admin+agent+debug"

BODIES = {
    "/send": {"to": {"users": ["ann"]}},
    "/sessions/{session_id}/turns": {"content": "hi"},
    "/projects/{project}/feedback": {"data": "hi"},
}
"""What endpoints need to be given before anything is asked of them."""


def requests(*, guarded: bool = False) -> list[str]:
    """Return one request for every endpoint; or for every one that takes a token."""
    rows = [row for row in ENDPOINTS if not (guarded and (row.public or row.scope is None))]
    return [f"{row.method} {row.path.replace('{', '').replace('}', '')}" for row in rows]


@pytest.mark.parametrize("what", requests(guarded=True))
async def test_every_endpoint_asks_for_the_scope(start: Start, people: dict[str, Any], ask: Ask, what: str) -> None:
    app = await start(**people)
    nobody = await ask(app, what)
    assert (nobody.status, nobody.body["code"], nobody.headers["WWW-Authenticate"]) == (
        401,
        "unauthenticated",
        "Bearer",
    )
    somebody = await ask(app, what, who=SCOPELESS)
    assert (somebody.status, somebody.body["code"]) == (403, "forbidden")


@pytest.mark.parametrize("what", requests(guarded=True))
async def test_every_endpoint_asks_the_permission_gates(start: Start, tmp_path: Any, ask: Ask, what: str) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/closed.py").write_text(
        "from broker.errors import BrokerError\n"
        "from broker.hooks import Plugin\n"
        "class Closed(Plugin):\n"
        "    def on_permission(self, check):\n"
        "        raise BrokerError('forbidden', f'{check.operation} {check.resource}')\n"
    )
    app = await start(plugins={"closed": {}})
    row = next(row for row in ENDPOINTS if f"{row.method} {row.path.replace('{', '').replace('}', '')}" == what)
    refused = await ask(app, what, BODIES.get(row.path, {}) if row.takes_body else None)
    resource = None if row.resource is None or row.resource not in row.in_path else row.resource
    resource = {"/projects/{project}/feedback": "project:project"}.get(row.path, resource)
    assert (refused.status, refused.body["message"]) == (403, f"{row.operation} {resource}")


async def test_the_descriptions_are_for_everybody(start: Start, people: dict[str, Any], get: Get) -> None:
    app = await start(**people)
    for name in ("openapi", "asyncapi"):
        status, headers, body = await get(app, f"/api/v1/{name}.json")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert body["info"]["version"]


async def test_a_draining_broker_takes_no_new_work_but_can_be_read(app: App, ask: Ask) -> None:
    app.services.load.stopping = True
    refused = await ask(app, "POST /sessions", {})
    assert (refused.status, refused.body["code"], "Retry-After" in refused.headers) == (503, "unavailable", True)
    assert (await ask(app, "GET /sessions")).status == 200


# -- pages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [*requests(), "GET /openapi.json", "OPTIONS /sessions"])
async def test_a_page_that_is_not_listed_can_do_nothing(app: App, ask: Ask, what: str) -> None:
    refused = await ask(app, what, Origin="https://evil.example.org")
    assert (refused.status, refused.body["code"]) == (403, "forbidden")
    assert not [name for name in refused.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "origin", ["null", CHAT.upper(), f"{CHAT}:8443", f"{CHAT}.evil.org", "http://chat.example.org"]
)
async def test_origins_are_compared_exactly(start: Start, ask: Ask, origin: str) -> None:
    app = await start(listen={"origins": [CHAT]})
    assert (await ask(app, "POST /sessions", {}, Origin=origin)).status == 403
    assert (await ask(app, "GET /sessions")).body == {"sessions": []}


async def test_a_listed_page_may_read_answers_and_refusals(start: Start, ask: Ask) -> None:
    app = await start(listen={"origins": [CHAT]}, limits={"message_bytes": "2KiB"})
    for what, body, status in (
        ("POST /sessions", {}, 201),
        ("GET /sessions/none", None, 404),
        ("GET /nowhere", None, 404),
        ("PUT /sessions", None, 405),
        ("POST /send", b"{", 400),
        ("POST /broadcast", b'"' + b"x" * 3000 + b'"', 413),
        ("DELETE /connections/none", None, 404),
    ):
        answer = await ask(app, what, body, Origin=CHAT)
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == CHAT
        assert "Idempotent-Replayed" in answer.headers["Access-Control-Expose-Headers"]
        assert answer.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_a_listed_page_is_told_what_it_may_send(start: Start, ask: Ask) -> None:
    app = await start(listen={"origins": [CHAT]})
    for path, methods in (("/sessions", "GET, POST, HEAD, OPTIONS"), ("/connections/c1", "DELETE, OPTIONS")):
        told = await ask(app, f"OPTIONS {path}", Origin=CHAT, Access_Control_Request_Method="POST")
        assert (told.status, told.headers["Access-Control-Allow-Methods"]) == (204, methods)
        assert told.headers["Access-Control-Allow-Origin"] == CHAT
        assert {"Authorization", "Content-Type", "Idempotency-Key"} == set(
            told.headers["Access-Control-Allow-Headers"].split(", ")
        )


async def test_who_is_no_page_is_told_what_there_is(app: App, ask: Ask) -> None:
    told = await ask(app, "OPTIONS /sessions")
    assert (told.status, told.headers["Allow"]) == (204, "GET, POST, HEAD, OPTIONS")


async def test_our_own_page_needs_no_list(app: App, ask: Ask) -> None:
    answer = await ask(app, "POST /sessions", {}, Origin=f"http://127.0.0.1:{app.port}")
    assert answer.status == 201
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
async def test_a_body_has_to_be_what_no_form_can_send(app: App, ask: Ask, kind: str) -> None:
    refused = await ask(app, "POST /broadcast", b"{}", Content_Type=kind)
    assert (refused.status, refused.body["field"]) == (415, "Content-Type")


async def test_neither_health_nor_metrics_nor_the_pages_are_for_other_origins(start: Start, get: Get) -> None:
    app = await start(listen={"origins": [CHAT]}, plugins={"metrics": {}})
    for path in ("/", "/chat", "/health", "/metrics"):
        _, headers, _ = await get(app, path, headers={"Origin": CHAT})
        assert "Access-Control-Allow-Origin" not in headers


async def test_a_page_of_any_origin_may_import_the_client(app: App, get: Get) -> None:
    for path in ("/client.js", "/static/client.js", "/static/chat/embed.js"):
        status, headers, _ = await get(app, path, headers={"Origin": "https://elsewhere.example"})
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, "*")
        assert "Access-Control-Allow-Credentials" not in headers


ROUTES = """
from aiohttp import web
from broker.hooks import Plugin, Route


class Extra(Plugin):
    def routes(self):
        async def serve(request):
            return web.json_response("nothing", status=404)

        async def options(request):
            return web.Response(status=204, headers={"Allow": "its own"})

        return [
            Route("GET", "/api/v1/extra/{name}", serve, scope="api"),
            Route("PUT", "/api/v1/extra/{name}", serve, scope="api"),
            Route("OPTIONS", "/api/v1/own", options),
            Route("POST", "/api/v1/own", serve),
        ]
"""


async def test_what_pages_may_send_to_a_plugin_s_route_of_the_api_is_told_too(
    start: Start, ask: Ask, tmp_path: Path
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/extra.py").write_text(ROUTES)
    app = await start(listen={"origins": [CHAT]}, plugins={"extra": {}})
    told = await ask(app, "OPTIONS /extra/one", Origin=CHAT, Access_Control_Request_Method="PUT")
    assert (told.status, told.headers["Access-Control-Allow-Methods"]) == (204, "GET, PUT, OPTIONS")
    assert told.headers["Access-Control-Allow-Origin"] == CHAT
    assert (await ask(app, "GET /extra/one", Origin=CHAT)).headers["Access-Control-Allow-Origin"] == CHAT
    refused = await ask(app, "OPTIONS /extra/one", Origin="https://evil.example")
    assert (refused.status, "Access-Control-Allow-Methods" in refused.headers) == (403, False)
    assert (await ask(app, "OPTIONS /own", Origin=CHAT)).headers["Allow"] == "its own"
