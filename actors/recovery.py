"""What the store knows of a session, read when it comes back: after sleep, after a crash, after a failure."""

from typing import Final

import attrs
import msgspec

from broker.actors.store import StorePort
from broker.messages import LogRow, Record, SessionRow, TurnRow

__all__ = ["StoredSession", "read_session"]

OUTPUT: Final = ("message.delta", "thought.delta", "tool.started", "tool.updated", "plan.updated", "message.completed")
APPROVALS: Final = 100
"""Questions and answers that are looked at; a turn that asks more people more things has other worries."""


@attrs.frozen
class StoredSession:
    """A session as an earlier incarnation left it.

    Attributes:
        row: the session.
        log: its log.
        turns: all its turns, in the order of their acceptance.
        produced: the turn to which the log's last output belongs; looked up only for an unfinished one.
        approvals: (turn id, approval id) of the questions that nobody answered; likewise.
    """

    row: SessionRow
    log: LogRow
    turns: list[TurnRow]
    produced: str | None = None
    approvals: tuple[tuple[str, str], ...] = ()

    @property
    def unfinished(self) -> bool:
        """Whether a turn has not ended."""
        return any(turn.outcome is None for turn in self.turns)


async def read_session(store: StorePort, session_id: str) -> StoredSession | None:
    """Return what the store knows of a session, None if there is none.

    Raises:
        BrokerError: `unavailable`, if the store cannot be read.
    """
    name = f"session:{session_id}"
    row: SessionRow | None = await store.read("session", session_id)
    log: LogRow | None = await store.read("log", name)
    if row is None or log is None:
        return None
    stored = StoredSession(row, log, await store.read("turns", session_id))
    if not stored.unfinished:
        return stored
    below = log.head + 1
    output: list[Record] = await store.read("records_before", name, below, limit=1, kinds=OUTPUT)
    asked: list[Record] = await store.read("records_before", name, below, limit=APPROVALS, kinds=["approval.requested"])
    answered: list[Record] = await store.read(
        "records_before", name, below, limit=APPROVALS, kinds=["approval.resolved"]
    )
    done = {_approval_id(record) for record in answered}
    return attrs.evolve(
        stored,
        produced=output[0].turn_id if output else None,
        approvals=tuple((r.turn_id, _approval_id(r)) for r in asked if r.turn_id and _approval_id(r) not in done),
    )


def _approval_id(record: Record) -> str:
    return str(msgspec.json.decode(record.data)["approval_id"])
