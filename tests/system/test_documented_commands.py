"""Every command of the documentation is run: each page's, in their order, in one shell, in a folder of its own.

What a page takes for granted (a broker that runs beside, a file that its prose names) stands in `STAGES`. Programs
that do not end by themselves are run in the background until they are ready; addresses and folders are exchanged for
those of the test, and nothing else.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from textwrap import dedent
from typing import Final

import attrs
import pytest

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("npm/*.md")]
)
PATIENCE: Final = 100

PRELUDE: Final = r"""
set -euo pipefail
servers=()
trap 'for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done; wait' EXIT

# Run in the background what serves until it is told to stop, and go on once it does. One after the other has the port.
background() {
  case " $* " in *" dev "*) set -- "$@" --port "$PORT" ;; esac
  for server in "${servers[@]}"; do kill "$server"; wait "$server" || true; done
  servers=()
  "$@" >"output.$RANDOM" 2>&1 &
  servers+=($!)
  until command curl --silent --fail "http://127.0.0.1:$PORT/readyz" >ready 2>&1; do
    kill -0 "${servers[-1]}" 2>/dev/null || { cat output.*; echo "it did not start: $*"; exit 1; }
    sleep 0.1
  done
}

# A helper of the broker's that runs beside it, such as an agent; the broker is the one to say that it came.
beside() { "$@" >"output.$RANDOM" 2>&1 & servers+=($!); }

# At the end: what was to run on has not died.
still_there() {
  for server in "${servers[@]}"; do kill -0 "$server" || { cat output.*; exit 1; }; done
}

# `make run` runs; the other targets, among them the one that runs this, are looked at.
make() {
  if [ "$1" = run ]; then background env -C "$ROOT" make run; else command make -C "$ROOT" --dry-run "$@" >made; fi
}

# That there is such a package is looked up; some are hundreds of megabytes.
npm() { [ -n "$(command npm view "${@: -1}" version)" ]; }

# A refusal is an answer too: pages show some. That there is no server is not.
curl() { command curl --silent --show-error "$@"; echo; }
"""
"""The shell before a page's first command."""

SERVES: Final = re.compile(r"^(?:\.venv/bin/)?broker(?: --config \S+| dev\b.*)?$")
HELPS: Final = re.compile(r"^(?:\.venv/bin/)?python3? (?:examples/|-m http\.server)|^broker tail\b(?!.*--count)")


@attrs.frozen
class Stage:
    """What a page takes for granted.

    Attributes:
        broker: the configuration of a broker that runs when its first command does; None for none.
        files: what the prose has the reader write: of which block (its language, and words in it) a file is made.
        made: files that the prose takes for there, with their text.
        before: commands that were to come before, such as how a variable gets its value.
        exchanged: words of the page, and what stands for them here.
        checkout: whether the reader stands in a copy of the whole tree, with nothing installed. What it depends on is
            lent from here, so that nothing is fetched.
    """

    broker: str | None = None
    files: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    made: Mapping[str, str] = attrs.field(factory=dict)
    before: str = ""
    exchanged: Mapping[str, str] = attrs.field(factory=dict)
    checkout: bool = False


TOKENS: Final = "auth: {mode: jwt, keys: [{algorithm: HS256, secret: !file auth.key}]}"

STAGES: Final[dict[str, Stage]] = {
    "README.md": Stage(
        files={"config.yaml": ("yaml", "trusted_proxies: [127.0.0.1]")},
        made={"auth.key": "0123456789abcdef" * 4},
        checkout=True,
    ),
    "CONTRIBUTING.md": Stage(),
    "docs/access.md": Stage(
        broker=f"plugins: {{access: {{url: 'http://127.0.0.1:9/'}}, {TOKENS}}}",
        made={"auth.key": "0123456789abcdef" * 4},
        before="export ADMIN=$(broker gentoken --config stage.yaml --user ops --scope api --scope admin)",
    ),
    "docs/agents.md": Stage(before="mkdir agents", exchanged={"messages_stub.py 8917": "messages_stub.py 0"}),
    "docs/auth.md": Stage(
        files={"config.yaml": ("yaml", "secret: !file auth.key}]")},
        exchanged={"$ADMIN": "$(broker gentoken --user ops --scope api --scope admin)"},
    ),
    "docs/configuration.md": Stage(made={"config.yaml": "log: {level: info}\n"}),
    "docs/content-filter.md": Stage(),
    "docs/http.md": Stage(broker="agents: {echo: {kind: echo}}"),
    "docs/operations.md": Stage(
        made={"config.yaml": "log: {level: info}\n"},
        before="""python3 -c "import sqlite3; sqlite3.connect('broker.db').execute('CREATE TABLE kept (it)')" """,
    ),
    "docs/projects.md": Stage(broker="projects: {agent: echo}"),
    "docs/terminal.md": Stage(),
    "docs/tutorial.md": Stage(
        files={
            "weather.yaml": ("yaml", "weather"),
            "weather/agent.py": ("python", "TestModel"),
            "site/index.html": ("html", "client.js"),
            "shut.yaml": ("yaml", "mode: jwt"),
        },
        exchanged={
            "python3 -m venv weather": "ln -s ../.venv/bin ../.venv/lib ../.venv/pyvenv.cfg weather",
            "--directory site 8000": "--directory site 0",
        },
    ),
    "docs/validation.md": Stage(),
}


