"""Who comes in and what they may do then: the auth plugin in a whole broker, over real sockets.

Each row is something that somebody got wrong once: the OWASP cheat sheet for WebSockets, RFC 8725, and the advisories
for gateways of this kind (tokens that only have to be there, scopes that clients name, keys that tokens bring).
"""

import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.app import App
from broker.config import ConfigErrors
from broker.config import load as load_config
from broker.extensions.loader import load as load_plugins
from broker.testing import until

Start = Callable[..., Awaitable[App]]
Dial = Callable[..., Awaitable[Any]]
Knock = Callable[..., Awaitable[Any]]
Get = Callable[..., Awaitable[Any]]

SECRET = "0123456789abcdef" * 4
API_KEY = "an-api-key-of-forty-characters-or-more-00"
PAGE = "https://chat.example.org"
RSA = rsa.generate_private_key(65537, 2048)
PUBLIC = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
BLOCK: dict[str, Any] = {
    "mode": "jwt",
    "keys": [
        {"algorithm": "HS256", "secret": SECRET},
        {"algorithm": "RS256", "public_key": PUBLIC.decode(), "kid": "r"},
    ],
    "api_keys": {"ops": {"key": API_KEY, "scopes": ["api", "admin"]}},
}
CLOSED = 4500


def settings(**more: Any) -> dict[str, Any]:
    return {"plugins": {"auth": {**BLOCK, **more}}}


def token(key: Any = SECRET, algorithm: str = "HS256", headers: Mapping[str, Any] | None = None, **claims: Any) -> str:
    """Return a token of Ann's, good for ten minutes; a claim that is None is left out."""
    now = int(time.time())
    said = {"iss": "actor-broker", "aud": "actor-broker", "sub": "ann", "iat": now, "exp": now + 600, **claims}
    kept = {name: value for name, value in said.items() if value is not None}
    return str(jwt.api_jws.encode(json.dumps(kept).encode(), key, algorithm, dict(headers or {})))


def soon(seconds: float) -> int:
    return int(time.time() + seconds)


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: object, secret: bytes = SECRET.encode(), signature: bytes | None = None) -> str:
    """Return a token with any header at all, signed with HMAC-SHA256, or with this for a signature."""
    body = {"iss": "actor-broker", "aud": "actor-broker", "sub": "ann", "exp": soon(600)}
    signed = f"{part(header)}.{part(body)}"
    hmac = jwt.algorithms.get_default_algorithms()["HS256"]
    return f"{signed}.{part(hmac.sign(signed.encode(), secret) if signature is None else signature)}"


async def outcome(knock: Knock, port: int, path: str = "/ws", **headers: str | None) -> Any:
    """Return whom a handshake let in, the code it was closed with, or the status it was refused with."""
    raw = await knock(port, path, **headers)
    if raw.status != 101:
        return raw.status
    first, payload = await raw.frame()
    if first == 0x81:
        welcome = json.loads(payload)
        assert welcome["event"] == "welcome"
        return welcome["data"]["user"]
    assert first == 0x88, first
    return int.from_bytes(payload[:2], "big")


# -- what is shown in the header -----------------------------------------------------------------------

