"""One turn in the hands of an agent that is linked by a WebSocket: who has it, and how far it has come."""

from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from broker.agents.port import Emit
from broker.messages import AgentEvent, AgentRecord, Prompt

if TYPE_CHECKING:
    from broker.agents.remote.member import Member

__all__ = ["Job", "deaf"]

_TOOLS: Final = 10_000
"""Tools of one turn that are told apart."""


def deaf(_: AgentEvent) -> None:
    """Take an event for nobody: the session that it was for has cut the line."""


@attrs.define(eq=False)
class Job:
    """One turn that a pool was given, from then on until the agent has no more to do with it.

    Attributes:
        session_id: its session.
        turn_id: its id.
        emit: where its events go.
        prompt: what the agent is to be told, until it was.
        holder: the agent that has it, or had it last.
        origin: where that agent came from; only one from there may take it up again.
        identity: which process of the agent had it, where that is known.
        seq: the number of the last frame that came; 0 for none.
        unnumbered: whether output came without a number.
        over: whether the session has heard its end, or cut its line.
        cancelled: whether the agent is to stop.
        answers: to the agent's questions, that could not be delivered yet.
        paused: whether the session wants to hear nothing for now.
        usage: what the agent last said of its cost.
    """

    session_id: str
    turn_id: str
    emit: Emit
    prompt: Prompt | None = attrs.field(default=None, repr=False)
    holder: "Member | None" = attrs.field(default=None, repr=False)
    origin: str = ""
    identity: tuple[str, str] | None = None
    seq: int = 0
    unnumbered: bool = False
    over: bool = False
    cancelled: bool = False
    answers: dict[str, str | None] = attrs.field(factory=dict, repr=False)
    paused: bool = False
    usage: bytes | None = attrs.field(default=None, repr=False)
    _tools: set[str] = attrs.field(factory=set, repr=False)

    def counts(self, seq: int | None, *, output: bool = True) -> bool:
        """Take the number of a frame; a repeat is told by False, a hole is reported (PROTOCOL section 4)."""
        if seq is None:
            self.unnumbered |= output
            return True
        if seq <= self.seq:
            return False
        if seq > self.seq + 1:
            missing = {"missing": [self.seq + 1, seq - 1]}
            self.emit(AgentRecord(self.turn_id, "debug", msgspec.json.encode(missing)))
        self.seq = seq
        return True

    def meets(self, tool_id: str) -> bool:
        """Tell whether a tool is new in this turn."""
        if tool_id in self._tools:
            return False
        if len(self._tools) < _TOOLS:
            self._tools.add(tool_id)
        return True

    @property
    def can_resume(self) -> bool:
        """Whether it could go on over another link: what came was counted, or nothing came."""
        return self.seq > 0 or not self.unnumbered
