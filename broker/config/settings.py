"""Every setting there is, its type, its range and its default (PROTOCOL section 7).

Durations are seconds and sizes bytes here; how they are written in a file is the business of
`broker.config.units`. The sentences under `Attributes:` are the descriptions of the JSON Schema.
"""

from typing import Annotated, Literal

import attrs
from msgspec import Meta

from broker.config.forms import Host, Network, Origin, StoreUrl
from broker.config.profiles import (
    AcpProfile,
    AgentProfile,
    AnthropicProfile,
    Deadlines,
    DemoProfile,
    EchoProfile,
    WebSocketProfile,
    WorkerProfile,
)
from broker.config.tree import Located
from broker.config.units import Count, Duration, Port, Positive, Size

__all__ = [
    "AcpProfile",
    "AgentProfile",
    "AnthropicProfile",
    "Deadlines",
    "DemoProfile",
    "EchoProfile",
    "Heartbeat",
    "Limits",
    "Listen",
    "Log",
    "Projects",
    "Rooms",
    "Runtime",
    "Sessions",
    "Settings",
    "Shutdown",
    "Store",
    "WebSocketProfile",
    "WorkerProfile",
]

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
Text = Annotated[str, Meta(min_length=1)]


@attrs.frozen(kw_only=True)
class Listen:
    """Where the broker listens and whom it admits before a handshake.

    Attributes:
        host: Address to bind.
        port: TCP port; 0 takes any free one.
        origins: Browser origins admitted beside the broker's own pages, such as https://chat.example.org.
        hosts: Names the broker is known by, such as chat.example.org, beside this machine's own and those of origins.
        max_connections: Sockets open at the same time.
        trusted_proxies: Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed.
        insecure: Listen beyond loopback although nobody has to show a token.
        compression: Offer permessage-deflate; costs CPU and memory per socket.
        default_protocol: What a client speaks that offers no subprotocol.
    """

    host: Text = "127.0.0.1"
    port: Port = 3000
    origins: tuple[Origin, ...] = ()
    hosts: tuple[Host, ...] = ()
    max_connections: Count = 10_000
    trusted_proxies: tuple[Network, ...] = ()
    insecure: bool = False
    compression: bool = False
    default_protocol: Literal[
        "broker.v1.json", "session.v1.json", "project.v1.json", "envelope.v1.json", "chat.v1.json"
    ] = "broker.v1.json"


@attrs.frozen(kw_only=True)
class Heartbeat:
    """How a dead peer is noticed, and one that only sits there.

    Attributes:
        interval: Time between pings.
        timeout: Time a peer has to answer one; less than the interval.
        idle: Time without a message after which a client is closed with 4504, looked at once an interval; 0 for never.
    """

    interval: Annotated[Duration, Positive] = 30.0
    timeout: Annotated[Duration, Positive] = 10.0
    idle: Duration = 0.0


@attrs.frozen(kw_only=True)
class Limits:
    """What one peer may take.

    Attributes:
        message_bytes: Largest message a client may send.
        outbox_bytes: What may wait for a slow client before it is switched to catch-up or closed.
        mailbox: Messages that may wait for one actor.
        queued_turns: Turns that may wait in one session.
        errors_per_minute: Ill-formed messages after which a connection is closed.
        message_timeout: Time within which a client of envelope.v1.json has a reply or an error, and handlers answer.
        handshake: Time a client has for its handshake, and for the body of a request.
        unknown_per_address: Connections of one address that have not said yet what they want or who they are.
        memory: Memory of the process beyond which new connections, sessions and turns are refused; 0 for no limit.
    """

    message_bytes: Annotated[Size, Meta(ge=1024, le=1 << 30)] = 1 << 20
    outbox_bytes: Annotated[Size, Meta(ge=1024, le=1 << 32)] = 1 << 20
    mailbox: Count = 1000
    queued_turns: Annotated[int, Meta(ge=0)] = 16
    errors_per_minute: Count = 60
    message_timeout: Annotated[Duration, Positive] = 30.0
    handshake: Annotated[Duration, Positive] = 10.0
    unknown_per_address: Count = 1000
    memory: Size = 0


