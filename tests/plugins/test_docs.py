"""docs/plugins.md says all there is, and its examples run."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from broker import config, hooks
from broker.errors import BrokerError
from broker.extensions.dispatch import Hooks
from broker.extensions.loader import Plugins, Status, load
from broker.hooks import HOOKS, Broker, Inbound, Peer, Plugin, Stats
from broker.messages import Principal

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "plugins.md").read_text()
EXAMPLES = ROOT / "examples" / "plugins"
PEER = Peer("c1", Principal("ann"), "127.0.0.1", "broker.v1.json")


class Lone:
    """A broker with counters and nobody connected."""

    def __init__(self) -> None:
        self.version = "1"
        self.stats = Stats()


def block(language: str, containing: str) -> str:
    """Return the one example that holds this text."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL) if containing in text]
    assert len(found) == 1
    return str(found[0])


def run_example(tmp_path: Path, name: str, python: str, yaml: str) -> Plugins:
    """Put an example where the documentation says, and load it as the broker does."""
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    (folder / f"{name}.py").write_text(python)
    (folder / f"{name}.py").chmod(0o644)
    (tmp_path / "config.yaml").write_text(yaml)
    loaded = config.load(tmp_path / "config.yaml", {}, {})
    plugins = load(loaded.settings, loaded.file)
    plugins.create(Lone())  # type: ignore[arg-type]
    assert plugins.problems == []
    return plugins


def headings(level: str) -> list[str]:
    return re.findall(rf"^{level} `?([\w ]+)`?$", DOCS, re.MULTILINE)


def test_each_hook_has_its_heading_under_its_kind_and_names_what_it_is_given() -> None:
    assert [name for name in headings("###") if "_" in name or name in HOOKS] == list(HOOKS)
    gates, observers = DOCS.index("## Gates"), DOCS.index("## Observers")
    for hook in HOOKS.values():
        at = DOCS.index(f"### `{hook.name}`")
        assert (gates < at < observers) == (hook.kind == "gate")
        assert DOCS[at:].splitlines()[2].startswith(f"`(self, {hook.parameters[0]}: ")


def test_each_status_is_explained() -> None:
    table = DOCS[DOCS.index("## Statuses") : DOCS.index("## Safety")]
    assert re.findall(r"^\| `([\w ]+)` \|", table, re.MULTILINE) == [str(status) for status in Status]


def test_all_that_a_plugin_may_ask_of_the_broker_is_listed() -> None:
    table = DOCS[DOCS.index("## Life") : DOCS.index("### Not well")]
    offered = [name for name in vars(Broker) if not name.startswith("_")]
    assert sorted(re.findall(r"^\| `(?:await )?(\w+)", table, re.MULTILINE)) == sorted(offered)


def test_each_type_for_settings_that_is_offered_is_explained() -> None:
    table = DOCS[DOCS.index("| type | in the file") : DOCS.index("Any other type")]
    cells = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    named = {word for cell in cells for word in re.findall(r"[A-Z]\w+", cell)}
    of_settings = {name for name in hooks.__all__ if hasattr(config, name)} | {"Network"}
    assert named - {"Annotated"} == of_settings


def test_each_method_that_a_plugin_may_override_is_named() -> None:
    methods = {
        name for name, thing in vars(Plugin).items() if inspect.isroutine(thing) or isinstance(thing, classmethod)
    }
    missing = {name for name in methods if not name.startswith("_") and f"`{name}" not in DOCS.replace("async ", "")}
    assert not missing


@pytest.mark.parametrize("name", [path.stem for path in sorted(EXAMPLES.iterdir()) if path.suffix == ".py"])
def test_each_example_stands_on_the_page_as_it_is(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    assert f"[`examples/plugins/{name}.py`](../examples/plugins/{name}.py):\n\n```python\n{source}```" in DOCS


def test_the_test_on_the_page_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "profanity.py").write_text((EXAMPLES / "profanity.py").read_text())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block("python", "def test_a_turn_with"), names)
    (test,) = [thing for name, thing in names.items() if name.startswith("test_")]
    test()


async def test_the_first_plugin_is_twelve_lines_and_answers(tmp_path: Path) -> None:
    python = block("python", "class Shout")
    assert len(python.splitlines()) == 12
    shout = Hooks(run_example(tmp_path, "shout", python, block("yaml", "shout:")).instances)
    assert await shout.act(shout.actions["shout"], PEER, b'{"text": "hi"}') == b'{"text":"HI!"}'
    with pytest.raises(BrokerError) as refusal:
        await shout.act(shout.actions["shout"], PEER, b'{"text": 5}')
    assert refusal.value.code == "invalid_message"


def test_the_plugin_with_settings_refuses_what_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "muzzle.key").write_text("s3cret\n")
    plugins: Any = run_example(tmp_path, "muzzle", block("python", "class Muzzle"), block("yaml", "muzzle:"))
    muzzle = Hooks(plugins.instances)
    assert muzzle.run_gates(muzzle.message, Inbound(PEER, "echo", 500)) is None
    with pytest.raises(BrokerError) as refusal:
        muzzle.run_gates(muzzle.message, Inbound(PEER, "echo", 501))
    assert (refusal.value.code, refusal.value.retry_after) == ("too_large", 2.0)
    assert plugins.instances[0].settings.password.reveal() == "s3cret"
    assert "s3cret" not in repr(plugins.instances[0].settings)
