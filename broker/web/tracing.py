"""What the edge knows of a message's way: noted when it comes, when it is refused and when it is answered."""

from collections.abc import Mapping
from typing import Any, Final

from broker.actors.connection import Connection
from broker.actors.futures import ReplyTo
from broker.actors.ref import LoopRef
from broker.clock import rfc3339
from broker.errors import BrokerError
from broker.hooks import Permission
from broker.messages import Principal, SessionRow
from broker.protocol.payloads import Start
from broker.sessions import role_of
from broker.traces import Step, Trace, Traces
from broker.web.services import Services, expected

__all__ = ["HTTP", "SOCKET", "TurnReply", "answered", "refuse", "shown", "trace_data"]

SOCKET: Final = "socket"
HTTP: Final = "http"
NOTHING: Final = "Nothing is remembered under that id."
HINT: Final = "the newest turns are remembered, as many as fit, and nothing from before the broker's last start"
_WORDS: Final = {
    "received": "it came, and has not been answered yet",
    "accepted": "it is being written to the store",
    "durable": "it is written, and is dealt with next",
    "answered": "its sender was told that it is accepted",
    "taken up": "it was found in the store, and is dealt with next",
    "edited": "it waits, with what it says now",
    "queued": "it waits for its agent, or for the turns before it",
    "waiting": "all of its agent's places are taken",
    "unserved": "there is no agent that could take it",
    "granted": "its agent has a place for it",
    "dispatching": "it is on its way to its agent",
    "handed to the agent": "its agent was given it, and has not taken it up yet",
    "ready": "its agent is up, and has not taken it up yet",
    "taken": "its agent is at work on it",
    "first output": "its agent is answering",
    "waits for an answer": "its agent has asked, and waits for a person",
    "behind": "somebody who follows it was too slow to be told at once",
    "goes on": "its agent was answered, and is at work on it",
    "ended": "the agent ended it by itself",
}
"""What it means that a message came this far, for steps that give no reason of their own."""


class TurnReply:
    """Where the answer to `turn.start` goes: on to its sender, and into the message's trace.

    Args:
        reply: the way to the sender.
        connection: the sender's.
        traces: where it is noted.
        start: the message.
        user: who sent it.
    """

    __slots__ = ("_connection", "_reply", "_start", "_traces", "_user")

    def __init__(
        self, reply: ReplyTo, connection: LoopRef[Connection], traces: Traces, start: Start, user: str | None
    ) -> None:
        self._reply = reply
        self._connection = connection
        self._traces = traces
        self._start = start
        self._user = user

    def set(self, value: Any = None, /) -> None:
        """Answer."""
        if self._connection.actor_stopped.is_set():
            self._traces.note(value["turn_id"], SOCKET, "unanswered", "its sender's connection was gone")
        else:
            answered(self._traces, value, SOCKET)
        self._reply.set(value)

    def set_exception(self, exc_info: Any = None, /) -> None:
        """Refuse."""
        if exc_info:
            refuse(self._traces, self._start, self._user, exc_info[1])
        self._reply.set_exception(exc_info)


def answered(traces: Traces, started: Mapping[str, Any], where: str) -> None:
    """Note that a message was answered: `started` is what its sender was told."""
    reason = "it was sent before, and is not done twice" if started["duplicate"] else None
    traces.note(started["turn_id"], where, "answered", reason)


def refuse(traces: Traces, start: Start, user: str | None, error: BaseException, where: str = SOCKET) -> None:
    """Note that a message was refused, and with what."""
    refusal = expected(error)
    reason = f"internal: {type(error).__name__}" if refusal is None else f"{refusal.code}: {refusal.message}"
    traces.refuse(where, reason, session_id=start.session_id, client_msg_id=start.client_msg_id, user=user)


async def shown(services: Services, some_id: str, by: Principal) -> Trace:
    """Return the trace that an id leads to: one's own message first, else the newest that one may see.

    Raises:
        BrokerError: `not_found`, also where there is one that is not for these eyes.
    """
    found = services.traces.known_as(some_id)
    for trace in sorted(found, key=lambda trace: trace.user != by.user):  # stable: of each, the newest first
        if await _may_see(services, trace, by):
            return trace
    raise BrokerError("not_found", NOTHING, hint=HINT)


async def _may_see(services: Services, trace: Trace, by: Principal) -> bool:
    """Tell whether somebody may see a trace: who sees the session does, and who sent a message that is no turn.

    The store is asked rather than the session, which may be what the reply got stuck at.
    """
    if "admin" in by.scopes or trace.session_id is None:  # a failed request is known to whom it was told, by its id
        return True
    if not await services.hooks.permits(Permission(by, "session.history", trace.session_id)):
        return False
    row: SessionRow | None = None
    if trace.is_turn:
        row = await services.store.read("session", trace.session_id)
    return trace.user == by.user if row is None else role_of(row, by) is not None


def _where_it_is(trace: Trace) -> Step | None:
    """Return the step that says where a message is: how it ended if it has, else how far it came."""
    ends = [step for step in trace.steps if step.what == "ended"]
    return next(reversed(ends or trace.steps), None)


def trace_data(trace: Trace, some_id: str) -> dict[str, Any]:
    """Return a trace as the HTTP API shows it."""
    steps = trace.steps
    ids = {
        "turn_id": trace.trace_id if trace.is_turn else None,
        "session_id": trace.session_id,
        "client_msg_id": trace.client_msg_id,
    }
    last = _where_it_is(trace)
    return {
        "id": trace.trace_id or some_id,
        **{name: value for name, value in ids.items() if value is not None},
        "steps": [
            {"at": rfc3339(step.at), "where": step.where, "what": step.what}
            | ({} if step.reason is None else {"reason": step.reason})
            for step in steps
        ],
        **({"left_out": trace.left_out} if trace.left_out else {}),
        "ended": trace.ended,
        "stopped": last and {"where": last.where, "what": last.what, "reason": last.reason or _WORDS.get(last.what)},
    }
