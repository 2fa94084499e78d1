"""The example of a plugin that is installed: built, found by its entry point, and answering."""

import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin-package"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a copy of the example was installed, without a network."""
    source, target = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*command, "--no-deps", "--no-build-isolation", "--target", target, source], check=True, timeout=100)
    return target


@pytest.fixture
def broker(site: Path, make_broker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A broker into whose environment it was installed, not started."""
    monkeypatch.setenv("PYTHONPATH", str(site))
    broker = make_broker(plugins={"greeter": {"greeting": "Servus"}})
    broker.write()
    return broker


def test_an_installed_package_is_listed_with_where_it_comes_from(broker: Any) -> None:
    command = [sys.executable, "-m", "broker", "plugins", "greeter", "--json"]
    listing = subprocess.run(command, cwd=broker.folder, capture_output=True, check=True, timeout=60)
    row = json.loads(listing.stdout)
    assert (row["status"], row["source"], row["version"]) == ("enabled", "entry point", "1.2.0")
    assert (row["location"], row["settings"]) == ("broker_greeter:Greeter", {"greeting": "Servus"})


async def test_an_installed_package_is_loaded_and_answers(broker: Any, dial: Callable[..., Awaitable[Any]]) -> None:
    broker.start()
    client = await dial(broker.port)
    assert await client.do("greet", name="Ada") == {"text": "Servus, Ada!"}
    assert (await client.refused("greet", name=""))["code"] == "invalid_message"