SHOWN: dict[str, tuple[Callable[[], str | None], Any]] = {
    "a good token": (token, "ann"),
    "a good token of another algorithm": (lambda: token(RSA, "RS256", {"kid": "r"}), "ann"),
    "nothing": (lambda: None, CLOSED),
    "an empty one": (lambda: "", CLOSED),
    "something instead of a token": (lambda: "true", CLOSED),
    "undefined": (lambda: "undefined", CLOSED),
    "two dots": (lambda: "..", CLOSED),
    "alg none": (lambda: forged({"alg": "none"}, signature=b"xx"), CLOSED),
    "alg none without a signature": (lambda: forged({"alg": "none"}, signature=b""), CLOSED),
    "alg nOnE": (lambda: forged({"alg": "nOnE"}), CLOSED),
    "the public key as a secret": (lambda: forged({"alg": "HS256"}, PUBLIC), CLOSED),
    "the public key as a secret, named": (lambda: forged({"alg": "HS256", "kid": "r"}, PUBLIC), CLOSED),
    "RS256 in the header of an HMAC": (lambda: forged({"alg": "RS256", "kid": "r"}), CLOSED),
    "HS512 with the key of HS256": (lambda: token(SECRET, "HS512"), CLOSED),
    "another secret": (lambda: token("y" * 64), CLOSED),
    "a secret of no bytes": (lambda: forged({"alg": "HS256"}, b""), CLOSED),
    "another issuer": (lambda: token(iss="https://evil.example"), CLOSED),
    "an issuer that begins like ours": (lambda: token(iss="actor-broker.evil.example"), CLOSED),
    "an issuer that ours begins with": (lambda: token(iss="actor"), CLOSED),
    "an issuer in capitals": (lambda: token(iss="Actor-Broker"), CLOSED),
    "no issuer": (lambda: token(iss=None), CLOSED),
    "another audience": (lambda: token(aud="billing"), CLOSED),
    "a list of other audiences": (lambda: token(aud=["billing", "actor-broker-2"]), CLOSED),
    "a list with our audience": (lambda: token(aud=["billing", "actor-broker"]), "ann"),
    "no audience": (lambda: token(aud=None), CLOSED),
    "no user": (lambda: token(sub=None), CLOSED),
    "an empty user": (lambda: token(sub=""), CLOSED),
    "a user that is a number": (lambda: token(sub=1), CLOSED),
    "a user with a line break": (lambda: token(sub="ann\r\nadmin"), CLOSED),
    "no end": (lambda: token(exp=None), CLOSED),
    "an end in 31 million years": (lambda: token(exp=10**15), CLOSED),
    "an end beyond the longest life": (lambda: token(exp=soon(86_500)), CLOSED),
    "an end of 400 digits": (lambda: token(exp=10**400), CLOSED),
    "the name of an API key": (lambda: token(sub="key:ops"), CLOSED),
    "an end of text": (lambda: token(exp="2099-01-01"), CLOSED),
    "an end that is true": (lambda: token(exp=True), CLOSED),
    "expired a minute ago": (lambda: token(iat=soon(-600), exp=soon(-60)), CLOSED),
    "expired within the leeway": (lambda: token(iat=soon(-600), exp=soon(-4)), "ann"),
    "not good before tomorrow": (lambda: token(nbf=soon(3600)), CLOSED),
    "issued tomorrow": (lambda: token(iat=soon(3600), exp=soon(4000)), CLOSED),
    "a kid that is a path": (lambda: token(headers={"kid": "../../../../dev/null"}), "ann"),
    "a kid that is a path, for a named key": (lambda: token(RSA, "RS256", {"kid": "../r"}), CLOSED),
    "a kid that is SQL": (lambda: token(RSA, "RS256", {"kid": "r' UNION SELECT 'x"}), CLOSED),
    "a kid that is a URL": (lambda: token(RSA, "RS256", {"kid": "http://127.0.0.1:1/"}), CLOSED),
    "keys at an address of its own": (lambda: token("y" * 64, headers={"jku": "http://127.0.0.1:1/"}), CLOSED),
    "a key of its own": (lambda: token("y" * 64, headers={"jwk": {"kty": "oct", "k": part(b"y" * 64)}}), CLOSED),
    "an extension that has to be understood": (lambda: forged({"alg": "HS256", "crit": ["x"], "x": 1}), CLOSED),
    "a payload that is not encoded": (lambda: forged({"alg": "HS256", "b64": False, "crit": ["b64"]}), CLOSED),
    "9 KiB": (lambda: token(padding="x" * 7000), 400),
    "patterns that are none": (lambda: token(rooms="*"), CLOSED),
    "patterns that are null": (lambda: f"{token(rooms=None)}", "ann"),
    "an API key": (lambda: API_KEY, "key:ops"),
    "an API key's beginning": (lambda: API_KEY[:-1], CLOSED),
    "an API key and more": (lambda: f"{API_KEY}0", CLOSED),
}


@pytest.mark.parametrize("shown", SHOWN)
async def test_a_header_with(start: Start, knock: Knock, shown: str) -> None:
    make, expected = SHOWN[shown]
    app, text = await start(**settings()), make()
    header = None if text is None else f"Bearer {text}"
    assert await outcome(knock, app.port, Authorization=header) == expected


SAME = token(exp=soon(3600))

# -- where it is shown ---------------------------------------------------------------------------------

