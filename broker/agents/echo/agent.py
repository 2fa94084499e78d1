"""The built-in agent: it streams the prompt back, so that the first run needs nothing else."""

import re
from collections.abc import Callable
from functools import partial
from typing import Literal

import attrs
import msgspec

from broker.agents.echo.faults import Actor, perform
from broker.agents.echo.play import BREATH, CallLater, Play, Script
from broker.agents.port import Answered, Configuration, Configured, Emit, News, Opening, Say, UserFeedback
from broker.errors import BrokerError
from broker.messages import Prompt, TextDelta, TurnFailed, TurnSettled

__all__ = ["EchoAgent", "EchoLink", "EchoProjects", "chunks_of", "text_of"]

_WORD = re.compile(r"\S+\s*|\s+")


class _Block(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


_CONTENT = msgspec.json.Decoder(str | list[_Block])


def text_of(content: bytes) -> str:
    """Return the text of a prompt's content: a JSON string, or blocks of which those without text are named.

    Raises:
        msgspec.MsgspecError: if the content is neither (`ValueError` if it is not UTF-8).
    """
    decoded = _CONTENT.decode(content)
    if isinstance(decoded, str):
        return decoded
    return "".join(block.text if block.type == "text" else f"[{block.type}]" for block in decoded)


def chunks_of(text: str, chunk: Literal["word", "char"]) -> list[str]:
    """Cut `text` into words, each with the space behind it, or characters; joined again they are the text."""
    return list(text) if chunk == "char" else _WORD.findall(text)


@attrs.define
class EchoAgent:
    """An agent profile of kind `echo` (PROTOCOL section 4).

    Attributes:
        delay: seconds between two chunks; 0 streams the whole answer at once, a long one in stretches; without a task.
        chunk: what comes in one delta.
        faults: whether prompts such as `/silence` are obeyed (`broker.agents.echo.faults`).
        call_later: where time comes from; the running loop if left out.
        on_capacity: never called: there is no limit.
    """

    delay: float = 0.0
    chunk: Literal["word", "char"] = "word"
    faults: bool = False
    call_later: CallLater | None = attrs.field(default=None, kw_only=True)
    on_capacity: Callable[[], None] = attrs.field(default=lambda: None, init=False, eq=False, repr=False)

    @property
    def capacity(self) -> int | None:
        """Return that there is no limit."""
        return None

    def open(self, opening: Opening, emit: Emit) -> "EchoLink":
        """Return a line that answers with whatever it is asked."""
        return EchoLink(self, emit)

    def open_projects(self, say: Say, arrived: Callable[[], None]) -> "EchoProjects":
        """Return an agent of projects that answers feedback with itself."""
        return EchoProjects()

    async def start(self) -> None:
        """Do nothing: there is nothing to start."""

    async def close(self) -> None:
        """Do nothing: links share nothing."""


class EchoLink:
    """One session's line to the echo."""

    def __init__(self, agent: EchoAgent, emit: Emit) -> None:
        self._agent = agent
        self._emit = emit
        self._play: Play | None = None
        self._paused = False

    def start_turn(self, prompt: Prompt) -> None:
        """Stream the prompt back; without a delay all of it is emitted before this returns, unless it is long."""
        turn_id = prompt.turn_id
        if self._play is not None and not self._play.over:
            self._emit(TurnFailed(turn_id, "busy", "The echo is still streaming another turn.", retryable=True))
            return
        try:
            text = text_of(prompt.content)
        except (msgspec.MsgspecError, ValueError):
            self._emit(TurnFailed(turn_id, "invalid_message", "The content is neither text nor blocks."))
            return
        if self._agent.delay or (self._agent.faults and text.startswith("/")):
            self._begin(self._play_of(turn_id, text))
            return
        chunks = chunks_of(text, self._agent.chunk)
        if len(chunks) > BREATH:
            self._begin(Play(turn_id, _in_slices(turn_id, chunks), self._emit, self._agent.call_later))
            return
        for chunk in chunks:
            self._emit(TextDelta(turn_id, chunk))
        self._emit(TurnSettled(turn_id, "end_turn"))

    def _play_of(self, turn_id: str, text: str) -> Play:
        agent = self._agent
        actor = Actor(turn_id, agent.delay, partial(chunks_of, chunk=agent.chunk))
        if not (agent.faults and text.startswith("/")):
            return Play(turn_id, actor.answers(text), self._emit, agent.call_later)
        script, heeds = perform(actor, text)
        return Play(turn_id, script, self._emit, agent.call_later, heeds=heeds)

    def _begin(self, play: Play) -> None:
        """Say what takes time or is told to go wrong; what the last turn's play has still to say is left out."""
        if self._play is not None:
            self._play.stop()
        self._play = play
        if self._paused:
            play.hold()
        play.go_on()

    def cancel_turn(self, turn_id: str) -> None:
        """Stop streaming and settle as `cancelled`."""
        if self._play is not None and self._play.turn_id == turn_id:
            self._play.cancel()

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Go on with what was asked for."""
        if self._play is not None and self._play.turn_id == turn_id:
            self._play.answer(option_id)

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Say that there is nothing to choose."""
        configured(BrokerError("not_found", "The echo has no modes and no options."))

    def pause(self) -> None:
        """Say nothing after the next wait; what has no delay is said already."""
        self._paused = True
        if self._play is not None:
            self._play.hold()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        if self._play is not None:
            self._play.release()

    async def close(self) -> None:
        """Stop at once and say nothing more."""
        if self._play is not None:
            self._play.stop()
            self._play = None


class EchoProjects:
    """The echo's part in projects; a `broker.agents.port.ProjectLink`."""

    def tell(self, news: News) -> None:
        """Take note."""

    def ask(self, feedback: UserFeedback, answered: Answered) -> None:
        """Answer with what was said."""
        answered(feedback.data)

    def forget(self, project: str, feedback_id: str) -> None:
        """Do nothing: nothing is ever open."""


def _in_slices(turn_id: str, chunks: list[str]) -> Script:
    """Say a long answer with pauses in which the loop can see to everybody else."""
    for start in range(0, len(chunks), BREATH):
        for chunk in chunks[start : start + BREATH]:
            yield TextDelta(turn_id, chunk)
        yield 0.0
    yield TurnSettled(turn_id, "end_turn")
