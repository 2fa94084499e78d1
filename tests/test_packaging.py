"""The wheel: what it holds, what it claims, and that it works where the checkout is not."""

import configparser
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from what is in the checkout, with the build tools that are installed here."""
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in names:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_claims_the_name_broker_and_no_other(files: set[str]) -> None:
    """A folder `plugins` of its user's must never be ours, nor ours theirs."""
    tops = {name.split("/")[0] for name in files}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"broker"}


def test_the_wheel_is_named_actor_broker_and_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        text = archive.read(entry_points).decode()
    assert wheel.name.startswith("actor_broker-")
    assert "broker = broker.cli:main" in text


def test_the_wheel_holds_every_module_and_every_data_file(files: set[str]) -> None:
    """The list of packages in setup.cfg is written by hand; this is what keeps it whole."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "broker", "actors", "plugins"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    wanted = {name if name.startswith("broker/") else f"broker/{name}" for name in tracked if (ROOT / name).is_file()}
    assert wanted <= files, sorted(wanted - files)
    assert "broker/py.typed" in files


def folders(top: str) -> set[tuple[str, ...]]:
    """Return the folders below one of the checkout's that are packages, by their parts."""
    return {path.parent.relative_to(ROOT).parts for path in (ROOT / top).rglob("__init__.py")}


def test_the_packages_in_setup_cfg_are_the_folders_with_modules() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    listed = set(parser["options"]["packages"].split())
    # The links that a checkout has at broker/actors and broker/plugins lead to the folders beside.
    inside = {parts for parts in folders("broker") if parts[1:2] not in {("actors",), ("plugins",)}}
    beside = {("broker", *parts) for parts in folders("actors") | folders("plugins")}
    assert listed == {".".join(parts) for parts in inside | beside}
    assert "broker.plugins.auth" in listed


def test_the_installed_wheel_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Its dependencies are lent from here; what counts is that nothing of the checkout is needed."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    lent = next(path for path in sys.path if path.endswith("site-packages"))
    script = f"""
import sys
sys.path.append({lent!r})
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import broker, broker.app, broker.actors.session
from broker.extensions.loader import describe
from broker.config import load
assert broker.__file__.startswith({str(site)!r}), broker.__file__
rows = describe(load(None, {{"BROKER_PLUGINS__METRICS": "{{}}"}}, {{}}))
print([(row["name"], row["status"]) for row in rows])
"""
    done = subprocess.run([python, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "('metrics', 'enabled')" in done.stdout
