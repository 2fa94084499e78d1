"""Nobody pays for a slow or hostile peer: heartbeat, catch-up and cut, through real sockets (PROTOCOL P7)."""

import asyncio
import contextlib
import json
import socket as sockets
from collections.abc import Awaitable, Callable
from typing import Any

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Knock = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

FAST = {"interval": "300ms", "timeout": "150ms"}


# -- heartbeat ---------------------------------------------------------------------------------------


async def test_a_peer_that_answers_pings_stays_and_one_that_does_not_is_cut(start: Start, knock: Knock) -> None:
    app = await start(heartbeat=FAST)
    good, bad = await knock(app.port), await knock(app.port)
    for raw in (good, bad):
        await raw.message()
    loop = asyncio.get_running_loop()
    began = loop.time()
    ending = asyncio.ensure_future(bad.end())
    for _ in range(3):
        first, payload = await good.frame()
        assert (first, len(payload)) == (0x89, 8)
        good.send(0x8A, payload)
    assert await ending == 4000
    assert loop.time() - began < 3
    good.say("echo", "still here")
    assert (await good.message())["data"] == "still here"
    assert app.stats.dropped["heartbeat"] == 1


async def test_a_peer_that_reads_nothing_but_keeps_sending_is_cut_in_time(
    start: Start, dial: Dial, knock: Knock
) -> None:
    """What it sends says nothing about whether it hears; only an answer to a ping does."""
    app = await start(heartbeat=FAST)
    raw = await knock(app.port, rcvbuf=4096)
    assert app.stats.connections == 1
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent = 0
    with contextlib.suppress(ConnectionError):
        while app.stats.connections:
            raw.say("ping")
            sent += 1
            await raw.writer.drain()
            await asyncio.sleep(0)
    # interval and timeout until it is noticed, timeout again for its good-bye
    assert loop.time() - began < 3
    assert sent > 10
    watch = await dial(app.port)
    async with asyncio.timeout(5):
        while app.stats.connections > 1:
            await watch.do("ping")
    assert app.stats.closes == {4000: 1}


async def test_a_library_that_does_nothing_but_answer_pings_stays(start: Start, dial: Dial) -> None:
    app = await start(heartbeat={"interval": "100ms", "timeout": "90ms"})
    idle, watch = await dial(app.port), await dial(app.port)
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.6
    while loop.time() < until:
        await watch.do("ping")
    await idle.silent()
    assert app.stats.dropped["heartbeat"] == 0


# -- slow readers ------------------------------------------------------------------------------------

SMALL_OUTBOX = {"message_bytes": "64KiB", "outbox_bytes": "64KiB"}
PATIENT = {"interval": "60s", "timeout": "30s"}
BLOCK = "x" * 4000


async def fill(publisher: Any, room: str, count: int) -> None:
    """Publish so much that no socket's buffers hold it."""
    for first in range(0, count, 50):
        for number in range(first, min(first + 50, count)):
            payload = {"room": room, "data": [number, BLOCK]}
            await publisher.send(json.dumps({"type": "request", "action": "room.publish", "payload": payload}))
        await publisher.do("ping")
    assert publisher.heard == []


async def test_a_slow_reader_is_caught_up_from_the_log_while_others_are_live(
    start: Start, dial: Dial, knock: Knock
) -> None:
    app = await start(limits=SMALL_OUTBOX, heartbeat=PATIENT, rooms={"history": 100_000})
    slow = await knock(app.port, rcvbuf=4096)
    live, publisher = await dial(app.port), await dial(app.port)
    connection_id = (await slow.message())["data"]["connection_id"]
    slow.say("room.join", {"room": "r"})
    await slow.message()
    await live.do("room.join", room="r")
    count = 2000
    filling = asyncio.ensure_future(fill(publisher, "r", count))
    heard = [await live.event("room.event") for _ in range(count)]
    await filling
    assert [message["seq"] for message in heard] == list(range(1, count + 1))
    # it is behind by more than the kernel and its outbox hold, so the rest waits in the log, not in memory
    registry: Any = app.registry.actor
    ref, _ = registry._connections[connection_id]
    assert 0 < ref.actor._transport.get_write_buffer_size() < 64 * 1024 + 256 * 1024 + 8192
    caught = [await slow.message() for _ in range(count)]
    assert [message["seq"] for message in caught] == list(range(1, count + 1))
    assert [message["data"] for message in caught] == [message["data"] for message in heard]
    await publisher.do("room.publish", room="r", data="and live again")
    assert (await slow.message())["data"]["data"] == "and live again"
    assert app.stats.closes == {}