WAYS: dict[str, tuple[dict[str, Any], Callable[[], tuple[str, dict[str, str]]], Any]] = {
    "the offer": ({}, lambda: ("", {"Sec_WebSocket_Protocol": f"broker.v1.json, bearer.{token()}"}), "ann"),
    "an API key in the offer": ({}, lambda: ("", {"Sec_WebSocket_Protocol": f"bearer.{API_KEY}"}), CLOSED),
    "the query, which is off": ({}, lambda: (f"?access_token={token()}", {}), CLOSED),
    "the query, switched on": ({"query": "access_token"}, lambda: (f"?access_token={token()}", {}), "ann"),
    "a bad one in the query": ({"query": "access_token"}, lambda: ("?access_token=1", {}), CLOSED),
    "an API key in the query": ({"query": "access_token"}, lambda: (f"?access_token={API_KEY}", {}), CLOSED),
    "a cookie, which is off": ({}, lambda: ("", {"Cookie": f"t={token()}", "Origin": PAGE}), CLOSED),
    "Basic": ({}, lambda: ("", {"Authorization": f"Basic {token()}"}), CLOSED),
    "two that are the same": (
        {},
        lambda: ("", {"Authorization": f"Bearer {SAME}", "Sec_WebSocket_Protocol": f"bearer.{SAME}"}),
        "ann",
    ),
    "two that differ": (
        {},
        lambda: ("", {"Authorization": f"Bearer {token()}", "Sec_WebSocket_Protocol": f"bearer.{token(jti='2')}"}),
        CLOSED,
    ),
    "a good one beside a bad one": (
        {},
        lambda: ("", {"Authorization": f"Bearer {token()}", "Sec_WebSocket_Protocol": "bearer.x"}),
        CLOSED,
    ),
    "a user's name in the query": ({}, lambda: ("?user=ann&scopes=admin", {}), CLOSED),
    "a user's name in a header": ({}, lambda: ("", {"X_Forwarded_User": "ann", "X_User": "ann"}), CLOSED),
    "a ticket that never was": ({}, lambda: ("?ticket=abcdef", {}), CLOSED),
    "loopback": ({}, lambda: ("", {"X_Forwarded_For": "127.0.0.1"}), CLOSED),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_in(start: Start, knock: Knock, way: str) -> None:
    more, make, expected = WAYS[way]
    app = await start(**settings(**more), listen={"origins": [PAGE]})
    query, headers = make()
    assert await outcome(knock, app.port, f"/ws{query}", **headers) == expected


ORIGINS = {
    PAGE: "ann",
    None: CLOSED,  # no browser, so no cookie of a browser's
    "null": 403,
    "https://evil.example": 403,
    "https://chat.example.org.evil.example": 403,
    "https://evil-chat.example.org": 403,
    "https://chat.example.org:8443": 403,
    "http://chat.example.org": 403,
    "https://CHAT.example.org": 403,
    "https://chat.example.org/": 403,
    "https://other.example.org": CLOSED,  # may connect, and has to bring a token of its own
}


@pytest.mark.parametrize("origin", ORIGINS)
async def test_a_cookie_counts_from(start: Start, knock: Knock, origin: str | None) -> None:
    app = await start(
        **settings(cookie={"name": "t", "origins": [PAGE]}), listen={"origins": [PAGE, "https://other.example.org"]}
    )
    found = await outcome(knock, app.port, Cookie=f"a=b; t={token()}", Origin=origin)
    assert found == ORIGINS[origin]


async def test_the_broker_names_the_format_and_never_the_token(start: Start, knock: Knock) -> None:
    app = await start(**settings())
    text = token()
    raw = await knock(app.port, Sec_WebSocket_Protocol=f"bearer.{text}, broker.v1.json")
    assert raw.headers()["sec-websocket-protocol"] == "broker.v1.json"
    assert text not in raw.head


# -- over HTTP -----------------------------------------------------------------------------------------

REQUESTS: dict[str, tuple[Callable[[], dict[str, str]], int]] = {
    "nothing": (dict, 401),
    "a token without the scope api": (lambda: {"Authorization": f"Bearer {token()}"}, 403),
    "a token with it": (lambda: {"Authorization": f"Bearer {token(scope='api')}"}, 200),
    "a token with scopes that are like it": (lambda: {"Authorization": f"Bearer {token(scope='apis API')}"}, 403),
    "an API key": (lambda: {"Authorization": f"Bearer {API_KEY}"}, 200),
    "an expired token": (lambda: {"Authorization": f"Bearer {token(scope='api', exp=soon(-60), iat=1)}"}, 401),
    "a cookie": (lambda: {"Cookie": f"t={token(scope='api')}", "Origin": PAGE}, 401),
    "an offer": (lambda: {"Sec-WebSocket-Protocol": f"bearer.{token(scope='api')}"}, 401),
    "a page that may not": (lambda: {"Authorization": f"Bearer {API_KEY}", "Origin": "https://evil.example"}, 403),
}


@pytest.mark.parametrize("shown", REQUESTS)
async def test_a_request_with(start: Start, get: Get, shown: str) -> None:
    make, expected = REQUESTS[shown]
    app = await start(**settings(cookie={"name": "t", "origins": [PAGE]}, query="t"), listen={"origins": [PAGE]})
    status, headers, body = await get(app, "/api/v1/sessions", headers=make())
    assert status == expected, body
    assert ("WWW-Authenticate" in headers) == (status == 401)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: None, CLOSED),
        (token, 4503),
        (lambda: token(scope="api admin"), 4503),
        (lambda: token(scope="agent", exp=soon(-60), iat=1), CLOSED),
    ],
)
async def test_an_agent_needs_its_scope(
    start: Start, knock: Knock, make: Callable[[], str | None], expected: int
) -> None:
    app = await start(**settings(first_message="5s"), agents={"coder": {"kind": "worker"}})
    text = make()
    header = None if text is None else f"Bearer {text}"
    raw = await knock(app.port, "/agent", Authorization=header, Sec_WebSocket_Protocol="agents.v1.json")
    assert raw.status == 101
    assert await raw.end() == expected


