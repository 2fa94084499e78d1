"""Tokens: what is let in, what is not, and that nothing else ever happens to one."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

from broker.errors import BrokerError
from broker.hooks import Handshake
from broker.plugins.auth.settings import Settings
from broker.plugins.auth.sources import shown_by
from broker.plugins.auth.tokens import check
from broker.plugins.auth.verifier import Verifier

NOW = 1_700_000_000
SECRET = "k" * 64


def part(value: object) -> str:
    return (
        base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode())
        .rstrip(b"=")
        .decode()
    )


@pytest.fixture
def look(configured: Callable[..., Settings], now: Callable[[], int]):
    """Return who a token stands for, or the error's code and hint."""

    def recognize(token: str, block: Any = (), *, api_keys: bool = True) -> Any:
        verifier = Verifier(configured(**dict(block)), now, lambda: 0.0)
        try:
            return asyncio.run(verifier.recognize(token, api_keys=api_keys))
        except BrokerError as e:
            return e.code, e.hint

    return recognize


def test_a_token_says_who_one_is_and_what_one_may_do(look: Callable[..., Any], sign: Callable[..., str]) -> None:
    who = look(sign(scope="api debug", scopes=["chat"], jti="t1", rooms=["a-*"]))
    assert (who.user, who.scopes, who.credential) == ("ann", frozenset({"api", "debug", "chat"}), "jti:t1")
    assert who.expires_at == (NOW + 600) * 1000
    assert (who.claims["rooms"], who.claims["sessions"]) == (["a-*"], ["*"])
    assert "projects" not in who.claims


def test_the_projects_of_a_token_are_its_own_or_else_those_of_the_settings(
    configured: Callable[..., Settings], sign: Callable[..., str], now: Callable[[], int]
) -> None:
    verifier = Verifier(configured(projects=["demo"]), now, lambda: 0.0)
    said = [sign(projects=["g1"]), sign(projects=[]), sign()]
    found = [asyncio.run(verifier.recognize(token, api_keys=False)).claims["projects"] for token in said]
    assert found == [["g1"], [], ["demo"]]


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_each_algorithm_verifies_what_its_key_signed(
    look: Callable[..., Any], sign: Callable[..., str], pems: Callable[[str], tuple[str, str]], algorithm: str
) -> None:
    private, public = pems(algorithm if algorithm[:2] in {"ES", "Ed"} else "RS256")
    token = sign(private, algorithm)
    assert look(token, {"keys": [{"algorithm": algorithm, "public_key": public}]}).user == "ann"
    head, body, signature = token.split(".")
    for broken in (f"{head}.{body}.{signature[:-8]}AAAAAAAA", f"{head}.{body}x.{signature}", f"{head}.{body}.AA"):
        assert look(broken, {"keys": [{"algorithm": algorithm, "public_key": public}]})[0] == "unauthenticated"


REFUSED = [
    ({"exp": None}, "the token lacks exp"),
    ({"sub": None}, "the token lacks sub"),
    ({"aud": None}, "the token lacks aud"),
    ({"iss": None}, "a signed JWT names"),
    ({"sub": ""}, "the token's sub has the wrong form"),
    ({"sub": 5}, "the token's sub has the wrong form"),
    ({"sub": "x" * 257}, "the token's sub has the wrong form"),
    ({"sub": "a\nb"}, "sub has characters"),
    ({"sub": "key:ops"}, "may not name this user"),
    ({"exp": "soon"}, "the token's exp has the wrong form"),
    ({"exp": True}, "the token's exp has the wrong form"),
    ({"exp": NOW + 86_401}, "further away"),
    ({"exp": 10**10}, "further away"),
    ({"exp": 10**15}, "the token's exp has the wrong form"),
    ({"exp": 10**400}, "the token's exp has the wrong form"),
    ({"exp": -1}, "the token's exp has the wrong form"),
    ({"exp": 1e300}, "the token's exp has the wrong form"),
    ({"nbf": 10**400}, "the token's nbf has the wrong form"),
    ({"iat": -(10**400)}, "the token's iat has the wrong form"),
    ({"iat": NOW - 86_400, "exp": NOW + 60}, "further away"),
    ({"iat": None, "exp": NOW + 86_401}, "further away"),
    ({"iat": -1e300}, "the token's iat has the wrong form"),
    ({"iat": NOW + 11}, "in the future"),
    ({"nbf": NOW + 11}, "in the future"),
    ({"nbf": "x"}, "the token's nbf has the wrong form"),
    ({"aud": "other"}, "aud does not name"),
    ({"aud": "actor-broke"}, "aud does not name"),
    ({"aud": ["other"]}, "aud does not name"),
    ({"aud": []}, "aud does not name"),
    ({"aud": {"a": 1}}, "the token's aud has the wrong form"),
    ({"iss": "actor-broker2"}, None),
    ({"iss": "actor-broke"}, None),
    ({"iss": ["actor-broker"]}, "a signed JWT names"),
    ({"scope": ["api"]}, "the token's scope has the wrong form"),
    ({"scopes": "admin"}, "the token's scopes has the wrong form"),
    ({"scopes": [5]}, "the token's scopes has the wrong form"),
    ({"rooms": "all"}, "rooms, sessions or projects"),
    ({"rooms": {"a": "join"}}, "rooms, sessions or projects"),
    ({"projects": "g1"}, "rooms, sessions or projects"),
    ({"jti": 5}, "the token's jti has the wrong form"),
    ({"jti": ""}, "the token's jti has the wrong form"),
]


