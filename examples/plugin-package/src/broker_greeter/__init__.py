"""Greets whoever asks."""

from typing import Annotated

import attrs
from msgspec import Meta

from broker.hooks import Peer, Plugin

__all__ = ["Greeter"]


@attrs.frozen
class Somebody:
    """Who is to be greeted."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]


class Greeter(Plugin):
    """Answers the action `greet`."""

    @attrs.frozen
    class Settings:
        greeting: str = "Hello"

    settings: Settings

    def actions(self):
        return {"greet": self.greet}

    def reload(self, settings: Settings) -> bool:
        return True

    def greet(self, peer: Peer, who: Somebody) -> dict[str, str]:
        return {"text": f"{self.settings.greeting}, {who.name}!"}
