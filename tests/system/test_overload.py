"""At its limits the broker takes no new work, says so, and goes on with what it has (PROTOCOL P7, P8, P9)."""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]

PATIENCE = 20.0
MIB = 1 << 20


def readiness(broker: Any) -> tuple[int, str]:
    """Return the status of `/readyz`, and why."""
    try:
        return 200, broker.get("/readyz")["status"]
    except HTTPError as e:
        with e:
            return e.code, json.load(e)["title"]


async def ready(broker: Any, status: int) -> str:
    """Wait until `/readyz` answers with this status; return why."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found, why = await asyncio.to_thread(readiness, broker)
            if found == status:
                return why
            await asyncio.sleep(0.1)


def resident(broker: Any) -> int:
    """Return the MiB of memory that the broker has."""
    return int(Path(f"/proc/{broker.process.pid}/statm").read_text().split()[1]) * 4096 // MIB


# -- memory ------------------------------------------------------------------------------------------


Hoard = Callable[[Any], Awaitable[Callable[[], None]]]


@pytest.fixture
async def hoard(dial: Dial) -> AsyncIterator[Hoard]:
    """Have answers wait in the broker's memory, by clients that ask and do not read; returns what ends it."""
    clients: list[Any] = []

    def end() -> None:
        for client in clients:
            client.drop()
        clients.clear()

    async def begin(broker: Any) -> Callable[[], None]:
        request = json.dumps({"id": "r", "type": "request", "action": "echo", "payload": "x" * 900_000})
        clients.extend([await dial(broker.port) for _ in range(16)])  # all of them before it is too much
        for client in clients:
            client.socket.transport.pause_reading()
            for _ in range(12):
                await client.send(request)
        return end

    yield begin
    end()


async def test_short_of_memory_it_takes_nothing_new_and_ends_what_it_has(
    make_broker: Make, dial: Dial, hoard: Hoard
) -> None:
    broker = make_broker(
        agents={"echo": {"kind": "echo"}, "slow": {"kind": "echo", "delay": "60ms"}},
        limits={"outbox_bytes": "64MiB"},
        heartbeat={"interval": "60s", "timeout": "30s"},
        log={"level": "info", "format": "json"},
    )
    broker.start()
    limit = resident(broker) + 48
    broker.end()
    broker.settings["limits"]["memory"] = f"{limit}MiB"
    broker.start()
    client = await dial(broker.port)
    await client.do("session.create", session_id="s", agent="slow")
    await client.do("session.create", session_id="asleep")
    await client.do("turn.start", session_id="s", client_msg_id="1", content="a word after a word " * 12)

    end = await hoard(broker)
    assert await ready(broker, 503) == "The broker is short of memory."
    for action, payload in (
        ("session.create", {}),
        ("turn.start", {"session_id": "s", "client_msg_id": "2", "content": "x"}),
        ("room.join", {"room": "r"}),
        ("session.attach", {"session_id": "nowhere"}),
    ):
        refusal = await client.refused(action, **payload)
        assert (refusal["code"], refusal["retryable"]) == ("overloaded", True)
        assert refusal["retry_after"] > 0
    with pytest.raises(Exception, match="503"):
        await dial(broker.port)
    await client.do("ping")
    await client.do("session.attach", session_id="s", after_seq=-1)
    assert (await client.event("turn.ended"))["data"]["outcome"] == "completed"

    end()
    await ready(broker, 200)
    newcomer = await dial(broker.port)
    await newcomer.do("session.create")
    said = [json.loads(line)["message"] for line in broker.log.splitlines()]
    assert sum("memory is short" in text for text in said) == 1
    assert sum("there is memory again" in text for text in said) == 1


# -- mailboxes ---------------------------------------------------------------------------------------


async def test_a_flood_that_a_session_cannot_hold_is_refused_typed_and_it_goes_on(
    make_broker: Make, dial: Dial
) -> None:
    broker = make_broker(limits={"mailbox": 16})
    broker.start()
    client, other = await dial(broker.port), await dial(broker.port)
    await client.do("session.create", session_id="s")
    await client.leave()
    flood = [
        json.dumps({"id": str(i), "type": "request", "action": "session.update", "payload": update(i)})
        for i in range(1000)
    ]
    for text in flood:
        await other.send(text)
    answers = [await other.take(lambda message: "id" in message) for _ in flood]
    codes = Counter(answer["data"].get("code", "done") for answer in answers)
    assert set(codes) == {"done", "overloaded"}, codes
    assert all(answer["data"]["retry_after"] > 0 for answer in answers if answer["type"] == "error")
    head = (await other.do("session.update", session_id="s", title="at last"))["head"]
    assert head == 1 + codes["done"] + 1


def update(number: int) -> dict[str, Any]:
    return {"session_id": "s", "title": f"title {number}"}


# -- the store ---------------------------------------------------------------------------------------


async def test_a_disk_that_hangs_has_only_so_much_wait_for_it(make_broker: Make, dial: Dial) -> None:
    broker = make_broker()
    broker.start()
    client = await dial(broker.port)
    await client.do("session.create", session_id="s")
    await client.do("room.publish", room="r", data="first")
    before = resident(broker)
    with closing(sqlite3.connect(broker.folder / "broker.db", isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        for i in range(120):
            request = {"id": str(i), "type": "request", "action": "room.publish", "payload": big(i)}
            await client.send(json.dumps(request))
        refused = await client.take(lambda message: message["type"] == "error")
        assert (refused["data"]["code"], refused["data"]["message"]) == ("overloaded", "The store is behind.")
        assert await ready(broker, 503) == "The store is behind."
        refusal = await client.refused("turn.start", session_id="s", client_msg_id="1", content="hi")
        assert refusal["code"] == "overloaded"
        await client.do("ping")
        assert resident(broker) - before < 64 + 64
        lock.execute("COMMIT")
    await client.take(lambda message: message.get("id") == "0" and message["type"] == "response")
    await ready(broker, 200)
    await client.do("turn.start", session_id="s", client_msg_id="1", content="hi")


def big(number: int) -> dict[str, Any]:
    return {"room": "r", "data": f"{number}" + "x" * 900_000}
