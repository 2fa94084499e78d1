"""What the endpoints answer, as classes from which the API's description is made (PROTOCOL sections 2a and 5).

They are dictionaries: most of them come as such from the actors, which answer a socket's requests with the same.
"""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from broker.errors import Category

__all__ = [
    "Connections",
    "Created",
    "Delivered",
    "Disconnected",
    "Events",
    "Execution",
    "FeedbackAnswer",
    "Happening",
    "Messages",
    "Problem",
    "Published",
    "Records",
    "Rooms",
    "Sender",
    "Sessions",
    "Snapshots",
    "Started",
    "Time",
    "View",
]

Time = Annotated[str, Meta(description="RFC 3339, UTC, milliseconds", extra_json_schema={"format": "date-time"})]
Cursor = Annotated[str, Meta(description="of the next page; there only if there is more")]
Before = Annotated[int, Meta(description="asks for the page before; left out where the log begins")]
State = Literal["open", "closed"]
Role = Literal["member", "viewer"]


class Place(TypedDict):
    """What is wrong with the request: a field by its path, with its JSON pointer if it is in the body."""

    field: str
    pointer: NotRequired[str]


class Problem(TypedDict):
    """What went wrong (RFC 9457), with the code to decide by."""

    type: Annotated[str, Meta(pattern="^urn:actor-broker:error:[a-z_]+$")]
    title: str
    status: int
    category: Category
    code: str
    message: str
    retryable: bool
    recovery: str
    place: NotRequired[Place]
    retry_after: NotRequired[float]
    field: NotRequired[str]
    hint: NotRequired[str]


# -- sessions ---------------------------------------------------------------------------------------


class Created(TypedDict):
    """A session that is there now."""

    session_id: str
    agent: str
    created_at: Time
    epoch: str
    head: int
    workspace_dir: str | None
    durable: NotRequired[bool]


class Session(TypedDict):
    """A session as lists show it."""

    session_id: str
    agent: str
    title: str | None
    workspace_dir: str | None
    owner: str | None
    members: dict[str, Role]
    ephemeral: bool
    state: State
    created_at: Time
    updated_at: Time


class Sessions(TypedDict):
    """A page of sessions, newest first."""

    sessions: list[Session]
    cursor: NotRequired[Cursor]


class Turn(TypedDict):
    """A turn that has not ended."""

    turn_id: str
    state: Literal["queued", "dispatching", "running", "awaiting_approval", "cancelling"]
    user: str | None
    client_msg_id: str
    retry_of: NotRequired[str]
    stalled: NotRequired[bool]
    cancelling: NotRequired[Any]


class Approval(TypedDict):
    """A question of the agent that nobody has answered."""

    approval_id: str
    title: str
    options: list[Any]
    expires_at: Time | None
    tool: NotRequired[Any]


class View(Session):
    """A session as it stands."""

    epoch: str
    head: int
    floor: int
    turn: Turn | None
    queue: list[Turn]
    approvals: list[Approval]
    variables: dict[str, Any]


class Position(TypedDict):
    """How far a session has come: the newest record of its log."""

    seq: int
    event: str
    at: Time
    turn_id: NotRequired[str]


class Execution(TypedDict):
    """Where a session's work stands; `execution` says it in a word."""

    session_id: str
    agent: str
    state: State
    execution: Literal["idle", "queued", "dispatching", "running", "awaiting_approval", "cancelling"]
    turn: Turn | None
    queue: list[Turn]
    approvals: list[Approval]
    epoch: str
    head: int
    position: Position | None


class Snapshot(TypedDict):
    """A session's variables as they were after a change; `set` is what was asked for."""

    seq: int
    at: Time
    by: str | None
    set: dict[str, Any]
    variables: dict[str, Any]
    agent: NotRequired[str]
    turn_id: NotRequired[str]


class Snapshots(TypedDict):
    """A session's variables as they are, and a page of their history, oldest first."""

    variables: dict[str, Any]
    snapshots: list[Snapshot]
    before_seq: NotRequired[Before]


class Record(TypedDict):
    """A record of a session's log."""

    event: str
    seq: int
    at: Time
    data: Any
    turn_id: NotRequired[str]


class Records(TypedDict):
    """A page of records, oldest first."""

    records: list[Record]
    before_seq: NotRequired[Before]


class Message(TypedDict):
    """A message of the conversation."""

    message_id: str
    role: Literal["user", "assistant"]
    content: Any
    at: Time
    turn_id: str | None
    metadata: dict[str, Any]


class Messages(TypedDict):
    """A page of messages, oldest first."""

    messages: list[Message]
    before_seq: NotRequired[Before]


class Started(TypedDict):
    """A turn that was accepted, now or before."""

    turn_id: str
    seq: int
    status: Literal["queued", "dispatching", "running", "awaiting_approval", "cancelling", "ended"]
    duplicate: bool
    durable: bool


# -- rooms ------------------------------------------------------------------------------------------


class Published(TypedDict):
    """An event that was told to a room; `seq` where the room keeps a log."""

    delivered: int
    seq: NotRequired[int]
    durable: NotRequired[bool]


class Sender(TypedDict):
    """Who sent something; `agent` is the profile of the agent that did, if one did."""

    connection_id: str | None
    user: str | None
    agent: NotRequired[str]


class Happening(TypedDict):
    """What a member of the room was told."""

    event: str
    data: Any


Event = TypedDict("Event", {"seq": int, "from": Sender | None, "at": Time, "data": Happening})
"""An event of a room's log."""


class Events(TypedDict):
    """A page of events, oldest first."""

    events: list[Event]
    before_seq: NotRequired[Before]


class Room(TypedDict):
    """A room; `head` and `updated_at` where it has a log."""

    room: str
    members: int
    head: NotRequired[int]
    updated_at: NotRequired[Time]


class Rooms(TypedDict):
    """A page of rooms, by name."""

    rooms: list[Room]
    cursor: NotRequired[Cursor]


class FeedbackAnswer(TypedDict):
    """What a project's agent answers to feedback; `data` is as it came."""

    project: str
    feedback_id: str
    data: Any


# -- connections ------------------------------------------------------------------------------------


class Delivered(TypedDict):
    """How many connections were told."""

    delivered: int


class Connection(TypedDict):
    """A client that is connected; `outbox_bytes` wait for it."""

    connection_id: str
    user: str | None
    protocol: str
    address: str
    connected_at: Time
    outbox_bytes: int
    rooms: list[str]
    sessions: list[str]


class Connections(TypedDict):
    """How many clients are connected, and for administrators a page of them, oldest first."""

    count: int
    connections: NotRequired[list[Connection]]
    cursor: NotRequired[Cursor]


class Disconnected(TypedDict):
    """How many connections are being closed."""

    disconnected: int
