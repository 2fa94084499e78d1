"""Autobahn's test suite against the frame reader and writer of the broker (RFC 6455 and RFC 7692).

The short list at each run; all cases, which take minutes, with `make chaos`.
"""

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

AUTOBAHN = Path(__file__).with_name("autobahn")
NO_PYTHON = 75
PASSED = {"OK", "INFORMATIONAL"}
SHORT = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.7.1", "9.8.1", "10.*", "12.1.1", "12.1.10", "13.3.1"]
CONFIG = {
    "listen": {"port": 0},
    "store": {"url": "memory:"},
    "limits": {"message_bytes": "16MiB", "outbox_bytes": "64MiB"},
    "log": {"level": "error"},
}


@pytest.fixture(scope="module")
def wstest() -> str:
    """Autobahn's program; installed once, and the test is skipped where that cannot be."""
    command = [sys.executable, str(AUTOBAHN / "install.py")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("Autobahn's test suite could not be installed in time: the frames are not tested by it")
    if done.returncode == NO_PYTHON:
        pytest.skip("no Python 2.7, which Autobahn's test suite needs: the frames are not tested by it")
    if done.returncode:
        pytest.skip(f"Autobahn's test suite cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The door of a broker behind which everything is said again."""
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(CONFIG))
    command = [sys.executable, str(AUTOBAHN / "echo.py"), str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout
        try:
            assert select.select([process.stdout], [], [], 20)[0], "the broker did not start"
            yield int(process.stdout.readline())
        finally:
            process.kill()


def run(wstest: str, port: int, cases: list[str], folder: Path, patience: float = 100.0) -> dict[str, Any]:
    """Run cases; return what came of each."""
    spec = {
        "outdir": str(folder / "report"),
        "servers": [{"agent": "broker", "url": f"ws://127.0.0.1:{port}"}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [wstest, "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
    subprocess.run(command, check=True, capture_output=True, timeout=patience, cwd=folder)
    report: dict[str, Any] = json.loads((folder / "report" / "index.json").read_text())["broker"]
    return report


def failures(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the cases that failed; also those that fail too late, which Autobahn calls non-strict."""
    both = {case: (result["behavior"], result["behaviorClose"]) for case, result in report.items()}
    return {case: ends for case, ends in both.items() if set(ends) - PASSED}


@pytest.mark.timeout(300)
def test_no_case_of_the_short_list_fails(wstest: str, port: int, tmp_path: Path) -> None:
    report = run(wstest, port, SHORT, tmp_path)
    assert len(report) > 240
    assert failures(report) == {}


@pytest.mark.chaos
@pytest.mark.timeout(2400)
def test_no_case_at_all_fails(wstest: str, port: int, tmp_path: Path) -> None:
    report = run(wstest, port, ["*"], tmp_path, patience=2000.0)
    assert len(report) > 500
    assert failures(report) == {}
