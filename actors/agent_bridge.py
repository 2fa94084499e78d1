"""The agent bridge: one actor per agent profile, between sessions and the links to their agents.

Sessions tell it turns; it opens a link for each session, hands the turn on, and carries what the
agent says back to the session that it is for, in the agent's order. A link that was replaced or cut
is not heard any more, and one that raises costs its own session's turn alone.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import attrs
import pykka
from loguru import logger

from broker.actors.agent_mail import (
    AnswerAgent,
    CancelAtAgent,
    CloseAgents,
    ConfigureAgent,
    CutAgent,
    Dispatch,
    PauseAgent,
    ReleaseSlot,
    ResumeAgent,
    WantSlot,
)
from broker.actors.line import Line, refuse
from broker.actors.loop import LoopActor, handles
from broker.actors.ref import LoopRef
from broker.actors.slots import Slots
from broker.actors.supervisor import Supervisor
from broker.agents.port import AgentKind, Opening
from broker.clock import Clock
from broker.errors import BrokerError
from broker.messages import AgentEvent, AgentLost, TurnFailed
from broker.tasks import spawn
from broker.traces import Traces

__all__ = ["AgentBridge", "start_bridge"]


@attrs.frozen
class _Shared:
    """What all incarnations of one bridge share.

    Attributes:
        name: the agent profile's name.
        kind: opens links.
        slots: its places.
        clock: time.
        traces: where a turn's way is noted.
    """

    name: str
    kind: AgentKind
    slots: Slots
    clock: Clock
    traces: Traces


def start_bridge(
    supervisor: Supervisor, name: str, kind: AgentKind, clock: Clock, traces: Traces
) -> "LoopRef[AgentBridge]":
    """Start the bridge of one agent profile."""

    def capacity() -> int | None:
        try:
            return kind.capacity
        except Exception as e:  # noqa: BLE001 - an agent kind must not take the bridge with it
            logger.opt(exception=e).error("agent {} cannot say how many turns it takes", name)
            return 0

    slots = Slots(capacity, lambda turn_id, state: traces.note(turn_id, "bridge", state))
    shared = _Shared(name, kind, slots, clock, traces)
    return supervisor.start(lambda: AgentBridge(shared), on_death=slots.abandon)


@attrs.frozen
class _Counted:
    """The kind's capacity has changed."""


class AgentBridge(LoopActor):
    """The bridge of one agent profile; see `start_bridge`."""

    inbox_limit = 100_000

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self._name = shared.name
        self._kind = shared.kind
        self._slots = shared.slots
        self._clock = shared.clock
        self._traces = shared.traces
        self._lines: dict[str, Line] = {}
        self._closing: set[Any] = set()

    def on_start(self) -> None:
        """Hear of it when the kind's capacity changes, in this incarnation."""
        self._kind.on_capacity = self._count_again

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Tell every session that its agent is lost: the bridge that comes next does not know their links."""
        for session_id in list(self._lines):
            session = self._lines[session_id].session
            self._cut(session_id)
            _tell(session, AgentLost("the agent bridge failed"))

    # -- places -------------------------------------------------------------------------------------

    @handles(WantSlot)
    def _want(self, message: WantSlot) -> None:
        self._slots.want(message.session, message.session_id, message.turn_id, message.number)

    @handles(ReleaseSlot)
    def _release(self, message: ReleaseSlot) -> None:
        self._slots.release(message.session_id, message.turn_id)

    def _count_again(self) -> None:
        if not self.actor_stopped.is_set():
            self.actor_ref.tell(_Counted(), urgent=True)

    @handles(_Counted)
    def _counted(self, _: _Counted) -> None:
        self._slots.assign()

    # -- turns --------------------------------------------------------------------------------------

    @handles(Dispatch)
    def _dispatch(self, message: Dispatch) -> None:
        session, prompt = message.session, message.prompt
        try:
            line = self._line_of(session, prompt.session_id)
            if line is None:
                line = self._open(session, Opening(prompt.session_id, prompt.workspace_dir, prompt.memory))
            if line.link is not None:
                line.link.start_turn(prompt)
        except Exception as e:  # noqa: BLE001 - an agent kind must not take the other sessions' turns with it
            logger.opt(exception=e).error("agent {} could not be given a turn", self._name)
            self._cut(prompt.session_id)
            _tell(session, TurnFailed(prompt.turn_id, "agent_unavailable", "The agent could not be started."))
        else:
            self._traces.note(prompt.turn_id, "bridge", "handed to the agent")

    @handles(CancelAtAgent)
    def _cancel(self, message: CancelAtAgent) -> None:
        if (line := self._lines.get(message.session_id)) is not None:
            line.have(lambda link: link.cancel_turn(message.turn_id))

    @handles(AnswerAgent)
    def _answer(self, message: AnswerAgent) -> None:
        if (line := self._lines.get(message.session_id)) is not None:
            line.have(lambda link: link.answer_approval(message.turn_id, message.key, message.option_id))

    @handles(ConfigureAgent)
    def _configure(self, message: ConfigureAgent) -> None:
        session, opening = message.session, message.opening
        try:
            line = self._line_of(session, opening.session_id) or self._open(session, opening)
        except Exception as e:  # noqa: BLE001 - as in _dispatch
            logger.opt(exception=e).error("agent {} could not be configured", self._name)
            self._cut(opening.session_id)
            refuse(message.reply_to, BrokerError("agent_unavailable", "The agent could not be started."))
        else:
            line.configure(message.configuration, message.reply_to, self._clock)

    @handles(PauseAgent)
    def _pause(self, message: PauseAgent) -> None:
        if (line := self._lines.get(message.session_id)) is not None:
            line.pause()

    @handles(ResumeAgent)
    def _resume(self, message: ResumeAgent) -> None:
        if (line := self._lines.get(message.session_id)) is not None:
            line.resume()

    @handles(CutAgent)
    def _cut_one(self, message: CutAgent) -> None:
        self._cut(message.session_id)
        self._slots.release(message.session_id)

    # -- lines --------------------------------------------------------------------------------------

    def _line_of(self, session: LoopRef[Any], session_id: str) -> Line | None:
        line = self._lines.get(session_id)
        return line if line is not None and line.session is session else None

    def _open(self, session: LoopRef[Any], opening: Opening) -> Line:
        self._cut(opening.session_id)
        line = self._lines[opening.session_id] = Line(session, opening.session_id, self._fail_line)
        line.link = self._kind.open(opening, line.say)
        return line

    def _fail_line(self, line: Line, error: Exception) -> None:
        logger.opt(exception=error).error("a link of agent {} failed", self._name)
        self._cut(line.session_id)
        _tell(line.session, AgentLost("the link to the agent failed"))

    def _cut(self, session_id: str) -> None:
        line = self._lines.pop(session_id, None)
        if line is None:
            return
        line.mute()
        task = spawn(line.cut(), name=f"close the agent of session {session_id}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @handles(CloseAgents)
    def _close(self, _: CloseAgents) -> Coroutine[Any, Any, None]:
        for session_id in list(self._lines):
            self._cut(session_id)
        return self._closed()

    async def _closed(self) -> None:
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._kind.close()


def _tell(session: LoopRef[Any], event: AgentEvent) -> None:
    try:
        session.tell(event, urgent=True)
    except pykka.ActorDeadError:
        logger.debug("an agent spoke to {} which is gone", session)
