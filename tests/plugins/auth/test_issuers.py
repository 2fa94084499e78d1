"""Keys that issuers publish, against real servers that are slow, huge, redirecting, rotating, lying and dead."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import BrokerError
from broker.plugins.auth.settings import Settings
from broker.plugins.auth.verifier import Verifier
from broker.testing import ManualClock, until

NOW = 1_700_000_000


@attrs.define
class Server:
    """A server of key sets whose answers a test decides on."""

    port: int = 0
    asked: int = 0
    keys: list[dict[str, Any]] = attrs.field(factory=list)
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    open: asyncio.Event = attrs.field(factory=asyncio.Event)

    def __attrs_post_init__(self) -> None:
        self.open.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        await self.open.wait()
        return web.json_response({"keys": self.keys}) if self.answer is None else await self.answer(request)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    served = Server()
    app = web.Application()
    app.router.add_get("/{any:.*}", served.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.port = runner.addresses[0][1]
    yield served
    served.open.set()
    await runner.cleanup()


@pytest.fixture
def publish(pems: Callable[[str], tuple[str, str]]) -> Callable[..., dict[str, Any]]:
    """Return the JWK of a kind of key."""

    def make(kind: str, kid: str | None = "k1", **more: Any) -> dict[str, Any]:
        algorithm = jwt.algorithms.get_default_algorithms()[kind]
        jwk: dict[str, Any] = algorithm.to_jwk(algorithm.prepare_key(pems(kind)[1]), as_dict=True)
        return {**jwk, **({"kid": kid} if kid else {}), **more}

    return make


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW * 1000)


@pytest.fixture
def verifier(configured: Callable[..., Settings], clock: ManualClock, server: Server) -> Callable[..., Verifier]:
    def make(*further: dict[str, Any], **more: Any) -> Verifier:
        jwks = [{"issuer": "https://id.example", "url": server.url, "timeout": "300ms", **more}, *further]
        return Verifier(configured(keys=[], jwks=[{"prefix": "", **one} for one in jwks]), clock.now, clock.monotonic)

    return make


@pytest.fixture
def token(pems: Callable[[str], tuple[str, str]], sign: Callable[..., str]) -> Callable[..., str]:
    def make(kind: str, kid: str | None = "k1", iss: str = "https://id.example", **claims: Any) -> str:
        return sign(pems(kind)[0], kind, {"kid": kid} if kid else None, iss=iss, **claims)

    return make


async def code_of(verifier: Verifier, text: str) -> str | None:
    """Return the code that a token is refused with; None if it is let in."""
    try:
        await verifier.recognize(text, api_keys=False)
    except BrokerError as e:
        return e.code
    return None


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
async def test_a_published_key_verifies(server: Server, publish: Any, verifier: Any, token: Any, kind: str) -> None:
    server.keys = [{"kty": "oct", "k": "eA"}, publish(kind)]
    one = verifier()
    assert await code_of(one, token(kind)) is None
    assert await code_of(one, token(kind, kid=None)) is None
    assert server.asked == 1


async def test_an_unknown_key_is_asked_for_once_in_a_while(
    server: Server, publish: Any, verifier: Any, token: Any, clock: ManualClock
) -> None:
    server.keys = [publish("ES256")]
    one = verifier()
    await asyncio.gather(*(code_of(one, token("ES256", f"unknown-{n}")) for n in range(20)))
    assert server.asked == 1
    clock.advance(29)
    assert await code_of(one, token("ES256", "unknown")) == "unauthenticated"
    assert server.asked == 1
    clock.advance(1)
    server.keys = [publish("ES256", "k2")]
    assert await code_of(one, token("ES256", "k2")) is None
    assert server.asked == 2
    assert await code_of(one, token("ES256", "k1")) == "unauthenticated", "what was withdrawn is not good any more"


async def test_all_who_need_the_same_fetch_wait_for_one(
    server: Server, publish: Any, verifier: Any, token: Any
) -> None:
    server.keys = [publish("ES256")]
    server.open.clear()
    one = verifier(timeout="5s")
    waiting = [asyncio.ensure_future(code_of(one, token("ES256"))) for _ in range(50)]
    await until(lambda: server.asked)
    waiting[0].cancel()
    server.open.set()
    assert await asyncio.gather(*waiting[1:]) == [None] * 49
    assert server.asked == 1


async def test_old_keys_stay_good_while_fetching_fails(
    server: Server, publish: Any, verifier: Any, token: Any, clock: ManualClock
) -> None:
    server.keys = [publish("ES256")]
    one = verifier()
    assert await code_of(one, token("ES256")) is None

    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=500)

    server.answer = broken
    clock.advance(60)
    assert await code_of(one, token("ES256", "new")) == "unauthenticated"
    assert server.asked == 2
    assert await code_of(one, token("ES256")) is None


async def test_old_keys_are_not_good_for_ever(
    server: Server, publish: Any, verifier: Any, token: Any, clock: ManualClock
) -> None:
    server.keys = [publish("ES256")]
    one = verifier(stale="1h")
    assert await code_of(one, token("ES256", exp=NOW + 9000)) is None

    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=500)

    server.answer = broken
    clock.advance(3599)
    assert await code_of(one, token("ES256", exp=NOW + 9000)) is None
    clock.advance(1)
    assert await code_of(one, token("ES256", exp=NOW + 9000)) == "unauthenticated"
    assert not one.fetched[0].fetched
    server.answer = None
    clock.advance(30)
    assert await code_of(one, token("ES256", exp=NOW + 9000)) is None


async def test_keys_without_a_name_are_all_tried(server: Server, publish: Any, verifier: Any, token: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    other = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    server.keys = [other, publish("ES256", None)]
    assert await code_of(verifier(), token("ES256", None)) is None
    server.keys = [other] * 4 + [publish("ES256", None)]
    assert await code_of(verifier(), token("ES256", None)) == "unauthenticated", "of no more than four"


async def test_a_token_that_does_not_say_which_of_several_keys_is_told_so(
    server: Server, publish: Any, verifier: Any, token: Any
) -> None:
    server.keys = [publish("ES256", "k1"), publish("ES256", "k2")]
    one = verifier()
    with pytest.raises(BrokerError) as refused:
        await one.recognize(token("ES256", None), api_keys=False)
    assert "has to name the one (kid)" in (refused.value.hint or "")
    assert await code_of(one, token("ES256", "k2")) is None


async def redirect(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/elsewhere"})


async def huge(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    try:
        for _ in range(1000):
            await answer.write(b" " * 4096)
    except OSError:
        pass
    return answer


async def page(_: web.Request) -> web.Response:
    return web.Response(text="<html>", content_type="text/html")


async def deep(_: web.Request) -> web.Response:
    return web.Response(text="[" * 100_000)


async def many(_: web.Request) -> web.Response:
    return web.Response(text=json.dumps({"keys": [{"kty": "RSA"}] * 101}))


@pytest.mark.parametrize("answer", [redirect, huge, page, deep, many], ids=lambda answer: answer.__name__)
async def test_an_answer_that_is_no_set_of_keys_lets_nobody_in(
    server: Server, publish: Any, verifier: Any, token: Any, answer: Any
) -> None:
    server.keys = [publish("ES256")]
    server.answer = answer
    assert await code_of(verifier(), token("ES256")) == "unauthenticated"
    assert server.asked == 1, "a redirect is not followed"


async def test_a_slow_server_and_a_dead_one_are_not_waited_for(server: Server, verifier: Any, token: Any) -> None:
    server.open.clear()
    async with asyncio.timeout(5):
        assert await code_of(verifier(), token("ES256")) == "unauthenticated"
        dead = verifier(url="http://127.0.0.1:1/jwks.json")
        assert await code_of(dead, token("ES256")) == "unauthenticated"
    server.open.set()


async def test_two_issuers_with_the_same_kid_have_nothing_to_do_with_each_other(
    server: Server, publish: Any, verifier: Any, token: Any
) -> None:
    """A cache by kid alone lets the one's users in as the other's (CVE-2026-49998)."""

    async def by_path(request: web.Request) -> web.Response:
        kind = "ES256" if request.path == "/jwks.json" else "EdDSA"
        return web.json_response({"keys": [publish(kind, "same")]})

    server.answer = by_path
    one = verifier({"issuer": "https://other.example", "url": f"http://127.0.0.1:{server.port}/other"})
    assert await code_of(one, token("ES256", "same")) is None
    assert await code_of(one, token("EdDSA", "same", iss="https://other.example")) is None
    assert await code_of(one, token("ES256", "same", iss="https://other.example")) == "unauthenticated"
    assert await code_of(one, token("EdDSA", "same")) == "unauthenticated"
    assert await code_of(one, token("ES256", "same", iss="https://id.example/")) == "unauthenticated"
    assert await code_of(one, token("ES256", "same", iss="https://id.example.evil.example")) == "unauthenticated"


async def test_no_address_is_made_of_a_token(server: Server, publish: Any, verifier: Any, token: Any) -> None:
    """What is fetched is what the settings say (CVE-2026-32301)."""
    server.keys = [publish("ES256")]
    one = verifier()
    await code_of(one, token("ES256", "../../admin", iss=f"http://127.0.0.1:{server.port}/evil"))
    assert server.asked == 0


async def test_the_keeper_fetches_at_start_and_stops(server: Server, publish: Any, verifier: Any) -> None:
    server.keys = [publish("ES256")]
    (issuer,) = verifier().fetched
    tasks: list[asyncio.Task[Any]] = []

    def spawn(work: Any, *, name: str) -> asyncio.Task[Any]:
        tasks.append(asyncio.ensure_future(work))
        return tasks[-1]

    issuer.start(spawn)
    assert await issuer.fetch()
    assert server.asked == 1, "the keeper's fetch was shared"
    issuer.stop()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[0].cancelled()
