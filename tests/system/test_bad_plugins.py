"""Plugins that block, raise, dawdle and leak, in a real broker: they are named, and cost the others nothing."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

Dial = Callable[..., Awaitable[Any]]
PATIENCE = 20.0

LAZY = '''
import time
from pathlib import Path

from broker.hooks import Plugin


class Lazy(Plugin):
    """Holds up the loop until a file is there, in two ways."""

    def actions(self):
        return {"nap": self.nap, "spin": self.spin}

    def nap(self, peer, payload):
        while not Path(payload).exists():
            time.sleep(0.01)

    def spin(self, peer, payload):
        over = Path(payload)
        while not over.exists():
            sum(range(1000))
'''
PATIENT = '''
import asyncio
from pathlib import Path

from broker.hooks import Plugin


class Patient(Plugin):
    """Waits for a file as one should, in an action and in a gate."""

    def actions(self):
        return {"wait": self.wait, "slowly": lambda peer, payload: "done"}

    async def wait(self, peer, payload):
        while not Path(payload).exists():
            await asyncio.sleep(0.01)

    async def on_message(self, message):
        if message.action == "slowly":
            await self.wait(message.peer, "over")
'''
RAISING = '''
from broker.hooks import Plugin


class Raising(Plugin):
    """Breaks wherever it is told something."""

    def connected(self, peer):
        raise RuntimeError("connected")

    async def committed(self, log, records):
        raise RuntimeError("committed")

    def turn_ended(self, turn):
        raise RuntimeError("turn_ended")
'''
LEAKING = '''
import asyncio

from broker.hooks import Plugin


class Leaking(Plugin):
    """Starts what it never ends."""

    def actions(self):
        return {"leak": self.leak}

    def leak(self, peer, payload):
        for _ in range(payload):
            self.broker.spawn(asyncio.sleep(3600), name="leak")
'''


@pytest.fixture
def broker(make_broker: Callable[..., Any]) -> Any:
    """A broker with the four of them, and metrics."""
    broker = make_broker(plugins={name: {} for name in ("lazy", "patient", "raising", "leaking", "metrics")})
    folder = broker.folder / "plugins"
    folder.mkdir(mode=0o755)
    for name, text in (("lazy", LAZY), ("patient", PATIENT), ("raising", RAISING), ("leaking", LEAKING)):
        (folder / f"{name}.py").write_text(text)
        (folder / f"{name}.py").chmod(0o644)
    broker.start()
    return broker


async def logged(broker: Any, words: str) -> str:
    """Return the first line of the broker's log with these words, once it is there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for line in broker.log.splitlines():
                if words in line:
                    return str(line)
            await asyncio.sleep(0.01)


def touch(path: Path) -> None:
    path.touch()


def metric(broker: Any, series: str) -> float:
    with urlopen(f"{broker.url}metrics", timeout=PATIENCE) as answer:
        found = re.search(rf"^{re.escape(series)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("action", ["nap", "spin"])
async def test_a_plugin_that_blocks_is_named_while_it_does_and_who_waits_beside_it_is_not(
    action: str, broker: Any, dial: Dial
) -> None:
    """The block ends only after it was named."""
    over: Path = broker.folder / "over"
    waiting, blocking = await dial(broker.port), await dial(broker.port)
    wait = asyncio.ensure_future(waiting.ask("wait", str(over)))
    await blocking.do("ping")
    block = asyncio.ensure_future(blocking.ask(action, str(over)))
    line = await logged(broker, "blocks the event loop")
    assert re.search(r"plugin lazy blocks the event loop for \d\.\d s so far: ", line), line
    assert re.search(rf"plugins/lazy\.py:\d+ {action}\b", line), line
    assert not block.done()
    touch(over)
    assert (await block)["type"] == (await wait)["type"] == "response"
    await logged(broker, "the event loop goes on: plugin lazy had blocked it for ")
    assert metric(broker, 'broker_loop_blocked_total{plugin="lazy"}') == 1
    assert metric(broker, 'broker_loop_blocked_total{plugin="patient"}') == 0
    assert "plugin patient" not in broker.log


async def test_a_plugin_that_takes_its_time_holds_up_only_who_asked_it(broker: Any, dial: Dial) -> None:
    slow, other = await dial(broker.port), await dial(broker.port)
    asked = asyncio.ensure_future(slow.ask("slowly"))
    for number in range(50):
        assert await other.do("echo", number=number) == {"number": number}
    assert not asked.done()
    touch(broker.folder / "over")
    assert (await asked)["data"] == "done"
    assert metric(broker, 'broker_loop_blocked_total{plugin="patient"}') == 0


async def test_a_plugin_that_raises_wherever_it_can_is_counted_and_not_felt(broker: Any, dial: Dial) -> None:
    client = await dial(broker.port)
    await client.do("session.create", session_id="s1")
    await client.do("turn.start", session_id="s1", client_msg_id="1", content="a b")
    assert (await client.event("turn.ended"))["data"]["outcome"] == "completed"
    for hook in ("connected", "committed", "turn_ended"):
        await logged(broker, f"plugin raising failed in {hook}")
    assert metric(broker, 'broker_plugin_errors_total{plugin="raising"}') >= 3
    assert metric(broker, 'broker_plugin_errors_total{plugin="patient"}') == 0


async def test_a_plugin_that_leaks_tasks_gets_no_more_than_a_thousand(broker: Any, dial: Dial) -> None:
    client, other = await dial(broker.port), await dial(broker.port)
    assert (await client.ask("leak", 1000))["type"] == "response"
    answer = await client.ask("leak", 1000)
    assert (answer["data"]["code"], answer["data"]["retry_after"]) == ("overloaded", 1.0)
    assert await other.do("echo", still="there") == {"still": "there"}
    assert "a plugin has 1000 tasks like 'leak' under way" in broker.log
    await asyncio.gather(client.leave(), other.leave())
    assert broker.end() == 0
