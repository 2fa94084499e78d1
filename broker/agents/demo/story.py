"""What the demo agent says and does: written beforehand, the same for the same prompt."""

import re
from typing import Final

import attrs
import msgspec

from broker.agents.echo.play import FOREVER, Script
from broker.messages import AgentRecord, ApprovalRequested, TextDelta, TurnSettled, TurnTaken

__all__ = ["Story", "story"]

QUOTED: Final = 80
"""Characters of the prompt that are said back."""
AT_WORK: Final = 15
"""Tokens' worth of time that its tool takes."""

_TOKEN: Final = re.compile(r"\s*\S{1,6}(?:\S(?!\S)){0,2}|\s+")
_ASKS: Final = re.compile(r"\b(?:ask|approv)", re.IGNORECASE)
_OPTIONS: Final = msgspec.json.encode(
    [
        {"option_id": "allow", "name": "Go on", "kind": "allow_once"},
        {"option_id": "reject", "name": "Leave it at that", "kind": "reject_once"},
    ]
)
_THOUGHT: Final = "No model is asked here. What I say was written beforehand, so that there is something to see. "
_HELLO: Final = "This is the demo agent. You wrote “{}”. "
_STREAM: Final = (
    "Every piece of this text came to you on its own, the moment it was said, and was in the broker's log before "
    "you saw it. So you can reload the page in the middle of this answer, or open it in a second window: what you "
    "missed comes first, and then the rest as I say it. "
)
_FOUND: Final = "Above stands a tool that I used; it counted {} in what you wrote. "
_WORD: Final = ("one word", "{} words")
_HINT: Final = (
    "Press Stop while I talk, and this turn ends as cancelled. Write “ask me first”, and I wait for your answer "
    "before I go on. The console shows what the broker saw of all this."
)
_ALLOWED: Final = "You let me go on, and whoever else watches this session saw that it was you. "
_REJECTED: Final = "You would rather I left it at that, so I do."


@attrs.frozen
class Story:
    """How one turn is told.

    Attributes:
        turn_id: the turn.
        text: what was asked.
        pause: seconds between two tokens.
    """

    turn_id: str
    text: str
    pause: float

    def told(self) -> Script:
        """Think, use a tool, ask where the prompt says so, and answer."""
        yield TurnTaken(self.turn_id)
        yield from self._says(_THOUGHT, thought=True)
        yield from self._uses_tool()
        yield from self._says(_HELLO.format(_quoted(self.text)))
        if _ASKS.search(self.text):
            yield ApprovalRequested(self.turn_id, "demo", "May I go on?", _OPTIONS, self._tool("pending"))
            option = yield FOREVER
            if option is None:
                yield TurnSettled(self.turn_id, "cancelled")
                return
            if option != "allow":
                yield from self._says(_REJECTED)
                yield TurnSettled(self.turn_id, "end_turn")
                return
            yield from self._says(_ALLOWED)
        yield from self._says(f"{_STREAM}{_FOUND.format(self._count())}{_HINT}")
        yield TurnSettled(self.turn_id, "end_turn")

    def _says(self, text: str, *, thought: bool = False) -> Script:
        for token in _TOKEN.findall(text):
            yield TextDelta(self.turn_id, token, thought=thought)
            yield self.pause

    def _uses_tool(self) -> Script:
        yield AgentRecord(self.turn_id, "tool.started", self._tool("in_progress"))
        yield self.pause * AT_WORK
        result = [{"type": "content", "content": {"type": "text", "text": self._count()}}]
        done = {"tool_id": "count", "status": "completed", "content": result}
        yield AgentRecord(self.turn_id, "tool.updated", msgspec.json.encode(done))

    def _tool(self, status: str) -> bytes:
        return msgspec.json.encode({"tool_id": "count", "title": "Count the words", "kind": "other", "status": status})

    def _count(self) -> str:
        words = len(self.text.split())
        return _WORD[words != 1].format(words)


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= QUOTED else f"{line[: QUOTED - 1]}…"


def story(turn_id: str, text: str, pause: float) -> Script:
    """Return how a prompt is answered, with `pause` seconds between two tokens."""
    return Story(turn_id, text, pause).told()
