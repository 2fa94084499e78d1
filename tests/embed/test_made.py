"""What a broker of a program's own is made of: settings in each form, and plugins."""

import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from loguru import logger

from broker import Broker
from broker.app import CannotStart
from broker.config import ConfigErrors, Listen, Settings, Store
from broker.extensions.offers import PluginRefused
from broker.hooks import Peer, Plugin

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
PLUGINS = (ROOT / "docs/plugins.md").read_text()
MEMORY: dict[str, Any] = {"store": {"url": "memory:"}}

Dial = Callable[..., Awaitable[Any]]
Serve = Callable[..., Awaitable[Any]]


# -- settings -----------------------------------------------------------------------------------------


def from_dict(folder: Path) -> Broker:
    return Broker(MEMORY)


def from_settings(folder: Path) -> Broker:
    return Broker(Settings(store=Store(url="memory:")))


def from_file(folder: Path) -> Broker:
    (folder / "broker.yaml").write_text(json.dumps(MEMORY))
    return Broker(folder / "broker.yaml")


def from_the_name_of_a_file(folder: Path) -> Broker:
    (folder / "broker.yaml").write_text(json.dumps(MEMORY))
    return Broker(f"{folder}/broker.yaml")


@pytest.mark.parametrize("make", [from_dict, from_settings, from_file, from_the_name_of_a_file])
async def test_it_is_made_of_a_dict_of_settings_or_of_a_file(
    make: Callable[[Path], Broker], tmp_path: Path, serve: Serve, talk: Dial
) -> None:
    server = await serve(make(tmp_path))
    client = await talk(server)
    assert await client.do("echo", text="hi") == {"text": "hi"}


async def test_without_settings_everything_has_its_default_and_the_log_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.chdir(tmp_path)
    server = await serve(Broker())
    assert (await server.get("/broker/readyz"))[0] == 200
    assert (tmp_path / "broker.db").exists()


def test_all_mistakes_of_a_dict_are_told_at_once_each_with_its_setting() -> None:
    wrong: Any = {"listen": {"prot": 1}, "limits": {"handshake": "soon"}, "store": object(), 5: 1, "default_agent": "x"}
    with pytest.raises(ConfigErrors) as mistakes:
        Broker(wrong)
    assert {problem.path for problem in mistakes.value.problems} == {
        *("listen.prot", "limits.handshake", "store", "", "default_agent"),
    }
    assert "did you mean 'port'?" in str(mistakes.value)


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"plugins": {"rate_limit": {"messages": "many"}}}, "plugins.rate_limit.messages"),
        ({"plugins": {"nosuch": {}}}, "plugins.nosuch"),
        (Settings(listen=Listen(host="0.0.0.0")), "listen.host"),
        ("nosuch.yaml", ""),
    ],
)
def test_mistakes_about_plugins_rules_and_files_are_told_before_anything_starts(settings: Any, path: str) -> None:
    with pytest.raises(ConfigErrors) as mistakes:
        Broker(settings)
    assert [problem.path for problem in mistakes.value.problems] == [path]


def test_settings_without_an_end_are_refused() -> None:
    endless: dict[str, Any] = {}
    endless["agents"] = endless
    with pytest.raises(ConfigErrors, match="holds itself"):
        Broker(endless)


async def test_what_does_not_apply_is_said_once(serve: Serve) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    await serve(Broker({**MEMORY, "listen": {"port": 9}, "log": {"level": "debug"}}))
    logger.remove(sink)
    assert [line.partition(": ")[2].strip() for line in lines] == ["listen.port, log.level"]


def test_the_package_alone_imports_nothing_of_it() -> None:
    script = "import sys, broker; assert 'aiohttp' not in sys.modules; broker.Broker; assert 'aiohttp' in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=PATIENCE)


# -- plugins ------------------------------------------------------------------------------------------


@attrs.frozen
class Answers:
    answer: str = "coming"


class Doorbell(Plugin):
    """Registers what it has once it starts."""

    Settings = Answers
    settings: Answers

    async def start(self) -> None:
        self.broker.register_handler("ring", self.ring)
        self.broker.on("connection", self.greet)

    async def ring(self, message: dict[str, Any], context: Any) -> dict[str, Any]:
        if message["payload"].get("hard"):
            raise OSError("the bell is broken")
        return {"answer": self.settings.answer, "to": context.peer.connection_id}

    async def greet(self, peer: Peer) -> None:
        await self.broker.send(peer.connection_id, "hello")


async def test_plugins_come_as_classes_and_by_name_with_settings_as_always(serve: Serve, talk: Dial) -> None:
    settings = {**MEMORY, "plugins": {"doorbell": {"answer": "go away"}}}
    server = await serve(Broker(settings, plugins=[Doorbell, "metrics"]))
    client = await talk(server)
    assert (await client.event("message"))["data"] == "hello"
    assert (await client.do("ring"))["answer"] == "go away"
    assert "broker_connections" in (await server.get("/broker/metrics"))[1]


async def test_a_plugin_s_handler_that_fails_is_the_plugin_s_own_error(serve: Serve, talk: Dial) -> None:
    broker = Broker(MEMORY, plugins=[Doorbell])
    client = await talk(await serve(broker))
    assert (await client.refused("ring", hard=True))["code"] == "internal"
    assert broker.stats.plugin_errors == {"doorbell": 1}


def test_two_plugins_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="'doorbell'"):
        Broker(MEMORY, plugins=[Doorbell, "doorbell"])


def test_mistakes_in_the_settings_of_a_class_are_mistakes_like_any() -> None:
    with pytest.raises(ConfigErrors, match=r"plugins\.doorbell\.answr"):
        Broker({**MEMORY, "plugins": {"doorbell": {"answr": ""}}}, plugins=[Doorbell])


class Shout(Plugin):
    """Has an action by its class."""

    def actions(self) -> dict[str, Any]:
        return {"shout": lambda peer, payload: "plugin"}


async def test_a_handler_takes_the_place_of_a_plugin_s_action_only_if_it_says_so(serve: Serve, talk: Dial) -> None:
    clash = Broker(MEMORY, plugins=[Shout])
    clash.register_handler("shout", lambda message, context: "application")
    with pytest.raises(CannotStart, match="'application' and 'shout' both bring action 'shout'") as failure:
        await serve(clash)
    assert isinstance(failure.value.__cause__, PluginRefused)
    broker = Broker(MEMORY, plugins=[Shout])
    broker.register_handler("shout", lambda message, context: "application", replace=True)
    client = await talk(await serve(broker))
    assert (await client.ask("shout"))["data"] == "application"


# -- the pages -------------------------------------------------------------------------------------


def test_the_page_shows_the_example_as_it_is() -> None:
    page, example = (ROOT / name for name in ("docs/embedding.md", "examples/embedding.py"))
    assert f"```python\n{example.read_text()}```" in page.read_text()


async def test_the_doorbell_of_the_page_about_plugins_rings(serve: Serve, talk: Dial) -> None:
    (text,) = [text for text in re.findall(r"```python\n(.*?)```", PLUGINS, re.DOTALL) if "class Doorbell" in text]
    names: dict[str, Any] = {}
    exec(text, names)
    client = await talk(await serve(Broker(MEMORY, plugins=[names["Doorbell"]])))
    assert (await client.event("message"))["data"] == {"text": "hello"}
    answer = await client.ask("ring")
    assert answer["data"] == {"answer": "coming", "to": None}
    assert (await client.event("message"))["data"] == {"heard": answer["id"]}