# -- in band -------------------------------------------------------------------------------------------


def bearer(text: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {text}"}}


async def test_the_first_message_says_who_one_is_where_that_is_allowed(start: Start, dial: Dial) -> None:
    app = await start(**settings(first_message="5s"))
    client = await dial(app.port)
    assert client.welcome["user"] is None
    answer = await client.do("auth", token=token(scope="api"))
    assert (answer["user"], answer["scopes"]) == ("ann", ["api"])
    await client.do("session.create")


async def test_another_first_message_is_the_last_one(start: Start, dial: Dial) -> None:
    app = await start(**settings(first_message="5s"))
    client = await dial(app.port)
    assert (await client.refused("session.create"))["code"] == "unauthenticated"
    assert (await client.closed())[0] == CLOSED


async def test_a_bad_token_in_the_first_message_is_the_last_one(start: Start, dial: Dial) -> None:
    app = await start(**settings(first_message="5s"))
    client = await dial(app.port)
    assert (await client.refused("auth", token=token("y" * 64)))["code"] == "unauthenticated"
    assert (await client.closed())[0] == CLOSED


async def test_a_long_token_is_refused_unread(start: Start, dial: Dial) -> None:
    app = await start(**settings(first_message="5s"))
    client = await dial(app.port)
    assert "at most 8192 bytes" in (await client.refused("auth", token=token(padding="x" * 7000)))["hint"]


async def test_a_bad_token_in_the_handshake_is_not_asked_for_again(start: Start, knock: Knock) -> None:
    app = await start(**settings(first_message="5s"))
    assert await outcome(knock, app.port, Authorization="Bearer x") == CLOSED


async def test_a_refresh_keeps_the_user_and_may_change_all_else(start: Start, dial: Dial) -> None:
    app = await start(**settings())
    client = await dial(app.port, **bearer(token()))
    assert (await client.refused("auth", token=token(sub="bob")))["code"] == "forbidden"
    assert (await client.refused("auth", token=token("y" * 64)))["code"] == "unauthenticated"
    assert (await client.refused("auth", token=token(iat=1, exp=soon(-60))))["code"] == "token_expired"
    assert (await client.do("get_connections")).keys() == {"count"}
    assert (await client.do("auth", token=token(scope="admin")))["scopes"] == ["admin"]
    assert "connections" in await client.do("get_connections")
    await client.do("auth", token=token())
    assert (await client.do("get_connections")).keys() == {"count"}


async def test_a_connection_ends_within_a_second_of_its_token(start: Start, dial: Dial) -> None:
    app = await start(**settings())
    exp = time.time() + 1.5
    client = await dial(app.port, **bearer(token(exp=exp)))
    assert (await client.closed())[0] == 4001
    assert exp <= time.time() < exp + 1


async def test_a_connection_whose_token_was_refreshed_does_not(start: Start, dial: Dial) -> None:
    app = await start(**settings())
    old, refreshed = [await dial(app.port, **bearer(token(exp=time.time() + 1))) for _ in range(2)]
    await refreshed.do("auth", token=token())
    assert (await old.closed())[0] == 4001
    await refreshed.do("ping")


@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("get_connections", {"scopes": ["admin"], "user": "root"}),
        ("auth", {"token": "x", "scopes": ["admin"]}),
        ("auth", {"user": "root"}),
    ],
)
async def test_scopes_that_a_client_names_itself_are_nothing(
    start: Start, dial: Dial, action: str, payload: dict[str, Any]
) -> None:
    app = await start(**settings())
    client = await dial(app.port, **bearer(token()))
    await client.ask(action, payload)
    assert (await client.do("get_connections")).keys() == {"count"}


