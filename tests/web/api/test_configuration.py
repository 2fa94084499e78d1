"""The settings in force, as they are told over HTTP: with their origins, and with no secret in any place."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from broker import config
from broker.app import App
from broker.embed import Broker
from broker.extensions.loader import load

Ask = Callable[..., Awaitable[Any]]

SPICED = """
import attrs
from broker.config import Secret
from broker.hooks import Plugin

@attrs.frozen
class Shaker:
    salt: Secret

@attrs.frozen
class Settings:
    pepper: Secret
    shakers: list[Shaker] = attrs.Factory(list)
    by_name: dict[str, Secret] = attrs.Factory(dict)
    hidden: str = attrs.field(default="", metadata={"secret": True})
    plain: str = ""
    api_key: str = ""

class Spiced(Plugin):
    Settings = Settings

    def reload(self, settings):
        return True
"""
FILE = """
listen: {port: 0, max_connections: 77}
store: {url: "memory:"}
log:
  level: ${LEVEL:-info}
agents:
  echo: {kind: echo, delay: 5ms}
  claude: {kind: anthropic, model: m, api_key: S3CRET-1}
  dialled: {kind: websocket, url: "ws://127.0.0.1:9/", headers: {Authorization: "Bearer S3CRET-3"}}
  child: {kind: acp, command: [x], env: {PLAIN_NAME: S3CRET-4}}
plugins_dir: drops
plugins:
  spiced:
    pepper: S3CRET-5
    shakers: [{salt: S3CRET-6}]
    by_name: {one: S3CRET-7}
    hidden: S3CRET-8
    plain: !file word.txt
    api_key: S3CRET-9
"""
SECRETS = [f"S3CRET-{number}" for number in range(12)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "drops").mkdir()
    (tmp_path / "drops/spiced.py").write_text(SPICED)
    (tmp_path / "word.txt").write_text("S3CRET-0")
    path = tmp_path / "broker.yaml"
    path.write_text(FILE)
    return path


ENVIRON = {"LEVEL": "warning", "BROKER_AGENTS__CLAUDE__API_KEY": "S3CRET-10", "BROKER_LIMITS__MAILBOX": "900"}


def rewrite(file: Path) -> None:
    file.write_text(FILE.replace("delay: 5ms", "delay: 7ms").replace("S3CRET-5", "S3CRET-11").replace("77", "78"))


async def test_settings_are_told_with_their_origins_and_without_secrets(file: Path, ask: Ask) -> None:
    loaded = config.load(file, ENVIRON, {"listen.host": ("--host", "127.0.0.1")})
    app = App(loaded.settings, load(loaded.settings, file), loaded=loaded)
    await app.start()
    try:
        answer = await ask(app, "GET /configuration")
        plugins = await ask(app, "GET /plugins")
        found, told = answer.body, str(answer.body) + str(plugins.body)
        assert [secret for secret in SECRETS if secret in told] == []
        assert str(file.parent) not in str(answer.body)
        assert found["file"] == "broker.yaml"
        settings, origins = found["settings"], found["origins"]
        assert (settings["listen"]["max_connections"], origins["listen.max_connections"]) == (77, "broker.yaml:2")
        assert (settings["log"]["level"], origins["limits.mailbox"]) == ("warning", "BROKER_LIMITS__MAILBOX")
        assert (origins["listen.host"], origins["listen.origins"]) == ("--host", "default")
        assert settings["agents"]["echo"]["delay"] == "5ms"
        assert settings["agents"]["claude"]["api_key"] == "********"
        assert settings["plugins"]["spiced"]["pepper"] == "********"
        assert settings["plugins"]["spiced"]["shakers"] == [{"salt": "********"}]
        assert origins["plugins.spiced.pepper"] == "broker.yaml:14"

        rewrite(file)
        again = config.load(file, {}, {})
        waiting = app.reload(again.settings, again.origins)
        found = (await ask(app, "GET /configuration")).body
        assert [secret for secret in SECRETS if secret in str(found)] == []
        assert found["settings"]["listen"]["max_connections"] == 78
        assert found["settings"]["agents"]["echo"]["delay"] == "5ms"  # the one in force
        assert waiting == found["waiting"] == ["limits.mailbox", "agents.echo", "agents.claude"]
        assert (found["settings"]["limits"]["mailbox"], found["origins"]["limits.mailbox"]) == (
            900,
            "BROKER_LIMITS__MAILBOX",
        )
        assert (found["settings"]["log"]["level"], found["origins"]["listen.host"]) == ("info", "default")
    finally:
        await app.stop()


async def test_a_broker_within_an_application_has_no_file() -> None:
    app = web.Application()
    Broker({"store": {"url": "memory:"}, "limits": {"mailbox": 900}}).setup(app)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/broker/api/v1/configuration") as answer,
        ):
            found = await answer.json()
        assert (found["file"], found["settings"]["limits"]["mailbox"]) == (None, 900)
        assert found["origins"]["limits.mailbox"] != "default"
        assert found["origins"]["limits.message_bytes"] == "default"
    finally:
        await runner.cleanup()