def blocks(text: str, language: str = "sh") -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [dedent(body) for _, body in found]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def script(text: str) -> Iterator[str]:
    """Yield the lines of a page's commands, each that serves put into the background."""
    for number, body in enumerate(blocks(text), 1):
        yield f'echo "--- block {number}, after $SECONDS s"'
        for line in body.splitlines():
            command = re.sub(r"\s+#.*$", "", line)
            if SERVES.match(command):
                yield f"background {command}"
            elif HELPS.match(command):
                yield f"beside {command}"
            else:
                yield line


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path, port: int) -> dict[str, str]:
    """Return an environment in which `broker`, `python` and `pip` are those that are tested."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("BROKER_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ROOT": str(ROOT),
        "PORT": str(port),
        "BROKER_LISTEN__PORT": str(port),
        "BROKER_STORE__URL": "memory:",
        "XDG_STATE_HOME": str(folder / "state"),
    }


def exchanged(text: str, stage: Stage, folder: Path, port: int) -> str:
    """Return a page's text with the addresses and folders of the test."""
    here = {"127.0.0.1:3000": f"127.0.0.1:{port}", "/srv/agents": "agents", "/home/me": str(folder)}
    for shown, real in {**here, **stage.exchanged}.items():
        text = text.replace(shown, real)
    return text


def copy_tree(folder: Path) -> None:
    """Copy what a fresh clone would have."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def lent() -> dict[str, str]:
    """Return an environment in which a fresh one finds what the broker depends on, and pip fetches nothing."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    return {"PYTHONPATH": packages, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "false"}


def lay_out(folder: Path, page: str, stage: Stage) -> None:
    """Write the files that the page takes for granted."""
    if stage.checkout:
        copy_tree(folder)
    else:
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
        (folder / "examples").symlink_to(ROOT / "examples")
    for name, (language, words) in stage.files.items():
        (found,) = [body for body in blocks(page, language) if words in body]
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(found)
    for name, text in stage.made.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    if stage.broker is not None:
        (folder / "stage.yaml").write_text(stage.broker)


def run(commands: str, folder: Path, port: int, *, alone: bool = False) -> subprocess.CompletedProcess[str]:
    """Run commands in a shell; whatever they leave behind is killed."""
    shell = subprocess.Popen(
        ["bash", "-c", commands],
        cwd=folder,
        env=environment(folder, port) | (lent() if alone else {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, complaints = shell.communicate(timeout=PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, SIGKILL)
        shell.wait()
    return subprocess.CompletedProcess(commands, shell.returncode, out, complaints)


WITH_COMMANDS: Final = [page for page in PAGES if blocks(page.read_text())]


def test_every_page_with_commands_has_its_stage_and_no_other_has() -> None:
    assert {name_of(page) for page in WITH_COMMANDS} == STAGES.keys()


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    stage, port = STAGES[name_of(page)], free_port()
    text = exchanged(page.read_text(), stage, tmp_path, port)
    lay_out(tmp_path, text, stage)
    lines = [PRELUDE, *(["background broker --config stage.yaml"] if stage.broker is not None else []), stage.before]
    done = run("\n".join([*lines, *script(text), "still_there"]), tmp_path, port, alone=stage.checkout)
    print(done.stdout)  # noqa: T201 - how long each block took, for who asks (-rP)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_a_command_that_fails_fails_its_page(tmp_path: Path) -> None:
    """The shell stops at the first: also within a block, and where a server does not come up."""
    for wrong in ("false\ntrue", "broker --config missing.yaml\ntrue", "curl http://127.0.0.1:9/"):
        lines = "\n".join([PRELUDE, *script(f"```sh\n{wrong}\n```\n")])
        done = run(lines, tmp_path, free_port())
        assert done.returncode != 0, wrong
