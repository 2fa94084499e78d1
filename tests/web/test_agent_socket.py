"""`GET /agent`: who may be an agent, and a worker's turns through the whole broker (PROTOCOL sections 2c and 4)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from broker.app import App

PATIENCE = 20.0
SUBPROTOCOL = "agents.v1.json"
WORKERS = {"agents": {"coder": {"kind": "worker", "reattach": "1h"}, "flaky": {"kind": "worker", "reattach": 0}}}

Dial = Callable[..., Awaitable[Any]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

GATE = '''
from broker.errors import BrokerError
from broker.hooks import Handshake, Plugin, Principal


class Gate(Plugin):
    """Knows a worker and a visitor by their tokens; whoever shows none is nobody."""

    def on_handshake(self, handshake: Handshake):
        token = handshake.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in {"worker", "twin"}:
            return Principal(user=token, scopes=frozenset({"agent"}))
        if token == "busy":
            raise BrokerError("rate_limited", retry_after=7)
        if token in {"unauthenticated", "token_expired", "forbidden"}:
            raise BrokerError(token)
        return Principal(user="visitor", scopes=frozenset())
'''


@attrs.define
class Worker:
    """A worker's end of the link."""

    socket: ClientConnection

    async def say(self, kind: str, /, **data: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, "id": "1", "data": data, "timestamp": ""}))

    async def next(self, kind: str) -> Any:
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = json.loads(await self.socket.recv())
                if frame["type"] == kind:
                    return frame["data"]

    async def end(self) -> tuple[int, str]:
        """Return the code and the reason with which the broker closes."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed as e:
                return (e.rcvd.code, e.rcvd.reason) if e.rcvd else (1006, "")


Work = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    """Dial in as a worker with a token, and say hello as an agent if one is named."""
    workers: list[Worker] = []

    async def dial_in(port: int, agent: str | None = None, token: str = "", **hello: Any) -> Worker:
        headers = {"Authorization": f"Bearer {token}"} if token else None
        url = f"ws://127.0.0.1:{port}/agent"
        worker = Worker(await connect(url, subprotocols=[SUBPROTOCOL], additional_headers=headers))  # type: ignore[list-item]
        workers.append(worker)
        if agent is not None:
            await worker.say("hello", agent=agent, **hello)
        return worker

    yield dial_in
    for worker in workers:
        worker.socket.transport.abort()
        await worker.socket.wait_closed()


@pytest.fixture
async def app(start: Start) -> App:
    """A broker with two profiles that workers serve."""
    return await start(**WORKERS)


# -- who may come in ---------------------------------------------------------------------------------


async def test_a_worker_is_let_in_and_welcomed(app: App, work: Work) -> None:
    worker = await work(app.port, "coder", capacity=3)
    assert await worker.next("welcome") == {"agent": "coder", "heartbeat": 30.0}
    assert worker.socket.subprotocol == SUBPROTOCOL
    assert app.kinds["coder"].capacity == 3


@pytest.mark.parametrize("offer", [None, "", "broker.v1.json", "AGENTS.V1.JSON"])
async def test_the_subprotocol_has_to_be_offered(app: App, knock: Knock, offer: str | None) -> None:
    raw = await knock(app.port, "/agent", Sec_WebSocket_Protocol=offer)
    assert raw.status == 400
    assert raw.headers()["content-type"] == "application/problem+json"
    assert (await raw.body())["hint"] == SUBPROTOCOL


async def test_a_page_and_a_rebound_name_are_kept_out(app: App, knock: Knock) -> None:
    offer = {"Sec_WebSocket_Protocol": SUBPROTOCOL}
    assert (await knock(app.port, "/agent", Origin="https://evil.example", **offer)).status == 403
    assert (await knock(app.port, "/agent", Host="evil.example", **offer)).status == 403
    assert (await knock(app.port, "/agent", **offer)).status == 101


async def test_a_broker_that_stops_takes_no_worker(app: App, knock: Knock) -> None:
    app.services.ready = False
    raw = await knock(app.port, "/agent", Sec_WebSocket_Protocol=SUBPROTOCOL)
    assert (raw.status, raw.headers()["retry-after"]) == (503, "1")


async def test_there_is_an_end_to_how_many_come_in(start: Start, work: Work, knock: Knock) -> None:
    """Also of those that say nothing: each has seconds to introduce itself."""
    app = await start(listen={"max_connections": 1}, **WORKERS)
    first = await work(app.port)
    raw = await knock(app.port, "/agent", Sec_WebSocket_Protocol=SUBPROTOCOL)
    assert (raw.status, raw.headers()["retry-after"]) == (503, "5")
    await first.say("hello", agent="nobody")
    await first.end()
    second = None
    async with asyncio.timeout(PATIENCE):
        while second is None:  # the broker leaves when the worker has seen it go
            with suppress(InvalidStatus):
                second = await work(app.port, "coder")
    assert await second.next("welcome")


@pytest.fixture
async def guarded(start: Start, tmp_path: Path) -> App:
    """A broker that asks for tokens."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "gate.py").write_text(GATE)
    return await start(plugins={"gate": {}}, **WORKERS)


