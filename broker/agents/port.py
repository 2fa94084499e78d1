"""What the agent bridge needs of an agent kind."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from broker.errors import BrokerError
from broker.messages import AgentEvent, Prompt

__all__ = ["AgentKind", "AgentLink", "Configuration", "Configured", "Emit", "Opening"]

Emit = Callable[[AgentEvent], None]
"""Hands an event to the bridge: synchronous, in the order in which the agent said it, never blocks."""

Configured = Callable[[BrokerError | None], None]
"""Told once what became of a configuration: None if the agent took it, else why not."""


@attrs.frozen
class Opening:
    """What a line is opened for.

    Attributes:
        session_id: the session.
        workspace_dir: where its agent may work; None if the session names no directory.
        memory: what the agent called this session when it last opened it (`AgentReady.memory`), if it ever did.
    """

    session_id: str
    workspace_dir: str | None = None
    memory: str | None = None


@attrs.frozen
class Configuration:
    """How a person wants the agent to work in this session.

    Attributes:
        mode: the id of one of the agent's modes; None leaves it.
        options: values of its configuration options by their ids.
    """

    mode: str | None = None
    options: Mapping[str, Any] = attrs.Factory(dict)


class AgentLink(Protocol):
    """One session's line to its agent. No method blocks or raises; what comes of it is emitted."""

    def start_turn(self, prompt: Prompt) -> None:
        """Give the agent a turn; at most one is running per link.

        `TurnTaken` is emitted as soon as the agent has it, unless output comes at once. The turn ends with
        exactly one emitted `TurnSettled`, `TurnFailed` or `AgentLost`, which may never come from an agent that
        is silent: whoever gave the turn watches the clock and closes the link.
        """

    def cancel_turn(self, turn_id: str) -> None:
        """Ask the agent to stop; the turn still ends by an event of the agent's."""

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Answer a question of the agent's; None says it was cancelled."""

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Ask the agent to work like this from now on; `configured` is told what it said."""

    def pause(self) -> None:
        """Read nothing from the agent until `resume`: the store is behind. Idempotent."""

    def resume(self) -> None:
        """Read again."""

    async def close(self) -> None:
        """Cut the line at once: kill the agent's whole process group. Emits nothing any more. Idempotent."""


class AgentKind(Protocol):
    """One agent profile, such as `agents: {claude: {kind: acp, command: [...]}}`.

    Attributes:
        capacity: turns that may be under way at the same time, as of now; None for no limit. 0 says that
            there is no agent at the moment.
        on_capacity: set by whoever uses the kind; called after `capacity` has changed.
    """

    @property
    def capacity(self) -> int | None:
        """Return how many turns may be under way at the same time, as of now."""

    on_capacity: Callable[[], None]

    def open(self, opening: Opening, emit: Emit) -> AgentLink:
        """Return a line for this session. Starting may take its time: it happens behind the first turn."""

    async def start(self) -> None:
        """Begin what goes on without any turn, such as dialling an agents-server. Never fails or waits for it."""

    async def close(self) -> None:
        """Let go of whatever the profile's links share."""
