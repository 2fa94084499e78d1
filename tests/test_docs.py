"""The pages say what the code does: tables are complete, examples run, links lead somewhere."""

import ast
import asyncio
import importlib.util
import json
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import attrs
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker import config
from broker.app import App
from broker.config import AcpProfile, AgentProfile, ConfigErrors, Deadlines, Settings
from broker.errors import ERRORS, CloseCode
from broker.extensions.loader import load as load_plugins
from broker.protocol import outgoing
from broker.web.actions import ACTIONS
from broker.web.site import add_routes

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README: Final = (ROOT / "README.md").read_text()
PROTOCOL: Final = (ROOT / "docs/protocol.md").read_text()
PATIENCE: Final = 60.0
TITLES: Final = {"docs/protocol.md": ("PROTOCOL",), "ARCHITECTURE.md": ("ARCHITECTURE", "DESIGN")}
CITATION: Final = re.compile(r"\b(PROTOCOL|ARCHITECTURE|DESIGN)(?: sections?)?((?:(?:,| and|-| )\s?P?\d[a-c]?\b)+)")

Dial = Callable[..., Awaitable[Any]]
Serve = Callable[[str], Awaitable[App]]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, without the headings of its own level or above that follow."""
    level, _, _ = heading.partition(" ")
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"there is no {heading}"
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> dict[str, str]:
    """Return the lines of the tables in a text by their first cell, without its backticks."""
    lines = re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE)
    return {first.strip("`"): rest for first, rest in lines}


def block(text: str, language: str, containing: str = "") -> str:
    """Return the one example that holds these words."""
    found = [body for body in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if containing in body]
    assert len(found) == 1
    return str(found[0])


@pytest.fixture(scope="module")
def reference() -> Any:
    """The script that makes the reference."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """A function that starts a broker from the text of a configuration, on a free port and a store in a file."""
    apps: list[App] = []

    async def start(text: str) -> App:
        file = tmp_path / "config.yaml"
        file.write_text(text)
        store = {"listen.port": ("--port", "0"), "store.url": ("--store", f"sqlite:///{tmp_path}/broker.db")}
        loaded = config.load(file, {}, store)
        app = App(loaded.settings, load_plugins(loaded.settings, loaded.file))
        await app.start()
        apps.append(app)
        return app

    yield start
    for app in apps:
        await app.stop()


async def output_of(*command: str, cwd: Path) -> str:
    """Run a command that has to succeed, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, complaints = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, complaints.decode()
    return out.decode()


# -- tables -----------------------------------------------------------------------------------------


def test_the_reference_is_what_the_code_gives(reference: Any) -> None:
    """Run `make docs` if it is not."""
    assert reference.PAGE.read_text() == reference.render()


def test_every_setting_stands_in_the_reference(reference: Any) -> None:
    prefixes = {"settings": "", "profile": "agents.NAME.", "deadlines": "agents.NAME.deadlines."}
    wanted = {prefixes.get(block, f"{block}.") + name for block, name in leaves()}
    assert wanted - rows(section(reference.render(), "## Settings")).keys() == set()


def test_every_action_has_its_row_with_the_fields_of_its_payload() -> None:
    table = rows(section(PROTOCOL, "### 2a. Actions"))
    assert [name for name in table if name in ACTIONS] == list(ACTIONS)
    for name, action in ACTIONS.items():
        payload = re.sub(r': "\w+"', "", table[name].partition(" | ")[0])  # without defaults
        if isinstance(action.decode, partial):
            (cls,) = action.decode.args
            inner = {"connections", "users"} if name == "send" else set()
            assert set(re.findall(r'"(\w+)"', payload)) == attrs.fields_dict(cls).keys() | inner, name
        else:
            assert payload in {"anything", '`{"token"}`'}, name


def test_optional_fields_and_their_defaults_are_those_of_the_code() -> None:
    table = rows(section(PROTOCOL, "### 2a. Actions"))
    for name, action in ACTIONS.items():
        if not isinstance(action.decode, partial) or name == "send":
            continue
        payload, _, _ = table[name].partition(" | ")
        for field in attrs.fields(action.decode.args[0]):
            said = re.search(rf'"{field.name}"(\?)?(?:: ([^,}}]+))?', payload)
            assert said is not None
            assert (said[1] is None) == (field.default is attrs.NOTHING), (name, field.name)
            if isinstance(field.default, str | int):
                assert json.loads(said[2]) == field.default, (name, field.name)


