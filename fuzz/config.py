"""Fuzz the configuration: `python -m fuzz.config --seconds 60` (atheris; Linux, `pip install -e .[fuzz]`).

Whatever a file or a variable holds, it is settings that can be shown, compared and taken over, or mistakes that can be
told as text; nothing else is raised, and it takes no longer than a person would wait. `tests/config/test_corpus.py`
replays the corpus, so that what was once found stays found.
"""

import sys
import tempfile
import time
from pathlib import Path

import attrs

from broker import reload
from broker.config import (
    ByteRate,
    ConfigErrors,
    Count,
    Duration,
    Percent,
    Rate,
    Secret,
    Size,
    blame,
    checks,
    forms,
    layers,
    load,
    profiles,
    reader,
    show,
    structure,
    structure_block,
    tree,
    units,
)

__all__ = ["CORPUS", "SLOWEST", "check"]

CORPUS = Path(__file__).parents[1] / "tests" / "config" / "corpus"
SLOWEST = 5.0
"""Seconds that one input may take; the largest file that is read at all takes less, on a busy machine too."""

VARIABLES = ("BROKER_LISTEN__ORIGINS", "BROKER_AGENTS", "BROKER_PLUGINS__ANY", "WEBSOCKET_ADDR")


@attrs.frozen
class Any_:  # noqa: N801 - the settings of any plugin
    """Settings with something of each type."""

    time: Duration = 1.0
    size: Size = 1
    rate: Rate = 1.0
    bytes: ByteRate = 1.0
    count: Count = 1
    part: Percent = 1.0
    key: Secret | None = None
    names: dict[str, list[str]] = attrs.Factory(dict)


def check(data: bytes) -> None:
    """Try one input: a byte that says where it stands, and then the text.

    Raises:
        AssertionError: a rule does not hold.
    """
    where, text = data[0] % 8 if data else 0, data[1:]
    begun = time.perf_counter()
    try:
        _load(where, text)
    except ConfigErrors as e:
        assert e.problems, "refused without a mistake"
        rendered = e.render()
        assert rendered.strip()
        rendered.encode()
        assert all(char.isprintable() or char in "\n\t" for char in rendered), "steers a terminal"
    took = time.perf_counter() - begun
    assert took < SLOWEST, f"took {took:.1f} s"


def _load(where: int, text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        environ = {"HOME": "/nowhere", "NAME": "value"}
        if where < len(VARIABLES):
            file.write_text("{}")
            environ[VARIABLES[where]] = text.decode(errors="replace").replace("\0", "")
        else:
            file.write_bytes(text)
        loaded = load(file, environ, {})
    for block in loaded.settings.plugins.values():
        show.summary(structure_block(Any_, block))
    "\n".join(show.as_yaml(loaded)).encode()
    show.as_data(loaded)
    assert reload.changes(loaded.settings, loaded.settings) == []
    reload.merge(loaded.settings, loaded.settings)


def main() -> None:
    """Fuzz the configuration for a while."""
    from fuzz.harness import fuzz  # noqa: PLC0415 - atheris is not there on every platform, nor needed to replay

    loading = sys.modules[load.__module__]
    fuzz(
        check,
        blame,
        checks,
        forms,
        layers,
        loading,
        profiles,
        reader,
        show,
        structure,
        tree,
        units,
        corpus=CORPUS,
        most=600,
    )


if __name__ == "__main__":
    main()
