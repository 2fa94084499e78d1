"""One session at an ACP agent, as rules without a loop: what the broker asks of it, and what it says.

A dialogue outlives the agent's processes: it is opened on the switchboard of one, ends with it, and is opened
again on the next, where it takes its session up again if the agent can.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import msgspec

from broker.agents.acp.dialect import Dialect, Turn, failed
from broker.agents.acp.entry import Entered, Entry
from broker.agents.acp.jsonrpc import Answer, RpcError
from broker.agents.acp.questions import Questions
from broker.agents.acp.switchboard import Switchboard
from broker.agents.acp.updates import encoded
from broker.agents.acp.v1 import V1
from broker.agents.acp.v2 import V2
from broker.agents.acp.wire import AUTH_REQUIRED, CANCELLED, blocks_of
from broker.agents.acp.wishes import Wishes
from broker.agents.bounds import Fields, bounded, vendor_record
from broker.agents.port import Configuration, Configured, Emit
from broker.clock import Clock, SystemClock
from broker.errors import BrokerError
from broker.messages import (
    AgentEvent,
    AgentLost,
    AgentReady,
    AgentRecord,
    Prompt,
    TurnFailed,
    TurnSettled,
    TurnTaken,
)

__all__ = ["MUTE", "Dialogue", "GiveUp"]

MUTE: Final = 9.0
"""Seconds of silence after which an agent is deaf to a cancel.