def test_every_error_code_has_its_row() -> None:
    assert list(rows(section(PROTOCOL, "### 2b. Error codes"))) == ["code", *ERRORS]


def test_every_close_code_has_its_row() -> None:
    table = rows(section(PROTOCOL, "### 2c. Close codes"))
    assert list(table) == ["code", *(str(int(code)) for code in CloseCode)]


def test_close_codes_that_nobody_sends_are_marked_as_not_yet() -> None:
    source = "\n".join(text for _, text in sources())
    for code, row in rows(section(PROTOCOL, "### 2c. Close codes")).items():
        if code.startswith("4"):
            assert ("not yet" in row) == (f"CloseCode.{CloseCode(int(code)).name}" not in source), code


def test_every_kind_of_record_has_its_row(reference: Any) -> None:
    table = rows(section(PROTOCOL, "### 3a. Records"))
    written = reference.kinds_of_records()
    assert len(written) > 15
    assert written.keys() - table.keys() == set()
    promised = {kind for kind, row in table.items() if " yet**" in row}
    assert table.keys() - written.keys() - {"kind", "vendor.*"} == promised


def test_every_notification_of_the_broker_is_shown_and_explained(reference: Any) -> None:
    shown = section(reference.render(), "## Messages of the broker")
    events = re.findall(r'"event":"([a-z_.]+)"', shown)
    assert len(re.findall("```json", shown)) == len(outgoing.Outgoing.__args__)
    assert [event for event in events if f"`{event}`" not in PROTOCOL] == []


def test_every_http_path_has_its_row() -> None:
    app = web.Application()
    add_routes(app)
    paths = {route.resource.canonical for route in app.router.routes() if route.resource is not None}
    served = {f"GET {path}" for path in paths if not path.startswith(("/static/", "/api/v1/"))}
    api = {"/api/v1/…", "GET /api/v1/trace/{id}"}  # the rest of it stands in docs/http.md, which has its own test
    assert rows(section(PROTOCOL, "## 5. HTTP")).keys() == {"path", "GET /metrics", *api, *served}


def test_every_metric_that_a_page_names_is_there(reference: Any) -> None:
    metrics = set(rows(section(reference.render(), "## Metrics")))
    named = {name for page in PAGES for name in re.findall(r"`(broker_[a-z_]+)[`{]", page.read_text())}
    assert named - metrics == set()
    assert named


# -- the house --------------------------------------------------------------------------------------

HOUSE: Final = section((ROOT / "ARCHITECTURE.md").read_text(), "## 2. The house")


def parts_of(folder: Path) -> set[str]:
    """Return the modules of a folder, and with a slash the folders in it that hold modules."""
    modules = {file.stem for file in folder.glob("*.py")}
    folders = {f"{file.parent.name}/" for file in folder.glob("*/__init__.py") if not file.parent.is_symlink()}
    return (modules | folders) - {"__init__"}


@pytest.mark.parametrize("folder", ["broker", "actors", "broker/web", "plugins"])
def test_every_module_has_its_place_in_the_house_and_no_other_has(folder: str) -> None:
    found: dict[str, set[str]] = {}
    of = ""
    for first, modules in re.findall(r"^\| (.*?) ?\| (.+?) \| .+ \|$", HOUSE, re.MULTILINE)[1:]:
        of = first.strip("`/") or of
        found.setdefault(of, set()).update(re.findall(r"`(.+?)`", modules))
    assert found[folder] == parts_of(ROOT / folder)


def test_the_way_of_imports_is_drawn_as_it_is_tested() -> None:
    drawn = [line.split() for line in block(HOUSE, "text", "errors").splitlines() if "↑" not in line]
    (tested,) = [
        ast.literal_eval(node.value.args[0].generators[0].iter)
        for node in ast.walk(ast.parse((ROOT / "tests/test_imports.py").read_text()))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "LAYERS"
        if isinstance(node.value, ast.Call) and isinstance(node.value.args[0], ast.GeneratorExp)
    ]
    assert [set(row) for row in drawn] == [set(row.split()) - {"broker"} for row in tested if row != "__main__"]


# -- settings ---------------------------------------------------------------------------------------


def leaves() -> Iterator[tuple[str, str]]:
    """Yield (what the code calls the block, setting) of every setting."""
    blocks: list[tuple[str, Any]] = [*(("profile", cls) for cls in get_args(AgentProfile)), ("deadlines", Deadlines)]
    for field in attrs.fields(Settings):
        if field.type is not None and attrs.has(field.type):
            blocks.append((field.name, field.type))
        else:
            yield "settings", field.name
    for name, cls in blocks:
        yield from ((name, field.name) for field in attrs.fields(cls) if field.name != "kind")


