"""A client of the first design (seed 000): requests with an action, responses, errors and notifications."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

YAML = """
store: {url: "memory:"}
limits: {message_bytes: 16MiB, outbox_bytes: 64MiB}
heartbeat: {interval: 30s}
log: {level: debug, format: json}
plugins: {faulty: {}}
"""
FAULTY = """
from broker.hooks import Plugin


class Faulty(Plugin):
    '''Brings an action with a bug in it.'''

    def actions(self):
        return {"stumble": self._stumble}

    def _stumble(self, peer, payload):
        raise LookupError("the secret cause")
"""
MIB = 1 << 20


@pytest.fixture(scope="module")
def broker(broker_process: Any) -> Any:
    process = broker_process(YAML, {"plugins/faulty.py": FAULTY})
    process.faulty = "plugin faulty failed"
    return process


def request(action: str, payload: Any = None, **more: Any) -> dict[str, Any]:
    """Return a message as the design has it."""
    return {"id": str(uuid4()), "type": "request", "action": action, "payload": payload or {}, **more}


async def ask(client: Any, message: dict[str, Any]) -> Any:
    """Send a request, and return what is answered under its id."""
    await client.send(message)
    return await client.take(lambda answer: answer.get("id") == message["id"])


async def enter(connect: Any, broker: Any) -> tuple[Any, dict[str, Any]]:
    """Connect as this design's client does, and return what it is welcomed with."""
    client = await connect(broker.url)
    return client, await client.take()


