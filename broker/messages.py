"""What actors tell each other and what the log holds: values, no behaviour.

Nobody changes a value once it is made. They are not `attrs.frozen` all the same: making a frozen
object takes three times as long, and a turn makes some fifty of them.

Payloads that the broker only carries are `bytes` holding JSON exactly as it came, so that they leave
as they entered. Times are integers, milliseconds since the epoch, UTC.
"""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

__all__ = [
    "ALL_SCOPES",
    "ANONYMOUS",
    "AgentEvent",
    "AgentLost",
    "AgentReady",
    "AgentRecord",
    "ApprovalRequested",
    "LinkStalled",
    "LogRow",
    "Principal",
    "Prompt",
    "Record",
    "SessionRow",
    "SlotAnswer",
    "TextDelta",
    "TextReplaced",
    "TurnFailed",
    "TurnRow",
    "TurnSettled",
    "TurnState",
    "TurnTaken",
    "VariablesSet",
    "Write",
]

ALL_SCOPES = frozenset({"admin", "api", "agent", "debug"})

TurnState = Literal["queued", "dispatching", "running", "awaiting_approval", "cancelling", "ended"]


@attrs.frozen
class Principal:
    """Who a peer is and what it may do, as a plugin established it.

    Attributes:
        user: the user's name, None for anonymous.
        scopes: what it may do beyond the ordinary: `admin`, `api`, `agent`, `debug`.
        expires_at: milliseconds since the epoch at which it is nobody any more; None for never.
        credential: what it showed, by a name that gives nothing away, such as a token's `jti`.
        claims: what else the plugin wants to know when it is asked about it again; never shown.
    """

    user: str | None = None
    scopes: frozenset[str] = frozenset()
    expires_at: int | None = None
    credential: str | None = None
    claims: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)


ANONYMOUS = Principal(scopes=ALL_SCOPES)
"""Everybody, while no plugin says who is who: with every scope, which is why that stays on loopback."""


# -- the log -------------------------------------------------------------------------------------


@attrs.define
class Record:
    """One entry of a session's or a room's log.

    Attributes:
        seq: its number, 1, 2, 3 ... without a gap (PROTOCOL P2).
        at: when its actor wrote it.
        kind: a kind of PROTOCOL 3a, or a room event's name.
        data: JSON, as bytes.
        turn_id: the turn it belongs to, if any.
        author: for a room's event, JSON of who published it (`from` on the wire).
    """

    seq: int
    at: int
    kind: str
    data: bytes
    turn_id: str | None = None
    author: bytes | None = None


@attrs.define
class LogRow:
    """What the store knows of one log.

    Attributes:
        name: `session:<id>` or `room:<name>`.
        epoch: changes when a log of that name starts anew; a `seq` means nothing without it.
        head: the highest number ever given; 0 for none.
        floor: the lowest number still held; `head + 1` when none is.
        created_at: when it began.
        updated_at: when it was last written to.
        bytes: data of all records ever written to it.
    """

    name: str
    epoch: str
    head: int
    floor: int
    created_at: int
    updated_at: int
    bytes: int = 0


@attrs.define
class SessionRow:
    """What is kept of a session beside its log.

    Attributes:
        variables: a JSON object; nothing in a list, which does not read it.
        members: a JSON object: whom the owner shares it with, and as what (`member` or `viewer`).
        updated_at: when this was last changed; in a list, when its log was last written to.
        ephemeral: whether it is closed when the connection ends that made it.
    """

    session_id: str
    owner: str | None
    agent: str
    workspace_dir: str | None
    title: str | None
    variables: bytes
    closed: bool
    created_at: int
    updated_at: int
    members: bytes = b"{}"
    ephemeral: bool = False


@attrs.define
class TurnRow:
    """The latest state of one turn; what idempotency (P4) and recovery after a crash (P5) are decided by.

    Attributes:
        session_id: its session.
        turn_id: its id.
        seq: the number of its `user.message` record.
        user: who started it, None for anonymous.
        client_msg_id: the id under which it may be sent again.
        digest: a hash of its content.
        state: where it stands; `dispatching` is written before the agent is told.
        outcome: how it ended, None while it has not.
        content: the prompt as JSON, None once it has ended.
    """

    session_id: str
    turn_id: str
    seq: int
    user: str | None
    client_msg_id: str
    digest: bytes
    state: TurnState
    outcome: str | None = None
    content: bytes | None = None


@attrs.define
class Write:
    """All that one actor wants to become durable together.

    Attributes:
        log: the log's name.
        records: to append; their numbers follow on the log's head.
        create: epoch of the log if this write begins it (nothing of that name may exist), else None.
        session: to insert or replace.
        turns: to insert or replace.
        floor: drop the records below this number.
        delete: drop the log and all that belongs to it; nothing else is looked at then.
        at: when this was written; becomes the log's `updated_at`.
    """

    log: str
    at: int
    records: tuple[Record, ...] = ()
    create: str | None = None
    session: SessionRow | None = None
    turns: tuple[TurnRow, ...] = ()
    floor: int | None = None
    delete: bool = False


