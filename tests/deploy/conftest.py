"""What the tests of `deploy/` share: a broker with everything that is measured, as Prometheus reads it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker import config
from broker.app import App
from broker.extensions.loader import load as load_plugins

SETTINGS = {
    "listen": {"port": 0},
    "store": {"url": "memory:"},
    "agents": {"echo": {"kind": "echo"}, "pool": {"kind": "worker"}},
    "default_agent": "echo",
    "plugins": {"metrics": {}},
}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "summary": ("", "_sum", "_count")}


@attrs.define
class Scrape:
    """What a scrape has brought.

    Attributes:
        names: of all series there can be.
        labels: that each of them has.
    """

    names: set[str] = attrs.field(factory=set)
    labels: dict[str, set[str]] = attrs.field(factory=dict)

    def read(self, text: str) -> None:
        """Take a scrape's text."""
        for family in text_string_to_metric_families(text):
            for suffix in SUFFIXES.get(family.type, ("",)):
                self.names.add(family.name + suffix)
            for sample in family.samples:
                self.labels.setdefault(sample.name, set()).update(sample.labels)


@pytest.fixture
async def scrape(tmp_path: Path) -> AsyncIterator[Scrape]:
    """A real scrape of a real broker."""
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(SETTINGS))
    loaded = config.load(file, {}, {})
    app = App(loaded.settings, load_plugins(loaded.settings, loaded.file))
    await app.start()
    app.stats.rate_limited["messages"] += 1  # the plugin rate_limit names its limits
    scrape = Scrape()
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{app.port}/metrics") as answer:
        scrape.read(await answer.text())
    yield scrape
    await app.stop()
