"""What a worker hears of projects and says in them (PROTOCOL section 4, seed 002)."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import attrs

from broker.client.worker.faults import TurnFailed
from broker.client.worker.wire import ProjectFeedback, ProjectUpdate, frame
from broker.projects import EVENTS, FEEDBACK_RESPONSE, STATUS

__all__ = ["Feedback", "Projects", "Update"]

log = logging.getLogger("broker.client")

_WAITING: Final = 100
"""Frames that wait to be sent before who says more has to wait, too."""
_UNHEARD: Final = 1000
"""Updates that wait for the worker before the oldest is let go."""
_WIDTH: Final = 500


@attrs.frozen
class Feedback:
    """What a user says of a project.

    Attributes:
        project: the project's guid.
        feedback_id: what the broker calls it.
        user: who says it; None for somebody without a name.
        data: what is said, any JSON.
    """

    project: str
    feedback_id: str
    user: str | None
    data: Any


@attrs.frozen
class Update:
    """Something that somebody else has published in a project, or the status that it has.

    Attributes:
        project: the project's guid.
        event: `project_stage_update`, `project_message` or `project_status_change`.
        seq: its number in the project's log; None where none is kept.
        user: who published it; None for a back end or somebody without a name.
        data: what was published, any JSON.
    """

    project: str
    event: str
    seq: int | None
    user: str | None
    data: Any

    @property
    def is_status(self) -> bool:
        """Whether it is the project's status; the same may be told again, after each reconnect."""
        return self.event == STATUS


class Projects:
    """A worker's part in projects, whatever becomes of the link.

    Args:
        answer: answers feedback.
        notice: takes updates, one after the other.
        wake: called when there is something to be sent.
    """

    def __init__(
        self,
        answer: Callable[[Feedback], Awaitable[Any]],
        notice: Callable[[Update], Awaitable[None]],
        wake: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._notice = notice
        self._wake = wake
        self._unsent: deque[bytes] = deque()
        self._room = asyncio.Event()
        self._unheard: deque[Update] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._noticing: asyncio.Task[None] | None = None

    # -- what the broker says ------------------------------------------------------------------------

    def hear(self, said: ProjectFeedback | ProjectUpdate) -> None:
        """Do what the broker says, each feedback in its own task, updates in their order."""
        if isinstance(said, ProjectFeedback):
            self._spawn(self._respond(Feedback(said.project, said.feedback_id, said.user, said.data)))
            return
        if len(self._unheard) >= _UNHEARD:
            log.warning("the worker is behind: an update of project %s is let go", self._unheard.popleft().project)
        self._unheard.append(Update(said.project, said.event, said.seq, said.user, said.data))
        if self._noticing is None or self._noticing.done():
            self._noticing = self._spawn(self._notice_all())

    async def _respond(self, feedback: Feedback) -> None:
        """Answer feedback; an error is an answer, too, or somebody would wait for nothing."""
        about = {"project": feedback.project, "frame_id": feedback.feedback_id}
        try:
            answer = frame(FEEDBACK_RESPONSE, await self._answer(feedback), **about)
        except Exception as e:
            if not isinstance(e, TurnFailed):
                log.exception("feedback %s of project %s failed", feedback.feedback_id, feedback.project)
            answer = frame("error", {"refers_to": feedback.feedback_id, **_fault_of(e)}, project=feedback.project)
        self._send(answer)

    async def _notice_all(self) -> None:
        while self._unheard:
            update = self._unheard.popleft()
            try:
                await self._notice(update)
            except Exception:
                log.exception("an update of project %s could not be taken", update.project)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name="project")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- what the worker says ------------------------------------------------------------------------

    async def publish(self, project: str, event: str, data: Any) -> None:
        """Publish an event; waits while much is to be sent.

        Raises:
            TypeError, ValueError: the event is none of a project's, or `data` is no JSON or too large.
        """
        if event not in EVENTS:
            raise ValueError(f"a project has no event {event!r}, but {', '.join(sorted(EVENTS))}")
        text = frame(event, data, project=project)
        while len(self._unsent) >= _WAITING:
            self._room.clear()
            await self._room.wait()
        self._send(text)

    def _send(self, text: bytes) -> None:
        self._unsent.append(text)
        self._wake()

    def unsent(self) -> Iterator[bytes]:
        """Yield the frames that are to be sent; one over whose sending the link breaks is yielded again."""
        while self._unsent:
            yield self._unsent[0]
            self._unsent.popleft()
            self._room.set()

    async def close(self) -> None:
        """Stop what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _fault_of(error: Exception) -> dict[str, str]:
    if isinstance(error, TurnFailed):
        return {"code": str(error.code)[:_WIDTH], "message": str(error.message)[:_WIDTH]}
    return {"code": "agent_unavailable", "message": type(error).__name__}
