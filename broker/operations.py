"""What sessions and rooms are asked, by sockets, the HTTP API and plugins alike: values, no behaviour."""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from broker.messages import Principal

__all__ = [
    "Answer",
    "Attach",
    "Cancel",
    "Close",
    "Configure",
    "Created",
    "Delete",
    "Describe",
    "Detach",
    "Drop",
    "Edit",
    "Feedback",
    "History",
    "IfBusy",
    "Join",
    "Leave",
    "Open",
    "Operation",
    "Parting",
    "Presence",
    "Publish",
    "Recheck",
    "RoomHistory",
    "Share",
    "Start",
    "Update",
]

IfBusy = Literal["queue", "reject", "interrupt"]
Follower = Any
"""The reference of a connection; its class belongs to a layer above."""


@attrs.define
class Operation:
    """Something a person or a program asks for; `by` is who."""

    by: Principal


@attrs.define
class Parting(Operation):
    """Have `follower` follow a log no longer; where the log's actor is not in memory, it follows it no longer."""

    follower: Follower


# -- sessions ---------------------------------------------------------------------------------------


@attrs.define
class Created(Operation):
    """Answer the one that had this session made, and show it to `follower`, if any."""

    follower: Follower | None


@attrs.define
class Attach(Operation):
    """Show the log to `follower` from `after_seq` on."""

    follower: Follower
    after_seq: int
    epoch: str | None


@attrs.define
class Open(Attach):
    """Show the log to `follower` as `Attach` does, once all of it is durable: it may have been made for this."""


@attrs.define
class Detach(Parting):
    """Show the log to `follower` no longer."""


@attrs.define
class Recheck(Operation):
    """Show the log to `follower` no longer, if `by`, who it is now, may not see it."""

    follower: Follower


@attrs.define
class Describe(Operation):
    """Return the session's row and state, for the HTTP API."""


@attrs.define
class History(Operation):
    """Return a page of records, or of messages, that ends below `before_seq`; of records with `kinds` only those."""

    before_seq: int | None
    limit: int
    kind: Literal["records", "messages"]
    kinds: tuple[str, ...] | None = None


@attrs.define
class Update(Operation):
    """Change the title, or set variables; one set to None is removed."""

    title: str | None
    variables: Mapping[str, Any] | None


@attrs.define
class Start(Operation):
    """Start a turn; `content` is JSON, `retry_of` an ended turn that is tried again, `metadata` a JSON object."""

    client_msg_id: str
    content: bytes
    if_busy: IfBusy
    retry_of: str | None = None
    metadata: bytes = b"{}"


@attrs.define
class Edit(Operation):
    """Change what a turn that still waits is to say; `content` is JSON."""

    turn_id: str
    content: bytes


@attrs.define
class Drop(Operation):
    """Take back a turn that still waits."""

    turn_id: str


@attrs.define
class Cancel(Operation):
    """Cancel a turn."""

    turn_id: str


@attrs.define
class Answer(Operation):
    """Answer an approval."""

    approval_id: str
    option_id: str


@attrs.define
class Share(Operation):
    """Share the session with a user, as `member` or `viewer`; None ends that."""

    user: str
    role: Literal["member", "viewer"] | None


@attrs.define
class Configure(Operation):
    """Ask the session's agent to work in another mode, or with other options."""

    mode: str | None
    options: Mapping[str, Any]


@attrs.define
class Close(Operation):
    """Close the session: it can be read, but takes no more turns."""


@attrs.define
class Delete(Operation):
    """Delete the session and its log."""


# -- rooms ------------------------------------------------------------------------------------------


@attrs.define
class Join(Operation):
    """Make `follower` a member; tell it the events after `after_seq`, or only those to come.

    Attributes:
        events: the names of those that it wants to be told; None for all.
    """

    follower: Follower
    connection_id: str
    after_seq: int | None
    epoch: str | None
    events: frozenset[str] | None = None


@attrs.define
class Leave(Parting):
    """End the membership of `follower`."""


@attrs.define
class Publish(Operation):
    """Tell all members; `sender` and `data` are JSON, `agent` is the profile of the agent that says it, if one does."""

    sender: bytes
    event: str
    data: bytes
    agent: str | None = None


@attrs.define
class Feedback(Operation):
    """Bring what somebody says of a project to its agent, and return what that answers.

    Attributes:
        sender: JSON of who says it.
        follower: the connection that waits for the answer; None for a request over HTTP.
        feedback_id: the asker's name for it; the same again, while it is open, is answered with the first.
        data: JSON.
    """

    sender: bytes
    follower: Follower | None
    feedback_id: str
    data: bytes


@attrs.define
class Presence(Operation):
    """Return the members."""


@attrs.define
class RoomHistory(Operation):
    """Return a page of events that ends below `before_seq`."""

    before_seq: int | None
    limit: int