# -- tickets -------------------------------------------------------------------------------------------


async def test_a_ticket_lets_in_once(start: Start, knock: Knock, get: Get) -> None:
    app = await start(**settings())
    api = {"Authorization": f"Bearer {API_KEY}"}
    status, _, made = await get(app, "/api/v1/tickets", "POST", json={"user": "ann"}, headers=api)
    assert status == 201, made
    assert await outcome(knock, app.port, f"/ws?ticket={made['ticket']}") == "ann"
    assert await outcome(knock, app.port, f"/ws?ticket={made['ticket']}") == CLOSED
    status, _, refused = await get(
        app,
        "/api/v1/tickets",
        "POST",
        json={"user": "ann", "scopes": ["admin"]},
        headers={"Authorization": f"Bearer {token(scope='api')}"},
    )
    assert status == 403, refused


async def test_a_ticket_of_somebody_just_revoked_is_void(start: Start, knock: Knock, get: Get) -> None:
    app = await start(**settings())
    api = {"Authorization": f"Bearer {API_KEY}"}
    _, _, made = await get(app, "/api/v1/tickets", "POST", json={"user": "ann"}, headers=api)
    await get(app, "/api/v1/revocations", "POST", json={"user": "ann"}, headers=api)
    assert await outcome(knock, app.port, f"/ws?ticket={made['ticket']}") == CLOSED


# -- what one may do -----------------------------------------------------------------------------------

OWNER, MEMBER, VIEWER = {"ann"}, {"ann", "bob"}, {"ann", "bob", "eve"}
VERBS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "session.attach": ({}, VIEWER),
    "session.history": ({}, VIEWER),
    "session.update": ({"title": "Mine"}, MEMBER),
    "session.configure": ({"mode": "plan"}, MEMBER),
    "turn.start": ({"client_msg_id": "x", "content": "hi"}, MEMBER),
    "turn.edit": ({"turn_id": "x", "content": "hi"}, MEMBER),
    "turn.drop": ({"turn_id": "x"}, MEMBER),
    "turn.cancel": ({"turn_id": "x"}, MEMBER),
    "approval.answer": ({"approval_id": "x", "option_id": "y"}, MEMBER),
    "session.share": ({"user": "zoe", "role": "viewer"}, OWNER),
    "session.close": ({}, OWNER),
    "session.delete": ({}, OWNER),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_session_lets_each_do_what_is_theirs(start: Start, dial: Dial, verb: str) -> None:
    """Owner, member, viewer, somebody else, an agent, a backend and an administrator."""
    app = await start(**settings())
    payload, allowed = VERBS[verb]
    scopes = {"ann": "", "bob": "", "eve": "", "zed": "", "bot": "agent", "svc": "api debug", "root": "admin"}
    people = {user: await dial(app.port, **bearer(token(sub=user, scope=scope))) for user, scope in scopes.items()}
    for user, client in people.items():
        session_id = (await people["ann"].do("session.create"))["session_id"]
        for other, role in (("bob", "member"), ("eve", "viewer")):
            await people["ann"].do("session.share", session_id=session_id, user=other, role=role)
        answer = await client.ask(verb, {"session_id": session_id, **payload})
        refused = answer["type"] == "error" and answer["data"]["code"] == "forbidden"
        assert refused != (user in allowed | {"root"}), (user, answer)


