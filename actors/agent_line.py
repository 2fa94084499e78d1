"""The session's end of the line to its agent: the turn machine's commands, as the bridge understands them."""

from typing import Any

import attrs
import pykka

from broker.actors.agent_bridge import AgentBridge, AnswerAgent, CancelAtAgent, CutAgent, Dispatch
from broker.actors.ref import InboxFull, LoopRef
from broker.messages import TurnFailed
from broker.turns import AnswerApproval, CancelTurn, Command, CutLink, StartTurn

__all__ = ["AgentLine"]


@attrs.frozen
class AgentLine:
    """One session's line.

    Attributes:
        session: who is told if a turn cannot be handed on.
        session_id: its id.
        bridge: the bridge of its agent's profile; None if the configuration no longer has it.
    """

    session: LoopRef[Any]
    session_id: str
    bridge: LoopRef[AgentBridge] | None

    def carry_out(self, command: Command) -> None:
        """Tell the bridge; a turn that it cannot take ends as failed, by the same way as an agent's word."""
        try:
            if self.bridge is not None:
                self._tell(self.bridge, command)
                return
            why = "the configuration no longer has it"
        except (InboxFull, pykka.ActorDeadError) as e:
            why = str(e)
        if isinstance(command, StartTurn):
            failed = TurnFailed(command.prompt.turn_id, "agent_unavailable", f"The agent cannot be reached: {why}.")
            self.session.tell(failed, urgent=True)

    def cut(self) -> None:
        """Cut what there is of it."""
        if self.bridge is not None and self.bridge.is_alive():
            self.bridge.tell(CutAgent(self.session_id), urgent=True)

    def _tell(self, bridge: LoopRef[AgentBridge], command: Command) -> None:
        match command:
            case StartTurn(prompt):
                bridge.tell(Dispatch(self.session, prompt))
            case CancelTurn(turn_id):
                bridge.tell(CancelAtAgent(self.session_id, turn_id), urgent=True)
            case AnswerApproval(turn_id, key, option_id):
                bridge.tell(AnswerAgent(self.session_id, turn_id, key, option_id), urgent=True)
            case CutLink():
                bridge.tell(CutAgent(self.session_id), urgent=True)
