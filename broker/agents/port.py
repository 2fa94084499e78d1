"""What the agent bridge needs of an agent kind."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import attrs

from broker.errors import BrokerError
from broker.messages import AgentEvent, Prompt

__all__ = [
    "AgentKind",
    "AgentLink",
    "AgentSaid",
    "Answered",
    "Configuration",
    "Configured",
    "Emit",
    "News",
    "Opening",
    "ProjectKind",
    "ProjectLink",
    "Restarting",
    "Say",
    "Taken",
    "UserFeedback",
]

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


@runtime_checkable
class Restarting(Protocol):
    """What an agent kind has on top whose agents may go without having been sent away.

    Attributes:
        restarts: how often one has: its process died and another was started, or its link broke.
    """

    restarts: int


# -- projects (seed 002) ---------------------------------------------------------------------------------


@attrs.frozen
class News:
    """An event of a project, for the agent that serves it.

    Attributes:
        project: the project's guid.
        event: the event's name.
        seq: its number in the project's log; None where none is kept.
        sender: JSON of who published it.
        data: JSON, as it was published.
        at: when it was, in milliseconds since the epoch.
    """

    project: str
    event: str
    seq: int | None
    sender: bytes
    data: bytes
    at: int


@attrs.frozen
class UserFeedback:
    """What somebody says of a project, to its agent.

    Attributes:
        project: the project's guid.
        feedback_id: its name, which no other has that is open in the project.
        sender: JSON of who says it.
        data: JSON, as it came.
        at: when it came, in milliseconds since the epoch.
    """

    project: str
    feedback_id: str
    sender: bytes
    data: bytes
    at: int


@attrs.frozen
class AgentSaid:
    """An event that an agent publishes in a project; `data` is JSON, word for word."""

    project: str
    event: str
    data: bytes


Taken = Callable[[BrokerError | None], None]
"""Told once what became of something an agent said: None once it is in the project's log, else why it is not."""

Say = Callable[[AgentSaid, Taken], None]
"""Takes what agents say, in their order; never blocks, never raises."""

Answered = Callable[[bytes | BrokerError], None]
"""Told once what an agent answers to feedback, as JSON, or why it will not."""


class ProjectLink(Protocol):
    """The way to the agent of all projects. No method blocks or raises."""

    def tell(self, news: News) -> None:
        """Tell it what happened; while nobody is there, or it does not read, that is lost on it."""

    def ask(self, feedback: UserFeedback, answered: Answered) -> None:
        """Bring it feedback. `answered` is told once, unless the agent says nothing or it is forgotten."""

    def forget(self, project: str, feedback_id: str) -> None:
        """Wait for this answer no longer. Idempotent."""


@runtime_checkable
class ProjectKind(Protocol):
    """What an agent kind has on top that can serve projects."""

    def open_projects(self, say: Say, arrived: Callable[[], None]) -> ProjectLink:
        """Return the way to the agent; one that is opened later takes its place.

        Args:
            say: takes what agents publish.
            arrived: called whenever there is an agent that has not been told how the projects stand.
        """