PATTERNS = [
    ({"rooms": []}, "room.join", {"room": "lobby"}, False),
    ({"rooms": ["team-*"]}, "room.join", {"room": "team-red"}, True),
    ({"rooms": ["team-*"]}, "room.join", {"room": "lobby"}, False),
    ({"rooms": ["team-*"]}, "room.publish", {"room": "lobby", "data": 1}, False),
    ({"rooms": ["team-*"]}, "room.history", {"room": "lobby"}, False),
    ({"rooms": ["team-*"]}, "room.presence", {"room": "lobby"}, False),
    ({"rooms": {"lobby": ["join"]}}, "room.join", {"room": "lobby"}, True),
    ({"rooms": {"lobby": ["join"]}}, "room.publish", {"room": "lobby", "data": 1}, False),
    ({"rooms": ["{user}"]}, "room.join", {"room": "ann"}, True),
    ({"rooms": ["{user}"]}, "room.join", {"room": "bob"}, False),
    ({"sub": "*", "rooms": ["{user}"]}, "room.join", {"room": "bob"}, False),
    ({"sessions": []}, "session.create", {}, False),
    ({"sessions": ["ann-*"]}, "session.create", {"session_id": "ann-1"}, True),
    ({"sessions": ["ann-*"]}, "session.create", {"session_id": "bob-1"}, False),
    ({"sessions": []}, "session.list", {}, False),
    ({}, "broadcast", {}, False),
    ({"scope": "loud"}, "broadcast", {}, True),
    ({"scope": "admin", "rooms": []}, "room.join", {"room": "lobby"}, True),
]


@pytest.mark.parametrize(("claims", "action", "payload", "allowed"), PATTERNS)
async def test_claims_and_settings_say_what_is_permitted(
    start: Start, dial: Dial, claims: dict[str, Any], action: str, payload: dict[str, Any], allowed: bool
) -> None:
    app = await start(**settings(require={"broadcast": "loud"}))
    client = await dial(app.port, **bearer(token(**claims)))
    answer = await client.ask(action, payload)
    assert (answer["type"] == "response") == allowed, answer
    assert allowed or answer["data"]["code"] == "forbidden"


async def test_a_list_shows_no_session_that_one_may_not_attach_to(start: Start, dial: Dial, get: Get) -> None:
    app = await start(**settings())
    full = await dial(app.port, **bearer(token()))
    for name in ("team-1", "other-1"):
        await full.do("session.create", session_id=name, title=f"about {name}")
    await full.do("turn.start", session_id="other-1", client_msg_id="m1", content="hi")
    narrow = token(sessions=["team-*"], scope="api")
    client = await dial(app.port, **bearer(narrow))
    listed = await client.do("session.list")
    assert [row["title"] for row in listed["sessions"]] == ["about team-1"]
    _, _, over_http = await get(app, "/api/v1/sessions", headers={"Authorization": f"Bearer {narrow}"})
    assert [row["title"] for row in over_http["sessions"]] == ["about team-1"]
    assert (await client.refused("trace", id="m1"))["code"] == "not_found"
    assert (await full.do("trace", id="m1"))["session_id"] == "other-1"


async def test_a_refresh_that_narrows_takes_away_what_is_followed(start: Start, dial: Dial) -> None:
    app = await start(**settings())
    client, other = [await dial(app.port, **bearer(token())) for _ in range(2)]
    await client.do("room.join", room="lobby")
    await client.do("auth", token=token(rooms=["team-*"]))
    await other.do("room.publish", room="lobby", data="secret")
    assert (await client.refused("room.history", room="lobby"))["code"] == "forbidden"
    assert not [message for message in client.heard if message.get("event") == "room.event"]


# -- what is taken back --------------------------------------------------------------------------------


async def revoke(get: Get, app: App, body: object, shown: str = API_KEY) -> tuple[int, Any]:
    status, _, answer = await get(
        app, "/api/v1/revocations", "POST", json=body, headers={"Authorization": f"Bearer {shown}"}
    )
    return status, answer


