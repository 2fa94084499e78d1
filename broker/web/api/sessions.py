"""Sessions and their turns over HTTP."""

import hashlib
from typing import Annotated, Any, Final

import attrs
from msgspec import Meta

from broker import operations as ops
from broker.actors.following import FollowAnswer
from broker.actors.requests import CreateSession
from broker.errors import BrokerError
from broker.hooks import TurnRequest
from broker.messages import Record
from broker.protocol import payloads
from broker.protocol.checks import check_content, check_metadata
from broker.web import views
from broker.web.actions import new_session
from broker.web.api import answers
from broker.web.api.endpoint import Call, endpoint
from broker.web.api.states import VARIABLES, encode_snapshots, state_data
from broker.web.tracing import HTTP, answered, refuse
from broker.web.views import encode_messages, encode_records

LONGEST_ID: Final = 128
"""Characters of a `client_msg_id`; a key may have more of them."""


@endpoint("GET", "/sessions", "session.list", payloads.Listing, answer=answers.Sessions)
async def list_sessions(call: Call, listing: payloads.Listing) -> Any:
    """List one's own sessions, newest first; with scope `admin` everybody's.

    Sessions that one may not attach to are left out, so a page may have fewer than `limit`.
    """
    return await views.list_sessions(call.services, call.by, listing, everyone="admin" in call.by.scopes)


@endpoint(
    *("POST", "/sessions", "session.create", payloads.NewSession),
    answer=answers.Created,
    status=201,
    resource="session_id",
    errors=("not_found", "workspace_not_found", "session_exists", "overloaded"),
)
async def create_session(call: Call, create: payloads.NewSession) -> Any:
    """Create a session, owned by who asks. None is `ephemeral`: there is no connection that it could end with."""
    row = new_session(call.services, create, call.by)
    created: FollowAnswer = await call.ask(CreateSession(row, create.session_id is not None, call.by, None))
    return created.data


@endpoint(
    *("GET", "/sessions/{session_id}", "session.attach", payloads.Named),
    answer=answers.View,
    resource="session_id",
    errors=("not_found",),
)
async def show_session(call: Call, named: payloads.Named) -> Any:
    """Show a session as it stands."""
    return await _view(call, named.session_id)


@endpoint(
    *("GET", "/sessions/{session_id}/messages", "session.history", payloads.History),
    answer=answers.Messages,
    resource="session_id",
    fixed={"kind": "messages"},
    errors=("not_found",),
)
async def list_messages(call: Call, history: payloads.History) -> Any:
    """Read the conversation: the newest messages, or those before a number."""
    return encode_messages(await _history(call, history))


@attrs.define
class RecordsWanted:
    """Which page of which records: of those of some kinds (at most 16, with commas between), or of all."""

    session_id: payloads.Id
    before_seq: payloads.Seq | None = None
    limit: payloads.Limit = 100
    kind: Annotated[str, Meta(pattern=r"^[a-z._-]{1,64}(,[a-z._-]{1,64}){0,15}$(?!\n)")] | None = None


@endpoint(
    *("GET", "/sessions/{session_id}/records", "session.history", RecordsWanted),
    answer=answers.Records,
    resource="session_id",
    errors=("not_found",),
)
async def list_records(call: Call, wanted: RecordsWanted) -> Any:
    """Read the log: the newest records, or those before a number; all of them, or those of some kinds."""
    kinds = None if wanted.kind is None else tuple(wanted.kind.split(","))
    history = payloads.History(wanted.session_id, wanted.before_seq, wanted.limit)
    return encode_records(await _history(call, history, kinds), call.by)


@endpoint(
    *("GET", "/sessions/{session_id}/variables", "session.history", payloads.History),
    answer=answers.Snapshots,
    resource="session_id",
    fixed={"kind": "records"},
    errors=("not_found",),
)
async def list_variables(call: Call, history: payloads.History) -> Any:
    """Read the variables: as they are, and as they were after each change, the newest or those before a number."""
    records = await _history(call, history, VARIABLES)
    return encode_snapshots(records, await _view(call, history.session_id))


@endpoint(
    *("GET", "/sessions/{session_id}/state", "session.attach", payloads.Named),
    answer=answers.Execution,
    resource="session_id",
    errors=("not_found",),
)
async def show_state(call: Call, named: payloads.Named) -> Any:
    """Show where a session's work stands: its turn, queue and open questions, and how far its log has come."""
    newest = await _history(call, payloads.History(named.session_id, limit=1))
    return state_data(await _view(call, named.session_id), newest, call.by)


async def _view(call: Call, session_id: str) -> dict[str, Any]:
    view: dict[str, Any] = await call.services.ask_session(session_id, ops.Describe(call.by))
    return view


async def _history(call: Call, history: payloads.History, kinds: tuple[str, ...] | None = None) -> list[Record]:
    operation = ops.History(call.by, history.before_seq, history.limit, history.kind, kinds)
    records: list[Record] = await call.services.ask_session(history.session_id, operation)
    return records


@attrs.define
class TurnStart:
    """As `turn.start`, but that the Idempotency-Key may stand for the `client_msg_id`."""

    session_id: payloads.Id
    content: payloads.Content
    client_msg_id: payloads.Id | None = None
    if_busy: ops.IfBusy = "queue"
    retry_of: payloads.Id | None = None
    metadata: payloads.Metadata = payloads.NO_OBJECT


@endpoint(
    *("POST", "/sessions/{session_id}/turns", "turn.start", TurnStart),
    answer=answers.Started,
    status=202,
    resource="session_id",
    errors=("not_found", "busy", "queue_full", "already_ended", "conflict", "agent_unavailable", "overloaded"),
)
async def start_turn(call: Call, start: TurnStart) -> Any:
    """Start a turn.

    It is accepted once it is durable, and goes on whoever listens. The same `client_msg_id` with the same content is
    answered as before, with `duplicate`. An Idempotency-Key is the `client_msg_id` of a turn that has none, so that
    it holds as long as the session does.
    """
    content, metadata = bytes(start.content), bytes(start.metadata)
    check_content(content)
    check_metadata(metadata)
    client_msg_id = start.client_msg_id or _message_id(call.key)
    message = payloads.Start(start.session_id, client_msg_id, start.content, start.if_busy, start.retry_of)
    traces, user = call.services.traces, call.by.user
    traces.receive(HTTP, session_id=start.session_id, client_msg_id=client_msg_id, user=user)
    try:
        await call.gate(call.services.hooks.turn, TurnRequest(start.session_id, call.by, content))
        operation = ops.Start(call.by, client_msg_id, content, start.if_busy, start.retry_of, metadata)
        answer = await call.services.ask_session(start.session_id, operation)
    except Exception as e:
        refuse(traces, message, user, e, HTTP)
        raise
    answered(traces, answer, HTTP)
    return answer


def _message_id(key: str | None) -> str:
    if key is None:
        message = "Give it an id by which it is known when it is sent again."
        raise BrokerError("invalid_message", message, field="$.client_msg_id", hint="or send an Idempotency-Key")
    return key if len(key) <= LONGEST_ID else hashlib.sha256(key.encode()).hexdigest()
