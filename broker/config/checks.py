"""What single settings cannot know: rules between them."""

from collections.abc import Iterator
from typing import Final

import attrs

from broker.config.forms import is_loopback
from broker.config.problems import suggest
from broker.config.settings import EchoProfile, Settings, WebSocketProfile, WorkerProfile

__all__ = ["Clash", "asks_for_tokens", "clashes"]

SERVING: Final = EchoProfile | WebSocketProfile | WorkerProfile
"""Profiles of kinds that can serve projects (`broker.agents.port.ProjectKind`)."""


@attrs.frozen
class Clash:
    """A broken rule between settings.

    Attributes:
        paths: the settings it looks at; the first is blamed.
        message: what is wrong, and what to do.
    """

    paths: tuple[str, ...]
    message: str


def clashes(settings: Settings) -> Iterator[Clash]:
    """Yield each rule between settings that is broken."""
    if settings.default_agent not in settings.agents:
        known = ", ".join(settings.agents) or "none"
        near = suggest(settings.default_agent, settings.agents)
        message = f"there is no agent '{settings.default_agent}'; known are: {known}{near}"
        yield Clash(("default_agent", "agents"), message)
    yield from _without_agent(settings)
    if settings.heartbeat.timeout >= settings.heartbeat.interval:
        yield Clash(("heartbeat.timeout", "heartbeat.interval"), "must be less than heartbeat.interval")
    if settings.limits.outbox_bytes < settings.limits.message_bytes:
        message = "must be at least limits.message_bytes, or the largest message never fits"
        yield Clash(("limits.outbox_bytes", "limits.message_bytes"), message)
    if not settings.listen.insecure and not is_loopback(settings.listen.host) and not asks_for_tokens(settings):
        message = (
            "reachable from other machines, and nobody has to show a token; "
            "load an auth plugin that asks for one, or set listen.insecure: true"
        )
        yield Clash(("listen.host", "listen.insecure", "plugins.auth"), message)


def _without_agent(settings: Settings) -> Iterator[Clash]:
    """Look whether there is somebody to serve projects where somebody is named, and can."""
    name = settings.projects.agent
    if name is None:
        return
    profile = settings.agents.get(name)
    if profile is None:
        known = ", ".join(settings.agents) or "none"
        message = f"there is no agent '{name}'; known are: {known}{suggest(name, settings.agents)}"
        yield Clash(("projects.agent", "agents"), message)
    elif not isinstance(profile, SERVING):
        message = f"an agent of kind {profile.kind} takes no part in projects; websocket, worker and echo do"
        yield Clash(("projects.agent", f"agents.{name}.kind"), message)


def asks_for_tokens(settings: Settings) -> bool:
    """Tell whether everybody has to show a token, as far as the settings say."""
    auth = settings.plugins.get("auth")
    mode = auth.child("mode") if auth is not None else None
    return mode is not None and isinstance(mode.value, str) and mode.value.strip().lower() not in {"", "none"}