async def test_a_revoked_user_is_out_and_needs_a_new_token(start: Start, dial: Dial, knock: Knock, get: Get) -> None:
    app = await start(**settings(leeway="10s"))
    old = token(iat=soon(-5))
    ann, also, bob = [await dial(app.port, **bearer(text)) for text in (old, old, token(sub="bob"))]
    status, answer = await revoke(get, app, {"user": "ann"})
    assert (status, answer["disconnected"], answer["durable"]) == (200, 2, False)
    for client in (ann, also):
        assert (await client.closed())[0] == CLOSED
    await bob.do("ping")
    for text in (old, token(iat=None)):
        assert await outcome(knock, app.port, Authorization=f"Bearer {text}") == CLOSED
    ahead = token(iat=soon(9))
    assert await outcome(knock, app.port, Authorization=f"Bearer {ahead}") == CLOSED, "it may be older than it says"
    assert (await bob.refused("auth", token=old))["code"] == "unauthenticated"


async def test_without_leeway_a_token_of_the_next_second_is_good(start: Start, knock: Knock, get: Get) -> None:
    app = await start(**settings(leeway="0"))
    await revoke(get, app, {"user": "ann"})
    (plugin,) = app.plugins.instances
    later = plugin._revocations.of_user("ann") / 1000 + 0.001
    await until(lambda: time.time() > later)
    assert await outcome(knock, app.port, Authorization=f"Bearer {token(iat=later)}") == "ann"


async def test_a_revoked_maker_takes_along_whom_its_tickets_let_in(
    start: Start, dial: Dial, knock: Knock, get: Get
) -> None:
    app = await start(**settings(first_message="5s"))
    backend = {"Authorization": f"Bearer {token(sub='backend', scope='api', jti='b1')}"}
    shown, waiting, in_band = [
        (await get(app, "/api/v1/tickets", "POST", json={"user": "ann"}, headers=backend))[2]["ticket"]
        for _ in range(3)
    ]
    page, other = await dial(app.port, f"?ticket={shown}"), await dial(app.port)
    assert page.welcome["user"] == "ann"
    assert (await revoke(get, app, {"user": "backend"}))[1]["disconnected"] == 1
    assert (await page.closed())[0] == CLOSED
    assert await outcome(knock, app.port, f"/ws?ticket={waiting}") == CLOSED
    assert (await other.refused("auth", token=in_band))["code"] == "unauthenticated"


async def test_a_revoked_token_is_out_and_others_are_not(start: Start, dial: Dial, knock: Knock, get: Get) -> None:
    app = await start(**settings())
    one, two = [await dial(app.port, **bearer(token(jti=jti))) for jti in ("one", "two")]
    assert (await revoke(get, app, {"jti": "one"}))[1]["disconnected"] == 1
    assert (await one.closed())[0] == CLOSED
    await two.do("ping")
    assert await outcome(knock, app.port, Authorization=f"Bearer {token(jti='one')}") == CLOSED


async def test_what_was_revoked_stays_so_over_a_restart(start: Start, knock: Knock, get: Get, tmp_path: Path) -> None:
    block = settings(revoked_file=str(tmp_path / "revoked"))
    app = await start(**block)
    assert (await revoke(get, app, {"user": "ann"}))[1]["durable"]
    await app.stop()
    again = await start(**block)
    assert await outcome(knock, again.port, Authorization=f"Bearer {token(iat=soon(-1))}") == CLOSED


async def test_who_was_on_the_way_in_while_it_was_revoked_does_nothing_and_is_sent_away(
    start: Start, dial: Dial
) -> None:
    """Between the handshake's gate and the registry nobody would find it."""
    app = await start(**settings())
    ann = await dial(app.port, **bearer(token(iat=soon(-5))))
    (plugin,) = app.plugins.instances
    (peer,) = await plugin.broker.connections()
    assert plugin.connected(peer) is None
    plugin._revocations.add("user", "ann")
    assert (await ann.refused("session.list"))["code"] == "unauthenticated"
    await plugin.connected(peer)
    assert (await ann.closed())[0] == CLOSED


