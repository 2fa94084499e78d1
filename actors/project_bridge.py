"""The project bridge: one actor between the rooms of projects and the agent that serves all of them (seed 002).

What happens in a project comes down from its room and goes to the agent; what the agent publishes goes up to the room,
by way of the registry, since the room may not be in memory. The bridge knows the status of every project that is
awake, so that an agent which comes, or comes back, is told how they stand.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import msgspec
import pykka
from loguru import logger

from broker.actors.futures import ExcInfo, ReplyTo
from broker.actors.loop import LoopActor, handles
from broker.actors.project_mail import AskAgent, Asleep, FeedbackAnswered, ForgetFeedback, TellAgent
from broker.actors.ref import InboxFull, LoopRef
from broker.actors.requests import ToRoom
from broker.actors.supervisor import Supervisor
from broker.agents.port import AgentSaid, News, ProjectKind, Taken
from broker.errors import BrokerError
from broker.messages import ANONYMOUS
from broker.operations import Publish
from broker.projects import STATUS, room_of

__all__ = ["ProjectBridge", "sender_of", "start_project_bridge"]

AskRegistry = Callable[[ToRoom, ReplyTo], None]
"""Tells the registry something, whose answer goes where the second argument says; raises as `LoopRef.request`."""


@attrs.frozen
class _Shared:
    """What all incarnations of the bridge share.

    Attributes:
        name: the agent profile's name.
        kind: opens the way to its agents.
        registry: the way to the rooms.
        statuses: the status of each project that is awake and has one, by its guid.
    """

    name: str
    kind: ProjectKind
    registry: AskRegistry
    statuses: dict[str, News] = attrs.Factory(dict)


def start_project_bridge(
    supervisor: Supervisor, name: str, kind: ProjectKind, registry: AskRegistry
) -> "LoopRef[ProjectBridge]":
    """Start the bridge to the agents of one profile, which serve all projects."""
    shared = _Shared(name, kind, registry)
    return supervisor.start(lambda: ProjectBridge(shared))


def sender_of(agent: str) -> bytes:
    """Return JSON of who says what an agent of this profile says."""
    return msgspec.json.encode({"connection_id": None, "user": None, "agent": agent})


@attrs.frozen
class _Arrived:
    """There is an agent that has not been told how the projects stand."""


class ProjectBridge(LoopActor):
    """The one bridge to the agent of projects; see `start_project_bridge`."""

    inbox_limit = 10_000

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self._shared = shared
        self._sender = sender_of(shared.name)
        self._link = shared.kind.open_projects(self._say, self._arrive)
        self._asked: dict[tuple[str, str], LoopRef[Any]] = {}

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Tell every room that its agent will not answer: the bridge that comes next does not know what was asked."""
        for (project, feedback_id), room in self._asked.items():
            self._link.forget(project, feedback_id)
            _tell(room, feedback_id, BrokerError("agent_unavailable", "The way to the agent broke.", retry_after=1.0))

    # -- down: what happens in projects ---------------------------------------------------------------

    @handles(TellAgent)
    def _happened(self, message: TellAgent) -> None:
        news = message.news
        if news.event == STATUS:
            self._shared.statuses[news.project] = news
        if not message.own:
            self._link.tell(news)

    @handles(Asleep)
    def _asleep(self, message: Asleep) -> None:
        self._shared.statuses.pop(message.project, None)

    @handles(_Arrived)
    def _arrived(self, _: _Arrived) -> None:
        for news in self._shared.statuses.values():
            self._link.tell(news)

    @handles(AskAgent)
    def _ask(self, message: AskAgent) -> None:
        key = (message.feedback.project, message.feedback.feedback_id)
        self._asked[key] = message.room
        self._link.ask(message.feedback, partial(self._answered, key))

    @handles(ForgetFeedback)
    def _forget(self, message: ForgetFeedback) -> None:
        self._asked.pop((message.project, message.feedback_id), None)
        self._link.forget(message.project, message.feedback_id)

    # -- up: what agents say ----------------------------------------------------------------------------

    def _answered(self, key: tuple[str, str], outcome: bytes | BrokerError) -> None:
        room = self._asked.pop(key, None)
        if room is not None:
            _tell(room, key[1], outcome)

    def _say(self, said: AgentSaid, taken: Taken) -> None:
        publish = Publish(ANONYMOUS, self._sender, said.event, said.data, self._shared.name)
        try:
            self._shared.registry(ToRoom(room_of(said.project), publish), _ToAgent(taken))
        except (InboxFull, pykka.ActorDeadError):
            taken(BrokerError("overloaded", retry_after=1.0))

    def _arrive(self) -> None:
        if not self.actor_stopped.is_set():
            self.actor_ref.tell(_Arrived(), urgent=True)


@attrs.frozen
class _ToAgent:
    """Where a room's answer goes to what an agent has published; a `broker.actors.futures.ReplyTo`."""

    taken: Taken

    def set(self, value: Any = None, /) -> None:
        """Tell that it is in the log."""
        self.taken(None)

    def set_exception(self, exc_info: ExcInfo | None = None, /) -> None:
        """Tell why it is not."""
        error = None if exc_info is None else exc_info[1]
        self.taken(error if isinstance(error, BrokerError) else BrokerError("unavailable", retry_after=1.0))


def _tell(room: LoopRef[Any], feedback_id: str, outcome: bytes | BrokerError) -> None:
    try:
        room.tell(FeedbackAnswered(feedback_id, outcome), urgent=True)
    except pykka.ActorDeadError:
        logger.debug("an agent answered {} which is gone", room)
