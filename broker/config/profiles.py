"""Agent profiles: one class per kind, told apart by `kind` (PROTOCOL sections 3 and 4)."""

from typing import Annotated, Literal

import attrs
from msgspec import Meta

from broker.config.units import Duration

__all__ = ["AcpProfile", "AgentProfile", "Deadlines", "EchoProfile"]

Text = Annotated[str, Meta(min_length=1)]


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long an agent may take (PROTOCOL section 3); 0 switches one off.

    Attributes:
        start: Until the agent is up and takes the turn.
        stalled: Silence after which viewers are told.
        idle: Silence after which the turn is cancelled.
        approval: Wait for a person's answer.
        queue: Wait of a turn behind others.
        settle: Wait for stray output after the agent said it is done.
        turn: The turn as a whole.
    """

    start: Duration = 60.0
    stalled: Duration = 45.0
    idle: Duration = 300.0
    approval: Duration = 86400.0
    queue: Duration = 3600.0
    settle: Duration = 0.2
    turn: Duration = 0.0


@attrs.frozen(kw_only=True)
class EchoProfile:
    """The built-in agent that streams the prompt back.

    Attributes:
        kind: echo.
        delay: Pause between chunks.
        chunk: What is streamed at a time.
        deadlines: How long it may take.
    """

    kind: Literal["echo"] = "echo"
    delay: Duration = 0.0
    chunk: Literal["word", "char"] = "word"
    deadlines: Deadlines = attrs.Factory(Deadlines)


@attrs.frozen(kw_only=True)
class AcpProfile:
    """A child process that speaks the Agent Client Protocol on stdin and stdout.

    Attributes:
        kind: acp.
        command: The program and its arguments; no shell reads them.
        env: Variables it gets beside PATH, HOME and the like; never shown.
        deadlines: How long it may take.
    """

    kind: Literal["acp"] = "acp"
    command: Annotated[tuple[Text, ...], Meta(min_length=1)]
    env: dict[Text, str] = attrs.field(factory=dict, repr=False, metadata={"secret": True})
    deadlines: Deadlines = attrs.Factory(Deadlines)


AgentProfile = EchoProfile | AcpProfile
"""One of the kinds, told apart by `kind`."""