@pytest.mark.parametrize(
    ("token", "code", "reason"),
    [
        ("", 4503, "Agents need the scope agent."),
        ("forbidden", 4503, "You may not do that."),
        ("unauthenticated", 4500, "Say who you are first."),
        ("token_expired", 4500, "The token has expired; get a new one."),
    ],
)
async def test_who_may_not_is_told_by_the_close_code(
    guarded: App, work: Work, token: str, code: int, reason: str
) -> None:
    worker = await work(guarded.port, token=token)
    error = (await worker.next("error"))["code"]
    assert await worker.end() == (code, reason)
    assert guarded.stats.errors[error] == 1
    assert guarded.kinds["coder"].capacity == 0


async def test_the_scope_lets_a_worker_in(guarded: App, work: Work) -> None:
    worker = await work(guarded.port, "coder", token="worker")
    assert await worker.next("welcome")


async def test_any_other_refusal_is_one_of_the_handshake(guarded: App, work: Work) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await work(guarded.port, token="busy")
    assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize("agent", ["echo", "nobody", ""])
async def test_a_profile_that_no_worker_can_serve_is_refused_with_those_that_one_can(
    app: App, work: Work, agent: str
) -> None:
    worker = await work(app.port, agent)
    error = await worker.next("error")
    assert (error["code"], "coder, flaky" in error["message"]) == ("not_found", True)
    assert app.stats.errors == {"not_found": 1}
    assert (await worker.end())[0] == 4503


# -- turns through the whole broker ------------------------------------------------------------------


async def begun(client: Any, agent: str, message: str = "m1") -> tuple[str, str]:
    """Return a new session and its first turn."""
    session_id = (await client.do("session.create", agent=agent))["session_id"]
    turn = await client.do("turn.start", session_id=session_id, client_msg_id=message, content="hello")
    return session_id, turn["turn_id"]


async def answer(worker: Worker, turn_id: str, *words: str) -> None:
    """Answer a turn."""
    for seq, word in enumerate(words, 1):
        await worker.say("delta", turn_id=turn_id, seq=seq, text=word)
    await worker.say("turn_end", turn_id=turn_id, seq=len(words) + 1, stop_reason="end_turn")


def texts(records: list[Any]) -> str:
    return "".join(record["data"]["text"] for record in records if record["event"] == "message.delta")


async def test_a_turn_waits_for_a_worker_and_is_answered_by_it(app: App, work: Work, dial: Dial) -> None:
    client = await dial(app.port)
    _, turn_id = await begun(client, "coder")
    worker = await work(app.port, "coder")
    start = await worker.next("turn_start")
    assert (start["turn_id"], start["content"]) == (turn_id, "hello")
    await answer(worker, turn_id, "good ", "day")
    records = await client.records("turn.ended")
    assert texts(records) == "good day"
    assert records[-1]["data"]["outcome"] == "completed"


async def test_workers_share_what_there_is_to_do(app: App, work: Work, dial: Dial) -> None:
    workers = [await work(app.port, "coder") for _ in range(2)]
    for worker in workers:
        await worker.next("welcome")
    client = await dial(app.port)
    for number in range(6):
        await begun(client, "coder", f"m{number}")

    async def serve(worker: Worker) -> int:
        for done in range(3):
            turn_id = (await worker.next("turn_start"))["turn_id"]
            await answer(worker, turn_id, f"{done}")
        return 3

    assert await asyncio.gather(*map(serve, workers)) == [3, 3]
    for _ in range(6):
        assert (await client.event("turn.ended"))["data"]["outcome"] == "completed"


