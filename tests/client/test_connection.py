"""A client's connection: made, kept, made again, refused; what is asked over it; and that it leaves nothing behind."""

import asyncio
import gc
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from typing import Any

import jwt
import pytest

from broker.app import App
from broker.client import (
    BrokerError,
    Connection,
    Disconnected,
    Invalid,
    Refused,
    State,
    TimedOut,
    TooLarge,
    connect,
    dial,
    line,
)
from broker.client.dial import socket_of
from broker.client.errors import error_of
from broker.errors import ERRORS
from broker.testing import until

Opened = Callable[..., Awaitable[Connection]]
Start = Callable[..., Awaitable[App]]
Wire = Callable[[int], Awaitable[Any]]

SECRET = "a secret of at least thirty-two bytes"


# -- asking -----------------------------------------------------------------------------------------


async def test_what_is_asked_is_answered_or_raised(app: App, opened: Opened) -> None:
    broker = await opened(app.port)
    assert broker.identity.user is None
    assert broker.identity.connection_id
    assert broker.state == State("open")
    assert await broker.request("echo", {"a": [1, None, "é"]}) == {"a": [1, None, "é"]}
    assert await asyncio.gather(*(broker.request("echo", n) for n in range(100))) == list(range(100))
    with pytest.raises(Invalid, match="unknown action") as unknown:
        await broker.request("nope")
    assert unknown.value.code == "unknown_action"
    with pytest.raises(Invalid) as wrong:
        await broker.request("session.attach", {})
    assert wrong.value.field is not None
    with pytest.raises(TooLarge):
        await broker.request("echo", "x" * (1 << 20))
    with pytest.raises(TypeError):
        await broker.request("echo", object())
    assert await broker.request("echo", 1) == 1


async def test_what_belongs_to_no_session_and_no_room_is_given_to_who_listens(app: App, opened: Opened) -> None:
    ann, bob = await opened(app.port), await opened(app.port)
    notes = bob.notifications()
    await ann.request("send", {"to": {"connections": [bob.identity.connection_id]}, "data": {"unread": 3}})
    await ann.request("broadcast", "noon")
    direct, broadcast = await anext(notes), await anext(notes)
    assert (direct.event, direct.data) == ("message", {"unread": 3})
    assert direct.sender["connection_id"] == ann.identity.connection_id
    assert (broadcast.event, broadcast.data) == ("broadcast", "noon")
    for number in range(600):
        await ann.request("broadcast", number)
    await bob.request("ping")
    assert (await anext(notes)).data == notes.missed == 100
    await bob.__aexit__(None, None, None)
    assert len([note async for note in notes]) == 499


def test_each_code_has_a_class_of_its_kind() -> None:
    for code, row in ERRORS.items():
        error = error_of({"code": code, "message": "No.", "retryable": row.retryable, "retry_after": 2, "hint": "ann"})
        assert type(error) is not BrokerError, code
        assert (error.code, error.retryable, error.retry_after) == (code, row.retryable, 2)
        assert str(error) == "No: ann"
    newer = error_of({"code": "on_holiday", "message": "Back in May.", "retryable": True})
    assert (type(newer), newer.retryable) == (BrokerError, True)
    for nonsense in (None, [], {"code": 5}, {"code": ""}):
        assert error_of(nonsense).code == "internal"
    assert isinstance(error_of({"code": "timeout"}), TimeoutError)


async def test_an_answer_that_does_not_come_is_not_waited_for(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    with pytest.raises(TimedOut):
        await broker.request("slow", timeout=0.01)
    late = await visit.asked("slow")
    asking = asyncio.ensure_future(broker.request("lost"))
    await visit.asked("lost")
    await visit.answer(late, "too late")
    stage.refusal = HTTPStatus.SERVICE_UNAVAILABLE
    visit.drop()
    with pytest.raises(Disconnected, match="before the answer"):
        await asking
    with pytest.raises(Disconnected, match=r"no connection to ws://127\.0\.0\.1:\d+/ws for 0\.01 s"):
        await broker.request("echo", timeout=0.01)
    assert not broker._link._calls


async def test_what_makes_no_sense_is_passed_over(stage: Any, opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    visit, broker = await stage.meet(opened)
    session = broker.session("s1")
    attaching = asyncio.ensure_future(session.attach())
    await visit.attach(head=1)
    await attaching
    for text in (
        "garbage",
        "[]",
        '{"type": 5}',
        '{"type": "notification"}',
        '{"type": "notification", "event": "welcome", "data": 5}',
        '{"type": "notification", "event": "restarting", "data": 5}',
        '{"type": "notification", "event": "session.detached", "session_id": "other"}',
        '{"type": "notification", "event": "x", "session_id": "s1", "seq": "many"}',
        '{"type": "response", "id": "c999", "data": {}}',
        '{"type": "error", "data": {"code": "invalid_message", "message": "That was not JSON."}}',
        '{"type": "something newer"}',
    ):
        await visit.send(text)
    asking = asyncio.ensure_future(broker.request("echo"))
    await visit.answer(await visit.asked("echo"), "still there")
    assert await asking == "still there"
    assert "That was not JSON." in caplog.text


# -- the first link ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "socket"),
    [
        ("ws://h:1/ws", "ws://h:1/ws"),
        ("http://h:1", "ws://h:1/ws"),
        ("https://h/", "wss://h/ws"),
        ("https://h/broker/", "wss://h/broker/ws"),
        ("https://h/broker/ws", "wss://h/broker/ws"),
        ("ws://h", "ws://h/ws"),
        ("wss://h/other", "wss://h/other"),
    ],
)
def test_addresses(given: str, socket: str) -> None:
    assert socket_of(given) == socket


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "ws://"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="address looks like"):
        connect(url)


