"""A turn machine with an out-tray that can be looked at."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from broker.messages import Record, TextDelta, TurnRow, TurnTaken
from broker.turns import Command, TurnMachine, TurnRules

WALL = 1_700_000_000_000


class Tray:
    """Keeps what a machine gives out, in its order, as the session actor would make it durable.

    Attributes:
        records: (kind, data, turn id), numbered by their place.
        stored: the same as they are in the store.
        rows: the latest state of each turn.
        out: all of it in order: records by kind, rows by state, commands by class.
        now: the wall clock.
    """

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any], str | None]] = []
        self.stored: list[Record] = []
        self.rows: dict[str, TurnRow] = {}
        self.commands: list[Command] = []
        self.out: list[str] = []
        self.now = WALL

    def write(self, kind: str, data: bytes, turn_id: str | None = None) -> int:
        self.records.append((kind, msgspec.json.decode(data), turn_id))
        self.stored.append(Record(len(self.records), self.now, kind, data, turn_id))
        self.out.append(kind)
        return len(self.records)

    def wall(self) -> int:
        return self.now

    def save(self, row: TurnRow) -> None:
        self.rows[row.turn_id] = row
        self.out.append(f"save {row.state}")

    def command(self, command: Command) -> None:
        self.commands.append(command)
        self.out.append(type(command).__name__)

    def clear(self) -> None:
        """Forget the order and the commands; records and rows stay."""
        self.out.clear()
        self.commands.clear()

    def kinds(self, turn_id: str | None = None) -> list[str]:
        return [kind for kind, _, of in self.records if turn_id in {None, of}]

    def data(self, kind: str) -> list[dict[str, Any]]:
        return [data for of, data, _ in self.records if of == kind]

    def end(self, turn_id: str) -> dict[str, Any]:
        """Return the data of a turn's one end, which is its last record."""
        assert self.kinds(turn_id)[-1] == "turn.ended"
        (end,) = [data for kind, data, of in self.records if (kind, of) == ("turn.ended", turn_id)]
        return end


@pytest.fixture
def tray() -> Tray:
    return Tray()


@pytest.fixture(scope="session")
def make_tray() -> type[Tray]:
    return Tray


@pytest.fixture
def make_machine(tray: Tray) -> Callable[..., TurnMachine]:
    """Make a machine that gives out into the tray; two turns may wait, and rules can be set."""

    def make(**rules: Any) -> TurnMachine:
        return TurnMachine("s", tray, TurnRules(**{"agent": "fake", "queue_limit": 2, **rules}), workspace_dir="/srv")

    return make


@pytest.fixture
def machine(make_machine: Callable[..., TurnMachine]) -> TurnMachine:
    return make_machine()


@pytest.fixture
def accept() -> Callable[..., str]:
    """Accept a turn of Ann's at 0 and return its id."""

    def accepted(machine: TurnMachine, key: str = "m1", **more: Any) -> str:
        how = {"user": "ann", "content": b'"hi"', "if_busy": "queue", "now": 0.0, **more}
        return machine.accept(client_msg_id=key, **how).turn_id

    return accepted


@pytest.fixture
def run(accept: Callable[..., str]) -> Callable[..., str]:
    """Accept a turn that an agent has taken at 0, and return its id; `said` if it has said something, too."""

    def running(machine: TurnMachine, key: str = "m1", *, said: str | None = None) -> str:
        turn_id = accept(machine, key)
        machine.agent(TurnTaken(turn_id), now=0.0)
        if said is not None:
            machine.agent(TextDelta(turn_id, said), now=0.0)
        return turn_id

    return running


# -- the model ---------------------------------------------------------------------------------------


def load_beside(name: str) -> ModuleType:
    """Load a module of this folder; tests are no package, so it is not imported."""
    spec = importlib.util.spec_from_file_location(f"tests_turns_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def judge() -> ModuleType:
    """The judge of a turn machine, `judge.py`."""
    return load_beside("judge")


@pytest.fixture(scope="session")
def life() -> ModuleType:
    """The life of a session, `life.py`."""
    return load_beside("life")