async def test_the_turn_of_a_worker_that_dies_is_lost_and_its_queue_moves_on(app: App, work: Work, dial: Dial) -> None:
    dying = await work(app.port, "flaky")
    client = await dial(app.port)
    session_id, first = await begun(client, "flaky")
    await dying.next("turn_start")
    second = await client.do("turn.start", session_id=session_id, client_msg_id="m2", content="again")
    dying.socket.transport.abort()
    lost = await client.event("turn.ended")
    assert (lost["turn_id"], lost["data"]["outcome"]) == (first, "lost")
    other = await work(app.port, "flaky")
    await answer(other, (await other.next("turn_start"))["turn_id"], "here")
    ended = await client.event("turn.ended")
    assert (ended["turn_id"], ended["data"]["outcome"]) == (second["turn_id"], "completed")


async def test_a_link_that_breaks_is_seen_and_the_answer_is_whole(app: App, work: Work, dial: Dial) -> None:
    worker = await work(app.port, "coder", instance="w")
    client = await dial(app.port)
    _, turn_id = await begun(client, "coder")
    await worker.next("turn_start")
    await worker.say("delta", turn_id=turn_id, seq=1, text="a")
    await client.event("message.delta")
    worker.socket.transport.abort()
    assert (await client.event("turn.stalled"))["data"]["link"] == "down"
    back = await work(app.port, "coder", instance="w", turns=[{"turn_id": turn_id, "seq": 3}])
    assert await back.next("turn_resume") == {"turn_id": turn_id, "seq": 1}
    await answer(back, turn_id, "a", "b", "c")
    ended = await client.event("turn.ended")
    assert ended["data"]["outcome"] == "completed"
    (whole,) = [m for m in client.heard if m.get("event") == "message.completed"]
    assert whole["data"]["content"] == "abc"


async def test_another_users_worker_cannot_take_up_a_turn(guarded: App, work: Work, dial: Dial) -> None:
    worker = await work(guarded.port, "coder", token="worker", instance="w")
    client = await dial(guarded.port)
    _, turn_id = await begun(client, "coder")
    await worker.next("turn_start")
    worker.socket.transport.abort()
    await client.event("turn.stalled")
    twin = await work(guarded.port, "coder", token="twin", instance="w", turns=[{"turn_id": turn_id, "seq": 1}])
    assert (await twin.next("error"))["code"] == "forbidden"
    assert guarded.stats.errors == {"forbidden": 1}


async def test_an_approval_goes_to_a_person_and_back(app: App, work: Work, dial: Dial) -> None:
    worker = await work(app.port, "coder")
    client = await dial(app.port)
    session_id, turn_id = await begun(client, "coder")
    await worker.next("turn_start")
    options = [{"id": "y", "name": "Yes", "kind": "allow_once"}]
    await worker.say("approval_request", turn_id=turn_id, approval_id="q", title="May I?", options=options, seq=1)
    asked = (await client.event("approval.requested"))["data"]
    assert asked["options"] == [{"option_id": "y", "name": "Yes", "kind": "allow_once"}]
    await client.do("approval.answer", session_id=session_id, approval_id=asked["approval_id"], option_id="y")
    assert await worker.next("approval_answer") == {"turn_id": turn_id, "approval_id": "q", "option_id": "y"}


async def test_variables_that_a_worker_sets_are_the_sessions(app: App, work: Work, dial: Dial) -> None:
    worker = await work(app.port, "coder")
    client = await dial(app.port)
    session_id, _ = await begun(client, "coder")
    await worker.next("turn_start")
    await worker.say("variables", session_id=session_id, set={"mood": "good"})
    changed = await client.event("variables.changed")
    assert changed["data"]["variables"] == {"mood": "good"}


async def test_a_broker_that_stops_tells_its_workers_to_come_back(app: App, work: Work) -> None:
    worker = await work(app.port, "coder")
    await worker.next("welcome")
    ended = asyncio.ensure_future(worker.end())
    await app.drain()
    await app.stop()
    assert (await ended)[0] == 1012
