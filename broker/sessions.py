"""How sessions look from outside, and where they may work: pure functions."""

from pathlib import Path
from typing import Any

import msgspec

from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.messages import Record, SessionRow

__all__ = ["check_workspace", "messages_of", "session_data"]


def session_data(row: SessionRow) -> dict[str, Any]:
    """Return a session's row as lists show it."""
    return {
        "session_id": row.session_id,
        "agent": row.agent,
        "title": row.title,
        "workspace_dir": row.workspace_dir,
        "owner": row.owner,
        "state": "closed" if row.closed else "open",
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


def messages_of(records: list[Record]) -> list[dict[str, Any]]:
    """Return `user.message` and `message.completed` records as messages (PROTOCOL 2a, `session.history`)."""
    messages = []
    for record in records:
        data = msgspec.json.decode(record.data)
        known = {"message_id", "role", "content"}
        messages.append(
            {
                "message_id": data["message_id"],
                "role": data["role"],
                "content": data["content"],
                "at": rfc3339(record.at),
                "turn_id": record.turn_id,
                "metadata": {"seq": record.seq, **{k: v for k, v in data.items() if k not in known}},
            }
        )
    return messages


def check_workspace(path: str | None, roots: tuple[str, ...], *, open_to_all: bool) -> str | None:
    """Return where a session may work, links resolved (PROTOCOL section 7).

    Args:
        path: what the client asked for.
        roots: directories under which it must lie.
        open_to_all: whether no roots means any directory rather than none.

    Raises:
        BrokerError: `workspace_not_found` or `forbidden`.
    """
    if path is None:
        return None
    if "\x00" in path or not Path(path).is_absolute():
        raise BrokerError("workspace_not_found", "Give an absolute path.", field="$.payload.workspace_dir")
    try:
        real = Path(path).resolve()
        found = real.is_dir()
    except (OSError, RuntimeError) as e:  # a name too long, or links that lead in a circle
        raise BrokerError("workspace_not_found", field="$.payload.workspace_dir") from e
    inside = any(real.is_relative_to(Path(root).resolve()) for root in roots)
    if not inside and (roots or not open_to_all):
        raise BrokerError(
            "forbidden", "That directory is outside of the workspace roots.", field="$.payload.workspace_dir"
        )
    if not found:
        raise BrokerError("workspace_not_found", field="$.payload.workspace_dir")
    return str(real)
