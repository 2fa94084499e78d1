"""What a child process sees of its surroundings."""

import os
from collections.abc import Mapping
from typing import Final

__all__ = ["INHERITED", "MARK", "child_environment"]

INHERITED: Final = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
"""What a child sees of the broker's own environment: no keys, no tokens."""
MARK: Final = "ACTOR_BROKER_MARK"
"""The variable by which a broker finds what an earlier one left behind."""


def child_environment(extra: Mapping[str, str], mark: str | None = None) -> dict[str, str]:
    """Return the few variables every program needs, `extra`, and under `MARK` whose child it is."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | dict(extra) | ({} if mark is None else {MARK: mark})
