"""A session's line to the agents of a pool: a thin face, since all that is shared is the pool's."""

from typing import TYPE_CHECKING

from broker.agents.port import Configuration, Configured, Emit, Opening
from broker.agents.remote.job import Job
from broker.errors import BrokerError
from broker.messages import Prompt, TurnFailed

if TYPE_CHECKING:
    from broker.agents.remote.pool import Pool

__all__ = ["Line"]


class Line:
    """One session's line; a `broker.agents.port.AgentLink`.

    Args:
        pool: the agents.
        opening: what it is opened for.
        emit: takes what the agents do.
    """

    def __init__(self, pool: "Pool", opening: Opening, emit: Emit) -> None:
        self._pool = pool
        self._session_id = opening.session_id
        self._emit = emit
        self._job: Job | None = None

    def start_turn(self, prompt: Prompt) -> None:
        """Give the turn to one of the agents, as soon as one has room."""
        if self._job is not None and not self._job.over:
            self._emit(TurnFailed(prompt.turn_id, "busy", "Another turn of the session is under way.", retryable=True))
            return
        paused = self._job is not None and self._job.paused
        self._job = Job(self._session_id, prompt.turn_id, self._emit, prompt, paused=paused)
        self._pool.place(self._job)

    def cancel_turn(self, turn_id: str) -> None:
        """Ask the agent that has the turn to stop; now, or once it is back."""
        if (job := self._of(turn_id)) is not None:
            self._pool.cancel(job)

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Answer a question of the agent's; now, or once it is back."""
        if (job := self._of(turn_id)) is not None:
            self._pool.answer(job, key, option_id)

    def _of(self, turn_id: str) -> Job | None:
        return self._job if self._job is not None and self._job.turn_id == turn_id else None

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Say that there is nothing to choose: the protocol has no modes and no options."""
        configured(BrokerError("not_found", "This agent has no modes and no options."))

    def pause(self) -> None:
        """Read nothing from the agent that has the turn; its other sessions wait with this one."""
        if self._job is not None:
            self._pool.hold(self._job, paused=True)

    def resume(self) -> None:
        """Read again, unless another of its sessions is behind."""
        if self._job is not None:
            self._pool.hold(self._job, paused=False)

    async def close(self) -> None:
        """Hear nothing any more, and ask the agent to stop; it cannot be killed from here."""
        if self._job is not None:
            self._pool.cut(self._job)
