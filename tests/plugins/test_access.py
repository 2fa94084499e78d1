"""What `access` asks a service about, what it makes of the answers, and for how long: a real service, time by hand."""

import asyncio
import base64
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import web

from broker import config
from broker.errors import BrokerError
from broker.extensions.loader import Plugins, load
from broker.facade import Facade
from broker.hooks import Permission, Stats
from broker.messages import Principal
from broker.testing import ManualClock, until

ANN = Principal("ann", claims={"tenant": "acme", "iat": 5})
SECRET = "s3cret" * 8


@attrs.define
class Service:
    """A service that says yes until it is told to say something else, and keeps what it was asked."""

    url: str = ""
    asked: list[dict[str, Any]] = attrs.Factory(list)
    requests: list[tuple[Any, bytes]] = attrs.Factory(list)
    respond: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    hold: asyncio.Event | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.headers, body))
        self.asked.append(json.loads(body))
        if self.hold is not None:
            await self.hold.wait()
        if self.respond is not None:
            return await self.respond(request)
        return web.json_response({"allow": True})

    def say(self, text: str, status: int = 200, **headers: str) -> None:
        """Answer this from now on."""

        async def respond(_: web.Request) -> web.Response:
            return web.Response(text=text, status=status, headers=headers)

        self.respond = respond


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    served = Service()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", served.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/may"
    yield served
    if served.hold is not None:
        served.hold.set()
    await runner.cleanup()


class Gate:
    """The plugin as the loader makes it, and a clock."""

    def __init__(self, folder: Path, block: dict[str, Any]) -> None:
        self.clock = ManualClock()
        self._file = folder / "config.yaml"
        plugins = self.load(block)
        assert plugins.problems == []
        plugins.create(Facade(Stats(), self.clock))
        self.plugin: Any = plugins.instances[0]

    def load(self, block: dict[str, Any]) -> Plugins:
        self._file.write_text(json.dumps({"plugins": {"access": block}}))
        loaded = config.load(self._file, {}, {})
        return load(loaded.settings, loaded.file)

    def reload(self, block: dict[str, Any]) -> bool:
        return bool(self.plugin.reload(self.load(block).records[0].settings))

    async def ask(self, operation: str = "room.join", resource: str | None = "project:1", who: Principal = ANN) -> None:
        waiting = self.plugin.on_permission(Permission(who, operation, resource))
        if waiting is not None:
            await waiting

    async def refused(self, *args: Any) -> BrokerError:
        with pytest.raises(BrokerError) as refused:
            await self.ask(*args)
        return refused.value


Open = Callable[..., Awaitable[Gate]]


@pytest.fixture
async def gate(tmp_path: Path, service: Service) -> AsyncIterator[Open]:
    gates: list[Gate] = []

    async def make(**block: Any) -> Gate:
        made = Gate(tmp_path, {"url": service.url, **block})
        await made.plugin.start()
        gates.append(made)
        return made

    yield make
    for made in gates:
        await made.plugin.stop()


# -- what is asked ----------------------------------------------------------------------------------

ASKED = [
    # settings, operation, resource, whether the service is asked
    ({}, "room.join", "lobby", True),
    ({}, "project.feedback", "project:1", True),
    ({}, "room.leave", "lobby", False),
    ({}, "session.attach", "s1", False),
    ({}, "echo", None, False),
    ({}, "broadcast", None, False),
    ({"rooms": ["project:*"]}, "room.join", "lobby", False),
    ({"rooms": ["project:*"]}, "room.publish", "project:1", True),
    ({"rooms": ["project:?", "team-*"]}, "room.publish", "project:12", False),
    ({"rooms": ["project:?", "team-*"]}, "room.history", "team-red", True),
    ({"rooms": ["a[bc]"]}, "room.join", "ab", False),
    ({"rooms": ["a[bc]"]}, "room.join", "a[bc]", True),
    ({"rooms": []}, "room.join", "lobby", False),
    ({"operations": ["room.join"]}, "room.publish", "lobby", False),
    ({"sessions": ["*"]}, "session.attach", "s1", True),
    ({"sessions": ["*"]}, "session.create", None, True),
    ({"sessions": ["*"]}, "session.detach", "s1", False),
    ({"sessions": ["team-*"]}, "turn.start", "team-1", True),
    ({"sessions": ["team-*"]}, "approval.answer", "s1", False),
    ({"exempt": ["admin"]}, "room.join", "lobby", True),
    ({"exempt": ["debug"]}, "room.join", "lobby", False),
]