# -- between a session and its agent ---------------------------------------------------------------


@attrs.define
class Prompt:
    """One turn, as an agent is given it.

    Attributes:
        session_id: the session.
        turn_id: the turn.
        content: a JSON string or an array of content blocks.
        variables: the session's, a JSON object.
        workspace_dir: where the agent may work.
        messages: what was said before, a JSON array of `{role, content}`; only for kinds that ask for it.
        memory: what the agent called this session when it opened it (`AgentReady`), if it ever did.
    """

    session_id: str
    turn_id: str
    content: bytes
    variables: bytes = b"{}"
    workspace_dir: str | None = None
    messages: bytes = b"[]"
    memory: str | None = None


@attrs.define
class SlotAnswer:
    """What became of a turn that waits for one of its agent's places.

    Attributes:
        turn_id: the turn.
        state: `granted`: it may be dispatched; `waiting`: all places are taken; `unserved`: there is no agent at all.
        number: the ask that this answers, for a turn may stand back and ask again while an answer is on its way.
    """

    turn_id: str
    state: Literal["granted", "waiting", "unserved"]
    number: int


@attrs.define
class TurnTaken:
    """The agent has the turn and is at work on it, though it may not have said anything yet."""

    turn_id: str


@attrs.define
class TextDelta:
    """Some more text of the agent.

    Attributes:
        turn_id: the turn it belongs to.
        text: the new text alone.
        thought: whether it is reasoning rather than the answer.
        message_id: the agent's own id of the message, if it has one; a change begins a new message.
    """

    turn_id: str
    text: str
    thought: bool = False
    message_id: str | None = None


@attrs.define
class TextReplaced:
    """The agent takes back what it said in a message: from now on its text is this, and deltas go on from here.

    Attributes:
        turn_id: the turn it belongs to; None outside of any.
        text: what the message says now; more than fits into one piece follows as deltas.
        thought: whether it is reasoning rather than the answer.
        message_id: the agent's own id of the message, as in its deltas.
    """

    turn_id: str | None
    text: str
    thought: bool = False
    message_id: str | None = None


@attrs.define
class AgentRecord:
    """Anything else the agent reports that becomes one record as it is.

    Attributes:
        turn_id: the turn it belongs to; None outside of any.
        kind: `tool.started`, `tool.updated`, `plan.updated`, `usage.updated`, `agent.state`, `debug` or `vendor.*`.
        data: a JSON object.
    """

    turn_id: str | None
    kind: str
    data: bytes


@attrs.define
class ApprovalRequested:
    """The agent asks a person; answered through its link by `key`.

    Attributes:
        turn_id: the turn that waits for it.
        key: the agent's own id of the question, given back with the answer.
        title: the question.
        options: JSON array of `{option_id, name, kind}`.
        tool: JSON of the tool call it is about, if any.
    """

    turn_id: str
    key: str
    title: str
    options: bytes
    tool: bytes | None = None


@attrs.define
class TurnSettled:
    """The agent says the turn is over.

    Attributes:
        turn_id: the turn.
        stop_reason: the agent's word for why, such as `end_turn` or `cancelled`.
        usage: JSON of what it cost, where the agent tells.
        last: whether nothing of the turn can come after it; otherwise stray output is waited for.
    """

    turn_id: str
    stop_reason: str
    usage: bytes | None = None
    last: bool = True


@attrs.define
class TurnFailed:
    """The agent, or the way to it, answered with an error; `code` is one of `broker.errors.ERRORS`."""

    turn_id: str
    code: str
    message: str
    retryable: bool = False


@attrs.define
class AgentLost:
    """The agent of this session died or its link broke; what it was doing is unknown.

    Attributes:
        reason: for a person.
        turn_id: the turn it was said of; None: whatever runs.
    """

    reason: str
    turn_id: str | None = None


@attrs.define
class LinkStalled:
    """The link to the agent is down, and may come back in time to go on with this turn."""

    turn_id: str
    reason: str


@attrs.define
class AgentReady:
    """The agent is up and has opened its session.

    Attributes:
        turn_id: the turn that waits for it, if any.
        data: what viewers are told of it: the data of an `agent.state` record, a JSON object.
        memory: what the agent calls its session, so that it can be asked to take it up again.
    """

    turn_id: str | None
    data: bytes
    memory: str | None = None


@attrs.define
class VariablesSet:
    """The agent sets variables of the session.

    Attributes:
        turn_id: the turn in which it does, if any.
        variables: a JSON object; one that is null is removed.
    """

    turn_id: str | None
    variables: bytes


AgentEvent = (
    TurnTaken
    | TextDelta
    | TextReplaced
    | AgentRecord
    | ApprovalRequested
    | TurnSettled
    | TurnFailed
    | AgentLost
    | LinkStalled
    | AgentReady
    | VariablesSet
)
