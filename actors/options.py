"""What all sessions, and all rooms, of a broker share: handed to each when it is made."""

from collections.abc import Callable, Mapping

import attrs

from broker.actors.agent_bridge import AgentBridge
from broker.actors.lifecycle import Gone
from broker.actors.project_bridge import ProjectBridge
from broker.actors.ref import LoopRef
from broker.actors.store import StorePort
from broker.clock import Clock
from broker.hooks import Attempt, Degraded, HandTo
from broker.messages import Record
from broker.stats import Stats
from broker.traces import Traces
from broker.turns.rules import TurnRules

__all__ = [
    "AgentOptions",
    "LogOptions",
    "OnCommitted",
    "OnDispatch",
    "ProjectOptions",
    "RoomOptions",
    "SessionOptions",
]

OnCommitted = Callable[[str, tuple[Record, ...]], None]
"""Told the name of a log and its records that have become durable, each once, in order."""

OnDispatch = Callable[[Attempt], HandTo | Degraded | None]
"""Says who is to have a turn that no agent has taken up yet; None for the usual way. Never raises."""


@attrs.frozen(kw_only=True)
class LogOptions:
    """What all logs of a broker share.

    Attributes:
        store: where logs are kept.
        clock: time.
        stats: the broker's counters.
        mailbox: messages that may wait for one session or room.
        registry: who is told when a session or a room may be let go.
        on_committed: told of the records that have become durable.
    """

    store: StorePort
    clock: Clock
    stats: Stats
    mailbox: int = 1000
    registry: Callable[[Gone], None]
    on_committed: OnCommitted


@attrs.frozen(kw_only=True)
class AgentOptions:
    """What the sessions of one agent profile share.

    Attributes:
        bridge: the way to its agents.
        rules: what their turns are bound by.
        history: whether its agents are told with each turn what was said before.
        kept: whether that is kept for others in any case, to whom a turn of these sessions may be handed.
        memory: whether its agents keep sessions of their own, which they can be asked to take up again.
    """

    bridge: LoopRef[AgentBridge]
    rules: TurnRules
    history: bool = False
    kept: bool = False
    memory: bool = False

    @property
    def transcript(self) -> bool:
        """Whether these sessions keep in memory what was said."""
        return self.history or self.kept


@attrs.frozen(kw_only=True)
class SessionOptions(LogOptions):
    """What all sessions of a broker share.

    Attributes:
        agents: the agent profiles by name.
        quota: bytes of a session's log beyond which it takes no more turns; 0 for no limit.
        traces: where each turn's way is noted.
        on_turn_ended: told (session id, turn id, agent, outcome, seconds, whether an agent was given it) of each
            durable end.
        on_dispatch: asked who is to have a turn that no agent has taken up; None if nobody has anything to say.
    """

    agents: Mapping[str, AgentOptions]
    quota: int = 0
    traces: Traces
    on_turn_ended: Callable[[str, str, str, str, float, bool], None]
    on_dispatch: OnDispatch | None = None


@attrs.frozen(kw_only=True)
class ProjectOptions:
    """Who serves projects.

    Attributes:
        agent: the agent profile's name.
        bridge: the way to its agents.
        feedback: seconds that they have for an answer.
    """

    agent: str
    bridge: LoopRef[ProjectBridge]
    feedback: float


@attrs.frozen(kw_only=True)
class RoomOptions(LogOptions):
    """What all rooms of a broker share.

    Attributes:
        history: newest events kept; 0 for no log at all.
        projects: who serves those that are projects; None if nobody does.
    """

    history: int
    projects: ProjectOptions | None = None
