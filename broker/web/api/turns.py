"""One turn over HTTP, with all that was said in it."""

from typing import Any, Final, Literal, NotRequired, TypedDict

import attrs
import msgspec

from broker import operations as ops
from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.messages import Record, TurnRow
from broker.protocol import payloads
from broker.protocol.parcel import withheld
from broker.web.api import answers
from broker.web.api.endpoint import Call, endpoint
from broker.web.views import record_data

PAGE: Final = 1000
"""Records that are read of the log at a time."""
PAGE_BYTES: Final = 1 << 20
PAGES: Final = 10
"""Pages that are read at most: of a turn that waited behind long ones, or is longer than all of that."""


@attrs.define
class TurnNamed:
    """A turn of a session."""

    session_id: payloads.Id
    turn_id: payloads.Id


class WholeTurn(TypedDict):
    """A turn and its records, oldest first.

    `first_token_seconds` is from its start to its agent's first text, `text_bytes` the UTF-8 of the answer. Where
    `complete` is false the turn has more records than are shown.
    """

    session_id: str
    turn_id: str
    state: Literal["queued", "dispatching", "running", "awaiting_approval", "cancelling", "ended"]
    outcome: str | None
    started_at: answers.Time | None
    ended_at: answers.Time | None
    first_token_seconds: float | None
    text_bytes: int
    records: list[answers.Record]
    complete: NotRequired[bool]


@endpoint(
    *("GET", "/sessions/{session_id}/turns/{turn_id}", "session.history", TurnNamed),
    answer=WholeTurn,
    resource="session_id",
    errors=("not_found",),
)
async def show_turn(call: Call, named: TurnNamed) -> Any:
    """Show a turn with its records: what was said, when, and how it ended."""
    view: dict[str, Any] = await call.services.ask_session(named.session_id, ops.Describe(call.by))
    rows: list[TurnRow] = await call.services.store.read("turns", named.session_id)
    row = next((row for row in rows if row.turn_id == named.turn_id), None)
    if row is None:
        raise BrokerError("not_found", "There is no such turn in this session.", field="turn_id")
    records, complete = await _records(call, row)
    if "debug" not in call.by.scopes:
        records = list(map(withheld, records))
    return {
        "session_id": row.session_id,
        "turn_id": row.turn_id,
        "state": _state(row, view),
        "outcome": row.outcome,
        **_figures(records),
        "records": [record_data(record) for record in records],
        "complete": complete,
    }


async def _records(call: Call, row: TurnRow) -> tuple[list[Record], bool]:
    """Return a turn's records, and whether these are all there are of it by now."""
    found: list[Record] = []
    size, after, log = 0, row.seq - 1, f"session:{row.session_id}"
    for _ in range(PAGES):
        page: list[Record] = await call.services.store.read(
            "records_after", log, after, limit=PAGE, max_bytes=PAGE_BYTES
        )
        mine = [record for record in page if record.turn_id == row.turn_id]
        found += mine
        size += sum(len(record.data) for record in mine)
        if not page or any(record.kind == "turn.ended" for record in mine):
            return found, True
        if size > PAGE_BYTES:
            break
        after = page[-1].seq
    return found, False


def _state(row: TurnRow, view: dict[str, Any]) -> str:
    """Return where a turn stands: as its session says, since not each step on its way is kept."""
    if row.outcome is not None:
        return "ended"
    turn = view["turn"]
    state: str = turn["state"] if turn is not None and turn["turn_id"] == row.turn_id else row.state
    return state


class _Text(msgspec.Struct):
    text: str = ""


_text: Final = msgspec.json.Decoder(_Text).decode


def _figures(records: list[Record]) -> dict[str, Any]:
    """Return when a turn began and ended, when its first text came, and how much of it there was."""
    times = {record.kind: record.at for record in reversed(records)}  # of each kind the first
    began, ended = times.get("turn.started"), times.get("turn.ended")
    said = [at for at in (times.get("message.delta"), times.get("thought.delta")) if at is not None]
    return {
        "started_at": None if began is None else rfc3339(began),
        "ended_at": None if ended is None else rfc3339(ended),
        "first_token_seconds": (min(said) - began) / 1000 if said and began is not None else None,
        "text_bytes": sum(len(_text(one.data).text.encode()) for one in records if one.kind == "message.delta"),
    }
