"""Agent profiles: one class per kind, told apart by `kind` (PROTOCOL sections 3 and 4)."""

from typing import Annotated, Literal

import attrs
from msgspec import Meta

from broker.config.forms import HttpUrl, SocketUrl
from broker.config.secret import Secret
from broker.config.units import Count, Duration, Positive, Rate

__all__ = [
    "AcpProfile",
    "AgentProfile",
    "AnthropicProfile",
    "Approvals",
    "Deadlines",
    "DemoProfile",
    "EchoProfile",
    "WebSocketProfile",
    "WorkerProfile",
]

Text = Annotated[str, Meta(min_length=1)]
Limit = Annotated[int, Meta(ge=0)]
Approvals = Literal["ask", "allow", "reject"]
"""Who answers what an agent asks: a person, or the policy at once, with the option of that kind."""


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long an agent may take (PROTOCOL section 3); 0 switches one off.

    Attributes:
        start: Until the agent is up and takes the turn.
        stalled: Silence after which viewers are told.
        idle: Silence after which the turn is cancelled.
        approval: Wait for a person's answer.
        queue: Wait of a turn behind others.
        settle: Wait for stray output after the agent said it is done, where its protocol allows such.
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
        faults: Obey prompts that ask for a fault, such as /silence; for tests and demonstrations.
        approvals: Who answers what it asks.
        deadlines: How long it may take.
    """

    kind: Literal["echo"] = "echo"
    delay: Duration = 0.0
    chunk: Literal["word", "char"] = "word"
    faults: bool = False
    approvals: Approvals = "ask"
    deadlines: Deadlines = attrs.Factory(Deadlines)


@attrs.frozen(kw_only=True)
class DemoProfile:
    """The built-in agent that streams an answer written beforehand, with a thought, a tool and a question.

    Attributes:
        kind: demo.
        pace: Tokens a second.
        approvals: Who answers what it asks.
        deadlines: How long it may take.
    """

    kind: Literal["demo"] = "demo"
    pace: Annotated[Rate, Positive] = 30.0
    approvals: Approvals = "ask"
    deadlines: Deadlines = attrs.Factory(Deadlines)


@attrs.frozen(kw_only=True)
class AcpProfile:
    """A child process that speaks the Agent Client Protocol on stdin and stdout.

    Attributes:
        kind: acp.
        command: The program and its arguments; no shell reads them.
        env: Variables it gets beside PATH, HOME and the like; never shown.
        process: One process for each session, or one that all sessions share.
        protocol: The newest version of the protocol to offer; the agent answers with what it speaks.
        capacity: Turns under way at the same time, over all sessions; 0 for no limit.
        approvals: Who answers what it asks.
        deadlines: How long it may take.
    """

    kind: Literal["acp"] = "acp"
    command: Annotated[tuple[Text, ...], Meta(min_length=1)]
    env: dict[Text, str] = attrs.field(factory=dict, repr=False, metadata={"secret": True})
    process: Literal["session", "shared"] = "session"
    protocol: Literal[1, 2] = 2
    capacity: Limit = 0
    approvals: Approvals = "ask"
    deadlines: Deadlines = attrs.Factory(Deadlines)


@attrs.frozen(kw_only=True)
class WebSocketProfile:
    """An agents-server that the broker dials, subprotocol agents.v1.json.

    Attributes:
        kind: websocket.
        url: Where it listens, ws:// or wss://.
        headers: Headers sent with the handshake, such as Authorization; never shown.
        reattach: Time for which turns wait for a broken link to come back.
        approvals: Who answers what it asks.
        deadlines: How long it may take.
    """

    kind: Literal["websocket"] = "websocket"
    url: SocketUrl
    headers: dict[Text, str] = attrs.field(factory=dict, repr=False, metadata={"secret": True})
    reattach: Duration = 30.0
    approvals: Approvals = "ask"
    deadlines: Deadlines = attrs.Factory(Deadlines)


@attrs.frozen(kw_only=True)
class WorkerProfile:
    """Agents that dial in at /agent, subprotocol agents.v1.json, and share the load.

    Attributes:
        kind: worker.
        reattach: Time for which a worker's turns wait for its broken link to come back.
        approvals: Who answers what it asks.
        deadlines: How long it may take.
    """

    kind: Literal["worker"] = "worker"
    reattach: Duration = 30.0
    approvals: Approvals = "ask"
    deadlines: Deadlines = attrs.Factory(Deadlines)


@attrs.frozen(kw_only=True)
class AnthropicProfile:
    """The Claude Messages API, streamed, with the session's history as context.

    Attributes:
        kind: anthropic.
        model: The model's id.
        api_key: The key; never shown.
        base_url: Where the API is, if not at its maker's.
        system: What the model is told before everything else.
        max_tokens: Longest answer.
        retries: Further tries while nothing has been said yet.
        capacity: Turns under way at the same time, over all sessions; 0 for no limit.
        deadlines: How long it may take.
    """

    kind: Literal["anthropic"] = "anthropic"
    model: Text
    api_key: Secret
    base_url: HttpUrl | None = None
    system: Text | None = None
    max_tokens: Count = 8192
    retries: Limit = 2
    capacity: Limit = 0
    deadlines: Deadlines = attrs.Factory(Deadlines)


AgentProfile = EchoProfile | DemoProfile | AcpProfile | WebSocketProfile | WorkerProfile | AnthropicProfile
"""One of the kinds, told apart by `kind`."""