def sources() -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the code, without the classes that only hold settings, and without the error table."""
    for folder in ("broker", "actors", "plugins"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            name = name_of(file)
            if name != "broker/errors.py" and (not name.startswith("broker/config/") or name.endswith("checks.py")):
                yield name, file.read_text()


def test_the_settings_that_nothing_reads_are_those_that_the_page_calls_not_in_force() -> None:
    """Whoever puts one into force strikes it from docs/configuration.md."""
    source = "\n".join(text for _, text in sources())
    unread = {f"{block}.{name}" for block, name in leaves() if not re.search(rf"(?<![a-z]){block}\.{name}\b", source)}
    page = section((ROOT / "docs/configuration.md").read_text(), "## Not in force yet")
    assert unread == set(re.findall(r"`([a-z]+\.[a-z_]+)`", page))


def test_the_mistakes_shown_are_those_that_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(block(page, "yaml", "prot"))
    with pytest.raises(ConfigErrors) as errors:
        config.load(Path("config.yaml"), {}, {})
    assert errors.value.render() == block(page, "text", "did you mean").rstrip()


# -- examples ---------------------------------------------------------------------------------------


def test_the_real_agent_of_the_readme_is_five_lines_that_load(tmp_path: Path) -> None:
    text = block(README, "yaml", "claude")
    (tmp_path / "config.yaml").write_text(text)
    settings = config.load(tmp_path / "config.yaml", {}, {}).settings
    assert len(text.splitlines()) == 5
    assert settings.agents["claude"] == AcpProfile(command=("claude-agent-acp",))


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md", "docs/tutorial.md"])
def test_a_configuration_that_lets_others_in_is_a_good_one(tmp_path: Path, page: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(pem)
    (tmp_path / "auth.key").write_text("0123456789abcdef" * 4)
    (tmp_path / "config.yaml").write_text(block((ROOT / page).read_text(), "yaml", "mode: jwt"))
    loaded = config.load(tmp_path / "config.yaml", {}, {})
    assert load_plugins(loaded.settings, loaded.file).problems == []
    assert loaded.settings.plugins.keys() >= {"auth", "rate_limit"}


async def test_the_plugin_of_the_readme_answers_over_a_socket(serve: Serve, dial: Dial, tmp_path: Path) -> None:
    """It is the text of docs/plugins.md, twelve lines."""
    text = block(README, "python", "class Shout(Plugin)")
    assert text == block((ROOT / "docs/plugins.md").read_text(), "python", "class Shout(Plugin)")
    assert len(text.splitlines()) == 12
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins/shout.py").write_text(text)
    (tmp_path / "plugins/shout.py").chmod(0o644)
    app = await serve("plugins: {shout: {}}")
    client = await dial(app.port)
    assert await client.do("shout", text="hi") == {"text": "HI!"}


async def test_the_worker_of_the_readme_answers(serve: Serve, dial: Dial, tmp_path: Path) -> None:
    """It is examples/worker.py, twelve lines, and its profile is the one that the text names."""
    text = block(README, "python", "class Shout(Worker)")
    assert text == (ROOT / "examples/worker.py").read_text()
    (profile,) = re.findall(r"`(agents: \{shout: .+?)` in the configuration", README)
    app = await serve(f"{profile}\ndefault_agent: shout")
    client = await dial(app.port)
    await client.do("session.create", session_id="s1")
    await client.do("turn.start", session_id="s1", client_msg_id="1", content="good morning")
    script = tmp_path / "worker.py"
    script.write_text(text.replace(f":{Settings().listen.port}/agent", f":{app.port}/agent"))
    worker = await asyncio.create_subprocess_exec(sys.executable, str(script), stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(PATIENCE):
            log = await client.records("turn.ended")
    finally:
        worker.terminate()
        await worker.wait()
    assert next(r for r in log if r["event"] == "message.completed")["data"]["content"] == "GOOD MORNING "


async def test_the_application_of_the_readme_holds_a_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = block(README, "python", "broker.setup").splitlines()
    assert lines.pop().startswith("web.run_app(app, ")
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    async with TestServer(names["app"]) as server, ClientSession() as session:
        for path in ("/broker/", "/broker/chat", "/broker/client.js", "/broker/health", "/broker/metrics"):
            async with session.get(server.make_url(path)) as answer:
                assert answer.status == 200, path


async def test_the_tutorial_s_agent_answers(serve: Serve, dial: Dial, tmp_path: Path) -> None:
    page = (ROOT / "docs/tutorial.md").read_text()
    script = block(page, "python", "TestModel")
    assert script == block((ROOT / "docs/agents.md").read_text(), "python", "TestModel")
    (tmp_path / "agent.py").write_text(script)
    text = block(page, "yaml", "weather")
    for shown, real in (("/home/me/weather/bin/python", sys.executable), ("/home/me/weather", str(tmp_path))):
        text = text.replace(shown, real)
    app = await serve(text)
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    await client.do("turn.start", session_id=session_id, client_msg_id="1", content="How is the weather?")
    log = await client.records("turn.ended")
    kinds = [record["event"] for record in log]
    assert log[-1]["data"]["outcome"] == "completed"
    assert [kind for kind in ("tool.started", "tool.updated", "message.delta") if kind not in kinds] == []
    assert next(r for r in log if r["event"] == "message.completed")["data"]["content"] == "The weather is fine today."


async def test_the_backup_shown_is_whole_while_the_broker_runs(serve: Serve, dial: Dial, tmp_path: Path) -> None:
    app = await serve("")
    client = await dial(app.port)
    await client.do("room.publish", room="lobby", data="kept")
    command = block((ROOT / "docs/operations.md").read_text(), "sh", "backup").strip()
    python = command.replace("python3", sys.executable, 1)
    await output_of("sh", "-c", python, cwd=tmp_path)
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("SELECT data FROM records").fetchall() == [(b'"kept"',)]
    copy.close()


# -- words ------------------------------------------------------------------------------------------


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_readme_s_two_commands_and_every_other_that_a_page_names_are_targets() -> None:
    first = block(README, "sh", "make run")
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["run", "test"]
    named = {name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert named - targets() == set()
    assert {"run", "test", "check", "bench", "chaos", "docs", "dev", "clean"} <= named


def test_each_promise_has_its_row_and_a_test_that_holds_it() -> None:
    promises = [f"P{number}" for number in range(1, 10)]
    assert [name for name in rows(section(PROTOCOL, "## 1. The promises")) if name in promises] == promises
    held = rows(section(README, "## What it promises"))
    assert [name for name in held if "(tests/" in held[name]] == promises


def held_by(text: str) -> Iterator[tuple[str, str]]:
    """Yield (file, function) of every test that a page cites by its sentence."""
    for sentence, file in re.findall(r"\[([a-z][^\]]+)\]\((tests/[\w/]+\.py)\)", text):
        if "/" not in sentence:
            yield file, "test_" + sentence.replace(" ", "_")


def test_every_test_that_a_page_cites_is_there() -> None:
    cited = [test for page in PAGES for test in held_by(page.read_text())]
    text_of = {file: (ROOT / file).read_text() for file, _ in cited}
    assert [test for test in cited if f"def {test[1]}(" not in text_of[test[0]]] == []
    assert len(cited) > 60


def test_every_citation_in_the_code_leads_to_a_section() -> None:
    headings = {page: set(re.findall(r"^#+ (\d[a-c]?)\. ", (ROOT / page).read_text(), re.MULTILINE)) for page in TITLES}
    headings["docs/protocol.md"] |= {f"P{number}" for number in range(1, 10)}
    pages = {title: page for page, titles in TITLES.items() for title in titles}
    astray, found = [], 0
    files = [
        file for folder in ("broker", "actors", "plugins", "tests", "bench") for file in (ROOT / folder).rglob("*.py")
    ]
    for file in files:
        for title, numbers in CITATION.findall(file.read_text()):
            cited = set(re.findall(r"P?\d[a-c]?", numbers))
            found += len(cited)
            astray += [(name_of(file), title, number) for number in cited - headings[pages[title]]]
    assert astray == []
    assert found > 40


# -- links ------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    titles = re.findall(r"^#{1,6} (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(page: Path, text: str) -> Iterator[str]:
    """Yield the links of a page that lead nowhere in this tree."""
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(dead_links(page, page.read_text())) == []


def test_a_dead_link_is_found() -> None:
    text = "[a](nowhere.md) [b](#no-such) [c](docs/protocol.md#9-nothing) [d](docs/protocol.md#1-the-promises)"
    assert list(dead_links(ROOT / "README.md", text)) == ["nowhere.md", "#no-such", "docs/protocol.md#9-nothing"]


def test_every_page_is_reached_from_the_readme() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in re.findall(r"\]\(([^)\s:]+)\)", README)}
    assert [name_of(page) for page in PAGES if page.name != "README.md" and page not in linked] == []
