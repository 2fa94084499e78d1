"""The programs that the pages show for clients run, in Python and in JavaScript, and print what they are to."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession

from broker import config
from broker.app import App
from broker.client import connect, errors
from broker.config import Settings
from broker.errors import ERRORS
from broker.extensions.loader import load as load_plugins

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = (ROOT / "README.md").read_text()
CLIENTS: Final = (ROOT / "docs/clients.md").read_text()
PROTOCOL: Final = (ROOT / "docs/protocol.md").read_text()
CLIENT: Final = ROOT / "broker/web/static/client.js"
SHOWN: Final = f"127.0.0.1:{Settings().listen.port}"
PATIENCE: Final = 30.0
SETTINGS: Final = {
    "agents": {"echo": {"kind": "echo"}, "demo": {"kind": "demo", "pace": "1000/s"}},
    "default_agent": "echo",
}
TALKS: Final = 'import { Broker } from "actor-broker-client"'


def blocks(text: str, language: str, containing: str = "") -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [body for body in found if containing in body]


@pytest.fixture
async def app() -> AsyncIterator[App]:
    """A broker with the agents that the pages talk to."""
    settings = config.take({**SETTINGS, "listen": {"port": 0}, "store": {"url": "memory:"}}).settings
    app = App(settings, load_plugins(settings, None))
    await app.start()
    yield app
    await app.stop()


async def output_of(*command: str | Path, cwd: Path) -> str:
    """Run a program that has to succeed, and return what it printed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(PATIENCE):
            out, complaints = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, complaints.decode()
    return out.decode()


@cache
def node() -> str:
    """Return a Node that has a WebSocket; without one the test is skipped."""
    found = shutil.which("node")
    ask = [found or "", "--experimental-websocket", "--eval", "new WebSocket('ws://127.0.0.1:9').onerror = () => {}"]
    if found is None or subprocess.run(ask, capture_output=True, check=False).returncode:
        pytest.skip("no Node with a WebSocket (20.10 or newer): the examples in JavaScript are not run")
    return found


async def printed_by(script: str, app: App, folder: Path) -> list[str]:
    """Run a program in JavaScript as a page shows it, but for addresses; return the lines it printed."""
    found = node()
    script = script.replace(SHOWN, f"127.0.0.1:{app.port}").replace(
        '"actor-broker-client"', json.dumps(CLIENT.as_uri())
    )
    (folder / "program.mjs").write_text(script)
    said = await output_of(found, "--experimental-websocket", "--no-warnings", folder / "program.mjs", cwd=folder)
    return said.splitlines()


# -- the first conversation -------------------------------------------------------------------------


async def test_the_first_conversation_of_the_readme_runs_and_can_be_traced(app: App, tmp_path: Path) -> None:
    """It says its message under the id that is asked for later; the page's words name steps that there are."""
    (script,) = blocks(README, "python", "from broker.client import connect")
    (tmp_path / "conversation.py").write_text(script)
    url = f"http://127.0.0.1:{app.port}"
    assert await output_of(sys.executable, "conversation.py", url, cwd=tmp_path) == "Hello, echo!\n(completed)\n"
    assert f'"http://{SHOWN}"' in script
    (path,) = re.findall(r"`GET (/api/v1/trace/\S+)`", README)
    async with ClientSession() as session, session.get(url + path) as answer:
        trace = await answer.json()
    assert trace["ended"] is True
    _, _, told = PROTOCOL.partition("#### Where a reply went")
    assert [step for step in trace["steps"] if f"`{step['where']}`" not in told] == []
    assert [s for s in trace["steps"] if s["where"] != "followers" and f"`{s['what']}`" not in told] == []


async def test_the_first_conversation_in_javascript_runs(app: App, tmp_path: Path) -> None:
    (script,) = blocks(README, "js")
    said = await printed_by(script, app, tmp_path)
    assert "".join(said) == "Hello, echo!(completed)"


async def test_the_first_conversation_without_a_client_runs(app: App, tmp_path: Path) -> None:
    (script,) = blocks(PROTOCOL, "python", "websockets")
    (tmp_path / "conversation.py").write_text(script)
    said = await output_of(sys.executable, "conversation.py", f"ws://127.0.0.1:{app.port}/ws", cwd=tmp_path)
    assert said == "Hello, echo!\n(completed)\n"


# -- docs/clients.md --------------------------------------------------------------------------------


async def test_what_the_page_shows_in_javascript_is_one_program_that_runs(app: App, tmp_path: Path) -> None:
    script = "\n".join(["const myToken = () => null;", *blocks(CLIENTS, "js")])
    said = await printed_by(script, app, tmp_path)
    records = numbered(said)
    assert [line.split()[0] for line in records] == [str(number + 1) for number in range(len(records))]
    assert records[0] == "1 session.opened"
    assert any(line.endswith(" turn.ended") for line in records)
    pieces = [line.removeprefix("piece: ") for line in said if line.startswith("piece:")]
    assert "".join(pieces) == "Good morning!"
    said.remove("in the room: greeting { text: 'Hello, everybody.' }")  # in its own time
    assert [line for line in said if line not in records and not line.startswith("piece:")] == [
        "now connecting ",
        "now open ",
        "I am null",
        "ended: completed",
        "asked and completed",
        "members: 1",
        "not_found - There is no such session.",
        "{ n: 1 }",
        "ann heard",
        "now closed closed here",
    ]


def numbered(said: list[str]) -> list[str]:
    """Return the lines that are a record's number and kind."""
    return [line for line in said if re.match(r"\d+ [a-z]", line)]


@pytest.fixture
def shown() -> Mapping[str, Any]:
    """What the page's programs in Python define."""
    names: dict[str, Any] = {}
    exec("\n".join(blocks(CLIENTS, "python")), names)
    return names


async def test_what_the_page_shows_in_python_runs(
    app: App, shown: Mapping[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{app.port}"
    await shown["talk"](url)
    assert capsys.readouterr().out == "Good morning! (completed)\n"
    async with connect(url) as broker:
        await shown["ask"](broker)
        await (await (await broker.create_session(agent="echo", session_id="s1")).send("Good evening!"))
        await shown["follow"](broker, "s1")
        await shown["chatter"](broker)
        await shown["careful"](broker)
    await shown["count"](url)
    said = capsys.readouterr().out.splitlines()
    records = numbered(said)
    assert (records[0], records[-1]) == ("1 session.opened", f"{len(records)} turn.ended")
    assert [line for line in said if line not in records] == [
        "asked and completed",
        "user Good evening!",
        "assistant Good evening!",
        "greeting Hello, everybody. 1",
        "members: 1",
        "to myself",
        "not_found - There is no such session.",
        "order-4711",
    ]


def test_what_is_shown_begins_where_a_broker_listens(shown: Mapping[str, Any]) -> None:
    assert shown["talk"].__defaults__ == (f"http://{SHOWN}", None)
    assert all(SHOWN in body for body in blocks(CLIENTS, "js", TALKS) + blocks(README, "js"))


def test_every_exception_that_can_be_caught_has_its_row_and_every_code_is_in_one() -> None:
    table = CLIENTS.partition("| exception | codes |")[2].partition("\n\n")[0]
    kinds = set(re.findall(r"`([A-Z]\w+)`", table))
    assert {name for name in errors.__all__ if name[0].isupper()} - kinds == set()
    assert [code for code in ERRORS if f"`{code}`" not in table] == ["timeout"]  # which is told in words
