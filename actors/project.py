"""A project: a room whose agent hears what happens in it, and answers what its users say (seed 002).

Members learn of stages, messages, statuses and agents as of every event of a room. The agent is told what is durable,
in its order, by way of the project bridge. Feedback is no event: it goes to the agent alone, and the answer to whoever
asked.
"""

from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import msgspec
import pykka

from broker.actors.feedback import Feedbacks, OpenFeedback
from broker.actors.lifecycle import MayStop
from broker.actors.log import HISTORY_BYTES
from broker.actors.loop import handles
from broker.actors.options import ProjectOptions, RoomOptions
from broker.actors.project_bridge import sender_of
from broker.actors.project_mail import AskAgent, Asleep, FeedbackAnswered, ForgetFeedback, TellAgent
from broker.actors.ref import InboxFull
from broker.actors.room import Room
from broker.agents.port import News, UserFeedback
from broker.errors import BrokerError
from broker.operations import Feedback, Publish
from broker.projects import STATUS, UPDATES, guid_of
from broker.protocol.outgoing import FeedbackAnswer, RoomEvent
from broker.protocol.parcel import Parcel

__all__ = ["Project", "make_room"]


def make_room(name: str, options: RoomOptions) -> Room:
    """Return the actor of a room: a project's is one for its agent, too, if there is one."""
    guid, serving = guid_of(name), options.projects
    return Room(name, options) if guid is None or serving is None else Project(name, guid, options, serving)


@attrs.frozen
class _Late:
    """The agent has had its time for an answer."""

    told: str


class Project(Room):
    """One project.

    Args:
        name: the room's name.
        guid: the project's.
        options: what all rooms share.
        serving: the way to its agent.
    """

    def __init__(self, name: str, guid: str, options: RoomOptions, serving: ProjectOptions) -> None:
        super().__init__(name, options)
        self._guid = guid
        self._serving = serving
        self._open = Feedbacks()

    async def setup(self) -> None:
        """Take up the room's log, and let the agent know the status that it ends with."""
        await super().setup()
        if not self._options.history or not self.head:
            return
        found = await self._store.read(
            "records_before", self.log, self.head + 1, limit=1, max_bytes=HISTORY_BYTES, kinds=(STATUS,)
        )
        for record in found:
            if record.seq >= self.floor:
                self._tell_agent(self.present(record), own=False)

    def on_stop(self) -> None:
        """Leave memory."""
        super().on_stop()
        self._refuse_all(BrokerError("unavailable", "The broker is stopping."))
        self._tell_bridge(Asleep(self._guid))

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Answer whoever waits, for a commit or for the agent."""
        super().on_failure(exception_type, exception_value, traceback)
        self._refuse_all(BrokerError("unavailable", "The project failed and starts again; send it once more."))

    # -- what happens ---------------------------------------------------------------------------------

    @handles(Publish)
    def _publish(self, message: Publish) -> dict[str, Any] | None:
        answer = super()._publish(message)
        own = message.agent is not None
        if message.event == STATUS or (message.event in UPDATES and not own):
            event = self.present(self._drafts[-1]) if self._options.history else self._passing[-1]
            self.after_commit(partial(self._tell_agent, event, own=own))
        return answer

    def _tell_agent(self, event: RoomEvent, *, own: bool) -> None:
        news = News(self._guid, event.event, event.seq, event.sender, event.data, event.at)
        self._tell_bridge(TellAgent(news, own))

    def _tell_bridge(self, message: Any) -> None:
        with suppress(pykka.ActorDeadError):
            self._serving.bridge.tell(message, urgent=True)

    # -- feedback -------------------------------------------------------------------------------------

    @handles(Feedback)
    def _feedback(self, message: Feedback) -> None:
        opened = self._open.find(message) or self._forward(message)
        opened.waiting.append((self.answer_later(), message.follower))

    def _forward(self, message: Feedback) -> OpenFeedback:
        opened = self._open.add(message)
        feedback = UserFeedback(self._guid, opened.told, message.sender, message.data, self._clock.now())
        try:
            self._serving.bridge.tell(AskAgent(self.actor_ref, feedback))
        except (InboxFull, pykka.ActorDeadError) as e:
            self._open.close(opened.told)
            raise BrokerError("agent_unavailable", "The agent cannot be reached.", retry_after=1.0) from e
        opened.timer = self._clock.call_later(self._serving.feedback, partial(self._remind, opened.told))
        return opened

    def _remind(self, told: str) -> None:
        if not self.actor_stopped.is_set():
            self.actor_ref.tell(_Late(told), urgent=True)

    @handles(_Late)
    def _give_up(self, message: _Late) -> None:
        opened = self._open.close(message.told)
        if opened is not None:
            self._tell_bridge(ForgetFeedback(self._guid, opened.told))
            seconds = self._serving.feedback
            opened.refuse(BrokerError("timeout", f"The agent did not answer within {seconds:g} s."))

    @handles(FeedbackAnswered)
    def _answered(self, message: FeedbackAnswered) -> None:
        opened = self._open.close(message.feedback_id)
        if opened is None:
            return
        if isinstance(message.outcome, BrokerError):
            opened.refuse(message.outcome)
            return
        said = {"feedback_id": opened.feedback_id, "data": msgspec.Raw(message.outcome)}
        if not opened.answer({"project": self._guid, **said}):
            self._tell_others_of(opened, message.outcome)

    def _tell_others_of(self, opened: OpenFeedback, data: bytes) -> None:
        """Tell the answer where its asker is a member still, since the connection that asked is gone."""
        sender = sender_of(self._serving.agent)
        parcel = Parcel((FeedbackAnswer(self._name, opened.feedback_id, sender, data, self._clock.now()),))
        user = opened.user
        others = [member for member, who in self._members.items() if user is not None and who["user"] == user]
        there = [member for member in others if not member.actor_stopped.is_set()]
        for member in there:
            member.tell(parcel, urgent=True)
        if not there:
            self._stats.dropped["feedback"] += 1

    def _refuse_all(self, error: BrokerError) -> None:
        for opened in self._open:
            self._open.close(opened.told)
            self._tell_bridge(ForgetFeedback(self._guid, opened.told))
            opened.refuse(error)

    @handles(MayStop)
    def _may_stop(self, message: MayStop | None = None) -> bool:
        return not self._open and super()._may_stop(message)
