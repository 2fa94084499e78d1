"""`broker doctor`: what it looks at, and that it says what to do."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.cli import checks
from broker.cli.checks import Finding, findings
from broker.config import ConfigErrors, load
from broker.web.listener import bind

Run = Callable[..., subprocess.CompletedProcess[str]]
Look = Callable[[str], dict[str, Finding]]


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Return what is found of a configuration, in an empty folder, by name."""
    monkeypatch.chdir(tmp_path)

    def run(text: str) -> dict[str, Finding]:
        file = tmp_path / "config.yaml"
        file.write_text(text)
        try:
            loaded = load(file, {}, {})
        except ConfigErrors as errors:
            return {finding.name: finding for finding in findings(errors)}
        return {finding.name: finding for finding in findings(loaded)}

    return run


def test_a_machine_that_is_well_is_told_so(broker: Run) -> None:
    done = broker("--port", "0", "doctor", "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["ok"]
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert set(states.values()) <= {"ok", "warn"}
    wanted = "python, event loop, libraries, sqlite, clock, terminal, configuration, open files, port, store, disk"
    assert ", ".join(states) == wanted


def test_lines_say_what_to_do_and_the_exit_code_that_something_has_to_be(broker: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("listen: {prot: 1}")
    done = broker("doctor")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert "1 mistake; the first: config.yaml:1:10: listen.prot: unknown setting" in line
    assert "broker check-config shows them all." in done.stdout
    assert "store" not in [line.split()[1] for line in done.stdout.splitlines()]


def test_a_plugin_that_cannot_be_loaded_is_a_mistake(look: Look) -> None:
    assert look("plugins: {nowhere: {}}")["configuration"].state == "fail"


def test_a_port_that_somebody_else_has_is_a_failure(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "KNOCKING", 0.05)  # this one never says who it is
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        found = look(f"listen: {{port: {taken.getsockname()[1]}}}")["port"]
    assert found.state == "fail"
    assert "choose another" in found.advice


def test_a_port_that_a_broker_has_is_well(look: Look, dev: Callable[..., Any]) -> None:
    port = dev().url.rpartition(":")[2]
    found = look(f"listen: {{port: {port}}}")["port"]
    assert (found.state, found.text) == ("ok", f"127.0.0.1:{port} is served by a broker already")


def test_too_few_files_for_so_many_connections_are_a_warning(look: Look) -> None:
    found = look("listen: {port: 0, max_connections: 2000000000}")["open files"]
    assert found.state == "warn"
    assert "LimitNOFILE" in found.advice


@pytest.mark.parametrize(
    ("store", "name", "state", "words"),
    [
        ("{url: 'memory:'}", "store", "warn", "nothing outlives"),
        ("{url: 'sqlite:///nowhere/broker.db'}", "store", "fail", "has to exist"),
        ("{url: 'sqlite:///text.db'}", "store", "fail", "not a broker's store"),
        ("{sync: 'off'}", "disk", "warn", "store.sync: off"),
        ("{}", "store", "ok", "will be made"),
    ],
)
def test_the_store_and_its_disk_are_looked_at(
    look: Look, tmp_path: Path, store: str, name: str, state: str, words: str
) -> None:
    (tmp_path / "text.db").write_text("no database " * 1000)
    found = look(f"listen: {{port: 0}}\nstore: {store}")[name]
    assert (found.state, words in found.text) == (state, True), found
    assert not os.path.lexists(tmp_path / "broker.db")
