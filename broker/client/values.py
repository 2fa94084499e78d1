"""What clients are given: records, events, how a turn ended, and pages of a history (PROTOCOL sections 2 and 3a)."""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from broker.client.wire import Message

__all__ = ["Attached", "Ended", "Event", "Notification", "Page", "Record", "State", "event_of", "record_of"]

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True):
    """A record of a session's log.

    Attributes:
        event: its kind, such as `message.delta`.
        seq: its number in the log: 1, 2, 3 ... without a gap.
        data: what it says, by its kind.
        at: when, RFC 3339.
        turn_id: the turn that it belongs to.
    """

    event: str
    seq: int
    data: Any
    at: str
    turn_id: str | None = None

    @property
    def text(self) -> str:
        """What it adds to the answer: the text of a `message.delta`, nothing of anything else."""
        text = self.data.get("text") if self.event == "message.delta" and isinstance(self.data, dict) else None
        return text if isinstance(text, str) else ""


class Event(msgspec.Struct, frozen=True):
    """An event in a room.

    Attributes:
        room: where.
        event: its name.
        data: what was published.
        sender: `{"connection_id", "user"}` of who did; None if that is not known.
        seq: its number in the room's log; None if it is in none.
        at: when, RFC 3339.
    """

    room: str
    event: str
    data: Any
    sender: Any
    seq: int | None
    at: str


class Notification(msgspec.Struct, frozen=True):
    """Something the broker says that belongs to no session and no room.

    Attributes:
        event: what it is, such as `message` or `broadcast`.
        data: what it says.
        sender: `{"connection_id", "user"}` of who said it; None if it is the broker's own.
    """

    event: str
    data: Any
    sender: Any = None


class Ended(msgspec.Struct, frozen=True):
    """How a turn ended.

    Attributes:
        outcome: `completed`, `cancelled`, `failed`, `timed_out` or `lost`.
        data: all that its `turn.ended` says.
    """

    outcome: str
    data: dict[str, Any]

    @property
    def completed(self) -> bool:
        """Whether the agent ended it by itself."""
        return self.outcome == "completed"

    @property
    def reason(self) -> str | None:
        """Why it ended so, in words for a person, where there is something to explain."""
        error = self.data.get("error")
        said = error.get("message") if isinstance(error, dict) else self.data.get("reason")
        return said if isinstance(said, str) else None


class Attached(msgspec.Struct, frozen=True):
    """How a session stood when it was attached to (PROTOCOL 2a).

    Attributes:
        head: the number of its newest record; what follows it comes live.
        floor: that of its oldest.
        state: `open` or `closed`.
        turn: the one that runs; None for none.
        queue: those that wait behind it.
        approvals: questions that nobody has answered.
        variables: the session's variables.
        recovered: whether the log continues what was asked to be continued.
    """

    epoch: str
    head: int
    floor: int = 1
    state: str = "open"
    turn: dict[str, Any] | None = None
    queue: list[dict[str, Any]] = []
    approvals: list[dict[str, Any]] = []
    variables: dict[str, Any] = {}
    recovered: bool = True


class State(msgspec.Struct, frozen=True):
    """How the connection is.

    Attributes:
        name: `connecting`, `open`, `waiting` (to try again) or `closed`.
        code: the close code that led here; None for none.
        reason: in words.
        delay: seconds until the next try, while waiting.
    """

    name: str
    code: int | None = None
    reason: str = ""
    delay: float | None = None


class Page(list[T]):
    """A page of a history, oldest first.

    Attributes:
        before_seq: asks for the page before; None where the log begins.
    """

    def __init__(self, items: Iterable[T], before_seq: int | None) -> None:
        super().__init__(items)
        self.before_seq = before_seq


def record_of(message: Message) -> Record:
    """Return the record that a notification is."""
    return Record(message.event, message.seq or 0, message.data, message.at, message.turn_id)


def event_of(room: str, said: Any, seq: int | None, sender: Any, at: str) -> Event:
    """Return the event of a room; `said` names it and has its data."""
    told = said if isinstance(said, dict) else {}
    return Event(room, str(told.get("event", "")), told.get("data"), sender, seq, at)
