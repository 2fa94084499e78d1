"""The command line as a user meets it: real processes, exit codes, stdout for data and stderr for the rest."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import __version__

Broker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    """Return a function that runs `broker` in an empty folder with a bare environment."""
    command = Path(sys.executable).with_name("broker")

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(command), *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def test_version_is_told_at_once(broker: Broker, record_property: Callable[[str, object], None]):
    started = time.perf_counter()
    done = broker("--version")
    milliseconds = round((time.perf_counter() - started) * 1000)
    record_property("milliseconds", milliseconds)
    print(f"broker --version took {milliseconds} ms")  # noqa: T201 - told, not judged: machines differ
    assert (done.returncode, done.stdout, done.stderr) == (0, f"actor-broker {__version__}\n", "")


def test_the_command_line_alone_imports_nothing_heavy():
    code = "import broker.cli, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert {"aiohttp", "attrs", "cattrs", "loguru", "msgspec", "ruamel"}.isdisjoint(done.stdout.split())
    assert "click" in done.stdout.split()


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "broker", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"actor-broker {__version__}\n"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_the_commands_and_the_exit_codes(broker: Broker, flag: str):
    done = broker(flag)
    assert done.returncode == 0
    for word in ("check-config", "config-schema", "plugins", "--config", "78 configuration"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("argument", "hint"), [("chek-config", "Did you mean 'check-config'?"), ("--confg", "Did you mean '--config'?")]
)
def test_a_misspelt_command_or_flag_is_a_usage_error_with_a_suggestion(broker: Broker, argument: str, hint: str):
    done = broker(argument)
    assert done.returncode == 2
    assert hint in done.stderr


def test_a_good_configuration_is_ok(broker: Broker, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("listen: {port: 0}")
    assert (broker("check-config").returncode, broker("check-config").stdout) == (0, "config.yaml: ok\n")


def test_without_a_file_the_defaults_are_checked(broker: Broker):
    assert broker("check-config").stdout == "defaults: ok\n"


def test_every_mistake_is_shown_and_nothing_is_started(broker: Broker, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("listen:\n  prot: 8765\n  host: 7\n")
    done = broker("--port", "x")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.splitlines() == [
        "--port: listen.port: expected a whole number, got text",
        "config.yaml:2:3: listen.prot: unknown setting; did you mean 'port'?",
        "    prot: 8765",
        "    ^^^^",
        "config.yaml:3:9: listen.host: expected text, got a whole number; put it in quotes",
        "    host: 7",
        "          ^",
        "3 mistakes in the configuration; nothing was started.",
    ]


def test_a_file_that_is_not_there_is_a_mistake(broker: Broker):
    done = broker("--config", "none.yaml")
    assert done.returncode == 78
    assert "none.yaml: there is no such file; name one with --config FILE" in done.stderr


def test_mistakes_can_be_had_as_json(broker: Broker, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("prt: 1")
    done = broker("check-config", "--json")
    assert done.returncode == 78
    assert json.loads(done.stdout) == {
        "ok": False,
        "problems": [{"file": "config.yaml", "line": 1, "column": 1, "path": "prt", "message": "unknown setting"}],
    }


def test_a_plugins_settings_are_checked_too(broker: Broker, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("plugins: {metrics: {colour: red}}")
    done = broker("check-config")
    assert done.returncode == 78
    assert done.stderr.startswith("config.yaml:1:21: plugins.metrics.colour: unknown setting")


def test_the_file_is_the_flags_then_the_environments_then_the_one_that_is_there(broker: Broker, tmp_path: Path):
    for name in ("config", "named", "given"):
        (tmp_path / f"{name}.yaml").write_text("listen: {port: 0}")
    assert broker("check-config").stdout == "config.yaml: ok\n"
    assert broker("check-config", BROKER_CONFIG="named.yaml").stdout == "named.yaml: ok\n"
    assert broker("-c", "given.yaml", "check-config", BROKER_CONFIG="named.yaml").stdout == "given.yaml: ok\n"
    assert broker("-c", "config.yaml", "check-config", "-c", "given.yaml").stdout == "given.yaml: ok\n"


def test_the_merged_settings_are_printed_with_their_origins(broker: Broker, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("plugins: {metrics: {}}\nlisten:\n  host: localhost\n")
    done = broker("--port", "81", "--store", "memory:", "check-config", "--print", BROKER_LOG__LEVEL="debug")
    shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        "host: localhost # config.yaml:3",
        "port: 81 # --port",
        'url: "memory:" # --store',
        "level: debug # BROKER_LOG__LEVEL",
        "interval: 30s # default",
        "metrics: {} # config.yaml:1",
    ):
        assert line in shown


def test_the_merged_settings_can_be_had_as_json(broker: Broker):
    report = json.loads(broker("--log-level", "debug", "check-config", "--print", "--json").stdout)
    assert report["ok"]
    assert report["settings"]["log"] == {"level": "debug", "format": "auto", "access": False}
    assert report["origins"]["log.level"] == "--log-level"


SPICED = """
import attrs
from broker.config import Secret
from broker.hooks import Plugin

@attrs.frozen
class Settings:
    pepper: Secret
    hidden: str = attrs.field(default="", metadata={"secret": True})
    plain: str = ""

class Spiced(Plugin):
    Settings = Settings
"""


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_what_a_plugin_says_is_secret_is_not_printed(broker: Broker, tmp_path: Path, flags: tuple[str, ...]):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/spiced.py").write_text(SPICED)
    (tmp_path / "config.yaml").write_text("plugins: {spiced: {pepper: S3CRET-1, hidden: S3CRET-2, plain: shown}}")
    printed = broker("check-config", "--print", *flags).stdout
    assert "S3CRET" not in printed
    assert "shown" in printed


def test_the_schema_is_json(broker: Broker):
    assert json.loads(broker("config-schema").stdout)["$ref"] == "#/$defs/Settings"


def test_plugins_are_listed_as_a_table_and_as_json(broker: Broker, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("plugins: {metrics: {}}")
    head, *rows = broker("plugins").stdout.splitlines()
    assert head.split()[:2] == ["NAME", "STATUS"]
    assert ["metrics", "enabled"] in [row.split()[:2] for row in rows]
    (metrics,) = [row for row in json.loads(broker("plugins", "--json").stdout) if row["name"] == "metrics"]
    assert (metrics["status"], metrics["error"]) == ("enabled", None)