async def test_a_broker_that_is_not_there_is_told_or_waited_for(stage: Any, opened: Opened) -> None:
    stage.refusal = HTTPStatus.SERVICE_UNAVAILABLE
    with pytest.raises(Disconnected, match="answers with HTTP 503"):
        await opened(stage.port)
    opening = asyncio.ensure_future(opened(stage.port, patience=math.inf))
    await until(lambda: len(stage.handshakes) > 3)
    stage.refusal = None
    await stage.greet()
    assert (await opening).state.name == "open"


async def test_a_broker_that_says_nothing_is_left(stage: Any, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "WELCOME_SECONDS", 0.01)
    opening = asyncio.ensure_future(opened(stage.port, patience=math.inf))
    silent = await stage.visit()
    await silent.socket.wait_closed()
    await stage.greet()
    await opening


@pytest.mark.parametrize("refusal", [HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN])
async def test_a_handshake_that_is_refused_for_good_is_not_tried_again(
    stage: Any, opened: Opened, refusal: HTTPStatus
) -> None:
    stage.refusal = refusal
    with pytest.raises(Refused) as refused:
        await opened(stage.port, patience=math.inf)
    assert refused.value.code == refusal
    assert len(stage.handshakes) == 1


# -- losing it, and coming back ---------------------------------------------------------------------


async def test_after_a_close_that_says_so_it_does_not_come_back(stage: Any, opened: Opened) -> None:
    visit, broker = await stage.meet(opened)
    states = broker.states()
    asking = asyncio.ensure_future(broker.request("echo"))
    await visit.asked("echo")
    records, notes, room = broker.session("s1").records(), broker.notifications(), broker.join("team")
    following, listening = asyncio.ensure_future(anext(records)), asyncio.ensure_future(anext(notes))
    await visit.attach(head=0)
    joining = asyncio.ensure_future(room)
    await visit.asked("room.join")
    await visit.close(4510, "disconnected by an operator")
    for waiting in (following, listening, joining):
        with pytest.raises(Refused, match="disconnected by an operator") as refused:
            await waiting
        assert refused.value.code == 4510
    with pytest.raises(Disconnected):
        await asking
    with pytest.raises(Refused):
        await broker.request("echo")
    assert broker.state.name == "closed"
    assert [(state.name, state.code) async for state in states] == [("closed", 4510)]
    assert len(stage.handshakes) == 1