@pytest.mark.parametrize(("settings", "operation", "resource", "asked"), ASKED)
async def test_only_what_the_settings_name_is_asked_about(
    gate: Open, service: Service, settings: Any, operation: str, resource: str | None, asked: bool
) -> None:
    service.say('{"allow": false}')
    opened = await gate(**settings)
    who = Principal("ann", frozenset({"debug"}))
    if asked:
        assert (await opened.refused(operation, resource, who)).code == "forbidden"
        assert service.asked == [{"user": "ann", "operation": operation, "resource": resource}]
    else:
        await opened.ask(operation, resource, who)
        assert service.asked == []


async def test_the_service_is_told_the_claims_that_are_named_and_no_others(gate: Open, service: Service) -> None:
    opened = await gate(claims=["tenant", "none"])
    await opened.ask()
    assert service.asked[0]["claims"] == {"tenant": "acme"}
    await opened.ask("room.join", "project:1", attrs.evolve(ANN, claims={"tenant": "other"}))
    assert len(service.asked) == 2, "who has other claims is somebody else"


async def test_a_question_is_signed_as_standard_webhooks_are(gate: Open, service: Service) -> None:
    opened = await gate(secret=SECRET)
    await opened.ask()
    headers, body = service.requests[0]
    signed = b"%b.%b.%b" % (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
    right = base64.b64encode(hmac.digest(SECRET.encode(), signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{right}"
    assert headers["webhook-timestamp"] == str(opened.clock.now() // 1000)


async def test_an_unsigned_question_has_no_such_headers(gate: Open, service: Service) -> None:
    await (await gate()).ask()
    assert not [name for name in service.requests[0][0] if name.lower().startswith("webhook")]


# -- what is made of the answer ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("", "You may not do that."),
        ("The project is closed.", "The project is closed."),
        ("a\nb\u202ec", "abc"),
        ("x" * 300, "x" * 200),
    ],
)
async def test_a_no_refuses_with_its_reason(gate: Open, service: Service, reason: str, told: str) -> None:
    service.say(json.dumps({"allow": False, "reason": reason}))
    refused = await (await gate()).refused()
    assert (refused.code, refused.message) == ("forbidden", told)


NO_ANSWERS = [
    ("", 200),
    ("{", 200),
    ("[]", 200),
    ("{}", 200),
    ('{"allow": "true"}', 200),
    ('{"allow": 1}', 200),
    ('{"allow": null}', 200),
    ('{"Allow": true}', 200),
    ('{"allow": true, "reason": 5}', 200),
    ("[" * 4000, 200),
    ('{"allow": true, "reason": "' + "x" * 5000 + '"}', 200),
    ('{"allow": true}', 201),
    ('{"allow": true}', 404),
    ('{"allow": true}', 500),
]


@pytest.mark.parametrize(("text", "status"), NO_ANSWERS, ids=[f"{text[:30]} {status}" for text, status in NO_ANSWERS])
async def test_what_is_no_answer_refuses_and_is_not_remembered(
    gate: Open, service: Service, text: str, status: int
) -> None:
    service.say(text, status)
    opened = await gate()
    refused = await opened.refused()
    assert (refused.code, refused.retry_after) == ("unavailable", 1.0)
    service.say('{"allow": true}')
    await opened.ask()


async def test_a_redirect_is_not_followed(gate: Open, service: Service) -> None:
    service.say("", 307, Location=f"{service.url}/elsewhere")
    assert (await (await gate()).refused()).code == "unavailable"
    assert len(service.asked) == 1


async def test_a_service_that_is_not_there_refuses_and_the_log_says_so_once(
    gate: Open, caplog: pytest.LogCaptureFixture
) -> None:
    opened = await gate(url="http://127.0.0.1:9/may?key=hidden")
    with caplog.at_level(logging.ERROR):
        for resource in ("a", "b"):
            assert (await opened.refused("room.join", resource)).code == "unavailable"
        opened.clock.advance(11)
        await opened.refused()
    assert caplog.text.count("http://127.0.0.1:9/may does not say who may enter") == 2
    assert "hidden" not in caplog.text


async def test_a_service_that_takes_too_long_refuses(gate: Open, service: Service) -> None:
    service.hold = asyncio.Event()
    assert (await (await gate(timeout="50ms")).refused()).code == "unavailable"


async def test_a_line_that_the_service_has_closed_meanwhile_costs_nobody_his_answer(
    gate: Open, service: Service
) -> None:
    async def yes_and_vanish(request: web.Request) -> web.Response:
        first = len(service.asked) == 1
        if not first and len(service.asked) == 2:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"allow": True})

    service.respond = yes_and_vanish
    opened = await gate()
    await opened.ask("room.join", "a")
    await opened.ask("room.join", "b")
    assert [asked["resource"] for asked in service.asked] == ["a", "b", "b"]


