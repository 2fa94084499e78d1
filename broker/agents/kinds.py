"""From an agent's profile in the configuration to the agent kind that serves it."""

from collections import Counter

from broker.agents.acp.agent import AcpAgent
from broker.agents.claude.agent import AnthropicAgent
from broker.agents.demo.agent import DemoAgent
from broker.agents.echo.agent import EchoAgent
from broker.agents.port import AgentKind
from broker.agents.remote.websocket import WebSocketAgent
from broker.agents.remote.worker import WorkerAgent
from broker.config.profiles import (
    AcpProfile,
    AgentProfile,
    AnthropicProfile,
    DemoProfile,
    EchoProfile,
    WebSocketProfile,
    WorkerProfile,
)

__all__ = ["kind_for"]


def kind_for(profile: AgentProfile, mark: str | None = None, errors: Counter[str] | None = None) -> AgentKind:
    """Return what serves `profile`; nothing is started by that.

    Args:
        profile: the profile.
        mark: what the environment of the processes that it starts says of whose they are (`broker.agents.acp.orphans`).
        errors: where those that an agents-server is sent are counted, by code.
    """
    match profile:
        case EchoProfile():
            return EchoAgent(profile.delay, profile.chunk, profile.faults)
        case DemoProfile():
            return DemoAgent(profile.pace)
        case AcpProfile():
            return AcpAgent(
                profile.command, profile.env, profile.process, profile.protocol, profile.capacity or None, mark
            )
        case WebSocketProfile():
            return WebSocketAgent(profile.url, profile.headers, reattach=profile.reattach, errors=errors)
        case WorkerProfile():
            return WorkerAgent(reattach=profile.reattach)
        case AnthropicProfile():
            return AnthropicAgent(
                profile.model,
                profile.api_key,
                profile.base_url,
                profile.system,
                profile.max_tokens,
                profile.retries,
                profile.capacity or None,
            )
