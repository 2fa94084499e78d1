"""Who is let in, and how the others are told (PROTOCOL sections 2, 2c and 7)."""

import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from broker import logs
from broker.app import App
from broker.testing import until
from broker.web.login import LINES

Dial = Callable[..., Awaitable[Any]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]


async def problem(raw: Any) -> dict[str, Any]:
    """Return the problem details that a handshake was refused with."""
    assert raw.headers()["content-type"] == "application/problem+json"
    body: dict[str, Any] = await raw.body()
    assert body["status"] == raw.status
    assert body["type"] == f"urn:actor-broker:error:{body['code']}"
    return body


# -- subprotocols ------------------------------------------------------------------------------------


async def test_without_an_offer_it_is_the_native_format_and_nothing_is_claimed(app: App, knock: Knock) -> None:
    raw = await knock(app.port)
    assert raw.status == 101
    assert "sec-websocket-protocol" not in raw.headers()
    assert (await raw.message())["data"]["protocol"] == "broker.v1.json"


@pytest.mark.parametrize("offer", ["broker.v1.json", "what.v9, broker.v1.json", "broker.v1.json,other"])
async def test_the_first_known_offer_is_taken(app: App, knock: Knock, offer: str) -> None:
    raw = await knock(app.port, Sec_WebSocket_Protocol=offer)
    assert raw.headers()["sec-websocket-protocol"] == "broker.v1.json"
    assert (await raw.message())["data"]["protocol"] == "broker.v1.json"


@pytest.mark.parametrize("offer", ["what.v9", "BROKER.V1.JSON", "what.v9, other.v1"])
async def test_an_offer_of_nothing_known_is_a_bad_request(app: App, knock: Knock, offer: str) -> None:
    raw = await knock(app.port, Sec_WebSocket_Protocol=offer)
    assert raw.status == 400
    body = await problem(raw)
    assert (body["code"], body["hint"]) == ("invalid_message", ", ".join(app.services.formats))


async def test_a_library_takes_the_offer_too(app: App, dial: Dial) -> None:
    client = await dial(app.port, subprotocols=[Subprotocol("x"), Subprotocol("broker.v1.json")])
    assert client.socket.subprotocol == "broker.v1.json"


async def test_a_client_that_is_gone_before_it_is_let_in_is_no_failure(app: App, dial: Dial) -> None:
    lines = f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{app.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", app.port)) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close it with a reset
            line.sendall((lines + key).encode())
    client = await dial(app.port)  # after them, so that they have been looked at
    assert await client.do("echo", text="hi") == {"text": "hi"}
    await until(lambda: app.services.stats.connections == 1)
    assert app.services.stats.errors == {}


# -- origins and hosts -------------------------------------------------------------------------------


async def test_our_own_page_and_programs_without_a_page_come_in(app: App, knock: Knock) -> None:
    assert (await knock(app.port, Origin=f"http://127.0.0.1:{app.port}")).status == 101
    own = await knock(app.port, Host=f"localhost:{app.port}", Origin=f"http://localhost:{app.port}")
    assert own.status == 101
    assert (await knock(app.port)).status == 101


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1",
        "https://127.0.0.1:{port}",
        "http://localhost:{port}",
        "http://127.0.0.1:{port}.evil.example",
        "http://127.0.0.1:{port}/",
        "",
    ],
)
async def test_a_foreign_page_is_forbidden(app: App, knock: Knock, origin: str) -> None:
    raw = await knock(app.port, Origin=origin.format(port=app.port))
    assert raw.status == 403
    assert (await problem(raw))["code"] == "forbidden"


async def test_a_listed_page_comes_in_and_its_neighbours_do_not(start: Start, knock: Knock) -> None:
    app = await start(listen={"origins": ["https://chat.example.org"]})
    assert (await knock(app.port, Origin="https://chat.example.org")).status == 101
    for origin in ("https://chat.example.org:8443", "http://chat.example.org", "https://a.chat.example.org"):
        assert (await knock(app.port, Origin=origin)).status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1"])
async def test_a_name_that_was_rebound_to_us_is_forbidden(app: App, knock: Knock, host: str) -> None:
    """The page of a rebound name has an Origin equal to its Host, so the Host decides."""
    host = host.format(port=app.port)
    for path in ("/ws", "/", "/health", "/api/v1/sessions"):
        raw = await knock(app.port, path, Host=host, Origin=f"http://{host}")
        assert raw.status == 403
        assert (await problem(raw))["code"] == "forbidden"


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost", "LocalHost:{port}", "[::1]:{port}", "app.localhost"])
async def test_names_of_this_machine_are_ours(app: App, knock: Knock, host: str) -> None:
    assert (await knock(app.port, Host=host.format(port=app.port))).status == 101


# -- limits ------------------------------------------------------------------------------------------


async def test_one_connection_too_many_is_told_when_to_come_back(start: Start, dial: Dial, knock: Knock) -> None:
    app = await start(listen={"max_connections": 2})
    first, _ = await dial(app.port), await dial(app.port)
    raw = await knock(app.port)
    assert (raw.status, raw.headers()["retry-after"]) == (503, "5")
    assert (await problem(raw))["code"] == "unavailable"
    await first.leave()
    assert (await knock(app.port)).status == 101


async def test_a_broker_that_drains_takes_nobody(app: App, dial: Dial, knock: Knock) -> None:
    client = await dial(app.port)
    await client.do("ping")
    app.services.ready = False
    raw = await knock(app.port)
    assert (raw.status, raw.headers()["retry-after"]) == (503, "1")
    await client.silent()


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Connection": None},
        {"Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": None},
    ],
)
async def test_what_is_no_handshake_is_a_bad_request(app: App, knock: Knock, headers: dict[str, Any]) -> None:
    raw = await knock(app.port, **{name.replace("-", "_"): value for name, value in headers.items()})
    assert raw.status in {400, 426}
    await problem(raw)


async def test_a_refused_library_sees_the_status(app: App, dial: Dial) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await dial(app.port, origin="https://evil.example")
    assert refused.value.response.status_code == 403


async def test_a_crowd_that_comes_and_goes_is_counted_and_not_written_out(
    app: App, knock: Knock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "_limiter", logs.Limiter(clock=lambda: 0.0))  # all in the same second
    logs.configure(form="json")
    for _ in range(LINES + 10):
        (await knock(app.port)).writer.transport.abort()
    await until(lambda: app.stats.connections_total == LINES + 10 and app.stats.connections == 0)
    written = capsys.readouterr().err
    assert (written.count('"connected from'), written.count('"disconnected with')) == (LINES, LINES)
