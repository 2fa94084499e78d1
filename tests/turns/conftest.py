"""A turn machine with an out-tray that can be looked at."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.messages import TurnRow
from broker.turns import Command, TurnMachine


class Tray:
    """Keeps what a machine gives out, in its order, as the session actor would make it durable.

    Attributes:
        records: (kind, data, turn id), numbered by their place.
        rows: the latest state of each turn.
        out: all of it in order: records by kind, rows by state, commands by class.
    """

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any], str | None]] = []
        self.rows: dict[str, TurnRow] = {}
        self.commands: list[Command] = []
        self.out: list[str] = []

    def write(self, kind: str, data: bytes, turn_id: str | None = None) -> int:
        self.records.append((kind, msgspec.json.decode(data), turn_id))
        self.out.append(kind)
        return len(self.records)

    def wall(self) -> int:
        return 1_700_000_000_000

    def save(self, row: TurnRow) -> None:
        self.rows[row.turn_id] = row
        self.out.append(f"save {row.state}")

    def command(self, command: Command) -> None:
        self.commands.append(command)
        self.out.append(type(command).__name__)

    def kinds(self, turn_id: str | None = None) -> list[str]:
        return [kind for kind, _, of in self.records if turn_id in {None, of}]

    def data(self, kind: str) -> list[dict[str, Any]]:
        return [data for of, data, _ in self.records if of == kind]


@pytest.fixture
def tray() -> Tray:
    return Tray()


@pytest.fixture
def make_machine() -> Callable[..., TurnMachine]:
    """Make a machine that gives out into a tray."""

    def make(tray: Tray, queue_limit: int = 2, cls: type[TurnMachine] = TurnMachine) -> TurnMachine:
        return cls("s", tray, queue_limit=queue_limit, agent="fake", workspace_dir="/srv")

    return make


@pytest.fixture(scope="session")
def make_tray() -> type[Tray]:
    return Tray
