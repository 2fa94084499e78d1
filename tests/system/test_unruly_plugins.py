"""A plugin that does its worst, in a broker of its own: it may not end it, open a gate, or keep it from stopping."""

import time
from collections.abc import Awaitable, Callable
from signal import SIGTERM
from typing import Any
from urllib.error import HTTPError

import pytest

Make = Callable[..., Any]
Dial = Callable[..., Awaitable[Any]]

WILD = '''
import asyncio
import threading

from broker.hooks import Plugin, Principal, Route


class Wild(Plugin):
    """Exits wherever it is asked to."""

    def on_message(self, message):
        if message.action == "get_connections":
            raise SystemExit(1)

    async def on_permission(self, check):
        if check.operation == "room.presence":
            raise SystemExit(2)

    def connected(self, peer):
        raise KeyboardInterrupt

    async def disconnected(self, peer, code):
        raise SystemExit(3)

    def actions(self):
        return {"leave": self.leave, "leave.later": self.leave_later, "spawn": self.spawn, "cling": self.cling}

    def leave(self, peer, payload):
        raise SystemExit(4)

    async def leave_later(self, peer, payload):
        raise KeyboardInterrupt

    def spawn(self, peer, payload):
        self.broker.spawn(self.leave_later(peer, payload), name="one that leaves")

    def cling(self, peer, payload):
        for _ in range(3):
            self.broker.spawn(self.hold_on(), name="one that holds on")
        self.broker.spawn(asyncio.to_thread(threading.Event().wait), name="a thread that waits for ever")

    async def hold_on(self):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    def routes(self):
        return [Route("GET", "/wild", self.show), Route("GET", "/none", self.nothing)]

    async def show(self, request):
        raise SystemExit(5)

    async def nothing(self, request):
        return None
'''


@pytest.fixture
def broker(make_broker: Make) -> Any:
    """A broker with that plugin."""
    broker = make_broker(plugins={"wild": {}})
    (broker.folder / "plugins").mkdir(mode=0o755)
    (broker.folder / "plugins" / "wild.py").write_text(WILD)
    broker.start()
    return broker


async def test_nothing_that_a_plugin_raises_ends_the_broker_or_opens_a_gate(broker: Any, dial: Dial) -> None:
    client, other = await dial(broker.port), await dial(broker.port)
    await other.leave()
    for action in ("get_connections", "leave", "leave.later"):
        assert (await client.refused(action))["code"] == "internal", action
    assert (await client.refused("room.presence", room="r"))["code"] == "internal"
    for path in ("/wild", "/none"):
        with pytest.raises(HTTPError) as refused:
            broker.get(path)
        with refused.value as answer:
            assert answer.code == 500
    assert await client.do("echo", text="hi") == {"text": "hi"}
    for where in ("on_message", "on_permission", "connected", "action leave", "action leave.later", "route GET /wild"):
        assert f"plugin wild failed in {where}" in broker.log
    assert await client.ask("spawn")
    assert await client.do("echo", text="still there") == {"text": "still there"}
    await client.leave()
    assert broker.end() == 0
    assert "task failed: one that leaves" in broker.log


async def test_what_a_plugin_would_not_end_does_not_keep_the_broker_from_stopping(broker: Any, dial: Dial) -> None:
    client = await dial(broker.port)
    await client.do("cling")
    await client.leave()
    begun = time.monotonic()
    assert broker.end(SIGTERM) == 0
    assert time.monotonic() - begun < 8
    assert "something of a plugin would not end" in broker.log
