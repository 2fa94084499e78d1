"""The session's end of the line to its agent: what it wants done, as the bridge understands it."""

from collections.abc import Callable
from typing import Any

import pykka

from broker.actors.agent_bridge import AgentBridge
from broker.actors.agent_mail import (
    AnswerAgent,
    CancelAtAgent,
    ConfigureAgent,
    CutAgent,
    Dispatch,
    PauseAgent,
    ReleaseSlot,
    ResumeAgent,
    WantSlot,
)
from broker.actors.futures import ExcInfo, ReplyTo
from broker.actors.ref import InboxFull, LoopRef
from broker.agents.port import Configuration, Opening
from broker.errors import BrokerError
from broker.messages import Prompt, SlotAnswer, TurnFailed

__all__ = ["AgentLine"]

GONE = "the configuration no longer has it"


class AgentLine:
    """One session's line.

    Args:
        session: who is told if a turn cannot be handed on.
        session_id: its id.
        bridge: the bridge of its agent's profile; None if the configuration no longer has it.
    """

    def __init__(self, session: LoopRef[Any], session_id: str, bridge: LoopRef[AgentBridge] | None) -> None:
        self._session = session
        self._session_id = session_id
        self._bridge = bridge

    def want(self, turn_id: str, number: int) -> None:
        """Ask for a place; where nobody could give one, handing the turn on is what says why it fails."""
        if not self._tell(WantSlot(self._session, self._session_id, turn_id, number)):
            self._session.tell(SlotAnswer(turn_id, "granted", number), urgent=True)

    def release(self, turn_id: str) -> None:
        """Give a place back, or no longer want it."""
        self._tell(ReleaseSlot(self._session_id, turn_id))

    def start(self, prompt: Prompt) -> None:
        """Hand a turn on; one that cannot be taken ends as failed, by the same way as an agent's word."""
        try:
            if self._bridge is not None:
                self._bridge.tell(Dispatch(self._session, prompt))
                return
            why = GONE
        except (InboxFull, pykka.ActorDeadError) as e:
            why = str(e)
        failed = TurnFailed(prompt.turn_id, "agent_unavailable", f"The agent cannot be reached: {why}.")
        self._session.tell(failed, urgent=True)

    def cancel(self, turn_id: str) -> None:
        """Ask the agent to stop a turn."""
        self._tell(CancelAtAgent(self._session_id, turn_id))

    def answer(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Answer a question of the agent's."""
        self._tell(AnswerAgent(self._session_id, turn_id, key, option_id))

    def configure(self, opening: Opening, configuration: Configuration, reply_to: ReplyTo) -> None:
        """Ask the agent to work in another way; its answer goes to `reply_to`."""
        if not self._tell(ConfigureAgent(self._session, opening, configuration, reply_to)):
            error = BrokerError("agent_unavailable", "The agent cannot be reached.")
            reply_to.set_exception((BrokerError, error, None))

    def pause(self) -> None:
        """Have nothing more read from the agent."""
        self._tell(PauseAgent(self._session_id))

    def resume(self) -> None:
        """Have the agent read again."""
        self._tell(ResumeAgent(self._session_id))

    def cut(self) -> None:
        """Cut what there is of the line."""
        self._tell(CutAgent(self._session_id))

    def leave(self) -> None:
        """Cut it: the session leaves memory, or fails."""
        self.cut()

    def lead_to(self, bridge: LoopRef[AgentBridge] | None, parted: Callable[[], None]) -> None:
        """Leave the agent, and have all that comes go to another profile's bridge.

        The line to the one that is left is cut and its place given back; `parted` is called when nothing more can
        come from there.
        """
        left, self._bridge = self._bridge, bridge
        answer = _Parted(parted)
        if left is None or not left.is_alive():
            answer.set()
        else:
            left.request(CutAgent(self._session_id), answer, urgent=True)

    def _tell(self, message: Any) -> bool:
        """Tell the bridge what it has to know however much it has to do; return whether there is one."""
        if self._bridge is None or not self._bridge.is_alive():
            return False
        self._bridge.tell(message, urgent=True)
        return True


class _Parted:
    """Where a bridge answers that it has cut a line, or that it is gone, which comes to the same."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told

    def set(self, value: Any = None, /) -> None:
        self._told()

    def set_exception(self, exc_info: ExcInfo | None = None, /) -> None:
        self._told()