async def test_one_so_slow_that_its_room_has_forgotten_what_comes_next_is_told_so(
    start: Start, dial: Dial, knock: Knock
) -> None:
    app = await start(limits=SMALL_OUTBOX, heartbeat=PATIENT, rooms={"history": 50})
    slow = await knock(app.port, rcvbuf=4096)
    publisher = await dial(app.port)
    await slow.message()
    slow.say("room.join", {"room": "r"})
    await slow.message()
    await fill(publisher, "r", 1500)
    expected = 1
    while True:
        first, payload = await slow.frame()
        if first == 0x88:
            break
        message = json.loads(payload)
        assert message["seq"] == expected
        expected += 1
    assert payload[:2] == (4002).to_bytes(2, "big")
    assert 1 < expected < 1450
    back = await dial(app.port)
    assert (await back.do("room.join", room="r", after_seq=expected - 1))["recovered"] is False


async def test_a_session_read_slowly_has_every_record_once(start: Start, dial: Dial, knock: Knock) -> None:
    app = await start(limits=SMALL_OUTBOX, heartbeat=PATIENT)
    slow = await knock(app.port, rcvbuf=4096)
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    await slow.message()
    slow.say("session.attach", {"session_id": session_id})
    for number in range(60):
        content = f"{number} " + "word " * 4000
        await client.do("turn.start", session_id=session_id, client_msg_id=str(number), content=content)
        await client.event("turn.ended")
    head = (await client.do("session.history", session_id=session_id, limit=1))["records"][0]["seq"]
    seqs: list[int] = []
    while not seqs or seqs[-1] < head:
        message = await slow.message()
        if "seq" in message:
            seqs.append(message["seq"])
    assert seqs == list(range(1, head + 1))


async def test_a_stalled_peer_is_cut_and_the_others_do_not_wait(start: Start, dial: Dial, knock: Knock) -> None:
    beat = {"interval": "2s", "timeout": "1s"}
    app = await start(limits=SMALL_OUTBOX, heartbeat=beat, rooms={"history": 100_000})
    stalled = await knock(app.port, rcvbuf=4096)
    live, publisher = await dial(app.port), await dial(app.port)
    await stalled.message()
    stalled.say("room.join", {"room": "r"})
    await stalled.message()
    await live.do("room.join", room="r")
    filling = asyncio.ensure_future(fill(publisher, "r", 1500))
    heard = [(await live.event("room.event"))["seq"] for _ in range(1500)]
    await filling
    assert heard == list(range(1, 1501))
    async with asyncio.timeout(10):
        while app.stats.connections > 2:
            await live.do("ping")
    assert app.stats.closes.keys() <= {4000, 4002}
    assert len((await live.do("room.presence", room="r"))["members"]) == 1


async def test_one_who_asks_without_reading_the_answers_is_cut(start: Start, dial: Dial, knock: Knock) -> None:
    """Answers have no log to be caught up from, so a full outbox is the end: 4002, reconnect and resume."""
    app = await start(limits=SMALL_OUTBOX, heartbeat={"interval": "60s", "timeout": "200ms"})
    other = await dial(app.port)
    greedy = await knock(app.port, rcvbuf=4096)
    for _ in range(200):
        greedy.say("echo", "x" * 60_000)
    async with asyncio.timeout(10):
        while not app.stats.closes:
            await other.do("ping")
    assert app.stats.closes == {4002: 1}
    await other.silent()


async def test_broadcasts_do_not_wait_for_one_who_does_not_read(start: Start, dial: Dial, knock: Knock) -> None:
    app = await start(limits=SMALL_OUTBOX, heartbeat=PATIENT)
    stalled = await knock(app.port, rcvbuf=4096)
    assert stalled.writer.get_extra_info("socket").getsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF) < 65_536
    one, other = await dial(app.port), await dial(app.port)
    for number in range(400):
        await one.do("broadcast", n=number, fill=BLOCK * 4)
        assert (await other.event("broadcast"))["data"]["n"] == number
        await one.event("broadcast")
    assert app.stats.dropped == {"too_slow": 1}
