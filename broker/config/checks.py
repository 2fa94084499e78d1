"""What single settings cannot know: rules between them."""

from collections.abc import Iterator

import attrs

from broker.config.forms import is_loopback
from broker.config.problems import suggest
from broker.config.settings import Settings

__all__ = ["Clash", "clashes"]


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
    if settings.heartbeat.timeout >= settings.heartbeat.interval:
        yield Clash(("heartbeat.timeout", "heartbeat.interval"), "must be less than heartbeat.interval")
    if settings.limits.outbox_bytes < settings.limits.message_bytes:
        message = "must be at least limits.message_bytes, or the largest message never fits"
        yield Clash(("limits.outbox_bytes", "limits.message_bytes"), message)
    if not settings.listen.insecure and not is_loopback(settings.listen.host) and not _asks_for_tokens(settings):
        message = (
            "reachable from other machines, and nobody has to show a token; "
            "load an auth plugin that asks for one, or set listen.insecure: true"
        )
        yield Clash(("listen.host", "listen.insecure", "plugins.auth"), message)


def _asks_for_tokens(settings: Settings) -> bool:
    auth = settings.plugins.get("auth")
    mode = auth.child("mode") if auth is not None else None
    return mode is not None and isinstance(mode.value, str) and mode.value.strip().lower() not in {"", "none"}