@pytest.mark.parametrize(("claims", "hint"), REFUSED, ids=[f"{c}"[:60] for c, _ in REFUSED])
def test_a_token_with_such_claims_is_not_let_in(
    look: Callable[..., Any], sign: Callable[..., str], claims: Any, hint: Any
) -> None:
    code, told = look(sign(**claims))
    assert code == "unauthenticated"
    assert (told is None) if hint is None else hint in told


@pytest.mark.parametrize("claim", ["rooms", "sessions", "projects"])
def test_null_is_not_the_absence_of_patterns(look: Callable[..., Any], sign: Callable[..., str], claim: str) -> None:
    """An issuer that means nothing by null must not give everything."""
    token = jwt.encode({**jwt.decode(sign(), options={"verify_signature": False}), claim: None}, SECRET)
    assert look(token)[0] == "unauthenticated"


@pytest.mark.parametrize(
    ("late", "leeway", "expected"), [(0, "0", None), (1, "0", None), (9, "10s", "ann"), (10, "10s", None)]
)
def test_a_token_is_expired_once_the_leeway_has_passed_too(
    look: Callable[..., Any], sign: Callable[..., str], late: Any, leeway: Any, expected: Any
) -> None:
    found = look(sign(exp=NOW - late, iat=NOW - 100), {"leeway": leeway})
    if expected is None:
        assert found[0] == "token_expired"
    else:
        assert (found.user, found.expires_at) == (expected, (NOW - late + 10) * 1000)


