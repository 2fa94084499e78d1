"""How sessions look from outside, and where they may work: pure functions."""

from pathlib import Path
from typing import Any, Final, Literal

import attrs
import msgspec

from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.messages import Principal, Record, SessionRow

__all__ = [
    "CONVERSATION",
    "Role",
    "check_workspace",
    "messages_of",
    "require",
    "role_of",
    "session_data",
    "shared_with",
]

CONVERSATION: Final = ("user.message", "turn.edited", "message.completed", "message.replaced")
"""The kinds of records that make up a conversation as people read it."""

Role = Literal["viewer", "member", "owner"]
"""What somebody may do with a session: see it; talk to its agent too; share, close and delete it too."""

MEMBERS: Final = 100
"""Users that one session can be shared with."""

_RANKS: Final[dict[Role | None, int]] = {None: 0, "viewer": 1, "member": 2, "owner": 3}
_SHOWN: Final = frozenset({"message_id", "role", "content", "metadata"})
_WANTED: Final[dict[Role, str]] = {"viewer": "a viewer", "member": "a member", "owner": "its owner"}
_read_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_members: Final = msgspec.json.Decoder(dict[str, Literal["member", "viewer"]]).decode


def role_of(row: SessionRow, by: Principal) -> Role | None:
    """Return what somebody is to a session; scope `admin` counts as owner, and None owns what anonymous made."""
    if row.owner == by.user or "admin" in by.scopes:
        return "owner"
    if by.user is None or row.members == b"{}":
        return None
    return _read_members(row.members).get(by.user)


def require(row: SessionRow, by: Principal, role: Role) -> None:
    """Refuse who is not at least this to a session; each role may do what the ones before it may.

    Raises:
        BrokerError: `forbidden`.
    """
    found = role_of(row, by)
    if _RANKS[found] >= _RANKS[role]:
        return
    if found is None:
        raise BrokerError("forbidden", "This session belongs to somebody else.")
    raise BrokerError("forbidden", f"You are a {found} of this session; that takes {_WANTED[role]}.")


def shared_with(row: SessionRow, user: str, role: Literal["member", "viewer"] | None) -> SessionRow:
    """Return the row of a session that is shared with one user more, in another role, or (None) with one less.

    Raises:
        BrokerError: `invalid_message` for the owner; `too_large` for more users than one session is shared with.
    """
    if user == row.owner:
        raise BrokerError("invalid_message", "That is the session's owner.", field="$.payload.user")
    members = _read_members(row.members)
    members.pop(user, None)
    if role is not None:
        if len(members) >= MEMBERS:
            raise BrokerError("too_large", f"A session is shared with at most {MEMBERS} users.")
        members[user] = role
    return attrs.evolve(row, members=msgspec.json.encode(members))


def session_data(row: SessionRow) -> dict[str, Any]:
    """Return a session's row as lists show it."""
    return {
        "session_id": row.session_id,
        "agent": row.agent,
        "title": row.title,
        "workspace_dir": row.workspace_dir,
        "owner": row.owner,
        "members": _read_members(row.members),
        "ephemeral": row.ephemeral,
        "state": "closed" if row.closed else "open",
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


def messages_of(records: list[Record]) -> list[dict[str, Any]]:
    """Return records of the kinds `CONVERSATION`, oldest first, as messages (PROTOCOL 2a, `session.history`).

    What was thought is left out. What was edited or replaced within the page stands once, at its first place and
    as it is now; `metadata.seq` is the number of the record it began with, `metadata.changed_seq` that of the one
    it has its content from. On two pages a message may stand twice: of two with one `message_id`, the one with
    the higher number is right.

    What records hold is handed on as it is written there, as `msgspec.Raw`: whoever reads it may know what to do with
    a number that is too large for us, and nobody else's message is lost by it.
    """
    messages: dict[tuple[str | None, bytes], dict[str, Any]] = {}
    for record in records:
        data = _read_fields(record.data)
        if bytes(data.get("thought", b"")) == b"true":
            continue
        message: dict[str, Any] = {
            "message_id": data["message_id"],
            "role": data["role"],
            "content": data["content"],
            "at": rfc3339(record.at),
            "turn_id": record.turn_id,
            "metadata": {**_read_fields(bytes(data.get("metadata", b"{}"))), "seq": record.seq, **_others(data)},
        }
        key = record.turn_id, bytes(data["message_id"])
        earlier = messages.get(key)
        if earlier is not None:
            began = earlier["metadata"]
            changed = {**began, **message["metadata"], "seq": began["seq"], "changed_seq": record.seq}
            message = {**message, "at": earlier["at"], "metadata": changed}
        messages[key] = message
    return list(messages.values())


def _others(data: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {key: value for key, value in data.items() if key not in _SHOWN}


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
