"""The project bridge: one actor between the rooms of projects and the agent that serves all of them (seed 002).

What happens in a project comes down from its room and goes to the agent; what the agent publishes goes up to the room,
by way of the registry, since the room may not be in memory. The bridge knows the status of every project that is
awake, so that an agent which comes, or comes back, is told how they stand.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
import msgspec
import pykka
from loguru import logger

from broker.actors.futures import ExcInfo, ReplyTo
from broker.actors.loop import LoopActor, handles
from broker.actors.project_mail import AskAgent, Asleep, EndFeedback, FeedbackAnswered, ForgetFeedback, TellAgent
from broker.actors.ref import InboxFull, LoopRef
from broker.actors.requests import ToRoom
from broker.actors.supervisor import Supervisor
from broker.agents.port import AgentSaid, News, ProjectKind, Taken
from broker.errors import BrokerError
from broker.messages import ANONYMOUS
from broker.operations import Publish
from broker.projects import STATUS, Statuses, room_of

__all__ = ["ProjectBridge", "sender_of", "start_project_bridge"]

AskRegistry = Callable[[ToRoom, ReplyTo], None]
"""Tells the registry something, whose answer goes where the second argument says; raises as `LoopRef.request`."""

_STOPPING: Final = "The broker is stopping."
AT_ONCE: Final = 200
"""Statuses that are told before others have their turn: a few milliseconds of them."""


@attrs.define(eq=False)
class _Shared:
    """What all incarnations of the bridge share.

    Attributes:
        name: the agent profile's name.
        kind: opens the way to its agents.
        registry: the way to the rooms.
        statuses: that of each project which is awake and has one.
        ending: whether no feedback is brought any more.
    """

    name: str
    kind: ProjectKind
    registry: AskRegistry
    statuses: Statuses[News] = attrs.Factory(Statuses)
    ending: bool = False


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


@attrs.frozen
class _TellMore:
    """There are projects left whose status is to be told."""


class ProjectBridge(LoopActor):
    """The one bridge to the agent of projects; see `start_project_bridge`."""

    inbox_limit = 10_000

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self._shared = shared
        self._sender = sender_of(shared.name)
        self._link = shared.kind.open_projects(self._say, self._arrive)
        self._asked: dict[tuple[str, str], LoopRef[Any]] = {}
        self._untold: deque[str] = deque()

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Tell every room that its agent will not answer: the bridge that comes next does not know what was asked."""
        self._refuse_all(BrokerError("agent_unavailable", "The way to the agent broke.", retry_after=1.0))

    # -- down: what happens in projects ---------------------------------------------------------------

    @handles(TellAgent)
    def _happened(self, message: TellAgent) -> None:
        news = message.news
        if news.event == STATUS:
            self._shared.statuses.put(news)
        if not message.own:
            self._link.tell(news)

    @handles(Asleep)
    def _asleep(self, message: Asleep) -> None:
        self._shared.statuses.pop(message.project)

    @handles(_Arrived)
    def _arrived(self, _: _Arrived) -> None:
        under_way = bool(self._untold)
        self._untold = deque(self._shared.statuses)
        if not under_way:
            self._tell_more()

    @handles(_TellMore)
    def _tell_more(self, message: _TellMore | None = None) -> None:
        for _ in range(min(AT_ONCE, len(self._untold))):
            news = self._shared.statuses.get(self._untold.popleft())
            if news is not None:  # it may have gone to sleep meanwhile
                self._link.tell(news)
        if self._untold:
            self.actor_ref.tell(_TellMore(), urgent=True)

    @handles(AskAgent)
    def _ask(self, message: AskAgent) -> None:
        key = (message.feedback.project, message.feedback.feedback_id)
        if self._shared.ending:
            _tell(message.room, key[1], BrokerError("unavailable", _STOPPING))
            return
        self._asked[key] = message.room
        self._link.ask(message.feedback, partial(self._answered, key))

    @handles(ForgetFeedback)
    def _forget(self, message: ForgetFeedback) -> None:
        self._asked.pop((message.project, message.feedback_id), None)
        self._link.forget(message.project, message.feedback_id)

    @handles(EndFeedback)
    def _end(self, _: EndFeedback) -> None:
        self._shared.ending = True
        self._refuse_all(BrokerError("unavailable", _STOPPING))

    def _refuse_all(self, error: BrokerError) -> None:
        for (project, feedback_id), room in self._asked.items():
            self._link.forget(project, feedback_id)
            _tell(room, feedback_id, error)
        self._asked.clear()

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