async def test_how_long_it_waits_depends_on_why_it_was_closed(
    stage: Any, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert line.RESTART_SECONDS == 1
    monkeypatch.setattr(line, "RESTART_SECONDS", 0.05)
    visit, broker = await stage.meet(opened, pauses=(0.002, 0.002))
    told = broker.states()
    for _ in range(5):
        await visit.close(1012)
        visit = await stage.greet()
    await visit.note("restarting", {"retry_after": 0.0123})
    await visit.close(1012)
    visit = await stage.greet()
    await visit.close(4002, "too slow")
    visit = await stage.greet()
    await broker.__aexit__(None, None, None)
    states = [State("open"), *[state async for state in told][:-1]]
    waits = [state for state in states if state.name == "waiting"]
    delays = [state.delay for state in waits]
    assert max(delays[:5]) > 0.002  # anything up to its own bound, not up to the first pause
    assert max(delays[:5]) <= 0.05
    assert delays[5] == 0.0123
    assert delays[6] <= 0.002
    assert [(state.code, state.reason) for state in waits[-2:]] == [(1012, ""), (4002, "too slow")]
    names = [state.name for state in states]
    assert all(
        pair in {("connecting", "open"), ("open", "waiting"), ("waiting", "connecting")} for pair in pairwise(names)
    )


async def test_a_link_that_is_dead_without_a_word_is_found_out(app: App, opened: Opened, wire: Wire) -> None:
    network = await wire(app.port)
    broker = await opened(network.port, heartbeat=0.2)
    session = await broker.create_session(agent="slow")
    turn = await session.send("a b c d e f")
    async for record in turn:
        if record.event == "message.delta":
            break
    network.flows.clear()
    waiting = asyncio.ensure_future(turn._wait())
    await until(lambda: broker.state.name != "open")
    network.flows.set()
    assert (await waiting).completed
    assert network.links > 1
    assert await turn.text() == "a b c d e f"


# -- tokens -----------------------------------------------------------------------------------------


def signed(seconds: float, user: str = "ann") -> str:
    """Return a token that is good for so long."""
    now = time.time()
    claims = {"iss": "actor-broker", "aud": "actor-broker", "sub": user, "iat": now, "exp": now + seconds}
    return jwt.encode({**claims, "scopes": ["api"], "scope": "api"}, SECRET, algorithm="HS256")


@pytest.fixture
async def guarded(start: Start, tmp_path: Path) -> App:
    """A broker that wants to see a token."""
    return await start(plugins={"auth": {"mode": "jwt", "keys": [{"algorithm": "HS256", "secret": SECRET}]}})


async def test_a_token_goes_into_the_header_and_nowhere_else(
    guarded: App, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = signed(60)
    broker = await opened(guarded.port, token=token)
    assert broker.identity.user == "ann"
    with pytest.raises(Refused) as refused:
        await opened(guarded.port, token=f"{token}x")
    assert refused.value.code == 4500
    with pytest.raises(Refused):
        await opened(guarded.port)
    shown = repr((broker, broker.__dict__, broker._link.__dict__, refused.value, caplog.text))
    assert token not in shown


async def test_a_token_is_renewed_in_band_before_its_time_is_over(
    guarded: App, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def get() -> str:
        asked.append(signed(3 if not asked else 60))
        return asked[-1]

    monkeypatch.setattr(line, "AHEAD", 0.1)
    monkeypatch.setattr(line, "RENEW_SECONDS", 0.05)
    broker = await opened(guarded.port, token=get)
    connection_id = broker.identity.connection_id
    await until(lambda: len(asked) == 2)
    session = await broker.create_session()
    assert (await (await session.send("hi"))).completed
    expiry = json.loads(json.dumps(await broker.request("auth", {"token": signed(90)})))["expires_at"]
    assert expiry is not None
    assert broker.identity.connection_id == connection_id


async def test_a_token_that_has_expired_is_asked_for_again_and_shared(stage: Any, opened: Opened) -> None:
    asked: list[str] = []

    def get() -> str:
        asked.append(f"opaque-{len(asked)}")
        return asked[-1]

    visit, broker = await stage.meet(opened, token=get)
    assert await asyncio.gather(broker._link._tokens.get(), broker._link._tokens.get()) == ["opaque-1", "opaque-1"]
    await visit.close(4001, "the token has expired")
    await stage.greet()
    shown = [request.headers["Authorization"] for request in stage.handshakes]
    assert shown == ["Bearer opaque-0", "Bearer opaque-2"]


async def test_trouble_with_tokens_is_passing_once_there_was_one(
    stage: Any, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble: list[Exception] = []
    slow: list[asyncio.Event] = []

    async def get() -> str:
        if trouble:
            raise trouble.pop()
        if slow:
            await slow.pop().wait()
        return "opaque"

    trouble.append(LookupError("no such key"))
    with pytest.raises(LookupError):
        await opened(stage.port, token=get)
    with pytest.raises(ValueError, match="no header may carry") as unfit:
        await opened(stage.port, token="two words")
    assert "two words" not in str(unfit.value)
    visit, _ = await stage.meet(opened, token=get)
    trouble.append(LookupError("no such key"))
    visit.drop()
    visit = await stage.greet()
    assert not trouble
    monkeypatch.setattr(dial, "CONNECT_SECONDS", 0.01)
    slow.append(asyncio.Event())
    visit.drop()
    await until(lambda: len(stage.handshakes) == 2 and not slow)  # it hangs, and is given up
    await stage.greet()


# -- leaving ----------------------------------------------------------------------------------------


async def test_nothing_is_left_behind(app: App, wire: Wire) -> None:
    before = asyncio.all_tasks()
    network = await wire(app.port)
    await used(network)
    await until(lambda: asyncio.all_tasks() <= before)
    gc.collect()  # what was not closed says so here


async def used(network: Any) -> None:
    """Connect, have much under way, lose the link, and leave."""
    async with connect(f"http://127.0.0.1:{network.port}", token=lambda: "opaque") as broker:
        session = await broker.create_session(agent="faulty")
        turn = await session.send("/silence")
        room = await broker.join("team")
        tasks = [asyncio.ensure_future(wait) for wait in (turn._wait(), anext(aiter(room)), turn.text())]
        await until(lambda: session.seq >= turn.seq)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        network.open = False
        network.cut()
        await until(lambda: broker.state.name == "waiting")
        hanging = asyncio.ensure_future(broker.sessions())
        await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith(("enter", "broker", "link"))] == []
    with pytest.raises(BrokerError, match="closed here"):
        await hanging


async def test_entering_may_be_given_up(stage: Any, opened: Opened) -> None:
    entering = asyncio.ensure_future(opened(stage.port, patience=math.inf))
    visit = await stage.visit()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    await visit.socket.wait_closed()
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert names & {"broker connection", "link"} == set()
