"""What is there now, as the counters tell it when they are asked: read off the actors, on the loop."""

from collections.abc import Iterable, Mapping, Sequence

from broker.actors.ref import LoopRef
from broker.actors.registry import Registry
from broker.actors.supervisor import Supervisor
from broker.agents.port import AgentKind, Restarting
from broker.agents.remote.pool import Pool
from broker.extensions.dispatch import Hooks
from broker.hooks import Plugin
from broker.stats import Agents, Stats
from broker.vitals.memory import resident

__all__ = ["show", "show_memory"]


def show(
    stats: Stats,
    *,
    registry: LoopRef[Registry],
    supervisor: Supervisor,
    kinds: Mapping[str, AgentKind],
    plugins: Sequence[Plugin],
    hooks: Hooks,
) -> None:
    """Have `stats` tell what waits, who is linked and which plugins are well.

    Args:
        stats: the broker's counters.
        registry: knows the connections.
        supervisor: knows all other actors.
        kinds: what serves each agent profile, by its name.
        plugins: those that were made.
        hooks: knows which of them are in trouble.
    """

    def outboxes() -> Iterable[int]:
        actor = registry.actor
        return () if actor is None else actor.outboxes()

    def plugins_up() -> dict[str, bool]:
        troubles = hooks.troubles()
        return {plugin.name: plugin.name not in troubles for plugin in plugins}

    stats.outboxes = outboxes
    stats.mailboxes = supervisor.mailboxes
    stats.agents = lambda: {name: _figures(kind) for name, kind in kinds.items()}
    stats.plugins = plugins_up


def show_memory(stats: Stats) -> None:
    """Have `stats` tell the process' memory, and how much of what came on top of that of now each connection has.

    Called when everything is there but connections. What they bring with them counts, too: their sessions, and what
    waits for the disk or for an agent.
    """
    began = resident() or 0

    def memory() -> int:
        return resident() or 0

    def each() -> float:
        return max(0.0, memory() - began) / stats.connections if stats.connections else 0.0

    stats.memory = memory
    stats.connection_memory = each


def _figures(kind: AgentKind) -> Agents:
    try:
        linked = len(kind.members) if isinstance(kind, Pool) else None
        return Agents(linked, kind.capacity, kind.restarts if isinstance(kind, Restarting) else 0)
    except Exception:  # noqa: BLE001 - a kind that cannot say takes no turns; its bridge logs it
        return Agents(None, 0)