@attrs.frozen(kw_only=True)
class Store:
    """Where the logs are kept.

    Attributes:
        url: sqlite:///relative.db, sqlite:////absolute.db, or memory: to keep nothing.
        sync: full survives a power cut; normal and off do not, and replies then say durable is false.
    """

    url: StoreUrl = "sqlite:///broker.db"
    sync: Literal["full", "normal", "off"] = "full"


@attrs.frozen(kw_only=True)
class Sessions:
    """How long sessions stay, and where their agents may work.

    Attributes:
        idle_after: Time without a viewer or a turn after which a session leaves memory; its log stays.
        keep: Time after its last record for which a session is kept; 0 keeps it for ever.
        quota: Size of a session's log beyond which it takes no more turns; 0 for no limit.
        workspace_roots: Directories under which a session's workspace_dir must lie.
    """

    idle_after: Annotated[Duration, Positive] = 3600.0
    keep: Duration = 30 * 86400.0
    quota: Size = 1 << 30
    workspace_roots: tuple[Text, ...] = ()


@attrs.frozen(kw_only=True)
class Rooms:
    """What is kept of rooms.

    Attributes:
        history: Newest events kept of each room; 0 keeps none.
        keep: Time for which an event is kept; 0 keeps it for ever.
    """

    history: Annotated[int, Meta(ge=0)] = 1000
    keep: Duration = 86400.0


@attrs.frozen(kw_only=True)
class Projects:
    """Who serves projects, which are the rooms whose names begin with project: (docs/projects.md).

    Attributes:
        agent: The agent profile that is told of them and answers feedback; null for none.
        feedback: Time that it has for an answer.
    """

    agent: str | None = None
    feedback: Annotated[Duration, Positive] = 30.0


@attrs.frozen(kw_only=True)
class Log:
    """What is logged, and how; always on stderr.

    Attributes:
        level: The least severe level that is written.
        format: auto is text in a terminal and JSON lines otherwise.
        access: Whether each request over HTTP has its line.
    """

    level: Literal["trace", "debug", "info", "warning", "error", "critical"] = "info"
    format: Literal["auto", "text", "json"] = "auto"
    access: bool = False


@attrs.frozen(kw_only=True)
class Shutdown:
    """How the broker stops.

    Attributes:
        grace: Time that running turns get after SIGTERM.
    """

    grace: Duration = 10.0


@attrs.frozen(kw_only=True)
class Runtime:
    """What the broker runs on.

    Attributes:
        loop: The event loop; auto takes uvloop where it is installed.
    """

    loop: Literal["auto", "uvloop", "asyncio"] = "auto"


@attrs.frozen(kw_only=True)
class Settings:
    """All of it.

    Attributes:
        listen: Where the broker listens and whom it admits before a handshake.
        heartbeat: How a dead peer is noticed.
        limits: What one peer may take.
        store: Where the logs are kept.
        sessions: How long sessions stay, and where their agents may work.
        rooms: What is kept of rooms.
        projects: Who serves projects.
        agents: Agent profiles by name.
        default_agent: The agent of a session that names none.
        plugins_dir: Folder of drop-in plugins, relative to the configuration file; null for none.
        plugins: Settings of each plugin by its name; a plugin that is not named is not loaded.
        log: What is logged, and how.
        shutdown: How the broker stops.
        runtime: What the broker runs on.
    """

    listen: Listen = attrs.Factory(Listen)
    heartbeat: Heartbeat = attrs.Factory(Heartbeat)
    limits: Limits = attrs.Factory(Limits)
    store: Store = attrs.Factory(Store)
    sessions: Sessions = attrs.Factory(Sessions)
    rooms: Rooms = attrs.Factory(Rooms)
    projects: Projects = attrs.Factory(Projects)
    agents: dict[Name, AgentProfile] = attrs.field(factory=lambda: {"echo": EchoProfile()})
    default_agent: str = "echo"
    plugins_dir: Text | None = "plugins"
    plugins: dict[Name, Located] = attrs.field(factory=dict)
    log: Log = attrs.Factory(Log)
    shutdown: Shutdown = attrs.Factory(Shutdown)
    runtime: Runtime = attrs.Factory(Runtime)
