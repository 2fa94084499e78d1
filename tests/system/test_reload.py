"""SIGHUP, in a broker of its own: settings of plugins change while it runs, and never by a broken file."""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from signal import SIGHUP
from typing import Any
from urllib.error import HTTPError

import pytest

Make = Callable[..., Any]
Dial = Callable[..., Awaitable[Any]]

GUARD = '''
import attrs
from aiohttp import web

from broker.errors import BrokerError
from broker.hooks import Count, Handshake, Plugin, Principal, Route, Secret


class Guard(Plugin):
    """Knows people by a key, and lets them say so much."""

    @attrs.frozen
    class Settings:
        longest: Count = 100
        key: Secret = Secret("")
        sick: bool = False
        mode: str = "kind"

        def __attrs_post_init__(self):
            if self.mode not in ("kind", "stubborn", "wild"):
                raise ValueError("mode must be kind, stubborn or wild")

    def reload(self, settings):
        if settings.mode == "wild":
            raise RuntimeError("I will not")
        return settings.mode == "kind"

    def trouble(self):
        return "it is sick" if self.settings.sick else None

    def on_handshake(self, handshake: Handshake):
        if handshake.query.get("key") == self.settings.key.reveal():
            return Principal("ann")
        return Principal("stranger")

    def on_message(self, message):
        if message.size > self.settings.longest:
            raise BrokerError("too_large")
'''


def hears(broker: Any, words: str, times: int = 1) -> None:
    """Wait until the broker has logged these words so often."""
    deadline = time.monotonic() + 20
    while broker.log.count(words) < times:
        assert time.monotonic() < deadline, broker.log
        broker.get("/livez")


@pytest.fixture
def broker(make_broker: Make) -> Any:
    """A broker that is guarded by a drop-in, and has started; `tell` gives it other settings for that."""
    broker = make_broker(log={"level": "info"})
    (broker.folder / "plugins").mkdir(mode=0o755)
    (broker.folder / "plugins" / "guard.py").write_text(GUARD)
    (broker.folder / "key").write_text("first")
    tell(broker, "{key: !file key}")
    with pytest.MonkeyPatch.context() as patch:  # JSON has no tags, and the test is about one
        patch.setattr(type(broker), "write", lambda self: None)
        broker.start()
    return broker


def tell(broker: Any, guard: str, more: str = "") -> None:
    """Write a configuration with these settings of the guard."""
    text = f"log: {{level: info}}\nplugins:\n  guard: {guard}\n{more}"
    Path(broker.folder, "config.yaml").write_text(text)


async def test_a_drop_in_s_setting_changes_for_those_who_are_connected(broker: Any, dial: Dial) -> None:
    client = await dial(broker.port)
    assert (await client.refused("echo", text="x" * 100))["code"] == "too_large"
    tell(broker, "{key: !file key, longest: 500}")
    broker.signal(SIGHUP)
    hears(broker, "the configuration was reloaded")
    hears(broker, "plugin guard took over its new settings")
    assert await client.do("echo", text="x" * 100) == {"text": "x" * 100}


async def test_a_key_is_rotated_by_its_file_alone(broker: Any, dial: Dial) -> None:
    assert (await dial(broker.port, "?key=first")).welcome["user"] == "ann"
    (broker.folder / "key").write_text("second")
    broker.signal(SIGHUP)
    hears(broker, "plugin guard took over its new settings")
    assert (await dial(broker.port, "?key=first")).welcome["user"] == "stranger"
    assert (await dial(broker.port, "?key=second")).welcome["user"] == "ann"
    assert not any(key in broker.log for key in ("first", "second"))


@pytest.mark.parametrize(
    ("guard", "more", "mistake"),
    [
        ("{key: !file key, longest: 0}", "", "plugins.guard.longest: expected a whole number of at least 1"),
        ("{key: !file nowhere, longest: 500}", "", "the file nowhere cannot be read"),
        ("{key: !file key, longest: 500}", "rooms: {histroy: 7}", "did you mean 'history'?"),
        ("{key: !file key, longest: 500}", "  mystery: {}", "plugins.mystery: not found"),
        ("{key: !file key, longest: 500, mode: odd}", "", "mode must be kind, stubborn or wild"),
        ("{key: !file key, longest: 500}}", "", "config.yaml:3:"),
    ],
)
async def test_a_mistake_anywhere_keeps_everything_as_it_was(
    guard: str, more: str, mistake: str, broker: Any, dial: Dial
) -> None:
    client = await dial(broker.port)
    tell(broker, guard, more)
    broker.signal(SIGHUP)
    hears(broker, "was not reloaded, the old one stays in force")
    assert mistake in broker.log
    assert (await client.refused("echo", text="x" * 100))["code"] == "too_large"
    tell(broker, "{key: !file key, longest: 500}")
    broker.signal(SIGHUP)
    hears(broker, "plugin guard took over its new settings")
    assert await client.do("echo", text="x" * 100) == {"text": "x" * 100}


async def test_a_plugin_that_would_rather_not_is_named_and_the_rest_is_taken(broker: Any, dial: Dial) -> None:
    client = await dial(broker.port)
    for mode, times in [("stubborn", 1), ("wild", 2)]:
        tell(broker, f"{{key: !file key, longest: 500, mode: {mode}}}", "listen: {origins: ['https://a.example']}")
        broker.signal(SIGHUP)
        hears(broker, "a restart is needed for: plugins.guard", times)
    assert "plugin guard could not take over its settings, the old ones stay: RuntimeError: I will not" in broker.log
    assert (await client.refused("echo", text="x" * 100))["code"] == "too_large"
    assert (await dial(broker.port, origin="https://a.example")).welcome


async def test_readiness_names_the_plugin_that_is_in_trouble(broker: Any) -> None:
    assert broker.get("/readyz") == {"status": "ok"}
    tell(broker, "{key: !file key, sick: true}")
    broker.signal(SIGHUP)
    hears(broker, "plugin guard took over its new settings")
    with pytest.raises(HTTPError) as refused:
        broker.get("/readyz")
    with refused.value as answer:
        assert answer.code == 503
        assert b"plugin guard: it is sick" in answer.read()
    assert broker.get("/livez") == {"status": "ok"}


async def test_nobody_waits_for_the_configuration_to_be_read(broker: Any, dial: Dial) -> None:
    """A key that comes through a pipe: whoever opens its other end knows that the broker is reading."""
    key = broker.folder / "key"
    key.unlink()
    os.mkfifo(key)
    client = await dial(broker.port, "?key=first")
    broker.signal(SIGHUP)
    with key.open("w") as pipe:
        assert await client.do("echo", n=1) == {"n": 1}
        for _ in range(5):
            broker.signal(SIGHUP)
            broker.get("/livez")
        pipe.write("second")
    hears(broker, "the configuration was reloaded")
    with key.open("w") as pipe:  # what came meanwhile is read for, once
        pipe.write("third")
    hears(broker, "the configuration was reloaded", 2)
    assert (await dial(broker.port, "?key=third")).welcome["user"] == "ann"
    with pytest.raises(OSError, match="No such device"):  # nobody reads any more
        os.open(key, os.O_WRONLY | os.O_NONBLOCK)
