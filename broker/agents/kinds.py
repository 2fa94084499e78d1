"""From an agent's profile in the configuration to the agent kind that serves it."""

from broker.agents.acp import AcpAgent
from broker.agents.echo import EchoAgent
from broker.agents.port import AgentKind
from broker.config.settings import AcpProfile, AgentProfile, EchoProfile

__all__ = ["kind_for"]


def kind_for(profile: AgentProfile) -> AgentKind:
    """Return what serves `profile`; nothing is started by that."""
    match profile:
        case AcpProfile():
            return AcpAgent(profile.command, profile.env, start_timeout=profile.deadlines.start)
        case EchoProfile():
            return EchoAgent(profile.delay, profile.chunk)
        case _:
            raise NotImplementedError(profile.kind)
