"""What sessions and the bridges to their agents tell each other, beside the agents' own events."""

from typing import Any

import attrs

from broker.actors.futures import ReplyTo
from broker.actors.ref import LoopRef
from broker.agents.port import Configuration, Opening
from broker.messages import Prompt

__all__ = [
    "AnswerAgent",
    "CancelAtAgent",
    "CloseAgents",
    "ConfigureAgent",
    "CutAgent",
    "Dispatch",
    "Flooded",
    "PauseAgent",
    "ReleaseSlot",
    "ResumeAgent",
    "WantSlot",
]


@attrs.define
class WantSlot:
    """A turn asks for one of its agent's places; answered with a `SlotAnswer`, and again when that changes.

    Each of these carries the number of the ask.
    """

    session: LoopRef[Any]
    session_id: str
    turn_id: str
    number: int


@attrs.define
class ReleaseSlot:
    """A turn needs its place no more, or does not wait for one any longer."""

    session_id: str
    turn_id: str


@attrs.define
class Dispatch:
    """A turn for the agent of this session."""

    session: LoopRef[Any]
    prompt: Prompt


@attrs.define
class CancelAtAgent:
    """Ask the session's agent to stop this turn."""

    session_id: str
    turn_id: str


@attrs.define
class AnswerAgent:
    """Answer a question of the session's agent."""

    session_id: str
    turn_id: str
    key: str
    option_id: str | None


@attrs.define
class ConfigureAgent:
    """Ask the session's agent to work in another way; what it says goes to `reply_to`, `{}` or its error."""

    session: LoopRef[Any]
    opening: Opening
    configuration: Configuration
    reply_to: ReplyTo


@attrs.define
class PauseAgent:
    """Read nothing more from the session's agent: the store is behind."""

    session_id: str


@attrs.define
class ResumeAgent:
    """Read from the session's agent again."""

    session_id: str


@attrs.define
class Flooded:
    """So much of what the agent said waits for the session that its link was paused.

    It stands in the session's inbox behind all of that; the session has the link resumed (`ResumeAgent`) once it
    has worked it off and the store has caught up.
    """


@attrs.define
class CutAgent:
    """Cut the session's link and kill what runs behind it; a later turn opens a new one."""

    session_id: str


@attrs.define
class CloseAgents:
    """Cut all links: the broker stops. Answered when nothing of them is left."""
