"""A link that breaks: what the broker gets in the end, when a worker comes back, and when it gives up."""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest
from aiohttp import ClientError

from broker.client import Refused, Turn, Worker
from broker.client.backoff import Backoff
from broker.client.dial import Dial
from broker.client.tokens import Tokens
from broker.client.worker.link import WorkerLink
from broker.client.worker.outbox import BYTES
from broker.client.worker.turns import Turns
from broker.client.worker.wire import FRAME_LIMIT, SUBPROTOCOL
from broker.testing import ManualClock, until

Door = Any
Visit = Any
Linked = Any
Serving = Any
SECRET = "s3cret-t0ken"
END = ("turn_end", "turn_error")


class Silent(Worker):
    agent = "shout"
    version = "7"

    async def answer(self, turn: Turn) -> None:
        await asyncio.Event().wait()


def numbers(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["data"]["seq"] for frame in frames]


class Gate:
    """An answer that says a word each time it is let."""

    def __init__(self) -> None:
        self._let: asyncio.Queue[int] = asyncio.Queue()

    def let(self, words: int) -> None:
        self._let.put_nowait(words)

    async def answer(self, turn: Turn) -> AsyncIterator[str]:
        count = 0
        while words := await self._let.get():
            for _ in range(words):
                count += 1
                yield f"{count} "


# -- coming back -----------------------------------------------------------------------------------


async def test_hello_says_who_it_is(door: Door, serving: Serving) -> None:
    serving(Silent(), door.url)
    hello = (await door.greet()).hello
    assert len(hello.pop("instance")) > 20
    assert hello == {"agent": "shout", "version": "7", "capacity": 1, "turns": []}


@pytest.mark.parametrize("how", ["drop", 1001, 1012, 1013, 4000, 4002])
async def test_a_turn_goes_on_over_the_next_link_without_a_hole_and_without_a_double(
    door: Door, linked: Linked, how: Any
) -> None:
    gate = Gate()
    visit = await linked(gate.answer)
    await visit.start()
    gate.let(3)
    assert numbers([await visit.frame() for _ in range(3)]) == [1, 2, 3]  # and of the fourth nobody knows
    visit.drop() if how == "drop" else await visit.close(how)
    again = await door.visit()
    gate.let(2)
    hello = await again.next("hello")
    assert hello["instance"] == visit.hello["instance"]
    assert [turn["turn_id"] for turn in hello["turns"]] == ["t1"]
    assert 4 <= hello["turns"][0]["seq"] <= 6
    await again.send("welcome", agent="shout", heartbeat=30)
    await again.send("turn_resume", turn_id="t1", seq=3)
    gate.let(0)
    frames = await again.until(*END)
    assert numbers(frames) == [4, 5, 6, 7]
    assert "".join(frame["data"].get("text", "") for frame in frames) == "3 4 5 "


async def test_nothing_of_a_turn_is_said_on_a_new_link_before_the_broker_says_from_where(
    door: Door, linked: Linked
) -> None:
    gate = Gate()
    visit = await linked(gate.answer, capacity=2)
    await visit.start()
    await visit.frame()
    visit.drop()
    again = await door.greet()
    gate.let(2)
    await again.send("ping")
    assert (await again.frame())["type"] == "pong"  # and nothing before it
    await again.start(turn_id="t2")
    assert (await again.next("turn_accepted"))["turn_id"] == "t2"
    await again.send("turn_resume", turn_id="t1", seq=1)
    assert numbers([await again.frame() for _ in range(2)]) == [2, 3]


