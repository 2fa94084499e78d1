"""Imports go one way (DESIGN section 2): read from the sources, also those inside functions and for types only."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[1]

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "broker errors messages clock ids tasks stats logs traces nearby",
        "operations sessions config tickets vitals projects",
        "protocol turns hooks reload passes",
        "store agents extensions",
        "actors",
        "facade web testing gauges drain system",
        "app client tokens",
        "embed process",
        "cli",
        "__main__",
    )
)
"""Who stands where: each part of the broker imports from rows above its own, and of its own row only itself.

`broker` is the package itself, with its version.
"""

LAZY = {"broker": frozenset({"embed"})}
"""What a part gives that it imports only when it is asked for, and so may, from wherever it is."""

FOR_PLUGINS = frozenset({"hooks", "messages", "errors"})
PORTS = frozenset({"broker.store.port", "broker.agents.port"})
"""All that actors know of the store's engines and the agents' kinds."""

FOREIGN = {
    "aiohttp": frozenset({"web", "embed", "agents", "client", "plugins", "cli"}),
    "pykka": frozenset({"actors", "web", "testing"}),
    "anthropic": frozenset({"agents"}),
    "httpx2": frozenset({"agents"}),
    "sqlite3": frozenset({"store"}),
    "click": frozenset({"cli"}),
    "rich": frozenset({"cli"}),
    "ruamel": frozenset({"config"}),
    "jwt": frozenset({"plugins"}),
    "cryptography": frozenset({"plugins"}),
    "jsonschema_rs": frozenset({"plugins"}),
    "re2": frozenset({"plugins"}),
}
"""Libraries, and the only parts that know of them."""

PURE = frozenset({"protocol", "turns", "messages", "errors", "operations", "sessions"})
LOOP = frozenset({"asyncio", "aiohttp", "pykka", "threading", "uvloop"})
PYKKAS_INSIDE = frozenset({"broker.actors.loop", "broker.actors.ref", "broker.actors.futures"})


@attrs.frozen
class Module:
    """One source file: its name, what it imports, and what it names of pykka's own affairs."""

    name: str
    imports: frozenset[str]
    private: frozenset[str]

    @property
    def part(self) -> str:
        return part_of(self.name)


def part_of(module: str) -> str:
    """Return the part of the broker that a module belongs to: the second word of its name."""
    return module.split(".")[1] if "." in module else module


def modules(root: Path) -> Iterator[Module]:
    """Read all sources below `root`."""
    files = {
        ".".join((package, *path.relative_to(root / folder).with_suffix("").parts)).removesuffix(".__init__"): path
        for folder, package in (("broker", "broker"), ("actors", "broker.actors"), ("plugins", "broker.plugins"))
        for path in sorted((root / folder).rglob("*.py"))
        if not (folder == "broker" and path.relative_to(root / folder).parts[0] in {"actors", "plugins"})
    }
    for name, path in files.items():
        nodes = list(ast.walk(ast.parse(path.read_text(), filename=str(path))))
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        imports = imports_of(nodes, frozenset(files), package)
        yield Module(name, frozenset(imports), frozenset(private_of(nodes)))


def imports_of(nodes: list[ast.AST], known: frozenset[str], package: str) -> Iterator[str]:
    """Yield the modules imported; `from broker import clock` imports `broker.clock`.

    A plugin that is a folder is loaded by path under a name of the loader's, so that within it only relative imports
    lead to its own parts; everywhere else imports are absolute.
    """
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                assert node.level == 1, "absolute imports only"
                assert re.match(r"broker\.plugins\.\w+", package), "absolute imports only"
                continue  # a part of the same folder, which may import all of the others
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else str(node.module)


