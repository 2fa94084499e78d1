"""The demo agent: streams a short answer as a model would, with a thought, a tool and, if asked to, a question."""

from collections.abc import Callable

import attrs

from broker.agents.demo.story import story
from broker.agents.echo.link import ScriptedLink
from broker.agents.echo.play import CallLater, Play
from broker.agents.port import Emit, Opening

__all__ = ["DemoAgent", "DemoLink"]


@attrs.define
class DemoAgent:
    """An agent profile of kind `demo`.

    Attributes:
        pace: tokens a second.
        call_later: where time comes from; the running loop if left out.
        on_capacity: never called: there is no limit.
    """

    pace: float = 30.0
    call_later: CallLater | None = attrs.field(default=None, kw_only=True)
    on_capacity: Callable[[], None] = attrs.field(default=lambda: None, init=False, eq=False, repr=False)

    @property
    def capacity(self) -> int | None:
        """Return that there is no limit."""
        return None

    def open(self, opening: Opening, emit: Emit) -> "DemoLink":
        """Return a line that tells what is to be seen."""
        return DemoLink(self, emit)

    async def start(self) -> None:
        """Do nothing: there is nothing to start."""

    async def close(self) -> None:
        """Do nothing: links share nothing."""


class DemoLink(ScriptedLink):
    """One session's line to the demo agent."""

    def __init__(self, agent: DemoAgent, emit: Emit) -> None:
        super().__init__(emit, agent.call_later, "demo agent")
        self._pause = 1 / agent.pace

    def answer(self, turn_id: str, text: str) -> None:
        """Tell the story of this prompt."""
        self._begin(Play(turn_id, story(turn_id, text, self._pause), self._emit, self._call_later))
