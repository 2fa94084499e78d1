"""Refuses turns that hold words of a list."""

import re
from collections.abc import Sequence

import attrs
import msgspec

from broker.errors import BrokerError
from broker.hooks import Plugin, TurnRequest


class Profanity(Plugin):
    """Keeps words of a list away from the agents."""

    version = "1.0"

    @attrs.frozen
    class Settings:
        words: Sequence[str] = ()
        message: str = "Mind your words."

    settings: Settings

    def __init__(self, settings, broker):
        super().__init__(settings, broker)
        self.reload(settings)

    def reload(self, settings: Settings) -> bool:
        words = "|".join(map(re.escape, settings.words))
        self.pattern = re.compile(rf"\b(?:{words})\b", re.IGNORECASE) if words else None
        return True

    def on_turn(self, turn: TurnRequest) -> None:
        if self.pattern and self.pattern.search(text_of(msgspec.json.decode(turn.content))):
            raise BrokerError("forbidden", self.settings.message)


def text_of(content) -> str:
    """Return the text of a turn: it is text itself, or blocks of which some are."""
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content if block.get("type") == "text")
