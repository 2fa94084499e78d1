"""One ACP session over one line to an agent, as rules without a loop: lines in, events and lines out.

An update of ACP version 1 carries no turn id, so it is about the turn whose prompt is not yet answered,
and the order of the wire is all that decides. One process runs one session, so the session id that the
agent puts into an update tells nothing either.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import attrs
import msgspec
from loguru import logger

from broker.agents.jsonrpc import METHOD_NOT_FOUND, MISREAD, Answer, Misread, Peer, RpcError
from broker.agents.port import Emit
from broker.agents.updates import approval_of, events_of, vendor_record
from broker.agents.wire import (
    AUTH_REQUIRED,
    CANCELLED,
    HELLO,
    INVALID_PARAMS,
    REQUEST_CANCELLED,
    Implementation,
    blocks_of,
    initialized_of,
    selected,
    session_of,
    settled_of,
    update_of,
)
from broker.errors import BrokerError
from broker.messages import AgentEvent, AgentLost, AgentRecord, Prompt, TurnFailed, TurnSettled

__all__ = ["Dialogue"]

_LOUD_OFFENCES: Final = 3
_LOGGED_WIDTH: Final = 500


@attrs.define(eq=False)
class _Turn:
    prompt: Prompt
    dispatched: bool = False
    cancelling: bool = False
    approvals: set[str] = attrs.Factory(set)


class Dialogue:
    """What is said with one agent process, from its first line to its end.

    Args:
        cwd: the directory the agent is to work in, absolute.
        emit: takes what the agent does.
        give_up: told when talking on makes no sense; cuts the line and calls `end` with the same error.
    """

    def __init__(self, cwd: str, emit: Emit, give_up: Callable[[BrokerError], None]) -> None:
        self._cwd = cwd
        self._emit = emit
        self._give_up = give_up
        self._peer: Peer | None = None
        self._agent = Implementation()
        self._logins: tuple[str, ...] = ()
        self._acp_session: str | None = None
        self._turn: _Turn | None = None
        self._offences = 0

    @property
    def ready(self) -> bool:
        """Whether the agent has opened its session."""
        return self._acp_session is not None

    # -- start and end -----------------------------------------------------------------------------

    def begin(self, write: Callable[[bytes], None]) -> None:
        """Greet the agent; `write` takes lines for it. It opens its session once it has answered."""
        self._peer = Peer(write, self._asked, self._told)
        self._peer.call("initialize", HELLO, partial(self._initialized, self._peer))

    def _initialized(self, peer: Peer, answer: Answer) -> None:
        try:
            hello = initialized_of(answer)
        except BrokerError as e:
            self._give_up(e)
            return
        self._agent = hello.agent_info or Implementation()
        self._logins = tuple(method.name for method in hello.auth_methods or () if method.name)
        peer.call("session/new", {"cwd": self._cwd, "mcpServers": []}, self._opened)

    def _opened(self, answer: Answer) -> None:
        try:
            self._acp_session = session_of(answer, self._logins)
        except BrokerError as e:
            self._give_up(e)
            return
        self._report("ready", agent=self._agent, context="fresh")
        self._dispatch()

    def end(self, error: BrokerError) -> None:
        """The agent is gone, or will be at once: say what becomes of its turn. What it still says is not heard."""
        turn, self._turn, self._peer = self._turn, None, None
        if turn is None:
            self._report("gone", reason=error.message)
        elif turn.dispatched:
            self._emit(AgentLost(error.message))
        else:
            self._fail(turn, error)

    def _report(self, state: str, **more: object) -> None:
        turn_id = None if self._turn is None else self._turn.prompt.turn_id
        self._emit(AgentRecord(turn_id, "agent.state", msgspec.json.encode({"state": state, **more})))

    # -- turns -------------------------------------------------------------------------------------

    def start_turn(self, prompt: Prompt) -> None:
        """Give the agent a turn, now or as soon as it is ready."""
        turn = _Turn(prompt)
        if self._turn is not None:
            self._fail(turn, BrokerError("busy"))
            return
        self._turn = turn
        self._dispatch()

    def _dispatch(self) -> None:
        turn, peer = self._turn, self._peer
        if turn is None or peer is None or self._acp_session is None:
            return
        turn.dispatched = True
        params = {"sessionId": self._acp_session, "prompt": blocks_of(turn.prompt.content)}
        peer.call("session/prompt", params, partial(self._settled, turn))

    def _settled(self, turn: _Turn, answer: Answer) -> None:
        self._withdraw(turn)
        self._turn = None
        turn_id = turn.prompt.turn_id
        code = answer.code if isinstance(answer, RpcError) else 0
        if turn.cancelling and code == REQUEST_CANCELLED:
            self._emit(TurnSettled(turn_id, "cancelled"))
            return
        try:
            self._emit(settled_of(answer, turn_id, self._logins))
        except BrokerError as e:
            self._fail(turn, e)
            if code == AUTH_REQUIRED:
                # A running agent may never look for the login again; the next turn starts one that does.
                self._give_up(e)

    def _fail(self, turn: _Turn, error: BrokerError) -> None:
        self._emit(TurnFailed(turn.prompt.turn_id, error.code, error.message, error.retryable))

    def cancel_turn(self, turn_id: str) -> None:
        """Ask the agent to stop; a turn it has not been given yet is over at once. Asking again does nothing."""
        turn = self._turn
        if turn is None or turn.prompt.turn_id != turn_id or turn.cancelling:
            return
        if not turn.dispatched:
            self._turn = None
            self._emit(TurnSettled(turn_id, "cancelled"))
            return
        turn.cancelling = True
        self._withdraw(turn)
        if self._peer is not None:
            self._peer.notify("session/cancel", {"sessionId": self._acp_session})

    # -- questions ---------------------------------------------------------------------------------

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Answer the agent's question `key`, once; None says it was cancelled."""
        turn, peer = self._turn, self._peer
        if turn is None or peer is None or turn.prompt.turn_id != turn_id or key not in turn.approvals:
            return
        turn.approvals.remove(key)
        peer.answer(key, selected(option_id))

    def _withdraw(self, turn: _Turn) -> None:
        """Answer what the agent still asks; ACP wants that of a client that cancels."""
        while turn.approvals and self._peer is not None:
            self._peer.answer(turn.approvals.pop(), CANCELLED)

    def _asked(self, key: str, method: str, params: msgspec.Raw) -> None:
        turn, peer = self._turn, self._peer
        if peer is None:
            return
        if method != "session/request_permission":
            peer.refuse(key, METHOD_NOT_FOUND, f"method not found: {method[:64]}")
        elif turn is None or not turn.dispatched or turn.cancelling:
            peer.answer(key, CANCELLED)
        else:
            self._ask(turn, peer, key, params)

    def _ask(self, turn: _Turn, peer: Peer, key: str, params: msgspec.Raw) -> None:
        try:
            question = approval_of(params, turn.prompt.turn_id, key)
        except MISREAD:
            peer.refuse(key, INVALID_PARAMS, "the question cannot be read")
            return
        turn.approvals.add(key)
        self._emit(question)

    # -- what the agent says -----------------------------------------------------------------------

    def feed(self, line: bytes) -> None:
        """Take one line of the agent's; one that makes no sense is passed over and logged."""
        if self._peer is None or not line.strip():
            return
        try:
            self._peer.feed(line)
        except Misread as e:
            self._pass_over(line, e)

    def _told(self, method: str, params: msgspec.Raw) -> None:
        turn = self._turn
        turn_id = turn.prompt.turn_id if turn is not None and turn.dispatched else None
        try:
            events = tuple(_reported(method, params, turn_id))
        except MISREAD as e:
            raise Misread(f"{method[:64]} cannot be read") from e
        for event in events:
            self._emit(event)

    def _pass_over(self, line: bytes, complaint: Misread) -> None:
        self._offences += 1
        level = "WARNING" if self._offences <= _LOUD_OFFENCES else "DEBUG"
        logger.log(level, "passed over {} bytes of the agent's: {}", len(line), complaint)
        logger.debug("what was passed over: {}", line[:_LOGGED_WIDTH].decode(errors="replace"))


def _reported(method: str, params: msgspec.Raw, turn_id: str | None) -> Iterable[AgentEvent]:
    if method == "session/update":
        return events_of(update_of(params), turn_id)
    return () if method.startswith("$/") else (vendor_record(method, params, turn_id),)
