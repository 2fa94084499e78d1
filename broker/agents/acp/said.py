"""What an agent has said so far, as far as it takes to tell what its next version of a message adds."""

import hashlib
from typing import Final

import attrs

__all__ = ["MESSAGES_LIMIT", "Said"]

MESSAGES_LIMIT: Final = 256
"""Messages that are remembered; the oldest is forgotten first, and would be said again."""


@attrs.define(eq=False)
class _Text:
    """The length of a text and a hash of it, whatever its size."""

    length: int = 0
    digest: hashlib.blake2b = attrs.field(factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, text: str) -> None:
        self.length += len(text)
        self.digest.update(text.encode())

    def begins(self, whole: str) -> bool:
        begun = hashlib.blake2b(whole[: self.length].encode(), digest_size=16)
        return len(whole) >= self.length and begun.digest() == self.digest.digest()


class Said:
    """The messages of one session, by the agent's ids."""

    def __init__(self) -> None:
        self._texts: dict[str | None, _Text] = {}

    def add(self, message_id: str | None, text: str) -> None:
        """Note that a message goes on with `text`."""
        self._text(message_id).add(text)

    def rest(self, message_id: str | None, whole: str) -> str | None:
        """Note that a message is `whole` now, and return what is new at its end; None if it went back on its words."""
        known = self._text(message_id)
        if known.begins(whole):
            rest = whole[known.length :]
            known.add(rest)
            return rest
        self._texts[message_id] = _Text()
        self._texts[message_id].add(whole)
        return None

    def _text(self, message_id: str | None) -> _Text:
        known = self._texts.setdefault(message_id, _Text())
        if len(self._texts) > MESSAGES_LIMIT:
            del self._texts[next(iter(self._texts))]
        return known
