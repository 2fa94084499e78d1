"""The JavaScript client on its own, in Node with a clock moved by hand, and the npm package that is made of it."""

import gzip
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from broker import __version__

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CLIENT = ROOT / "broker" / "web" / "static" / "client.js"
MOST_BYTES = 8000

PROGRAM = """
import { Broker, BrokerError, type Accepted, type Ended, type LogRecord, type Turn } from "actor-broker-client";

const broker = new Broker({ url: "ws://host/ws", getToken: async ({ reason }) => (reason === "expired" ? null : "") });
const { signal } = new AbortController();
broker.on("state", ({ state, delay }) => console.log(state === "waiting" && delay), { signal });
const { heartbeat } = await broker.connect();
const session = await broker.createSession({ agent: "echo", title: `${heartbeat.toFixed()}` });
session.on("record", (record: LogRecord) => console.log(record.seq + 1, record.turn_id?.length));
session.on("outbox", (turns) => turns.map((turn: Turn) => turn.state === "refused" && turn.retry()));
session.on("gone", (error: BrokerError) => console.log(error.words));
const turn = session.send([{ type: "text", text: "hello" }], { ifBusy: "queue", signal });
const accepted: Accepted = await turn.accepted;
for await (const { event, data } of turn) console.log(event, data, accepted.durable);
const ended: Ended = await turn;
const all: [Ended, string] = await Promise.all([turn, turn.text()]);
if (ended.outcome === "lost") await turn.cancel();
const { records, before_seq } = await session.history({ limit: 5 });
const room = broker.room("team");
room.on("event", ({ from, data }) => console.log(from.user, data.event, all, records, before_seq));
const { members } = await room.join({ events: ["message"] });
const { delivered } = await room.publish("message", { members });
console.log(delivered + (await room.presence()).length, broker.state === "open", broker.identity?.user);
"""
MISTAKES = {
    'session.on("recrod", () => {})': "recrod",
    'session.send("hello", { ifBusy: "wait" })': "wait",
    "(await turn).outcome === 'done'": "no overlap",
    "new Broker({ uri: '' })": "uri",
    "broker.room(7)": "number",
}


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed: the JavaScript client is not tested")
    return program


@pytest.fixture(scope="module")
def project(node_tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the package is installed, as `make npm` makes it; its archive lies beside."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "broker/web/static").mkdir(parents=True)
    shutil.copy(CLIENT, folder / "broker/web/static")
    shutil.copy(ROOT / "LICENSE", folder)
    shutil.copytree(ROOT / "npm", folder / "npm", ignore=shutil.ignore_patterns("node_modules", "dist", "*.tgz"))
    (folder / "npm/node_modules").symlink_to(node_tools)
    subprocess.run(["npm", "pack", "--pack-destination", folder], cwd=folder / "npm", check=True, capture_output=True)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    project = folder / "project"
    (project / "node_modules").mkdir(parents=True)
    (folder / "unpacked/package").rename(project / "node_modules/actor-broker-client")
    (project / "package.json").write_text('{"type": "module"}')
    archive.rename(project / "package.tgz")
    return project


def compiled(node: str, tools: Path, project: Path, program: str) -> str:
    """Return what TypeScript says of a program that uses the package, at its strictest."""
    (project / "program.ts").write_text(program)
    flags = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable"]
    command = [node, str(tools / "typescript/bin/tsc"), *flags, "program.ts"]
    return subprocess.run(command, cwd=project, check=False, capture_output=True, text=True).stdout


def test_its_logic_holds_in_a_world_moved_by_hand(node: str) -> None:
    files = sorted(HERE.glob("*.test.js"))
    run = subprocess.run([node, "--test", *files], check=False, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout
    assert [file.name for file in files] == ["connection.test.js", "room.test.js", "session.test.js", "unhappy.test.js"]


def test_it_is_one_small_file_that_needs_no_other() -> None:
    text = CLIENT.read_text()
    assert len(gzip.compress(text.encode(), 9)) <= MOST_BYTES
    assert not re.search(r"^\s*(import|export .* from)\b|\bimport\(|\brequire\(", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 120


def test_the_package_holds_the_file_that_the_broker_serves(project: Path) -> None:
    package = project / "node_modules/actor-broker-client"
    names = sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.is_file())
    built = ["dist/LICENSE", "dist/client.d.ts", "dist/client.js", "dist/types.d.ts"]
    assert names == ["README.md", *built, "package.json"]
    assert (package / "dist/client.js").read_bytes() == CLIENT.read_bytes()
    about = json.loads((package / "package.json").read_text())
    assert about["version"] == __version__
    assert "dependencies" not in about
    types = (package / "dist/client.d.ts").read_text()
    assert "class Session" in types
    assert not re.search(r"\b_[a-z]\w+\s*[(:]", types)


def test_a_program_with_turns_events_and_rooms_type_checks(node: str, node_tools: Path, project: Path) -> None:
    assert compiled(node, node_tools, project, PROGRAM) == ""


def test_its_types_find_mistakes(node: str, node_tools: Path, project: Path) -> None:
    said = compiled(node, node_tools, project, PROGRAM + "".join(f"{mistake};\n" for mistake in MISTAKES))
    for word, line in zip(MISTAKES.values(), said.strip().splitlines(), strict=True):
        assert word in line


@pytest.mark.parametrize(("tool", "flags"), [("publint", ["--strict"]), ("attw", ["--profile", "esm-only"])])
def test_the_package_is_one_that_tools_understand(node_tools: Path, project: Path, tool: str, flags: list[str]) -> None:
    command = [str(node_tools / ".bin" / tool), str(project / "package.tgz"), *flags]
    run = subprocess.run(command, cwd=project, check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout
