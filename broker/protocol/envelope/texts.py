"""What a client of `envelope.v1.json` is owed: for each text a reply or an error, in time, and one end (seed 003)."""

from collections.abc import Iterator
from typing import Any, Final

import attrs

from broker.errors import BrokerError

__all__ = ["MOST", "TICKS", "Text", "Texts", "failed_end"]

MOST: Final = 128
"""Texts of one connection that may be without their end at the same time (PROTOCOL P7)."""
TICKS: Final = 8
"""How often it is looked, within the time that a text has, whether that is over."""
AGAIN: Final = "send it again under a new id"
_SENTENCES: Final = {
    "empty": ("The agent ended the turn without a word.", AGAIN),
    "cancelled": ("The turn was cancelled.", AGAIN),
    "timed_out": ("The turn took too long, and was stopped.", AGAIN),
    "lost": (
        "The agent or the broker went away during the turn; how far it came is not known.",
        f"see what was done, then {AGAIN}",
    ),
    "failed": ("The agent could not do the turn.", AGAIN),
}
_KEPT: Final = ("outcome", "partial", "reason", "deadline", "forced", "by")
"""What is told of an end beside that."""


@attrs.define(eq=False)
class Text:
    """A text that has not come to its end.

    Attributes:
        session_id: the session that it is said in.
        id: the client's id of it.
        sends: how often it was sent and not answered yet; the same one may be sent again at any time (P4).
        turn_id: the turn that came of it.
        ticks: how often it is looked at before its time is over.
        late: whether that is so, and its sender was told.
    """

    session_id: str
    id: str
    sends: int = 0
    turn_id: str | None = None
    ticks: int = TICKS
    late: bool = False


class Texts:
    """The texts of one connection that have not come to their end.

    Attributes:
        user: who says them; None for nobody that is known.
    """

    def __init__(self) -> None:
        self.user: str | None = None
        self._texts: dict[tuple[str, str], Text] = {}

    def send(self, session_id: str, text_id: str) -> Text:
        """Return the text of this id, which is sent now, for the first time or again.

        Raises:
            BrokerError: `overloaded`.
        """
        text = self._texts.get((session_id, text_id))
        if text is None:
            if len(self._texts) >= MOST:
                said = f"{MOST} texts of this connection have not come to their end."
                raise BrokerError("overloaded", said, retry_after=1.0)
            text = self._texts[session_id, text_id] = Text(session_id, text_id)
        if text.late:
            text.ticks, text.late = TICKS, False
        text.sends += 1
        return text

    def answered(self, text: Text) -> bool:
        """Take note that one sending of a text was answered; return whether that is the end of it."""
        text.sends -= 1
        if text.sends or text.turn_id is not None:
            return False
        self.end(text)
        return True

    def end(self, text: Text) -> None:
        """Let go of a text that has come to its end; one that was sent again meanwhile begins anew."""
        text.turn_id = None
        if text.sends:
            text.ticks, text.late = TICKS, False
        else:
            self._texts.pop((text.session_id, text.id), None)

    def find(self, session_id: str, text_id: str) -> Text | None:
        """Return the text of this id, if it has not come to its end."""
        return self._texts.get((session_id, text_id))

    def of(self, session_id: str) -> list[Text]:
        """Return the texts that are said in a session."""
        return [text for text in self._texts.values() if text.session_id == session_id]

    def pending(self, text_id: str | None) -> bool:
        """Tell whether a text of this id has not come to its end."""
        return any(text.id == text_id for text in self._texts.values())

    @property
    def watched(self) -> bool:
        """Whether the time of any of them is not over yet."""
        return any(not text.late for text in self._texts.values())

    def tick(self) -> Iterator[Text]:
        """Let an eighth of the time pass, and return those whose time is over."""
        for text in list(self._texts.values()):
            text.ticks -= 1
            if not text.ticks:
                text.late = True
                yield text


def failed_end(ended: Any, *, answered: bool) -> dict[str, Any] | None:
    """Return what a sender is told of a turn that ended otherwise than with a reply; None if it ended well.

    Args:
        ended: the data of its `turn.ended`.
        answered: whether there is a message of the agent's.
    """
    outcome = ended["outcome"]
    if outcome == "completed":
        if answered:
            return None
        outcome = "empty"
    message, hint = _SENTENCES[outcome]
    error = ended.get("error") or {}
    told = {"code": error.get("code", outcome), "message": error.get("message", message), "retryable": False}
    return {**told, "hint": hint, **{key: ended[key] for key in _KEPT if key in ended}}
