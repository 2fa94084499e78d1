"""What an earlier run of the broker left in a session's log about turns that had not ended (PROTOCOL section 3).

The rows say which turns those are; the log says what they had come to. It is pure: whoever takes a session
up reads the records of `KINDS` back to where the first of those turns began, and of `OUTPUT` and `USAGE` the
newest one each, and gives them here.
"""

from collections.abc import Iterable
from typing import Any, Final

import attrs
import msgspec

from broker.messages import Record
from broker.turns.approvals import Resolution
from broker.turns.ending import Cause, Ending
from broker.turns.turn import Turn

__all__ = ["KINDS", "OUTPUT", "USAGE", "Leftovers", "leftovers_of"]

KINDS: Final = ("turn.queued", "turn.cancelling", "approval.requested", "approval.resolved")
"""Kinds of which all records of these turns are needed, and of others some of the newest: who was first to answer."""
OUTPUT: Final = (
    "message.delta",
    "message.completed",
    "message.replaced",
    "thought.delta",
    "tool.started",
    "tool.updated",
    "plan.updated",
)
"""Kinds of output; of all of them together the newest record is enough, for only one turn was running."""
USAGE: Final = ("usage.updated",)
"""Of these the newest record is enough as well."""


class _Told(msgspec.Struct):
    """What is looked at in records of `KINDS`; the rest, an agent's own words among it, is not even read."""

    interrupts: bool = False
    retry_of: str | None = None
    reason: str = "the turn was being stopped"
    by: str | None = None
    deadline: Any = None
    approval_id: str = ""
    outcome: Any = None
    option_id: str | None = None
    resolved_by: str | None = None


_read: Final = msgspec.json.Decoder(_Told).decode


@attrs.frozen(kw_only=True)
class Leftovers:
    """What the log says of turns that had not ended.

    Attributes:
        produced: the turns that are known to have had output.
        usage: what a turn had cost, JSON by its id.
        causes: why a turn was being stopped, by its id.
        approvals: the questions that nobody answered, as approval id to turn id, oldest first.
        resolved: how others had been answered, by approval id, oldest first.
        interrupts: turns that were put before those that waited.
        retries: which turn was tried again, by the id of the one that tries.
    """

    produced: frozenset[str] = frozenset()
    usage: dict[str, bytes] = attrs.Factory(dict)
    causes: dict[str, Cause] = attrs.Factory(dict)
    approvals: dict[str, str] = attrs.Factory(dict)
    resolved: dict[str, Resolution] = attrs.Factory(dict)
    interrupts: frozenset[str] = frozenset()
    retries: dict[str, str] = attrs.Factory(dict)

    def approvals_of(self, turn_id: str) -> list[str]:
        """Return the questions of a turn that nobody answered."""
        return [approval_id for approval_id, of in self.approvals.items() if of == turn_id]

    def ending_of(self, turn: Turn, reason: str) -> Ending:
        """Return how a turn ends that an agent had when the broker stopped: lost, or as the turn was being stopped."""
        turn_id = turn.turn_id
        ending = Ending(outcome="lost", partial=turn_id in self.produced, reason=reason, usage=self.usage.get(turn_id))
        if turn.state == "cancelling":
            ending.obey(self.causes.get(turn_id) or Cause("the turn was being stopped"), forced=True)
        return ending


def leftovers_of(records: Iterable[Record]) -> Leftovers:
    """Return what `records`, oldest first, say of turns that have not ended; others are passed over."""
    produced: set[str] = set()
    interrupts: set[str] = set()
    found = Leftovers()
    for record in records:
        turn_id = record.turn_id
        if turn_id is None:
            continue
        if record.kind in OUTPUT:
            produced.add(turn_id)
        elif record.kind in USAGE:
            found.usage[turn_id] = record.data
        elif record.kind in KINDS:
            data = _read(record.data)
            if record.kind == "turn.queued" and data.interrupts:
                interrupts.add(turn_id)
            _take(found, record.kind, turn_id, data)
    return attrs.evolve(found, produced=frozenset(produced), interrupts=frozenset(interrupts))


def _take(found: Leftovers, kind: str, turn_id: str, data: _Told) -> None:
    match kind:
        case "turn.queued" if data.retry_of is not None:
            found.retries[turn_id] = data.retry_of
        case "turn.cancelling":
            found.causes[turn_id] = Cause(data.reason, data.by, data.deadline)
        case "approval.requested":
            found.approvals[data.approval_id] = turn_id
        case "approval.resolved":
            found.approvals.pop(data.approval_id, None)
            found.resolved[data.approval_id] = Resolution(data.outcome, data.option_id, data.resolved_by)