async def test_a_revocation_that_cannot_be_kept_is_in_force_and_no_success(
    start: Start, dial: Dial, knock: Knock, get: Get, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    app = await start(**settings(revoked_file=str(folder / "revoked")))
    old = token(iat=soon(-5))
    ann = await dial(app.port, **bearer(old))
    (folder / "revoked").unlink()
    folder.rmdir()
    status, answer = await revoke(get, app, {"user": "ann"})
    assert (status, answer["code"]) == (503, "unavailable")
    assert (await ann.closed())[0] == CLOSED
    assert await outcome(knock, app.port, Authorization=f"Bearer {old}") == CLOSED


@pytest.mark.parametrize(
    ("body", "shown", "status"),
    [
        ({"user": "bob"}, lambda: token(scope="api"), 403),
        ({"user": "bob"}, lambda: token(scope="admin"), 403),
        ({"user": "bob"}, token, 403),
        ({"user": "bob"}, lambda: "x", 401),
        ({}, lambda: API_KEY, 400),
        ({"user": "bob", "jti": "1"}, lambda: API_KEY, 400),
        ({"user": ""}, lambda: API_KEY, 400),
        ({"user": "bob", "issuer": "x"}, lambda: API_KEY, 400),
        ({"users": "bob"}, lambda: API_KEY, 400),
        ([], lambda: API_KEY, 400),
    ],
)
async def test_only_who_may_can_revoke_and_has_to_say_whom(
    start: Start, dial: Dial, get: Get, body: object, shown: Callable[[], str], status: int
) -> None:
    app = await start(**settings())
    bob = await dial(app.port, **bearer(token(sub="bob")))
    assert (await revoke(get, app, body, shown()))[0] == status
    await bob.do("ping")


async def reloaded(app: App, tmp_path: Path, **more: Any) -> bool:
    """Give the plugin other settings, as SIGHUP does."""
    file = tmp_path / "other.yaml"
    file.write_text(json.dumps(settings(**more)))
    loaded = load_config(file, {}, {})
    (record,) = [record for record in load_plugins(loaded.settings, loaded.file).records if record.name == "auth"]
    assert record.problems == []
    (plugin,) = app.plugins.instances
    return plugin.reload(record.settings)


async def test_a_key_that_is_taken_away_takes_along_whom_it_let_in(
    start: Start, dial: Dial, knock: Knock, tmp_path: Path
) -> None:
    """A token that was rotated away and still good is CVE-2026-28472's kind."""
    app = await start(**settings())
    old, new, backend = [
        await dial(app.port, **bearer(text)) for text in (token(), token(RSA, "RS256", {"kid": "r"}), API_KEY)
    ]
    assert await reloaded(app, tmp_path, keys=BLOCK["keys"][1:])
    assert (await old.closed())[0] == CLOSED
    await new.do("ping")
    await backend.do("ping")
    assert await outcome(knock, app.port, Authorization=f"Bearer {token()}") == CLOSED
    assert await reloaded(app, tmp_path, api_keys={"ops": {"key": API_KEY, "scopes": ["api"]}})
    assert (await backend.closed())[0] == CLOSED, "it may do less now"
    await new.do("ping")
    assert await reloaded(app, tmp_path, revoked={"users": ["ann"]})
    assert (await new.closed())[0] == CLOSED


async def test_settings_that_shape_the_whole_take_a_restart(start: Start, tmp_path: Path) -> None:
    app = await start(**settings())
    assert not await reloaded(app, tmp_path, mode="none")
    assert not await reloaded(app, tmp_path, revoked_file="x")
    assert await reloaded(app, tmp_path, leeway="1s")


async def test_mode_none_lets_everybody_do_everything(start: Start, dial: Dial, tmp_path: Path) -> None:
    """Also choose any directory (PROTOCOL section 7), as without the plugin."""
    app = await start(plugins={"auth": {"mode": "none"}})
    client = await dial(app.port)
    assert "connections" in await client.do("get_connections")
    await client.do("session.create", workspace_dir=str(tmp_path))


async def test_keys_that_were_never_fetched_keep_the_broker_from_being_ready(start: Start) -> None:
    block = {"mode": "jwt", "jwks": [{"issuer": "https://id.example", "url": "http://127.0.0.1:1/jwks"}]}
    app = await start(plugins={"auth": block})
    (plugin,) = app.plugins.instances
    assert plugin.trouble() == "the keys that tokens are checked with cannot be fetched; the log says why"


def test_a_short_key_keeps_the_broker_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(settings(keys=[{"algorithm": "HS256", "secret": "x" * 31}])))
    loaded = load_config(file, {}, {})
    (problem,) = load_plugins(loaded.settings, loaded.file).problems
    assert "at least 32 bytes" in problem.message
    assert ConfigErrors([problem]).render()
