"""One turn as a worker's author sees it: what was asked, and the ways to answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from broker.client.worker.voice import Voice
from broker.client.worker.wire import TurnStart

__all__ = ["Option", "StopReason", "ToolStatus", "Turn"]

StopReason = Literal["end_turn", "max_tokens", "max_turn_requests", "refusal", "cancelled"]
"""Why an answer is over; the words of the Agent Client Protocol."""
ToolStatus = Literal["pending", "in_progress", "completed", "failed"]
"""How far a tool is; the words of the Agent Client Protocol."""

_TEXT: Final = 32 * 1024
"""Characters of one delta: a longer text leaves in several, so that other turns have theirs in between."""


@attrs.frozen
class Option:
    """One of the answers to a question.

    Attributes:
        option_id: what `Turn.ask` returns if it is chosen.
        name: what the person reads.
        kind: what it amounts to. It lets a page show it so, and a profile with `approvals: allow` or
            `reject` answer without a person.
    """

    option_id: str
    name: str
    kind: Literal["allow_once", "allow_always", "reject_once", "reject_always"] | None = None


class Turn:
    """What a person said, what is known with it, and the ways to answer.

    Everything that is said reaches the session's log in the order in which it was said, also across a
    broken link. What says something may wait: for the broker to take what was said before, or for the link.

    Attributes:
        turn_id: the turn.
        session_id: the conversation it belongs to.
        content: what the person said as it came: a text, or a list of content blocks.
        messages: what was said in the session before, oldest first: `{"role", "content"}` each.
        variables: the session's variables.
        workspace_dir: the directory that the session is about, if it names one; a path on the broker's machine.
        stop_reason: why the answer is over, told when it is; `end_turn` unless you set another.
    """

    def __init__(self, start: TurnStart, voice: Voice) -> None:
        self.turn_id = start.turn_id
        self.session_id = start.session_id
        self.content: Any = start.content
        self.messages: list[dict[str, Any]] = start.messages if isinstance(start.messages, list) else []
        self.variables: dict[str, Any] = start.variables if isinstance(start.variables, dict) else {}
        self.workspace_dir: str | None = start.workspace_dir if isinstance(start.workspace_dir, str) else None
        self.stop_reason: str = "end_turn"
        self._voice = voice

    def __repr__(self) -> str:
        return f"<Turn {self.turn_id} of session {self.session_id}>"

    @property
    def text(self) -> str:
        """What the person said, as text alone: of content blocks those that are text, one below the other."""
        if isinstance(self.content, str):
            return self.content
        blocks = self.content if isinstance(self.content, list) else []
        texts = [block.get("text") for block in blocks if isinstance(block, dict) and block.get("type") == "text"]
        return "\n".join(text for text in texts if isinstance(text, str))

    async def say(self, text: str) -> None:
        """Say some more of the answer; it is shown at once, behind what was said before."""
        await self._delta(text, "message")

    async def think(self, text: str) -> None:
        """Show some reasoning, apart from the answer."""
        await self._delta(text, "thought")

    async def tool(self, tool_id: str, title: str, status: ToolStatus, content: Any = None) -> None:
        """Show a tool at work; say it again with the same `tool_id` as it gets on.

        Args:
            tool_id: an id of your own, of this one use of the tool.
            title: what is done, for a person: "Read notes.txt".
            status: how far it is.
            content: what came of it, any JSON.
        """
        more = {} if content is None else {"content": content}
        await self._voice.say("tool", {"tool_id": tool_id, "title": title, "status": status, **more})

    async def ask(self, title: str, options: Sequence[str | Option]) -> str | None:
        """Ask the person, and wait for the answer; the broker keeps the question through reloads of the page.

        Args:
            title: the question.
            options: the possible answers; a text alone is both what is read and what is returned.

        Returns:
            The `option_id` that was chosen; None if there will be no answer.
        """
        if not options:
            raise ValueError("a question without options cannot be answered")
        offered = [Option(option, option) if isinstance(option, str) else option for option in options]
        return await self._voice.ask({"title": title, "options": [_spelled(option) for option in offered]})

    async def usage(self, **figures: Any) -> None:
        """Tell what the turn has cost so far, such as `input_tokens=12, output_tokens=340`."""
        await self._voice.say("usage", figures)

    async def debug(self, **details: Any) -> None:
        """Show details to those who look for faults, such as `prompt="…", model="…"`: who has the scope `debug`."""
        await self._voice.say("debug", details)

    async def set(self, variables: Mapping[str, Any]) -> None:
        """Set variables of the session, for everybody in it and for later turns; one that is None is removed."""
        await self._voice.say("variables", {"session_id": self.session_id, "set": dict(variables)})
        kept = {**self.variables, **variables}
        self.variables = {name: value for name, value in kept.items() if value is not None}

    async def _delta(self, text: str, kind: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"an answer is made of text, not of {type(text).__name__}")
        for start in range(0, len(text), _TEXT):
            await self._voice.say("delta", {"text": text[start : start + _TEXT], "kind": kind})


def _spelled(option: Option) -> dict[str, str]:
    return {name: value for name, value in attrs.asdict(option).items() if value is not None}
