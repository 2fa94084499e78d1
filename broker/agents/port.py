"""What the agent bridge needs of an agent kind."""

from collections.abc import Callable
from typing import Protocol

from broker.messages import AgentEvent, Prompt

__all__ = ["AgentKind", "AgentLink", "Emit"]

Emit = Callable[[AgentEvent], None]
"""Hands an event to the bridge: synchronous, in the order in which the agent said it, never blocks."""


class AgentLink(Protocol):
    """One session's line to its agent. No method blocks or raises; what comes of it is emitted."""

    def start_turn(self, prompt: Prompt) -> None:
        """Give the agent a turn; at most one is running per link.

        It ends with exactly one emitted `TurnSettled`, `TurnFailed` or `AgentLost`.
        """

    def cancel_turn(self, turn_id: str) -> None:
        """Ask the agent to stop; the turn still ends by an event of the agent's."""

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Answer a question of the agent's; None says it was cancelled."""

    async def close(self) -> None:
        """Cut the line at once: kill the agent's whole process group. Emits nothing any more. Idempotent."""


class AgentKind(Protocol):
    """One agent profile, such as `agents: {claude: {kind: acp, command: [...]}}`."""

    def open(self, session_id: str, workspace_dir: str | None, emit: Emit) -> AgentLink:
        """Return a line for this session. Starting may take its time: it happens behind the first turn."""

    async def close(self) -> None:
        """Let go of whatever the profile's links share."""
