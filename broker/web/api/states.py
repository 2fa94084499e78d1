"""Where a session stands, and what its variables were, for those who build on it."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from broker.clock import rfc3339
from broker.messages import Principal, Record
from broker.protocol.parcel import withheld
from broker.web.services import to_json

__all__ = ["VARIABLES", "encode_snapshots", "state_data"]

VARIABLES: Final = ("session.opened", "variables.changed")
"""The kinds of records that hold variables: as a session began, and after each change."""
_SHOWN: Final = ("session_id", "agent", "state", "turn", "queue", "approvals", "epoch", "head")


class _Change(msgspec.Struct):
    """What a record says of variables; one that begins a session names its owner, and says what they begin with."""

    variables: msgspec.Raw
    set: msgspec.Raw = msgspec.Raw(b"null")
    by: str | None = None
    owner: str | None = None
    agent: str | None = None


_decode: Final = msgspec.json.Decoder(_Change).decode


def encode_snapshots(records: Sequence[Record], view: dict[str, Any]) -> bytes:
    """Return the variables as they are, and as records say they were, as JSON; `before_seq` asks for the page before.

    Args:
        records: of the kinds `VARIABLES`, oldest first.
        view: the session as it stands.
    """
    page = {"variables": view["variables"], "snapshots": [_snapshot(record) for record in records]}
    if records and records[0].kind != VARIABLES[0]:
        page["before_seq"] = records[0].seq
    return to_json(page)


def _snapshot(record: Record) -> dict[str, Any]:
    change = _decode(record.data)
    begins = record.kind == VARIABLES[0]
    snapshot: dict[str, Any] = {
        "seq": record.seq,
        "at": rfc3339(record.at),
        "by": change.owner if begins else change.by,
        "set": change.variables if begins else change.set,
        "variables": change.variables,
    }
    if change.agent is not None and not begins:  # where it begins, that is whom it will talk to
        snapshot["agent"] = change.agent
    if record.turn_id is not None:
        snapshot["turn_id"] = record.turn_id
    return snapshot


def state_data(view: dict[str, Any], newest: Sequence[Record], by: Principal) -> dict[str, Any]:
    """Return where a session's work stands.

    Args:
        view: the session as it stands.
        newest: the newest record of its log; none if it holds none any more.
        by: who asks.
    """
    turn = view["turn"]
    waiting = "queued" if view["queue"] else "idle"
    return {
        **{name: view[name] for name in _SHOWN},
        "execution": waiting if turn is None else turn["state"],
        "position": _position(newest[-1] if "debug" in by.scopes else withheld(newest[-1])) if newest else None,
    }


def _position(record: Record) -> dict[str, Any]:
    position: dict[str, Any] = {"seq": record.seq, "event": record.kind, "at": rfc3339(record.at)}
    return position if record.turn_id is None else {**position, "turn_id": record.turn_id}
