"""From an agent's profile in the configuration to the agent kind that serves it."""

from broker.agents.acp import AcpAgent
from broker.agents.echo import EchoAgent
from broker.agents.port import AgentKind
from broker.config.settings import AcpProfile, AgentProfile

__all__ = ["kind_for"]


def kind_for(profile: AgentProfile) -> AgentKind:
    """Return what serves `profile`; nothing is started by that."""
    if isinstance(profile, AcpProfile):
        return AcpAgent(profile.command, profile.env, start_timeout=profile.deadlines.start)
    return EchoAgent(profile.delay, profile.chunk)
