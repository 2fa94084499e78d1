"""What all sessions, and all rooms, of a broker share: handed to each when it is made."""

from collections.abc import Callable, Mapping

import attrs

from broker.actors.agent_bridge import AgentBridge
from broker.actors.lifecycle import Gone
from broker.actors.ref import LoopRef
from broker.actors.store import StorePort
from broker.clock import Clock
from broker.messages import Record
from broker.stats import Stats
from broker.traces import Traces
from broker.turns.rules import TurnRules

__all__ = ["AgentOptions", "LogOptions", "OnCommitted", "RoomOptions", "SessionOptions"]

OnCommitted = Callable[[str, tuple[Record, ...]], None]
"""Told the name of a log and its records that have become durable, each once, in order."""


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
        memory: whether its agents keep sessions of their own, which they can be asked to take up again.
    """

    bridge: LoopRef[AgentBridge]
    rules: TurnRules
    history: bool = False
    memory: bool = False


@attrs.frozen(kw_only=True)
class SessionOptions(LogOptions):
    """What all sessions of a broker share.

    Attributes:
        agents: the agent profiles by name.
        quota: bytes of a session's log beyond which it takes no more turns; 0 for no limit.
        traces: where each turn's way is noted.
        on_turn_ended: told (session id, turn id, agent, outcome, seconds) of each durable end.
    """

    agents: Mapping[str, AgentOptions]
    quota: int = 0
    traces: Traces
    on_turn_ended: Callable[[str, str, str, str, float], None]


@attrs.frozen(kw_only=True)
class RoomOptions(LogOptions):
    """What all rooms of a broker share.

    Attributes:
        history: newest events kept; 0 for no log at all.
    """

    history: int
