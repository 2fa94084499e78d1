"""The agent profiles of a broker: their kinds, their bridges, and what the turns of their sessions are bound by."""

import asyncio
from collections.abc import Mapping
from typing import Final

import pykka
from loguru import logger

from broker.actors.agent_bridge import start_bridge
from broker.actors.agent_mail import CloseAgents
from broker.actors.options import AgentOptions
from broker.actors.supervisor import Supervisor
from broker.agents.port import AgentKind
from broker.clock import Clock
from broker.config.profiles import AcpProfile, AgentProfile, AnthropicProfile, WebSocketProfile, WorkerProfile
from broker.traces import Traces
from broker.turns.rules import TurnRules

__all__ = ["CLOSE_SECONDS", "Agents"]

CLOSE_SECONDS = 5.0
"""How long the agents of one profile may take to be gone."""

TOLD: Final = WebSocketProfile | WorkerProfile | AnthropicProfile
"""Profiles whose agents are told with each turn what was said before (PROTOCOL section 4)."""


class Agents:
    """All profiles of one broker.

    Args:
        profiles: by name.
        kinds: what serves each, by the same names.
        queue_limit: turns that may wait in one session.
        supervisor: starts the bridges.
        clock: time.
        traces: where a turn's way is noted.
        handing: whether a turn may be handed to another profile than its session's (`on_dispatch`).

    Attributes:
        options: what the sessions of each profile share, by name.
    """

    def __init__(
        self,
        profiles: Mapping[str, AgentProfile],
        kinds: Mapping[str, AgentKind],
        *,
        queue_limit: int,
        supervisor: Supervisor,
        clock: Clock,
        traces: Traces,
        handing: bool = False,
    ) -> None:
        self._kinds = kinds
        kept = handing and any(isinstance(profile, TOLD) for profile in profiles.values())
        self.options = {
            name: AgentOptions(
                bridge=start_bridge(supervisor, name, kinds[name], clock, traces),
                rules=rules_of(name, profile, kinds[name], queue_limit),
                history=isinstance(profile, TOLD),
                kept=kept,
                memory=isinstance(profile, AcpProfile),
            )
            for name, profile in profiles.items()
        }

    async def start(self) -> None:
        """Begin what goes on without any turn, such as dialling; a kind that cannot is left to its turns' deadlines."""
        for name, kind in self._kinds.items():
            try:
                await kind.start()
            except Exception as e:  # noqa: BLE001 - one profile must not keep the others from starting
                logger.opt(exception=e).error("agent {} could not begin", name)

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Cut all links, and return when nothing is left of any agent, after so many seconds at the latest."""
        bridges = [options.bridge for options in self.options.values() if options.bridge.is_alive()]
        results = await asyncio.gather(
            *(bridge.ask(CloseAgents(), timeout=seconds) for bridge in bridges), return_exceptions=True
        )
        for name, result in zip(self.options, results, strict=False):
            if isinstance(result, pykka.Timeout):
                logger.warning("agents of {} were not gone within {:.2g} s", name, seconds)


def rules_of(name: str, profile: AgentProfile, kind: AgentKind, queue_limit: int) -> TurnRules:
    """Return what the turns of a profile's sessions are bound by."""
    return TurnRules(
        agent=name,
        queue_limit=queue_limit,
        deadlines=profile.deadlines,
        approvals="ask" if isinstance(profile, AnthropicProfile) else profile.approvals,
        limited=kind.capacity is not None,
    )