# -- what is remembered -----------------------------------------------------------------------------


async def test_a_yes_is_good_for_its_time_and_a_known_one_costs_no_waiting(gate: Open, service: Service) -> None:
    opened = await gate(cache={"allow": "1m"})
    await opened.ask()
    opened.clock.advance(59.9)
    assert opened.plugin.on_permission(Permission(ANN, "room.join", "project:1")) is None
    assert len(service.asked) == 1
    for other in [("room.publish", "project:1"), ("room.join", "project:2"), ("room.join", "project:1", Principal())]:
        await opened.ask(*other)
    assert len(service.asked) == 4
    opened.clock.advance(0.2)
    service.say('{"allow": false}')
    assert (await opened.refused()).code == "forbidden"


async def test_a_no_is_good_for_its_own_time(gate: Open, service: Service) -> None:
    opened = await gate(cache={"deny": "10s"})
    service.say('{"allow": false, "reason": "No."}')
    await opened.refused()
    service.say('{"allow": true}')
    opened.clock.advance(9.9)
    assert (await opened.refused()).message == "No."
    opened.clock.advance(0.2)
    await opened.ask()
    assert len(service.asked) == 2


async def test_with_no_time_each_one_is_asked_about_anew(gate: Open, service: Service) -> None:
    opened = await gate(cache={"allow": 0})
    await opened.ask()
    await opened.ask()
    assert len(service.asked) == 2


async def test_the_answers_used_longest_ago_make_room(gate: Open, service: Service) -> None:
    opened = await gate(cache={"entries": 2})
    for resource in ("a", "b", "a", "c", "a", "b"):
        await opened.ask("room.join", resource)
    assert [asked["resource"] for asked in service.asked] == ["a", "b", "c", "b"]


async def test_while_the_service_is_down_an_old_yes_counts_only_where_that_is_set(gate: Open, service: Service) -> None:
    strict, patient = await gate(), await gate(cache={"stale": "10m"})
    for opened in (strict, patient):
        await opened.ask()
        opened.clock.advance(61)
    service.say("", 500)
    assert (await strict.refused()).code == "unavailable"
    await patient.ask()
    asked = len(service.asked)
    await patient.ask()
    assert len(service.asked) == asked, "it is left in peace for a moment"
    patient.clock.advance(6)
    await patient.ask()
    assert len(service.asked) == asked + 1
    assert (await patient.refused("room.join", "project:2")).code == "unavailable", "nothing is known of that"
    patient.clock.advance(600)
    assert (await patient.refused()).code == "unavailable"


