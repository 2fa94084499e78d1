"""What a write has to keep to, whatever the engine, so that each of them refuses the same in the same words."""

from collections.abc import Callable, Sequence
from typing import Final

from broker.messages import Write
from broker.store.port import UnstorableError

__all__ = ["ROOM", "SESSION", "check"]

SESSION: Final = "session:"
"""What the name of a session's log begins with; the session's id follows."""

ROOM: Final = "room:"
"""What the name of a room's log begins with; the room's name follows."""


def check(writes: Sequence[Write], head_of: Callable[[str], int | None]) -> None:
    """Look a batch through before any of it is written.

    Args:
        writes: the batch, in its order.
        head_of: the head of a log as it is committed, None if there is no such log.

    Raises:
        UnstorableError: a log begins that exists already, one is written to that does not exist, a number does
            not follow on the head (PROTOCOL P2), or a row belongs to another session than its log.
    """
    heads: dict[str, int | None] = {}
    for write in writes:
        name = write.log
        head = heads[name] if name in heads else head_of(name)
        heads[name] = _head_after(write, head)


def _head_after(write: Write, head: int | None) -> int | None:
    if write.delete:
        return None
    if write.create is not None:
        if head is not None:
            raise UnstorableError(f"log {write.log!r} exists already; delete it before it can begin anew")
        head = 0
    if head is None:
        raise UnstorableError(f"there is no log {write.log!r}; the first write to a log has to create it")
    for record in write.records:
        head += 1
        if record.seq != head:
            raise UnstorableError(f"gap in log {write.log!r}: record {record.seq} does not follow on {head - 1}")
    if write.session is not None or write.turns:
        _check_owner(write)
    return head


def _check_owner(write: Write) -> None:
    owners = {turn.session_id for turn in write.turns}
    if write.session is not None:
        owners.add(write.session.session_id)
    for session_id in owners:
        if write.log != SESSION + session_id:
            raise UnstorableError(f"a row of session {session_id!r} does not belong into log {write.log!r}")
