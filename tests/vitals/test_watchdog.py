"""What blocks the loop is named while it still blocks, and nobody is blamed who only waits."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from loguru import logger

from broker.testing import until
from broker.vitals.watchdog import Watchdog

LONG = 10.0
"""Seconds after which a block that was not named gives up."""


class Lines(list[str]):
    """What was logged; `blocked` is set at the first line that names a block."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked = threading.Event()

    def write(self, message: Any) -> None:
        """Take a line, in whatever thread."""
        self.append(message.record["message"])
        if "blocks the event loop" in self[-1]:
            self.blocked.set()


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    sink = logger.add(lines.write, level="DEBUG")
    yield lines
    logger.remove(sink)


@pytest.fixture
def blocked() -> Counter[str]:
    return Counter()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it bark sooner than it would."""
    for name, seconds in (("EVERY", 0.01), ("LATE", 0.1), ("BETWEEN", 0.01)):
        monkeypatch.setattr(f"broker.vitals.watchdog.{name}", seconds)


@pytest.fixture
async def watchdog(hasty: None, blocked: Counter[str], lines: Lines) -> AsyncIterator[Watchdog]:
    watchdog = Watchdog({"acme.chat.shout": "shout", "lonely": "lonely"}, blocked)
    watchdog.start()
    yield watchdog
    await watchdog.stop()


def code_of(module: str, source: str) -> dict[str, Any]:
    """Return what a module of this name and source defines."""
    names: dict[str, Any] = {"__name__": module}
    exec(compile(source, f"/plugins/{module}.py", "exec"), names)
    return names


WAIT = "def block(named):\n    return named.wait(10)\n"
SPIN = "def block(named):\n    while not named.is_set():\n        pass\n    return True\n"
WITHIN = "def block(named):\n    return sorted([1], key=lambda _: named.wait(10)) == [1] and named.is_set()\n"


@pytest.mark.parametrize(
    ("module", "plugin", "source"),
    [
        ("broker_plugin_lazy", "lazy", WAIT),
        ("broker_plugin_lazy", "lazy", SPIN),
        ("broker_plugin_lazy", "lazy", WITHIN),
        ("broker_plugin_lazy.inner.part", "lazy", WAIT),
        ("acme.chat.shout", "shout", WAIT),
        ("acme.chat.parts.deep", "shout", WAIT),
        ("lonely", "lonely", WAIT),
    ],
)
async def test_a_plugin_that_blocks_is_named_while_it_does_and_counted_once(
    module: str, plugin: str, source: str, watchdog: Watchdog, lines: Lines, blocked: Counter[str]
) -> None:
    assert code_of(module, source)["block"](lines.blocked), "it was not named while it blocked"
    assert lines[0].startswith(f"plugin {plugin} blocks the event loop for 0.")
    assert f" so far: /plugins/{module}.py:" in lines[0]
    assert not blocked
    await until(lambda: any("goes on" in line for line in lines))
    assert blocked == {plugin: 1}
    assert lines[-1].startswith(f"the event loop goes on: plugin {plugin} had blocked it for ")


async def test_the_innermost_plugin_is_the_one_that_blocks(watchdog: Watchdog, lines: Lines) -> None:
    inner = code_of("broker_plugin_inner", WAIT)["block"]
    outer = code_of("broker_plugin_outer", "def block(inner, named):\n    return inner(named)\n")["block"]
    assert outer(inner, lines.blocked)
    assert lines[0].startswith("plugin inner blocks")


async def test_what_no_plugin_does_is_our_own_and_one_that_only_waits_is_not_blamed(
    watchdog: Watchdog, lines: Lines, blocked: Counter[str]
) -> None:
    wait = code_of("broker_plugin_waiting", "async def wait(event):\n    await event.wait()\n")["wait"]
    over = asyncio.Event()
    waiting = asyncio.ensure_future(wait(over))
    await asyncio.sleep(0)
    assert lines.blocked.wait(LONG)
    assert lines[0].startswith("broker blocks the event loop")
    await until(lambda: blocked == {"broker": 1})
    over.set()
    await waiting


async def test_the_stack_is_there_for_those_who_look_closer(watchdog: Watchdog, lines: Lines) -> None:
    assert code_of("broker_plugin_lazy", WAIT)["block"](lines.blocked)
    await until(lambda: any("goes on" in line for line in lines))
    assert "in block" in lines[1]
    assert "test_watchdog.py" in lines[1]


async def test_a_loop_that_is_busy_and_goes_round_is_left_alone(
    watchdog: Watchdog, lines: Lines, blocked: Counter[str]
) -> None:
    over = time.monotonic() + 0.3
    await until(lambda: time.monotonic() > over)
    assert (list(lines), dict(blocked)) == ([], {})


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "watchdog"]


async def test_a_block_of_three_quarters_of_a_second_is_seen(lines: Lines) -> None:
    """With the times that it has in the field."""
    watchdog = Watchdog({}, Counter())
    watchdog.start()
    began = time.monotonic()
    assert code_of("broker_plugin_lazy", WAIT)["block"](lines.blocked)
    assert time.monotonic() - began < 2.0  # 0.75 on a machine that has nothing else to do
    await watchdog.stop()


async def test_no_thread_is_left_behind(blocked: Counter[str]) -> None:
    before = watchers()
    watchdog = Watchdog({}, blocked)
    watchdog.start()
    assert len(watchers()) == len(before) + 1
    await watchdog.stop()
    assert watchers() == before


def test_a_loop_that_was_closed_under_it_ends_the_thread(blocked: Counter[str]) -> None:
    watchdog = Watchdog({}, blocked)

    async def start() -> None:
        watchdog.start()

    asyncio.run(start())
    (thread,) = watchers()
    thread.join(LONG)
    assert not thread.is_alive()


async def test_a_block_that_goes_on_is_told_again(
    monkeypatch: pytest.MonkeyPatch, watchdog: Watchdog, lines: Lines, blocked: Counter[str]
) -> None:
    monkeypatch.setattr("broker.vitals.watchdog.AGAIN", 0.05)
    again = threading.Event()
    sink = logger.add(lambda line: again.set() if "still blocks" in str(line) else None)
    assert code_of("broker_plugin_lazy", WAIT)["block"](again)
    logger.remove(sink)
    await until(lambda: blocked == {"lazy": 1})


async def test_a_block_inside_a_log_line_is_told_when_the_log_is_free_again(
    watchdog: Watchdog, lines: Lines, blocked: Counter[str]
) -> None:
    """Loguru lets one thread write at a time: whoever blocks in there holds up the watchdog's line, not for ever."""
    log = code_of("broker_plugin_chatty", "def block(logger):\n    logger.info('stuck')\n")["block"]
    stuck = threading.Event()
    sink = logger.add(lambda _: stuck.wait(0.3), filter=lambda record: record["message"] == "stuck")
    log(logger)
    logger.remove(sink)
    await until(lambda: blocked == {"chatty": 1})
    await until(lambda: any("goes on" in line for line in lines))
    assert [line for line in lines if line.startswith("plugin chatty blocks the event loop")]