async def test_an_old_no_stays_none_while_the_service_is_down(gate: Open, service: Service) -> None:
    opened = await gate(cache={"stale": "10m"})
    service.say('{"allow": false}')
    await opened.refused()
    opened.clock.advance(11)
    service.say("", 500)
    assert (await opened.refused()).code == "unavailable"


# -- many at a time ---------------------------------------------------------------------------------


async def test_many_who_ask_the_same_wait_for_one_answer(gate: Open, service: Service) -> None:
    service.hold = asyncio.Event()
    opened = await gate()
    asking = [asyncio.ensure_future(opened.ask()) for _ in range(50)]
    await until(lambda: bool(service.asked))
    asking[0].cancel()
    service.hold.set()
    await asyncio.gather(*asking[1:])
    assert len(service.asked) == 1


async def test_one_user_with_many_questions_does_not_stand_in_the_way_of_others(gate: Open, service: Service) -> None:
    service.hold = asyncio.Event()
    opened = await gate(concurrent=9, timeout="9s")
    greedy = [asyncio.ensure_future(opened.ask("room.join", f"r{number}")) for number in range(40)]
    await until(lambda: len(service.asked) == 8)
    other = asyncio.ensure_future(opened.ask("room.join", "r0", Principal("bob")))
    await until(lambda: len(service.asked) == 9)
    assert service.asked[-1]["user"] == "bob"
    service.hold.set()
    await asyncio.gather(other, *greedy)
    assert len(service.asked) == 41


async def test_an_answer_that_was_on_its_way_when_all_was_forgotten_is_not_remembered(
    gate: Open, service: Service
) -> None:
    service.hold = asyncio.Event()
    opened = await gate()
    before = asyncio.ensure_future(opened.ask())
    await until(lambda: len(service.asked) == 1)
    assert opened.reload({"url": service.url})
    after = asyncio.ensure_future(opened.ask())
    await until(lambda: len(service.asked) == 2)
    service.hold.set()
    await asyncio.gather(before, after)
    assert opened.plugin.on_permission(Permission(ANN, "room.join", "project:1")) is None
    assert len(service.asked) == 2


# -- settings ---------------------------------------------------------------------------------------


async def test_new_settings_are_taken_over_and_old_answers_forgotten(gate: Open, service: Service) -> None:
    opened = await gate()
    await opened.ask()
    assert opened.reload({"url": service.url, "rooms": ["project:*"], "cache": {"allow": "1h"}})
    await opened.ask()
    await opened.ask("room.join", "lobby")
    assert len(service.asked) == 2
    assert not opened.reload({"url": service.url, "concurrent": 7})


@pytest.mark.parametrize(
    ("block", "mistake"),
    [
        ({}, "url"),
        ({"url": "ftp://example.org"}, "expected a url"),
        ({"url": "https://"}, "expected a url"),
        ({"url": "https://example.org:99999"}, "expected a url"),
        ({"url": "http://example.org/may"}, "https://"),
        ({"url": "https://u:p@example.org/may"}, "password"),
        ({"url": "https://example.org", "secret": "x" * 23}, "fewer than 24 bytes"),
        ({"url": "https://example.org", "timeout": "10s"}, "timeout"),
        ({"url": "https://example.org", "cache": {"entries": 0}}, "entries"),
    ],
)
def test_mistakes_are_told_at_start(tmp_path: Path, block: dict[str, Any], mistake: str) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"plugins": {"access": block}}))
    loaded = config.load(tmp_path / "config.yaml", {}, {})
    told = "\n".join(f"{problem.path} {problem.message}" for problem in load(loaded.settings, loaded.file).problems)
    assert mistake in told
    assert "u:p" not in told
    assert "x" * 23 not in told


@pytest.mark.parametrize("url", ["http://[::1]:8000/may", "http://localhost/may", "https://example.org/may?team=1"])
def test_these_addresses_are_good(tmp_path: Path, url: str) -> None:
    Gate(tmp_path, {"url": url})
    Gate(tmp_path, {"url": "http://backend:8000/may", "insecure": True})