async def test_a_link_that_breaks_again_and_again_loses_nothing(door: Door, linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        for number in range(500):
            yield f"{number} "
            await asyncio.sleep(0)

    visit = await linked(answer)
    await visit.start()
    got: list[dict[str, Any]] = []
    for often in range(10):
        got += [await visit.frame() for _ in range(3 * often)]
        visit.drop()
        visit = await door.greet()
        await visit.send("turn_resume", turn_id="t1", seq=len(got))
    got += await visit.until(*END)
    assert numbers(got) == list(range(1, 503))
    assert "".join(frame["data"].get("text", "") for frame in got) == "".join(f"{n} " for n in range(500))


async def test_an_end_that_did_not_arrive_is_said_again(door: Door, linked: Linked) -> None:
    gate = Gate()
    visit = await linked(gate.answer)
    await visit.start()
    await visit.frame()
    visit.drop()
    gate.let(0)  # it ends while nobody listens
    for _ in range(2):
        again = await door.greet()
        await again.send("turn_resume", turn_id="t1", seq=1)
        again.drop()  # before anything has arrived
    third = await door.greet()
    assert third.hello["turns"] == [{"turn_id": "t1", "seq": 2}]
    await third.send("turn_resume", turn_id="t1", seq=1)
    assert [frame["type"] for frame in await third.until(*END)] == ["turn_end"]


async def test_an_end_that_arrived_is_forgotten(door: Door, serving: Serving) -> None:
    """It has, if a ping that was sent after it was answered: the other side reads in order."""
    gate = Gate()

    class Agent(Worker):
        agent = "shout"
        answer = staticmethod(gate.answer)

    serving(Agent(), door.url)
    visit = await door.greet()
    gate.let(0)
    await visit.answer()
    await visit.socket.ping()  # its pong comes behind the worker's own ping, which was answered on the way
    await (await visit.socket.ping())
    gate.let(0)
    await visit.answer(turn_id="t2")
    visit.drop()
    assert "t1" not in [turn["turn_id"] for turn in (await door.greet()).hello["turns"]]


async def test_a_turn_that_the_broker_gave_up_is_cancelled_and_only_its_end_is_said(door: Door, linked: Linked) -> None:
    gate = Gate()
    visit = await linked(gate.answer)
    await visit.start()
    gate.let(5)
    await visit.frame()
    visit.drop()
    again = await door.greet()
    await again.send("turn_cancel", turn_id="t1")
    (end,) = await again.until(*END)
    assert end["data"] == {"turn_id": "t1", "seq": 7, "stop_reason": "cancelled"}


async def test_a_turn_that_the_broker_does_not_take_up_is_given_up(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "broker.client")
    clock, cancelled = ManualClock(), asyncio.Event()

    async def perform(turn: Turn) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    async with keeping(door, Turns(perform, 1), clock):
        visit = await door.greet()
        await visit.start()
        await visit.frame()
        visit.drop()
        await until(lambda: caplog.text.count("no link") == 1)
        clock.advance(1)
        visit = await door.greet()
        await until(lambda: caplog.text.count("linked to") == 2)
        clock.advance(10)
        await cancelled.wait()
        visit.drop()
        await until(lambda: caplog.text.count("no link") == 2)
        clock.advance(1)
        assert (await door.greet()).hello["turns"] == []
    assert "the broker has given up turn t1 while it could not be reached" in caplog.messages


async def test_beyond_what_is_kept_there_is_a_hole_that_the_numbers_show(door: Door, linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        for _ in range(3000):
            yield "x"
        await asyncio.Event().wait()

    visit = await linked(answer)
    await visit.start()
    for _ in range(3001):
        await visit.frame()
    visit.drop()
    again = await door.greet()
    await again.send("turn_resume", turn_id="t1", seq=10)
    frames = [await again.frame() for _ in range(1000)]
    assert numbers(frames) == list(range(2002, 3002))


async def test_who_says_more_than_fits_waits_while_there_is_no_link(door: Door, linked: Linked) -> None:
    said, turns = 0, []

    async def answer(turn: Turn) -> None:
        nonlocal said
        turns.append(turn)
        await turn.say("ready")
        await gate.wait()
        for _ in range(2500):
            await turn.say("x")
            said += 1

    gate = asyncio.Event()
    visit = await linked(answer)
    await visit.start()
    await visit.until("delta")
    door.refusal = HTTPStatus.SERVICE_UNAVAILABLE
    visit.drop()
    await until(lambda: len(door.handshakes) > 1)
    gate.set()
    await until(lambda: turns[0]._voice.outbox.full)
    await until(lambda: said)
    assert said == 998
    door.refusal = None
    again = await door.greet()
    await again.send("turn_resume", turn_id="t1", seq=2)
    assert numbers(await again.until(*END)) == list(range(3, 2504))


async def test_a_broker_that_does_not_read_costs_bounded_memory(linked: Linked) -> None:
    said, turns = 0, []
    big = "x" * 32 * 1024

    async def answer(turn: Turn) -> None:
        nonlocal said
        turns.append(turn)
        for _ in range(2000):  # 64 MiB
            await turn.say(big)
            said += 1

    visit = await linked(answer)
    await visit.start()
    await until(lambda: turns and turns[0]._voice.outbox.full)
    outbox = turns[0]._voice.outbox
    assert sum(map(len, outbox._kept)) < BYTES + len(big) + 1000
    assert said < 2000
    assert numbers(await visit.until(*END)) == list(range(1, 2003))


async def test_one_turn_that_floods_leaves_others_their_share(linked: Linked) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        for _ in range(20_000 if turn.text == "flood" else 1):
            yield "x"

    visit = await linked(answer, capacity=2)
    await visit.start("flood", "t1")
    await visit.start("word", "t2")
    frames = await visit.until("turn_end")
    assert frames[-1]["data"]["turn_id"] == "t2"
    assert (await visit.until("turn_end"))[-1]["data"]["seq"] == 20_002


# -- when and whether it tries again ----------------------------------------------------------------


class keeping:  # noqa: N801 - read as a word
    """Keep a link for as long as the block runs, by a clock that the test moves."""

    def __init__(self, door: Door, turns: Turns, clock: ManualClock, get_token: Any = None) -> None:
        dial = Dial(door.url, Tokens(get_token), SUBPROTOCOL, FRAME_LIMIT)
        hello = {"agent": "shout", "version": "", "capacity": 1, "instance": "i1"}
        self._link = WorkerLink(dial, hello, turns, Backoff(), clock)

    async def __aenter__(self) -> asyncio.Task[None]:
        self._task = asyncio.get_running_loop().create_task(self._link.keep())
        return self._task

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def knocked(door: Door, times: int) -> None:
    """Wait until there were more handshakes than so many."""
    await until(lambda: len(door.handshakes) > times)


async def test_the_first_try_comes_within_a_second_and_later_ones_ever_later(door: Door) -> None:
    door.refusal, clock = HTTPStatus.SERVICE_UNAVAILABLE, ManualClock()
    async with keeping(door, Turns(Silent()._perform, 1), clock):
        for tries, bound in enumerate([0.5, 1, 2, 4, 8, 16, 20, 20], start=1):
            await until(lambda: clock.waiting)
            assert len(door.handshakes) == tries
            clock.advance(bound)
            await knocked(door, tries)


def test_pauses_are_spread_over_all_of_their_bound() -> None:
    firsts = [Backoff().pause() for _ in range(200)]
    assert min(firsts) < 0.1
    assert 0.4 < max(firsts) <= 0.5


async def test_a_link_that_held_for_a_while_starts_small_again(door: Door) -> None:
    door.refusal, clock = HTTPStatus.SERVICE_UNAVAILABLE, ManualClock()
    async with keeping(door, Turns(Silent()._perform, 1), clock):
        for tries in range(1, 7):
            await until(lambda: clock.waiting)
            door.refusal = None if tries == 6 else door.refusal
            clock.advance(20)
            await knocked(door, tries)
        visit = await door.greet()
        clock.advance(25)
        await visit.close(1012, "restart")
        await until(lambda: clock.waiting)
        clock.advance(0.5)
        await door.greet()


@pytest.mark.parametrize("code", [4500, 4503, 4509, 4999])
async def test_a_close_that_says_so_is_the_end(door: Door, serving: Serving, code: int) -> None:
    task = serving(Silent(), door.url)
    visit = await door.visit()
    await visit.next("hello")
    await visit.send("error", code="not_found", message="There is no agent shout; there are: claude.")
    await visit.close(code, "forbidden")
    with pytest.raises(Refused) as refused:
        await task
    assert refused.value.code == code
    told = f"the broker closed with {code} (forbidden): not_found: There is no agent shout; there are: claude."
    assert str(refused.value) == told


async def test_a_close_before_hello_is_heard(door: Door, serving: Serving) -> None:
    task = serving(Silent(), door.url)
    await (await door.visit()).close(4500, "bad or missing token")
    with pytest.raises(Refused, match=r"closed with 4500 \(bad or missing token\)"):
        await task


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_handshake_that_is_our_fault_is_the_end(door: Door, serving: Serving, status: int) -> None:
    door.refusal = HTTPStatus(status)
    with pytest.raises(Refused, match=f"^what is at {door.url} answers with HTTP {status}$") as refused:
        await serving(Silent(), door.url + "?key=" + SECRET, token=SECRET)
    assert refused.value.code == status
    assert SECRET not in "".join(traceback.format_exception(refused.value, chain=True))
    assert refused.value.__context__ is None


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_handshake_that_time_may_heal_is_tried_again(door: Door, serving: Serving, status: int) -> None:
    door.refusal = HTTPStatus(status)
    serving(Silent(), door.url)
    await until(lambda: len(door.handshakes) > 2)
    door.refusal = None
    await door.greet()


async def test_once_it_worked_no_handshake_is_the_end(door: Door, serving: Serving) -> None:
    """A proxy that answers 404 while the broker is deployed must not send all workers home."""
    serving(Silent(), door.url)
    visit = await door.greet()
    door.refusal = HTTPStatus.NOT_FOUND
    visit.drop()
    await until(lambda: len(door.handshakes) > 3)
    door.refusal = None
    await door.greet()


async def test_a_broker_that_is_not_there_yet_is_waited_for(
    door: Door, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "broker.client")
    task = serving(Silent(), "ws://127.0.0.1:1/agent")
    await until(lambda: len(caplog.records) > 2)
    assert not task.done()
    loud = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(loud) == 1, "the same trouble is told once"
    assert loud[0].startswith("no link to ws://127.0.0.1:1/agent: Connection refused")


# -- tokens -----------------------------------------------------------------------------------------


async def test_a_token_goes_into_the_header_and_nowhere_else(
    door: Door, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets").setLevel(logging.INFO)  # the other side shows its headers
    worker = Silent()
    task = serving(worker, door.url, token=SECRET)
    await door.greet()
    (request,) = door.handshakes
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in request.path
    assert SECRET not in repr(worker) + repr(task) + caplog.text


async def test_without_a_token_there_is_no_header(door: Door, serving: Serving) -> None:
    serving(Silent(), door.url)
    await door.greet()
    assert "Authorization" not in door.handshakes[0].headers


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_each_handshake_has_a_token_of_its_own(door: Door, serving: Serving, kind: str) -> None:
    tokens = iter(["one", "two"])

    def plain() -> str:
        return next(tokens)

    async def slow() -> str:
        await asyncio.sleep(0)
        return next(tokens)

    serving(Silent(), door.url, get_token=plain if kind == "plain" else slow)
    await (await door.greet()).close(4001, "the token has expired")
    await door.greet()
    assert [request.headers["Authorization"] for request in door.handshakes] == ["Bearer one", "Bearer two"]


async def test_a_token_service_that_fails_ends_a_worker_only_at_its_first_try(
    door: Door, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    faults: list[Exception] = [ConnectionRefusedError(), ClientError()]

    def get_token() -> str:
        if faults:
            raise faults.pop(0)
        return "fine"

    serving(Silent(), door.url, get_token=get_token)
    visit = await door.greet()
    faults[:] = [ValueError(SECRET), KeyError(SECRET)]
    visit.drop()
    await door.greet()
    assert SECRET not in caplog.text
    faults[:] = [LookupError("no such key")]
    with pytest.raises(LookupError, match="no such key"):
        await serving(Silent(), door.url, get_token=get_token)


async def test_a_token_that_no_header_may_carry_is_refused_without_showing_it(door: Door, serving: Serving) -> None:
    for token in (f"{SECRET}\r\nX: y", f"{SECRET} x", "", f"é{SECRET}"):
        with pytest.raises(ValueError, match="the token has characters") as refused:
            await serving(Silent(), door.url, token=token)
        assert SECRET not in str(refused.value)
    assert door.handshakes == []


# -- what is strange --------------------------------------------------------------------------------


async def test_frames_that_make_no_sense_are_passed_over(
    door: Door, linked: Linked, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield turn.text

    visit = await linked(answer)
    for text in (
        "garbage",
        "[]",
        '{"type": 5}',
        '{"type": "turn_start"}',
        '{"type": "turn_start", "data": {"turn_id": 5}}',
        '{"type": "turn_resume", "data": {"turn_id": "t1", "seq": -1}}',
        '{"type": "ping", "data": ' + "[" * 5000 + "]" * 5000 + "}",
    ):
        await visit.socket.send(text)
    assert len([m for m in caplog.messages if m.startswith("a frame that cannot be read")]) <= 7
    await visit.socket.send(b"binary")
    await visit.send("weather", text="well done")
    for kind in ("turn_cancel", "turn_resume", "approval_answer"):
        await visit.send(kind, turn_id="unknown", approval_id="a")
    await visit.socket.send('{"type": "ping"}')
    assert (await visit.frame())["type"] == "pong"
    assert len([m for m in caplog.messages if m.startswith("a frame that cannot be read")]) == 7
    frames = await visit.answer("still here")
    assert frames[1]["data"]["text"] == "still here"


async def test_a_refused_frame_is_logged(linked: Linked, caplog: pytest.LogCaptureFixture) -> None:
    visit = await linked(Gate().answer)
    await visit.send("error", code="forbidden", message="That is not yours.")
    await visit.send("ping")
    await visit.frame()
    assert "the broker refuses a frame: forbidden: That is not yours." in caplog.messages


async def test_pings_of_the_socket_are_answered(linked: Linked) -> None:
    visit = await linked(Gate().answer)
    waiting = asyncio.ensure_future(visit.socket.recv())
    async with asyncio.timeout(20):
        await (await visit.socket.ping(b"x"))
    waiting.cancel()


@pytest.mark.parametrize("url", ["", "127.0.0.1:3000", "/agent", "ftp://a/b", "ws:///agent"])
async def test_an_address_that_is_none_is_refused_at_once(serving: Serving, url: str) -> None:
    with pytest.raises(ValueError, match="the broker's address looks like"):
        await serving(Silent(), url)


async def test_a_server_that_speaks_something_else_is_the_end(serving: Serving) -> None:
    from websockets.asyncio.server import serve

    async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Refused, match=r"does not speak agents\.v1\.json"):
            await serving(Silent(), f"ws://127.0.0.1:{port}/agent")