A little less than the ten after which a turn that does not stop is cut (PROTOCOL section 3), because the cut has
to find it so.
"""

GiveUp = Callable[[str, BrokerError | None], None]
"""Told why a session is of no use, in mid-sentence and where it is more as an error."""


class Dialogue:
    """One session's conversation with its agent; a `switchboard.Guest`.

    Args:
        cwd: the directory the agent is to work in, absolute.
        emit: takes what the agent does.
        give_up: told when this process is of no use to this session; makes it leave and calls `end` with the same.
        memory: what the agent called this session the last time.
        clock: measures how long it says nothing.
    """

    def __init__(
        self, cwd: str, emit: Emit, give_up: GiveUp, memory: str | None = None, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._cwd = cwd
        self._emit = emit
        self._give_up = give_up
        self._memory = memory
        self._board: Switchboard | None = None
        self._dialect: Dialect = V1()
        self._entry: Entry | None = None
        self._session_id: str | None = None
        self._opened_before = False
        self._turn: Turn | None = None
        self._late: str | None = None
        self._cancelled: tuple[int, float] | None = None
        self._call: int | None = None
        self._questions = Questions(emit)
        self._wishes = Wishes(self._changed, self._dispatch)

    # -- start and end -----------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether there is anything to open a session for."""
        return self._turn is not None or self._wishes.busy

    @property
    def mute(self) -> bool:
        """Whether the process has said nothing at all, for long, since it was asked to stop this session's turn.

        One that only takes its time with an answer may be at work for others.
        """
        if self._turn is None or self._board is None or self._cancelled is None:
            return False
        heard, at = self._cancelled
        return self._board.heard == heard and self._clock.monotonic() - at >= MUTE

    def report(self, state: str, **more: Any) -> None:
        """Tell viewers how the agent is."""
        turn_id = None if self._turn is None else self._turn.turn_id
        self._emit(AgentRecord(turn_id, "agent.state", msgspec.json.encode({"state": state, **more})))

    def open(self, board: Switchboard) -> None:
        """Open the session on this process, which has answered the greeting."""
        known = board.known
        self._board, self._session_id, self._late = board, None, None
        self._dialect = V2() if known.protocol > 1 else V1()
        memory = self._memory if self._memory and not board.abandoned(self._memory) else None
        if memory is not None:
            board.place(memory, self)
        self._entry = Entry(
            known,
            self._cwd,
            memory,
            call=board.call,
            entered=partial(self._entered, board, memory),
            refused=partial(self._refused, board),
        )
        board.expect()
        self._entry.begin()

    def _refused(self, board: Switchboard, error: BrokerError) -> None:
        board.expected()
        if self._board is board:
            self._entry = None
            self._give_up("the agent could not open its session", error)

    def _entered(self, board: Switchboard, memory: str | None, entered: Entered) -> None:
        session_id = entered.session_id
        if self._board is not board:
            board.dismiss(session_id, at_work=False)
            board.expected()
            return
        if memory is not None and memory != session_id:
            board.displace(memory)
        self._entry, self._session_id, self._memory = None, session_id, session_id
        if "config_options" in entered.fields:
            self._dialect.learn(entered.fields["config_options"])
        self._announce(board, entered)
        for update in entered.kept:
            self.told("session/update", update)
        board.place(session_id, self)
        board.expected()
        self._wishes.begin(session_id, self._dialect, board.call)
        self._dispatch()

    def _announce(self, board: Switchboard, entered: Entered) -> None:
        known = board.known
        data: Fields = {
            "state": encoded("ready"),
            "agent": encoded(known.agent),
            "protocol": encoded(known.protocol),
            "context": encoded(entered.context),
            "agent_session_id": encoded(entered.session_id),
        }
        if self._opened_before:
            data["restarted"] = encoded(True)
        self._opened_before = True
        turn_id = None if self._turn is None else self._turn.turn_id
        self._emit(AgentReady(turn_id, bounded(data | entered.fields), entered.session_id))

    def close(self) -> None:
        """Expect nothing any more, of any process."""
        self._wishes.end(BrokerError("unavailable", "The line to the agent was cut."))

    def part(self) -> None:
        """Leave the process to the other sessions: stop what it does for this one, and give the session up."""
        board, turn, session_id = self._board, self._turn, self._session_id
        if board is None:
            return
        at_work = turn is not None and turn.written
        if turn is not None and at_work:
            self._questions.cancel(board)
            if not turn.cancelling:
                board.notify("session/cancel", {"sessionId": session_id})
        self._waive(board)
        if session_id is not None:
            board.dismiss(session_id, at_work=at_work)
        elif self._memory is not None:
            board.displace(self._memory)
        self._board = None

    def end(self, reason: str, error: BrokerError | None = None) -> None:
        """The process is gone, or will be at once: say what becomes of the turn. What it still says is not heard.

        Args:
            reason: why, as it is read in mid-sentence.
            error: what is told to whoever has not been served yet, if that is more.
        """
        error = error or BrokerError("agent_unavailable", f"{reason[0].upper()}{reason[1:]}.")
        turn, was_open = self._turn, self._session_id is not None
        self._turn = self._board = self._entry = self._session_id = None
        self._questions.forget()
        if turn is None:
            if was_open:
                self.report("gone", reason=reason)
        elif turn.written:
            self._emit(AgentLost(reason, turn.turn_id))
        else:
            self._emit(failed(turn, error))
        self._wishes.end(error)

    # -- turns -------------------------------------------------------------------------------------

    def start_turn(self, prompt: Prompt) -> None:
        """Give the agent a turn, now or as soon as it is ready."""
        turn = Turn(prompt)
        if self._turn is not None:
            self._emit(failed(turn, BrokerError("busy")))
            return
        self._turn = turn
        self._dispatch()

    def _dispatch(self) -> None:
        turn, board = self._turn, self._board
        if turn is None or turn.written or board is None or self._session_id is None or self._wishes.busy:
            return
        turn.written = True
        self._late = turn.turn_id
        self._cancelled = None
        self._dialect.begin()
        params = {"sessionId": self._session_id, "prompt": blocks_of(turn.prompt.content)}
        self._call = board.call("session/prompt", params, partial(self._answered, turn))
        if self._dialect.taken_when_written and self._turn is turn:
            self._emit(TurnTaken(turn.turn_id))

    def _answered(self, turn: Turn, answer: Answer) -> None:
        board = self._board
        if self._turn is not turn or board is None:
            return
        self._hand_on(self._dialect.answered(turn, answer, board.known.logins))
        if isinstance(answer, RpcError) and answer.code == AUTH_REQUIRED:
            # A running agent may never look for the login again; the next turn starts one that does.
            self._give_up("the agent wants a login", None)

    def cancel_turn(self, turn_id: str) -> None:
        """Ask the agent to stop; a turn it has not been given yet is over at once. Asking again does nothing."""
        turn = self._turn
        if turn is None or turn.turn_id != turn_id or turn.cancelling:
            return
        if not turn.written:
            self._turn = None
            self._emit(TurnSettled(turn_id, "cancelled"))
            return
        turn.cancelling = True
        if self._board is not None:
            self._questions.cancel(self._board)
            self._cancelled = self._board.heard, self._clock.monotonic()
            self._board.notify("session/cancel", {"sessionId": self._session_id})

    # -- questions ---------------------------------------------------------------------------------

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Answer the agent's question `key`, once; None says it was cancelled."""
        turn, board = self._turn, self._board
        if turn is not None and board is not None and turn.turn_id == turn_id:
            self._questions.answer(board, key, option_id)

    def asked(self, key: str, method: str, params: msgspec.Raw) -> None:
        """Take a question of the agent's; what is asked outside of a turn nobody will answer."""
        turn, board = self._turn, self._board
        if board is None:
            return
        if turn is None or not turn.written or turn.cancelling:
            board.answer(key, CANCELLED)
        else:
            self._questions.ask(board, self._dialect, turn.turn_id, key, params)

    def withdrawn(self, key: str) -> bool:
        """Take back a question, if it is one of this session's."""
        return self._board is not None and self._questions.withdraw(self._board, key)

    # -- configuration -----------------------------------------------------------------------------

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Ask the agent to work like this, now or as soon as it is ready, and after each restart."""
        self._wishes.ask(configuration, configured)

    def _changed(self, fields: Fields) -> None:
        turn_id = None if self._turn is None else self._turn.turn_id
        self._emit(AgentRecord(turn_id, "agent.state", bounded({"state": encoded("ready"), **fields})))

    # -- what the agent says -----------------------------------------------------------------------

    def told(self, method: str, params: msgspec.Raw) -> None:
        """Take what the agent reports.

        Raises:
            ValueError, msgspec.MsgspecError, RecursionError: it cannot be read (`jsonrpc.MISREAD`).
        """
        turn = self._turn if self._turn is not None and self._turn.written else None
        if method != "session/update":
            self._emit(vendor_record(method, params, self._late if turn is None else turn.turn_id))
        elif self._entry is not None:
            self._entry.look(params)
        else:
            self._hand_on(self._dialect.told(params, turn, self._late))

    def _hand_on(self, events: Iterable[AgentEvent]) -> None:
        """Emit what was said, all of it or, if it cannot be read, nothing."""
        for event in tuple(events):
            if isinstance(event, TurnSettled | TurnFailed):
                self._turn = None
                if self._board is not None:
                    self._questions.cancel(self._board)
                    self._waive(self._board)
            self._emit(event)

    def _waive(self, board: Switchboard) -> None:
        """Expect no answer to the prompt any more: the prompt is kept no longer."""
        if self._call is not None:
            board.waive(self._call)
            self._call = None
