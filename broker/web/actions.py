"""The broker's own actions: the table of PROTOCOL 2a, one small function each."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import attrs

from broker import operations as ops
from broker.actors.requests import CreateSession, OpenSession, SendTo, ToAll
from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.hooks import Permission
from broker.ids import new_id
from broker.messages import Principal, SessionRow
from broker.protocol import payloads
from broker.protocol.checks import check_content, check_metadata, check_name, check_recipients
from broker.protocol.outgoing import RequestId
from broker.sessions import check_workspace
from broker.web.caller import ActionRow, Caller
from broker.web.content import SAYS
from broker.web.login import FollowReply, authenticate
from broker.web.services import Services, to_json
from broker.web.tracing import TurnReply, shown, trace_data
from broker.web.views import (
    ask_for_connections,
    encode_events,
    encode_messages,
    encode_records,
    list_sessions,
    page_of_connections,
)

__all__ = ["ACTIONS", "new_session"]

ACTIONS: Final[dict[str, ActionRow]] = {}
Run = Callable[[Caller, Any, RequestId | None], Awaitable[None] | None]


def _action(
    name: str, payload: type | None = None, resource: str | None = None, *, free: bool = False, asks: str | None = None
) -> Callable[[Run], Run]:
    """Enter a function into the table.

    Args:
        name: what clients call it.
        payload: the class of its payload; None to leave it as the bytes it came as.
        resource: the payload's attribute that names what it is about.
        free: whether plugins are not asked if somebody may do it.
        asks: what they are asked for, where that is not its name.
    """

    def enter(run: Run) -> Run:
        decode = bytes if payload is None else partial(payloads.decode, payload)
        about = (lambda _: None) if resource is None else (lambda value: getattr(value, resource))
        ACTIONS[name] = ActionRow(name, run, decode, about, free, SAYS.get(name), asks)
        return run

    return enter


# -- connections ------------------------------------------------------------------------------------


@_action("ping", free=True)
def _ping(caller: Caller, _: bytes, request_id: RequestId | None) -> None:
    caller.respond(request_id, to_json({"at": rfc3339(caller.services.clock.now())}))


@_action("echo")
def _echo(caller: Caller, payload: bytes, request_id: RequestId | None) -> None:
    caller.respond(request_id, payload)


def _delivered(count: int) -> bytes:
    return b'{"delivered":%d}' % count


@_action("broadcast")
def _broadcast(caller: Caller, payload: bytes, request_id: RequestId | None) -> None:
    caller.to_registry(ToAll(caller.sender, payload), request_id, _delivered)


@_action("send", payloads.Send)
def _send(caller: Caller, send: payloads.Send, request_id: RequestId | None) -> None:
    check_recipients(send)
    targets = SendTo(tuple(send.to.connections), tuple(send.to.users), caller.sender, bytes(send.data))
    caller.to_registry(targets, request_id, _delivered)


@_action("get_connections", payloads.Listing)
def _get_connections(caller: Caller, listing: payloads.Listing, request_id: RequestId | None) -> None:
    asked = ask_for_connections(caller.peer.principal, listing)
    caller.to_registry(asked, request_id, lambda found: to_json(page_of_connections(found, listing)))


@_action("auth", payloads.Auth, free=True)
async def _auth(caller: Caller, auth: payloads.Auth, request_id: RequestId | None) -> None:
    await authenticate(caller, auth.token, request_id)


@_action("trace", payloads.Trace, "id")
def _trace(caller: Caller, trace: payloads.Trace, request_id: RequestId | None) -> Awaitable[None]:
    return _tell_trace(caller, trace.id, caller.peer.principal, request_id)


async def _tell_trace(caller: Caller, trace_id: str, by: Principal, request_id: RequestId | None) -> None:
    found = await shown(caller.services, trace_id, by)
    caller.respond(request_id, to_json(trace_data(found, trace_id)))


@_action("tap", payloads.Tap)
def _tap(caller: Caller, wanted: payloads.Tap, request_id: RequestId | None) -> None:
    tap = caller.services.taps.open(caller.peer, caller.ref, wanted)
    caller.respond(request_id, to_json({"tap": tap}))


@_action("untap", asks="tap")
def _untap(caller: Caller, _: bytes, request_id: RequestId | None) -> None:
    caller.services.taps.end(caller.peer.connection_id)
    caller.respond(request_id, b"{}")


# -- sessions ---------------------------------------------------------------------------------------


def new_session(
    services: Services, create: payloads.NewSession, by: Principal, *, ephemeral: bool = False
) -> SessionRow:
    """Return the row of a session that is to be created.

    Raises:
        BrokerError: `not_found` for an agent nobody configured, or what is wrong with the workspace.
    """
    agent = create.agent or services.settings.default_agent
    if agent not in services.settings.agents:
        known = ", ".join(services.settings.agents)
        raise BrokerError("not_found", "There is no such agent.", field="$.payload.agent", hint=f"one of: {known}")
    roots = services.settings.sessions.workspace_roots
    workspace = check_workspace(create.workspace_dir, roots, open_to_all=services.open_to_all)
    now = services.clock.now()
    return SessionRow(
        session_id=create.session_id or new_id(),
        owner=by.user,
        agent=agent,
        workspace_dir=workspace,
        title=create.title,
        variables=to_json(create.variables),
        closed=False,
        created_at=now,
        updated_at=now,
        ephemeral=ephemeral,
    )


@_action("session.create", payloads.Create, "session_id")
def _session_create(caller: Caller, create: payloads.Create, request_id: RequestId | None) -> Awaitable[None] | None:
    """Make a session, and attach its creator if that one may: the right to create is not the right to see."""
    caller.may_follow()
    by, hooks = caller.peer.principal, caller.services.hooks
    row = new_session(caller.services, create, by, ephemeral=create.ephemeral)
    creation = CreateSession(row, create.session_id is not None, by, caller.ref)
    reply = FollowReply(caller, request_id)
    try:
        waiting = hooks.run_gates(hooks.permission, Permission(by, "session.attach", row.session_id))
    except BrokerError:
        creation = attrs.evolve(creation, attach=False)
    else:
        if waiting is not None:
            return _create_when(waiting, caller, creation, reply)
    caller.services.registry.request(creation, reply)
    return None


async def _create_when(waiting: Awaitable[None], caller: Caller, creation: CreateSession, reply: FollowReply) -> None:
    try:
        await waiting
    except BrokerError:
        creation = attrs.evolve(creation, attach=False)
    caller.services.registry.request(creation, reply)


@_action("session.open", payloads.Open, "session_id", asks="session.attach")
def _session_open(caller: Caller, wanted: payloads.Open, request_id: RequestId | None) -> Awaitable[None] | None:
    """Attach to a session, and make it if there is none and that one may: the right to see is not that to create."""
    caller.may_follow()
    by, hooks = caller.peer.principal, caller.services.hooks
    reply = FollowReply(caller, request_id)
    try:
        waiting = hooks.run_gates(hooks.permission, Permission(by, "session.create", wanted.session_id))
    except BrokerError as e:
        _open(caller, wanted, reply, e)
        return None
    if waiting is not None:
        return _open_when(waiting, caller, wanted, reply)
    _open(caller, wanted, reply)
    return None


async def _open_when(waiting: Awaitable[None], caller: Caller, wanted: payloads.Open, reply: FollowReply) -> None:
    try:
        await waiting
    except BrokerError as e:
        _open(caller, wanted, reply, e)
    else:
        _open(caller, wanted, reply)


def _open(caller: Caller, wanted: payloads.Open, reply: FollowReply, refusal: BrokerError | None = None) -> None:
    """Open a session; one who may not create it, and was refused so, may see what there is."""
    if refusal is not None and refusal.code != "forbidden":
        raise refusal
    by = caller.peer.principal
    if refusal is not None:
        attach = ops.Attach(by, caller.ref, wanted.after_seq, wanted.epoch)
        caller.hand_to_session(wanted.session_id, attach, reply)
        return
    row = new_session(caller.services, wanted.creation, by)
    opening = ops.Open(by, caller.ref, wanted.after_seq, wanted.epoch)
    caller.services.registry.request(OpenSession(row, opening), reply)


@_action("session.attach", payloads.Attach, "session_id")
def _session_attach(caller: Caller, attach: payloads.Attach, request_id: RequestId | None) -> None:
    caller.may_follow()
    operation = ops.Attach(caller.peer.principal, caller.ref, attach.after_seq, attach.epoch)
    caller.hand_to_session(attach.session_id, operation, FollowReply(caller, request_id))


@_action("session.detach", payloads.Named, "session_id")
def _session_detach(caller: Caller, named: payloads.Named, request_id: RequestId | None) -> None:
    caller.to_session(named.session_id, ops.Detach(caller.peer.principal, caller.ref), request_id)


@_action("session.close", payloads.Named, "session_id")
def _session_close(caller: Caller, named: payloads.Named, request_id: RequestId | None) -> None:
    caller.to_session(named.session_id, ops.Close(caller.peer.principal), request_id)


@_action("session.delete", payloads.Named, "session_id")
def _session_delete(caller: Caller, named: payloads.Named, request_id: RequestId | None) -> None:
    caller.to_session(named.session_id, ops.Delete(caller.peer.principal), request_id)


@_action("session.list", payloads.Listing)
async def _session_list(caller: Caller, listing: payloads.Listing, request_id: RequestId | None) -> None:
    caller.respond(request_id, to_json(await list_sessions(caller.services, caller.peer.principal, listing)))


@_action("session.history", payloads.History, "session_id")
async def _session_history(caller: Caller, history: payloads.History, request_id: RequestId | None) -> None:
    """Read the log; awaited, as all that reads much, so that it counts among what waits for this connection (P7)."""
    operation = ops.History(caller.peer.principal, history.before_seq, history.limit, history.kind)
    records = await caller.services.ask_session(history.session_id, operation)
    messages = history.kind == "messages"
    page = encode_messages(records) if messages else encode_records(records, caller.peer.principal)
    caller.respond(request_id, page)


@_action("session.update", payloads.Update, "session_id")
def _session_update(caller: Caller, update: payloads.Update, request_id: RequestId | None) -> None:
    operation = ops.Update(caller.peer.principal, update.title, update.variables)
    caller.to_session(update.session_id, operation, request_id)


@_action("session.share", payloads.Share, "session_id")
def _session_share(caller: Caller, share: payloads.Share, request_id: RequestId | None) -> None:
    check_name(share.user, "$.payload.user")
    caller.to_session(share.session_id, ops.Share(caller.peer.principal, share.user, share.role), request_id)


@_action("session.configure", payloads.Configure, "session_id")
def _session_configure(caller: Caller, configure: payloads.Configure, request_id: RequestId | None) -> None:
    if configure.mode is None and not configure.options:
        raise BrokerError("invalid_message", "Say what is to change.", field="$.payload", hint="mode or options")
    operation = ops.Configure(caller.peer.principal, configure.mode, configure.options)
    caller.to_session(configure.session_id, operation, request_id)


# -- turns ------------------------------------------------------------------------------------------


@_action("turn.start", payloads.Start, "session_id")
def _turn_start(caller: Caller, start: payloads.Start, request_id: RequestId | None) -> None:
    content, metadata = bytes(start.content), bytes(start.metadata)
    check_content(content)
    check_metadata(metadata)
    by = caller.peer.principal
    operation = ops.Start(by, start.client_msg_id, content, start.if_busy, start.retry_of, metadata)
    reply = TurnReply(caller.reply(request_id), caller.ref, caller.services.traces, start, caller.peer.principal.user)
    caller.hand_to_session(start.session_id, operation, reply)


@_action("turn.edit", payloads.Edit, "session_id")
def _turn_edit(caller: Caller, edit: payloads.Edit, request_id: RequestId | None) -> None:
    content = bytes(edit.content)
    check_content(content)
    caller.to_session(edit.session_id, ops.Edit(caller.peer.principal, edit.turn_id, content), request_id)


@_action("turn.drop", payloads.Drop, "session_id")
def _turn_drop(caller: Caller, drop: payloads.Drop, request_id: RequestId | None) -> None:
    caller.to_session(drop.session_id, ops.Drop(caller.peer.principal, drop.turn_id), request_id)


@_action("turn.cancel", payloads.Cancel, "session_id")
def _turn_cancel(caller: Caller, cancel: payloads.Cancel, request_id: RequestId | None) -> None:
    caller.to_session(cancel.session_id, ops.Cancel(caller.peer.principal, cancel.turn_id), request_id)


@_action("approval.answer", payloads.Answer, "session_id")
def _approval_answer(caller: Caller, answer: payloads.Answer, request_id: RequestId | None) -> None:
    operation = ops.Answer(caller.peer.principal, answer.approval_id, answer.option_id)
    caller.to_session(answer.session_id, operation, request_id)


# -- rooms ------------------------------------------------------------------------------------------


@_action("room.join", payloads.Join, "room")
def _room_join(caller: Caller, join: payloads.Join, request_id: RequestId | None) -> None:
    check_name(join.room, "$.payload.room")
    caller.may_follow()
    peer = caller.peer
    events = None if join.events is None else frozenset(join.events)
    operation = ops.Join(peer.principal, caller.ref, peer.connection_id, join.after_seq, join.epoch, events)
    caller.hand_to_room(join.room, operation, FollowReply(caller, request_id))


@_action("room.leave", payloads.RoomNamed, "room")
def _room_leave(caller: Caller, named: payloads.RoomNamed, request_id: RequestId | None) -> None:
    check_name(named.room, "$.payload.room")
    caller.to_room(named.room, ops.Leave(caller.peer.principal, caller.ref), request_id)


@_action("room.publish", payloads.Publish, "room")
def _room_publish(caller: Caller, publish: payloads.Publish, request_id: RequestId | None) -> None:
    check_name(publish.room, "$.payload.room")
    check_name(publish.event, "$.payload.event")
    operation = ops.Publish(caller.peer.principal, caller.sender, publish.event, bytes(publish.data))
    caller.to_room(publish.room, operation, request_id)


@_action("room.presence", payloads.RoomNamed, "room")
def _room_presence(caller: Caller, named: payloads.RoomNamed, request_id: RequestId | None) -> None:
    check_name(named.room, "$.payload.room")
    caller.to_room(named.room, ops.Presence(caller.peer.principal), request_id)


@_action("room.history", payloads.RoomHistory, "room")
async def _room_history(caller: Caller, history: payloads.RoomHistory, request_id: RequestId | None) -> None:
    check_name(history.room, "$.payload.room")
    operation = ops.RoomHistory(caller.peer.principal, history.before_seq, history.limit)
    caller.respond(request_id, encode_events(await caller.services.ask_room(history.room, operation)))


# -- projects ---------------------------------------------------------------------------------------


@_action("project.feedback", payloads.Feedback, "room")
def _project_feedback(caller: Caller, feedback: payloads.Feedback, request_id: RequestId | None) -> None:
    check_name(feedback.project, "$.payload.project")
    by, name = caller.peer.principal, feedback.feedback_id or new_id()
    operation = ops.Feedback(by, caller.sender, caller.ref, name, bytes(feedback.data))
    caller.to_room(feedback.room, operation, request_id)
