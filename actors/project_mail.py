"""What the rooms of projects and the bridge to their agent tell each other."""

from typing import Any

import attrs

from broker.actors.ref import LoopRef
from broker.agents.port import News, UserFeedback
from broker.errors import BrokerError

__all__ = ["AskAgent", "Asleep", "EndFeedback", "FeedbackAnswered", "ForgetFeedback", "TellAgent"]


@attrs.define
class TellAgent:
    """Something happened in a project.

    Attributes:
        news: what.
        own: whether the agent has said it itself, so that it is not told again.
    """

    news: News
    own: bool = False


@attrs.define
class Asleep:
    """A project has left memory; the agent is not told its status any more when it comes back."""

    project: str


@attrs.define
class AskAgent:
    """Bring the agent feedback; what comes of it is told to the room as `FeedbackAnswered`."""

    room: LoopRef[Any]
    feedback: UserFeedback


@attrs.define
class ForgetFeedback:
    """The room does not wait for this answer any longer."""

    project: str
    feedback_id: str


@attrs.frozen
class EndFeedback:
    """The broker stops: all feedback is refused that waits for an answer or comes from now on."""


@attrs.define
class FeedbackAnswered:
    """What the agent answers, as JSON, or why there is no answer."""

    feedback_id: str
    outcome: bytes | BrokerError
