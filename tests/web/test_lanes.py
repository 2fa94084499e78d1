"""What one client asks about one thing is done in its order, also while a gate has to be waited for."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.app import App
from broker.web.lanes import Lanes

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]

GATES = '''
import asyncio

from broker.errors import BrokerError
from broker.hooks import Content, Inbound, Permission, Plugin


class Gates(Plugin):
    """Has to think about what is done to some things, until it is told to go on."""

    def __init__(self, settings, broker):
        super().__init__(settings, broker)
        self.go_on = asyncio.Event()
        self.seen = []

    def actions(self):
        return {"go": self._go, "seen": self._seen}

    def _go(self, peer, payload):
        self.go_on.set()

    def _seen(self, peer, payload):
        return self.seen

    def on_message(self, message: Inbound):
        self.seen.append([message.action, message.kind, message.derived])
        return self._wait() if message.action == "whoa" and not self.go_on.is_set() else None

    def on_permission(self, check: Permission):
        if check.operation in {"session.attach", "session.create"} and check.resource == "private":
            raise BrokerError("forbidden")
        if check.operation == "session.create" and check.resource == "existing":
            raise BrokerError("forbidden")
        slow = check.operation in {"room.join", "session.attach"} and str(check.resource).startswith("slow")
        return self._wait() if slow and not self.go_on.is_set() else None

    def on_content(self, content: Content):
        return self._wait() if content.resource == "words" and b"first" in content.data else None

    async def _wait(self) -> None:
        await self.go_on.wait()
'''


@pytest.fixture
def gates(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/gates.py").write_text(GATES)
    return {"plugins": {"gates": {}}}


async def send(client: Any, *messages: tuple[str, str, Any]) -> None:
    for request_id, action, payload in messages:
        message = {"id": request_id, "type": "request", "action": action, "payload": payload}
        await client.send(json.dumps(message))


async def answers(client: Any, *ids: str) -> list[str]:
    """Return the ids of these requests, none of them refused, in the order in which they were answered."""
    taken = [await client.take(lambda message: message.get("id") in ids) for _ in ids]
    assert [answer for answer in taken if answer["type"] != "response"] == []
    return [answer["id"] for answer in taken]


async def test_what_comes_later_about_the_same_room_waits(start: Start, dial: Dial, gates: dict[str, Any]) -> None:
    client = await dial((await start(**gates)).port)
    publish = [(f"p{n}", "room.publish", {"room": "slow", "data": n}) for n in range(5)]
    await send(client, ("join", "room.join", {"room": "slow"}), *publish)
    await send(client, ("other", "room.publish", {"room": "quick", "data": 0}), ("echo", "echo", {}))
    assert sorted(await answers(client, "other", "echo")) == ["echo", "other"]  # before what waits
    await send(client, ("go", "go", None))
    ids = ["join", *(f"p{n}" for n in range(5))]
    assert await answers(client, *ids) == ids
    assert [(await client.event("room.event"))["data"]["data"] for _ in range(5)] == list(range(5))


async def test_what_a_content_gate_thinks_about_is_said_first(start: Start, dial: Dial, gates: dict[str, Any]) -> None:
    client = await dial((await start(**gates)).port)
    await client.do("room.join", room="words")
    await send(
        client,
        ("a", "room.publish", {"room": "words", "data": "first"}),
        ("b", "room.publish", {"room": "words", "data": "second"}),
        ("go", "go", None),
    )
    assert [(await client.event("room.event"))["data"]["data"] for _ in range(2)] == ["first", "second"]


async def test_a_session_that_is_being_made_is_made_before_its_first_turn(
    start: Start, dial: Dial, gates: dict[str, Any]
) -> None:
    client = await dial((await start(**gates)).port)
    turn = {"session_id": "slow-one", "client_msg_id": "m", "content": "hi"}
    await send(client, ("c", "session.create", {"session_id": "slow-one"}))
    await send(client, ("t", "turn.start", turn), ("go", "go", None))
    assert await answers(client, "c", "t") == ["c", "t"]
    assert (await client.records("turn.ended"))[-1]["data"]["outcome"] == "completed"


async def test_too_many_that_wait_are_refused_and_those_that_wait_go_on(
    start: Start, dial: Dial, gates: dict[str, Any]
) -> None:
    app = await start(**gates)
    client, other = await dial(app.port), await dial(app.port)
    ids = [f"p{n}" for n in range(100)]
    await send(client, ("join", "room.join", {"room": "slow"}))
    await send(client, *((each, "room.publish", {"room": "slow", "data": each}) for each in ids))
    refused = [await client.take(lambda message: message["type"] == "error") for _ in range(37)]
    assert {error["data"]["code"] for error in refused} == {"overloaded"}
    await other.do("go")
    assert await answers(client, *ids[:63]) == ids[:63]


async def test_who_leaves_while_it_waits_leaves_nothing_behind(start: Start, dial: Dial, gates: dict[str, Any]) -> None:
    app = await start(**gates)
    client, other = await dial(app.port), await dial(app.port)
    await send(client, ("join", "room.join", {"room": "slow"}), ("p", "room.publish", {"room": "slow", "data": 1}))
    await client.do("echo")
    client.drop()
    await other.do("go")
    assert (await other.do("room.join", room="slow"))["members"][-1]["user"] is None
    async with asyncio.timeout(20):
        while len((await other.do("room.presence", room="slow"))["members"]) > 1:
            continue


async def test_opening_a_session_takes_the_right_to_attach(start: Start, dial: Dial, gates: dict[str, Any]) -> None:
    client = await dial((await start(**gates)).port)
    assert (await client.refused("session.open", session_id="private"))["code"] == "forbidden"
    assert (await client.refused("session.open", session_id="existing"))["code"] == "not_found"  # nor may it be made


async def test_all_gates_see_what_a_format_asks_for_by_itself(start: Start, dial: Dial, gates: dict[str, Any]) -> None:
    app = await start(**gates)
    native = await dial(app.port)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{app.port}/ws/chat.v1.json") as chat,
    ):
        await chat.send_json({"messageId": "m", "sessionId": "s", "role": "user", "content": "hi"})
        async with asyncio.timeout(20):
            while (await chat.receive_json())["role"] != "assistant":
                continue
    seen = {(action, derived) for action, _, derived in (await native.ask("seen"))["data"]}
    assert {("turn.start", False), ("session.open", True)} <= seen


async def test_a_gate_for_messages_that_waits_keeps_the_order_too(
    start: Start, dial: Dial, gates: dict[str, Any]
) -> None:
    app = await start(**gates)
    client, other = await dial(app.port), await dial(app.port)
    ids = [f"ping{n}" for n in range(5)]
    await send(client, ("whoa", "whoa", {}), *((each, "ping", {}) for each in ids))
    await other.do("go")
    assert (await client.take(lambda message: message.get("id") == "whoa"))["data"]["code"] == "unknown_action"
    assert await answers(client, *ids) == ids


def test_one_that_holds_again_keeps_the_rest_waiting() -> None:
    lanes, done = Lanes(), list[str]()

    def hold() -> None:
        done.append("holds")
        lanes.hold("x")

    assert not lanes.busy("x")
    lanes.hold("x")
    lanes.queue("x", hold)
    lanes.queue("x", lambda: done.append("last"))
    assert (lanes.busy("x"), lanes.busy("y")) == (True, False)
    lanes.release("x")
    assert done == ["holds"]
    lanes.release("x")
    assert done == ["holds", "last"]
    assert not lanes.busy("x")
