"""SIGTERM with hundreds of sockets, some of them stalled, and turns running (PROTOCOL section 7)."""

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from signal import SIGTERM
from typing import Any
from urllib.error import HTTPError

import pytest
from websockets.exceptions import ConnectionClosed

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]

GRACE = 3
SETTINGS = {
    "agents": {
        "echo": {"kind": "echo"},
        "slow": {"kind": "echo", "delay": "20ms"},
        "endless": {"kind": "echo", "delay": "1h"},
    },
    "limits": {"unknown_per_address": 1000},
    "shutdown": {"grace": f"{GRACE}s"},
}
ENDING = " ".join(["word"] * 50)  # at 20 ms each: a second
IDLE, STALLED = 440, 20


async def ends(client: Any) -> tuple[list[Any], int]:
    """Return what a client is told until the end, and the code of that."""
    code, _ = await client.closed()
    return client.heard, code


def status(broker: Any, path: str) -> int:
    """Return the status that a path is answered with."""
    try:
        broker.get(path)
    except HTTPError as e:
        with e:
            return e.code
    return 200


@pytest.fixture
def stall() -> Iterator[Callable[[int], Awaitable[None]]]:
    """Open sockets that ask for much and read nothing, not even the answers to their handshakes."""
    opened: list[socket.socket] = []

    async def open_stalled(port: int) -> None:
        sock = socket.socket()
        opened.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", port))
        fields = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
        await loop.sock_sendall(
            sock, "\r\n".join(["GET /ws HTTP/1.1", "Host: localhost", *fields, key, "", ""]).encode()
        )
        request = json.dumps({"id": "r", "type": "request", "action": "echo", "payload": "x" * 60_000}).encode()
        frame = b"\x81\xfe" + len(request).to_bytes(2, "big") + bytes(4) + request
        await loop.sock_sendall(sock, frame * 10)

    yield open_stalled
    for sock in opened:
        sock.close()


async def crowd(dial: Dial, broker: Any) -> list[Any]:
    """Bring in idle clients."""
    clients: list[Any] = []
    for _ in range(IDLE // 40):
        clients += await asyncio.gather(*(dial(broker.port) for _ in range(40)))
    return clients


async def publish(client: Any, acknowledged: list[int]) -> None:
    """Publish one event after the other until the end, and note those that were acknowledged."""
    with suppress(ConnectionClosed):
        while len(acknowledged) < 900:
            acknowledged.append((await client.do("room.publish", room="harbour", data=len(acknowledged)))["seq"])


async def begin(dial: Dial, broker: Any, session_id: str, agent: str) -> tuple[Any, str]:
    """Start a turn; return its viewer and its id."""
    viewer = await dial(broker.port)
    await viewer.do("session.create", session_id=session_id, agent=agent)
    answer = await viewer.do("turn.start", session_id=session_id, client_msg_id="m", content=ENDING)
    await viewer.event("message.delta") if agent == "slow" else await viewer.event("turn.started")
    return viewer, answer["turn_id"]


async def test_five_hundred_sockets_are_sent_away_in_time_and_nothing_acknowledged_is_lost(
    make_broker: Make, dial: Dial, stall: Callable[[int], Awaitable[None]]
) -> None:
    broker = make_broker(**SETTINGS)
    broker.start()
    idle = await crowd(dial, broker)
    await asyncio.gather(*(stall(broker.port) for _ in range(STALLED)))
    acknowledged: list[int] = []
    publishing = asyncio.ensure_future(publish(await dial(broker.port), acknowledged))
    turns = await asyncio.gather(
        *(begin(dial, broker, f"s{i}", "slow" if i % 2 else "endless") for i in range(20)),
    )

    began = time.monotonic()
    broker.signal(SIGTERM)
    warned = [await client.event("restarting") for client in idle]
    assert await asyncio.to_thread(status, broker, "/readyz") == 503
    assert await asyncio.to_thread(status, broker, "/livez") == 200
    with pytest.raises(Exception, match="503"):
        await dial(broker.port)
    viewer = turns[0][0]
    refused = await viewer.refused("turn.start", session_id="s0", client_msg_id="n", content="too late")
    assert refused["code"] == "unavailable"
    assert refused["retry_after"] > 0

    waits = [message["data"]["retry_after"] for message in warned]
    assert min(waits) >= 1
    assert max(waits) <= 1 + (IDLE + STALLED + 21) / 500
    assert len(set(waits)) > 5
    codes = Counter([(await ends(client))[1] for client in idle])
    assert codes == {1012: IDLE}
    await publishing

    for i, (client, turn_id) in enumerate(turns):
        heard, code = await ends(client)
        assert code == 1012
        outcomes = [m["data"]["outcome"] for m in heard if m.get("event") == "turn.ended" and m["turn_id"] == turn_id]
        assert outcomes == ["completed" if i % 2 else "lost"], i
    assert await asyncio.to_thread(broker.wait) == 0
    assert time.monotonic() - began < GRACE + 2

    broker.start()
    again = await dial(broker.port)
    kept = (await again.do("room.history", room="harbour", limit=1000))["events"]
    assert acknowledged
    assert {event["seq"] for event in kept} >= set(acknowledged)
    for i, (_, turn_id) in enumerate(turns):
        records = (await again.do("session.history", session_id=f"s{i}", limit=1000))["records"]
        assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
        told = [record["event"] for record in records if record.get("turn_id") == turn_id]
        assert (told.count("user.message"), told.count("turn.ended"), told[-1]) == (1, 1, "turn.ended")
    assert broker.end() == 0


async def test_without_turns_the_grace_is_not_waited_for(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(shutdown={"grace": "30s"})
    broker.start()
    clients = [await dial(broker.port) for _ in range(5)]
    began = time.monotonic()
    broker.signal(SIGTERM)
    assert {(await ends(client))[1] for client in clients} == {1012}
    assert await asyncio.to_thread(broker.wait) == 0
    assert time.monotonic() - began < 3


async def test_a_second_signal_ends_it_at_once(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(**SETTINGS | {"shutdown": {"grace": "1h"}})
    broker.start()
    viewer, _ = await begin(dial, broker, "s", "endless")
    broker.signal(SIGTERM)
    await viewer.event("restarting")
    began = time.monotonic()
    assert await asyncio.to_thread(broker.end, SIGTERM) != 0
    assert time.monotonic() - began < 2


async def test_a_turn_that_waits_is_not_begun_any_more_and_goes_on_after_the_restart(
    make_broker: Make, dial: Dial
) -> None:
    broker = make_broker(**SETTINGS)
    broker.start()
    viewer, first = await begin(dial, broker, "s", "slow")
    second = (await viewer.do("turn.start", session_id="s", client_msg_id="n", content="second"))["turn_id"]
    broker.signal(SIGTERM)
    heard, code = await ends(viewer)
    assert code == 1012
    told = [(m["event"], m.get("turn_id")) for m in heard if m.get("event") in {"turn.started", "turn.ended"}]
    assert told[-1] == ("turn.ended", first)
    assert ("turn.started", second) not in told
    assert await asyncio.to_thread(broker.wait) == 0
    broker.start()
    again = await dial(broker.port)
    await again.do("session.attach", session_id="s")
    ended = await again.take(lambda m: m.get("event") == "turn.ended" and m["turn_id"] == second)
    assert ended["data"]["outcome"] == "completed"
    assert broker.end() == 0