def private_of(nodes: list[ast.AST]) -> Iterator[str]:
    """Yield what is private to pykka: modules and names that begin with an underscore."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "pykka":
            words = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            yield from (word for word in words if word.startswith("_"))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pykka":
            yield from [node.attr] if node.attr.startswith("_") else []


def row_of(part: str) -> int:
    return next((row for row, parts in enumerate(LAYERS) if part in parts), -1)


def problems(root: Path) -> Iterator[str]:
    """Yield what breaks a rule."""
    for module in modules(root):
        if module.part == "plugins":
            yield from own_problems(module, allowed=lambda part: part in FOR_PLUGINS)
        elif row_of(module.part) < 0:
            yield f"{module.name} has no place in LAYERS"
        else:
            row = row_of(module.part)
            lazy = LAZY.get(module.part, frozenset())
            yield from own_problems(
                module, allowed=lambda part, row=row, lazy=lazy: 0 <= row_of(part) < row or part in lazy
            )
        yield from foreign_problems(module)


def own_problems(module: Module, allowed: Callable[[str], bool]) -> Iterator[str]:
    for other in module.imports:
        if other.split(".")[0] != "broker":
            continue
        part = part_of(other)
        if part != module.part and not allowed(part):
            yield f"{module.name} imports {other}"
        if module.part == "actors" and part in {"store", "agents"} and other not in PORTS:
            yield f"{module.name} imports {other}, which is behind a port"
        if part == "plugins":
            yield f"{module.name} imports the plugin {other}; plugins are loaded by path"


def foreign_problems(module: Module) -> Iterator[str]:
    libraries = {name.split(".")[0] for name in module.imports}
    for library, parts in FOREIGN.items():
        if library in libraries and module.part not in parts:
            yield f"{module.name} imports {library}"
    if module.part in PURE and libraries & LOOP:
        yield f"{module.name} imports {', '.join(sorted(libraries & LOOP))}, and is to be pure"
    if module.private and module.name not in PYKKAS_INSIDE:
        yield f"{module.name} touches pykka's {', '.join(sorted(module.private))}"


def test_imports_go_one_way() -> None:
    assert list(problems(ROOT)) == []


def test_all_of_the_broker_was_read() -> None:
    everything = list(modules(ROOT))
    parts = {module.part for module in everything}
    assert parts == frozenset().union(*LAYERS) | {"plugins"}
    inside = {module.name for module in everything if module.private}
    assert inside == PYKKAS_INSIDE
    for library, users in FOREIGN.items():
        seen = {module.part for module in everything if library in {name.split(".")[0] for name in module.imports}}
        assert seen == users, f"{library} is used by {seen}"


PLANTED = [
    ("broker/messages.py", "from broker.actors.loop import LoopActor", "imports broker.actors.loop"),
    ("broker/messages.py", "from broker import clock", "imports broker.clock"),
    ("broker/errors.py", "def f():\n    import broker.messages", "imports broker.messages"),
    ("broker/protocol/extra.py", "import asyncio", "imports asyncio, and is to be pure"),
    ("broker/protocol/extra.py", "from broker.turns import TurnMachine", "imports broker.turns"),
    ("broker/turns/extra.py", "from aiohttp import web", "imports aiohttp"),
    ("broker/store/extra.py", "from broker.agents.port import Emit", "imports broker.agents.port"),
    ("broker/store/extra.py", "import broker.web.socket", "imports broker.web.socket"),
    ("broker/agents/extra.py", "from broker.actors.ref import LoopRef", "imports broker.actors.ref"),
    ("actors/extra.py", "from broker.store.sqlite import SqliteEngine", "which is behind a port"),
    ("actors/extra.py", "from broker.web.services import Services", "imports broker.web.services"),
    ("actors/extra.py", "from broker.config import Settings\nimport broker.app", "imports broker.app"),
    ("actors/room.py", "from pykka._envelope import Envelope", "touches pykka's _envelope"),
    ("actors/room.py", "from pykka.messages import _ActorStop", "touches pykka's _ActorStop"),
    ("actors/room.py", "import pykka\npykka._actor", "touches pykka's _actor"),
    ("broker/config/extra.py", "import sqlite3", "imports sqlite3"),
    ("broker/web/extra.py", "from broker.plugins.metrics import Metrics", "imports the plugin broker.plugins.metrics"),
    ("plugins/extra.py", "from broker.stats import Stats", "imports broker.stats"),
    ("plugins/extra.py", "from broker.plugins import metrics", "imports the plugin broker.plugins"),
    ("broker/newcomer.py", "import json", "has no place in LAYERS"),
    ("broker/web/extra.py", "from broker.app import App", "imports broker.app"),
]


@pytest.mark.parametrize(("file", "source", "problem"), PLANTED)
def test_a_planted_violation_is_seen(tmp_path: Path, file: str, source: str, problem: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    (tmp_path / "broker").mkdir(exist_ok=True)
    for module in "actors/loop clock messages turns/__init__ app plugins/metrics".split():  # noqa: SIM905
        known = tmp_path / ("broker" if "/" not in module or module.startswith("turns") else "") / f"{module}.py"
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()
    path.write_text(source)
    found = list(problems(tmp_path))
    assert any(problem in text for text in found), found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("broker/clock.py", "from . import errors"),
        ("plugins/alone.py", "from . import metrics"),
        ("plugins/folder/deep.py", "from .. import metrics"),
    ],
)
def test_a_relative_import_is_seen(tmp_path: Path, file: str, source: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source)
    with pytest.raises(AssertionError, match="absolute imports only"):
        list(problems(tmp_path))


def test_a_plugin_that_is_a_folder_may_import_its_own_parts_and_no_more_of_ours_than_others(tmp_path: Path) -> None:
    folder = tmp_path / "plugins" / "folder"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from . import deep\nfrom .deep import thing\nfrom broker.hooks import Plugin")
    (folder / "deep.py").write_text("from broker.clock import Clock")
    assert list(problems(tmp_path)) == ["broker.plugins.folder.deep imports broker.clock"]