def logged(broker: Any, text: str, welcome: dict[str, Any]) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether the broker has logged this of a connection."""

    async def is_there() -> bool:
        connection_id = welcome["data"]["connection_id"]
        return any(text in line and connection_id in line for line in broker.log.splitlines())

    return is_there


# -- a connection's life ---------------------------------------------------------------------------


async def test_a_new_connection_is_welcomed_with_its_own_id(connect: Any, broker: Any) -> None:
    welcomes = [(await enter(connect, broker))[1] for _ in range(2)]
    assert [welcome["type"] for welcome in welcomes] == ["notification"] * 2
    ids = [welcome["data"]["connection_id"] for welcome in welcomes]
    assert len(set(ids)) == 2
    assert all(isinstance(each, str) and each for each in ids)


async def test_a_connection_that_ends_is_no_longer_counted(connect: Any, broker: Any, eventually: Any) -> None:
    async def count() -> int:
        return int((await ask(stays, request("get_connections")))["data"]["count"])

    stays, _ = await enter(connect, broker)
    before = await count()
    leaves, _ = await enter(connect, broker)
    vanishes, _ = await enter(connect, broker)
    assert await count() == before + 2
    await leaves.leave()
    vanishes.drop()

    async def are_gone() -> bool:
        return await count() == before

    await eventually(are_gone)


async def test_both_ends_may_speak_at_any_time(connect: Any, broker: Any) -> None:
    client, _ = await enter(connect, broker)
    other, _ = await enter(connect, broker)
    messages = [request("echo", {"n": n}) for n in range(50)]
    for message in messages:
        await client.send(message)
        await other.send(request("broadcast", {"from the other": True}))
    answers = await client.taking(50, lambda answer: answer["type"] == "response")
    assert [answer["id"] for answer in answers] == [message["id"] for message in messages]
    told = await client.taking(50, lambda answer: answer["type"] == "notification")
    assert all(each["data"] == {"from the other": True} for each in told)


# -- the operations --------------------------------------------------------------------------------


async def test_echo_answers_what_it_was_sent(connect: Any, broker: Any) -> None:
    client, _ = await enter(connect, broker)
    message = request("echo", {"text": "你好", "n": [1, 2.5, None, {"deep": True}]})
    assert await ask(client, message) == {"id": message["id"], "type": "response", "data": message["payload"]}


async def test_broadcast_reaches_every_connection(connect: Any, broker: Any) -> None:
    clients = [(await enter(connect, broker))[0] for _ in range(5)]
    payload = {"note": str(uuid4())}
    answer = await ask(clients[0], request("broadcast", payload))
    assert (answer["type"], answer["data"]["delivered"]) == ("response", 5)
    for client in clients:
        told = await client.take(lambda message: message.get("data") == payload)
        assert (told["type"], "id" in told) == ("notification", False)


async def test_get_connections_counts_them(connect: Any, broker: Any) -> None:
    clients = [(await enter(connect, broker))[0] for _ in range(3)]
    assert (await ask(clients[0], request("get_connections")))["data"]["count"] == 3


async def test_one_connection_and_several_can_be_sent_to(connect: Any, broker: Any) -> None:
    one, two, three = [await enter(connect, broker) for _ in range(3)]
    ids = [welcome["data"]["connection_id"] for _, welcome in (two, three)]
    answer = await ask(one[0], request("send", {"to": {"connections": ids[:1]}, "data": "for one"}))
    assert answer["data"]["delivered"] == 1
    await ask(one[0], request("send", {"to": {"connections": ids}, "data": "for both"}))
    assert [m["data"] for m in await two[0].taking(2)] == ["for one", "for both"]
    assert (await three[0].take())["data"] == "for both"


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rubbish", ["{", "", "no json", "[]", "1", '{"type":"request"}', '{"action":"echo"}'])
async def test_what_cannot_be_parsed_is_an_error_and_the_connection_stays(
    connect: Any, broker: Any, rubbish: str
) -> None:
    client, _ = await enter(connect, broker)
    await client.send(rubbish)
    error = await client.take()
    assert error["type"] == "error"
    assert error["data"]["code"] in {"invalid_json", "invalid_message"}
    assert error["data"]["message"]
    assert (await ask(client, request("echo", {"still": "here"})))["data"] == {"still": "here"}


async def test_an_unknown_action_says_so_under_the_request_s_id(connect: Any, broker: Any) -> None:
    client, _ = await enter(connect, broker)
    message = request("teleport")
    error = await ask(client, message)
    assert (error["type"], error["id"]) == ("error", message["id"])
    assert "unknown action" in error["data"]["message"]
    assert (await ask(client, request("echo", {})))["type"] == "response"


async def test_an_internal_error_is_logged_in_full_and_told_in_general(connect: Any, broker: Any) -> None:
    client, _ = await enter(connect, broker)
    error = await ask(client, request("stumble"))
    assert (error["type"], error["data"]["code"]) == ("error", "internal")
    assert "secret" not in str(error)
    assert "the secret cause" in broker.log
    assert (await ask(client, request("echo", {})))["type"] == "response"


async def test_a_network_error_is_logged_and_disturbs_nobody(connect: Any, broker: Any, eventually: Any) -> None:
    client, _ = await enter(connect, broker)
    other, welcome = await enter(connect, broker)
    other.drop()
    await eventually(logged(broker, "disconnected with 1006", welcome))
    assert (await ask(client, request("echo", {})))["type"] == "response"


# -- size and number -------------------------------------------------------------------------------


async def test_a_message_may_have_16_mib_when_configured(connect: Any, broker: Any) -> None:
    client, _ = await enter(connect, broker)
    message = request("echo", {"text": "x" * (16 * MIB - 200)})
    assert (await ask(client, message))["data"] == message["payload"]
    await client.send("x" * (16 * MIB + 1))
    assert await client.closed() == 1009


async def test_more_than_a_hundred_connections_work_at_once(connect: Any, broker_process: Any) -> None:
    broker = broker_process('store: {url: "memory:"}')  # one of its own: a crowd's comings and goings fill its log
    clients = [client for client, _ in await asyncio.gather(*(enter(connect, broker) for _ in range(120)))]
    messages = [request("echo", {"n": n}) for n in range(len(clients))]
    answers = await asyncio.gather(*map(ask, clients, messages))
    assert [answer["data"] for answer in answers] == [message["payload"] for message in messages]
    payload = {"to": "all"}
    assert (await ask(clients[0], request("broadcast", payload)))["data"]["delivered"] == len(clients)
    told = await asyncio.gather(*(client.take(lambda message: message.get("data") == payload) for client in clients))
    assert len(told) == len(clients)


# -- what is around it -----------------------------------------------------------------------------


async def test_its_health_can_be_asked_for(http: Any, broker: Any) -> None:
    async with http.get(f"{broker.url}/health") as answer:
        health = await answer.json()
    assert (answer.status, health["status"]) == (200, "ok")


async def test_there_is_a_page_to_try_it_with(http: Any, broker: Any) -> None:
    async with http.get(f"{broker.url}/") as answer:
        page = await answer.text()
    assert (answer.status, answer.content_type) == (200, "text/html")
    assert "<script" in page


async def test_a_silent_client_is_pinged(connect: Any, broker_process: Any) -> None:
    beating = broker_process('{store: {url: "memory:"}, heartbeat: {interval: 50ms, timeout: 20ms}}')
    client = await connect(beating.url, autoping=False)
    await client.take()
    async with asyncio.timeout(20):
        frame = await client.socket.receive()
    assert frame.type.name == "PING"
    assert await client.closed() == 4000  # it was not answered


async def test_connections_messages_and_errors_are_logged(connect: Any, broker: Any, eventually: Any) -> None:
    client, welcome = await enter(connect, broker)
    await ask(client, request("stumble"))
    await client.leave()
    await eventually(logged(broker, "disconnected with 1000", welcome))
    assert await logged(broker, "connected from 127.0.0.1", welcome)()


def test_the_address_comes_from_the_environment(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("BROKER_")}
    with subprocess.Popen(
        [sys.executable, "-m", "broker"],
        cwd=tmp_path,
        env={**env, "WEBSOCKET_ADDR": "127.0.0.1:0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(30) == 0
    port = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert port
    assert port[1] != "3000"
