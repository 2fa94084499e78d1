"""Where the turns of a session stand, in a word: what `chat.v1.json` calls the execution state (seed 004)."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
import msgspec

from broker.messages import Record

__all__ = ["Execution", "TurnView"]


class TurnView(msgspec.Struct):
    """A turn that has not ended, as a session tells of it."""

    turn_id: str
    state: str
    client_msg_id: str


class _Question(msgspec.Struct):
    approval_id: str


_decode_question: Final = msgspec.json.Decoder(_Question).decode


@attrs.define
class Execution:
    """Where the turns stand.

    Attributes:
        running: the turn at work.
        cancelling: whether it is being stopped.
        waiting: the turns that wait.
        approvals: the questions that are open.
    """

    running: str | None = None
    cancelling: bool = False
    waiting: set[str | None] = attrs.Factory(set)
    approvals: set[str] = attrs.Factory(set)

    @property
    def state(self) -> str:
        """In a word: `idle`, `queued`, `running`, `awaiting_approval` or `cancelling`."""
        if self.running is None:
            return "queued" if self.waiting else "idle"
        if self.cancelling:
            return "cancelling"
        return "awaiting_approval" if self.approvals else "running"

    def take_up(self, turn: TurnView | None, queue: Iterable[TurnView], approvals: Iterable[Mapping[str, Any]]) -> None:
        """Be what a session says of itself to who attaches."""
        self.running = None if turn is None else turn.turn_id
        self.cancelling = turn is not None and turn.state == "cancelling"
        self.waiting = {one.turn_id for one in queue}
        self.approvals = {one["approval_id"] for one in approvals}

    def follow(self, record: Record) -> None:
        """Take note of what a record changes."""
        match record.kind:
            case "turn.queued":
                self.waiting.add(record.turn_id)
            case "turn.started":
                self.waiting.discard(record.turn_id)
                self.running, self.cancelling = record.turn_id, False
            case "turn.cancelling":
                self.cancelling = True
            case "approval.requested":
                self.approvals.add(_decode_question(record.data).approval_id)
            case "approval.resolved":
                self.approvals.discard(_decode_question(record.data).approval_id)
            case "turn.ended":
                self._end(record.turn_id)

    def _end(self, turn_id: str | None) -> None:
        self.waiting.discard(turn_id)
        if self.running == turn_id:
            self.running, self.cancelling = None, False
            self.approvals.clear()