HEADERS = [
    {"alg": "none"},
    {"alg": "None"},
    {"alg": "HS512"},
    {"alg": "RS256"},
    {"alg": ""},
    {"alg": 5},
    {},
    {"alg": "HS256", "crit": ["exp"]},
    {"alg": "HS256", "crit": []},
    {"alg": "HS256", "b64": False},
    {"alg": "HS256", "kid": 5},
    {"alg": "HS256", "kid": "../../etc/passwd"},
    {"alg": "HS256", "kid": "' OR 1=1 --"},
    {"alg": "HS256", "kid": "other"},
    ["alg"],
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_a_header_that_says_something_else_is_not_followed(look: Callable[..., Any], header: Any) -> None:
    """The signature is right each time, by HMAC-SHA256 and the configured secret."""
    body = {"iss": "actor-broker", "aud": "actor-broker", "sub": "ann", "exp": NOW + 60}
    signed = f"{part(header)}.{part(body)}"
    hmac = jwt.algorithms.get_default_algorithms()["HS256"]
    token = f"{signed}.{part(hmac.sign(signed.encode(), SECRET.encode()))}"
    found = look(token, {"keys": [{"algorithm": "HS256", "secret": SECRET, "kid": "mine"}]})
    assert found[0] == "unauthenticated"


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_what_a_token_says_of_keys_is_never_looked_at(
    look: Callable[..., Any], sign: Callable[..., str], name: str
) -> None:
    assert look(sign(headers={name: "http://127.0.0.1:1/keys"})).user == "ann"
    assert look(sign("x" * 64, headers={name: {"kty": "oct", "k": part(b"x" * 64)}}))[0] == "unauthenticated"


def test_the_public_key_of_rsa_is_no_secret_of_hmac(
    look: Callable[..., Any], pems: Callable[[str], tuple[str, str]]
) -> None:
    _, public = pems("RS256")
    hmac = jwt.algorithms.get_default_algorithms()["HS256"]
    body = {"iss": "actor-broker", "aud": "actor-broker", "sub": "ann", "exp": NOW + 60}
    signed = f"{part({'alg': 'HS256'})}.{part(body)}"
    token = f"{signed}.{part(hmac.sign(signed.encode(), public.encode()))}"
    assert look(token, {"keys": [{"algorithm": "RS256", "public_key": public}]})[0] == "unauthenticated"


def test_two_keys_can_be_good_at_the_same_time_so_that_they_can_be_changed(
    look: Callable[..., Any], sign: Callable[..., str]
) -> None:
    keys = [{"algorithm": "HS256", "secret": "n" * 32}, {"algorithm": "HS256", "secret": SECRET}]
    assert look(sign(), {"keys": keys}).user == "ann"
    assert look(sign("n" * 32), {"keys": keys}).user == "ann"
    named = [{**keys[0], "kid": "new"}, {**keys[1], "kid": "old"}]
    assert look(sign(headers={"kid": "old"}), {"keys": named}).user == "ann"
    assert look(sign(headers={"kid": "new"}), {"keys": named})[0] == "unauthenticated"


def test_of_several_issuers_each_names_users_of_its_own(look: Callable[..., Any], sign: Callable[..., str]) -> None:
    """`sub` is unique to its issuer alone, and a session is its owner's by name."""
    other = {"issuer": "https://id.example", "url": "http://127.0.0.1:1/", "prefix": "corp:"}
    ours = {"algorithm": "HS256", "secret": SECRET, "prefix": ""}
    assert look(sign(), {"keys": [ours], "jwks": [other]}).user == "ann"
    assert look(sign(sub="corp:ann"), {"keys": [ours], "jwks": [other]}) == (
        "unauthenticated",
        "its issuer may not name this user (sub)",
    )
    named = {"keys": [{**ours, "prefix": "c"}], "jwks": [other]}
    assert look(sign(), named).user == "cann"
    assert look(sign(sub="orp:ann"), named)[0] == "unauthenticated"
    assert "sub is too long" in look(sign(sub="x" * 256), named)[1]
    assert look(sign(sub="x" * 255), named).user == "c" + "x" * 255


def test_of_several_issuers_each_gives_the_brokers_own_scopes_only_where_that_is_said(
    look: Callable[..., Any], sign: Callable[..., str]
) -> None:
    alone = {"algorithm": "HS256", "secret": SECRET, "prefix": ""}
    other = {"issuer": "https://id.example", "url": "http://127.0.0.1:1/", "prefix": "corp:"}
    token = sign(scope="api admin agent chat")
    assert look(token, {"keys": [alone]}).scopes == {"api", "admin", "agent", "chat"}
    assert look(token, {"keys": [alone], "jwks": [other]}).scopes == {"chat"}
    said = {**alone, "scopes": ["api"]}
    assert look(token, {"keys": [said], "jwks": [other]}).scopes == {"api"}
    assert look(token, {"keys": [said]}).scopes == {"api"}


def test_what_an_issuer_may_say_is_part_of_what_lets_in(configured: Callable[..., Settings]) -> None:
    """Who was let in when it might say more is not any more."""
    key = {"algorithm": "HS256", "secret": SECRET}
    marks = [
        Verifier(configured(keys=[{**key, **more}]), lambda: 0, lambda: 0.0).marks
        for more in ({}, {"prefix": "a:"}, {"scopes": ["api"]}, {"scopes": []})
    ]
    assert len(set(marks)) == 4


def test_a_token_that_is_too_long_is_refused_before_anything_is_made_of_it(
    look: Callable[..., Any], sign: Callable[..., str]
) -> None:
    assert look(sign(padding="x" * 9000)) == ("unauthenticated", "a token has at most 8192 bytes")


def test_an_api_key_is_known_where_it_may_travel(look: Callable[..., Any]) -> None:
    block = {"keys": [], "api_keys": {"ops": {"key": "o" * 40, "scopes": ["api", "admin"]}, "app": {"key": "p" * 40}}}
    ops, app = look("o" * 40, block), look("p" * 40, block)
    assert (ops.user, ops.scopes, ops.expires_at) == ("key:ops", frozenset({"api", "admin"}), None)
    assert (app.user, app.scopes) == ("key:app", frozenset({"api"}))
    assert look("o" * 39, block)[0] == "unauthenticated"
    assert look("o" * 40, block, api_keys=False)[0] == "unauthenticated"


@given(st.binary(max_size=300))
@of_hypothesis(max_examples=200)
def test_whatever_comes_is_let_in_or_refused(configured: Callable[..., Settings], data: bytes) -> None:
    verifier = Verifier(configured(), lambda: NOW * 1000, lambda: 0.0)
    text = data.decode("latin-1")
    for token in (text, f"{part(data)}.{part(data)}.{part(data)}", f"{part({'alg': 'HS256'})}.{part(data)}.AAAA"):
        with pytest.raises(BrokerError) as refused:
            asyncio.run(verifier.recognize(token, api_keys=True))
        assert refused.value.code == "unauthenticated"


@given(st.integers(0, 400), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(
    configured: Callable[..., Settings], sign: Callable[..., str], at: int, flip: int
) -> None:
    token = sign().encode()
    at %= len(token)
    changed = bytes(byte ^ flip if index == at else byte for index, byte in enumerate(token)).decode("latin-1")
    key = configured().keys[0].verifying
    payload = check(changed, key)
    # The last character of the signature has bits that mean nothing; all else counts.
    assert payload is None or at == len(token) - 1


# -- where tokens travel ------------------------------------------------------------------------------

HEADER = {"Authorization": "Bearer abc"}
OFFER = {"Sec-WebSocket-Protocol": "broker.v1.json, bearer.abc"}
COOKIE = {"Cookie": "x=1; token=abc; y=2"}
PAGE = "https://chat.example.org"
TRAVELS = [
    (HEADER, {}, None, "abc"),
    ({"authorization": "bEARER   abc "}, {}, None, "abc"),
    ({"Authorization": "Basic abc"}, {}, None, None),
    ({"Authorization": "Bearer"}, {}, None, None),
    ({"Authorization": "Bearer a b"}, {}, None, None),
    (OFFER, {}, None, "abc"),
    (COOKIE, {}, PAGE, "abc"),
    (COOKIE, {}, None, None),
    (COOKIE, {}, "null", None),
    (COOKIE, {}, "https://chat.example.org.evil.example", None),
    (COOKIE, {}, "https://evil-chat.example.org", None),
    (COOKIE, {}, "http://chat.example.org", None),
    (COOKIE, {}, "https://chat.example.org:8443", None),
    (COOKIE, {}, "https://CHAT.example.org", None),
    ({}, {"access_token": "abc"}, None, "abc"),
    ({}, {"token": "abc"}, None, None),
    ({**HEADER, **OFFER, **COOKIE}, {"access_token": "abc"}, PAGE, "abc"),
    ({**HEADER, "Sec-WebSocket-Protocol": "bearer.other"}, {}, None, "two"),
    ({**HEADER, "Cookie": "token=other"}, {}, PAGE, "two"),
    ({**HEADER, "Cookie": "token=other"}, {}, None, "abc"),
    ({"Cookie": "token=a; token=b"}, {}, PAGE, "two"),
    ({"Sec-WebSocket-Protocol": "bearer.a, bearer.b"}, {}, None, "two"),
]


@pytest.mark.parametrize(("headers", "query", "origin", "found"), TRAVELS)
def test_where_a_token_is_looked_for(
    configured: Callable[..., Settings], headers: Any, query: Any, origin: Any, found: Any
) -> None:
    block = configured(cookie={"name": "token", "origins": [PAGE]}, query="access_token")
    handshake = Handshake("/ws", headers, query, "127.0.0.1", origin, "broker.v1.json")
    if found == "two":
        with pytest.raises(BrokerError, match="not accepted"):
            shown_by(handshake, block)
        return
    shown = shown_by(handshake, block)
    assert (shown.text if shown else None) == found


def test_a_request_shows_its_token_in_the_header_alone(configured: Callable[..., Settings]) -> None:
    """A cookie would let any page ask in its visitor's name."""
    block = configured(cookie={"name": "token", "origins": [PAGE]}, query="access_token")
    handshake = Handshake("/api", {**OFFER, **COOKIE}, {"access_token": "abc"}, "127.0.0.1", PAGE, "http")
    assert shown_by(handshake, block) is None


def test_the_query_counts_only_where_it_is_switched_on(configured: Callable[..., Settings]) -> None:
    handshake = Handshake("/ws", {}, {"access_token": "abc"}, "127.0.0.1", None, "broker.v1.json")
    assert shown_by(handshake, configured()) is None
