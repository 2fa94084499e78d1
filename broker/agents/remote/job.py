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
_ANSWERS: Final = 100
"""Answers of one turn that are kept, the newest."""


def deaf(_: AgentEvent) -> None:
    """Take an event for nobody: the session that it was for has cut the line."""


@attrs.define(eq=False)
class Job:
    """One turn that a pool was given, from then on until the agent has no more to do with it.

    Attributes:
        session_id: its session.
        turn_id: its id.
        emit: where its events go.
        prompt: what an agent is to be told, until one has said something of the turn.
        holder: the agent that has it, or had it last.
        trouble: why the link to that agent broke, if it did.
        origin: where that agent came from; only one from there may take it up again.
        identity: which process of the agent had it, where that is known.
        seq: the number of the last frame that came; 0 for none.
        unnumbered: whether output came without a number.
        over: whether the session has heard its end, or cut its line.
        cancelled: whether the agent is to stop.
        answers: to the agent's questions, by their keys; a link that breaks may take those written last with it.
        paused: whether the session wants to hear nothing for now.
        usage: what the agent last said of its cost.
    """

    session_id: str
    turn_id: str
    emit: Emit
    prompt: Prompt | None = attrs.field(default=None, repr=False)
    holder: "Member | None" = attrs.field(default=None, repr=False)
    trouble: str = ""
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
        self.prompt = None
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

    def answered(self, key: str, option_id: str | None) -> None:
        """Keep an answer for as long as the turn is under way."""
        self.answers[key] = option_id
        if len(self.answers) > _ANSWERS:
            del self.answers[next(iter(self.answers))]

    def end(self) -> None:
        """Be over, and keep no more than it takes to know what comes late."""
        self.over = True
        self.prompt = self.usage = None
        self.answers.clear()
        self._tools.clear()

    def meets(self, tool_id: str) -> bool:
        """Tell whether a tool is new in this turn."""
        if tool_id in self._tools:
            return False
        if len(self._tools) < _TOOLS:
            self._tools.add(tool_id)
        return True

    @property
    def held(self) -> bool:
        """Whether an agent that is linked has it in hand."""
        return self.holder is not None and self.holder.jobs.get(self.turn_id) is self

    @property
    def can_resume(self) -> bool:
        """Whether it could go on over another link: what came was counted, or nothing came."""
        return self.seq > 0 or not self.unnumbered
