"""The built-in agent: it streams the prompt back, so that the first run needs nothing else."""

import re
from collections.abc import Callable
from functools import partial
from typing import Literal

import attrs

from broker.agents.echo.faults import Actor, perform
from broker.agents.echo.link import ScriptedLink
from broker.agents.echo.play import BREATH, CallLater, Play, Script
from broker.agents.port import Answered, Emit, News, Opening, Say, UserFeedback
from broker.messages import TextDelta, TurnSettled

__all__ = ["EchoAgent", "EchoLink", "EchoProjects", "chunks_of"]

_WORD = re.compile(r"\S+\s*|\s+")


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


class EchoLink(ScriptedLink):
    """One session's line to the echo."""

    def __init__(self, agent: EchoAgent, emit: Emit) -> None:
        super().__init__(emit, agent.call_later, "echo")
        self._agent = agent

    def answer(self, turn_id: str, text: str) -> None:
        """Stream the prompt back; without a delay all of it is emitted before this returns, unless it is long."""
        if self._agent.delay or (self._agent.faults and text.startswith("/")):
            self._begin(self._play_of(turn_id, text))
            return
        chunks = chunks_of(text, self._agent.chunk)
        if len(chunks) > BREATH:
            self._begin(Play(turn_id, _in_slices(turn_id, chunks), self._emit, self._call_later))
            return
        for chunk in chunks:
            self._emit(TextDelta(turn_id, chunk))
        self._emit(TurnSettled(turn_id, "end_turn"))

    def _play_of(self, turn_id: str, text: str) -> Play:
        agent = self._agent
        actor = Actor(turn_id, agent.delay, partial(chunks_of, chunk=agent.chunk))
        if not (agent.faults and text.startswith("/")):
            return Play(turn_id, actor.answers(text), self._emit, self._call_later)
        script, heeds = perform(actor, text)
        return Play(turn_id, script, self._emit, self._call_later, heeds=heeds)


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
