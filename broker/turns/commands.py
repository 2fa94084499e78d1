"""What comes out of the turn machine, and the port it comes out through."""

from typing import Protocol

import attrs

from broker.messages import Prompt, TurnRow, TurnState

__all__ = ["Accepted", "AnswerApproval", "AskSlot", "CancelTurn", "Command", "CutLink", "Out", "StartTurn"]


@attrs.define
class AskSlot:
    """Ask for a place at the agent for this turn; it is answered with a `SlotAnswer`, and again as that changes.

    Attributes:
        turn_id: the turn.
        number: of this ask, among those of its session; the answers carry it.
    """

    turn_id: str
    number: int


@attrs.define
class StartTurn:
    """Give the agent this turn."""

    prompt: Prompt


@attrs.define
class CancelTurn:
    """Ask the agent to stop this turn."""

    turn_id: str


@attrs.define
class AnswerApproval:
    """Answer the agent's question; no option means it was cancelled."""

    turn_id: str
    key: str
    option_id: str | None


@attrs.define
class CutLink:
    """Cut the agent's link and kill what runs behind it; without a turn, if none runs."""

    turn_id: str | None


Command = AskSlot | StartTurn | CancelTurn | AnswerApproval | CutLink


class Out(Protocol):
    """Where the machine's results go."""

    def write(self, kind: str, data: bytes, turn_id: str | None = None) -> int:
        """Append a record and return its number."""

    def wall(self) -> int:
        """Return the wall clock's milliseconds since the epoch; for what people read."""

    def save(self, row: TurnRow) -> None:
        """Keep the latest state of a turn, together with the records written so far."""

    def command(self, command: Command) -> None:
        """Carry this out once everything written so far is durable."""


@attrs.define
class Accepted:
    """The answer to a turn that was accepted; `duplicate` if it had been before."""

    turn_id: str
    seq: int
    status: TurnState
    duplicate: bool
