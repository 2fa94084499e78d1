"""The agent bridge: one actor per agent profile, between sessions and the links to their agents.

Sessions tell it turns; it opens a link for each session, hands the turn on, and carries what the
agent says back to the session that it is for, in the agent's order. A link that was replaced or cut
is not heard any more.
"""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import attrs
import pykka
from loguru import logger

from broker.actors.loop import LoopActor, handles
from broker.actors.ref import LoopRef
from broker.agents.port import AgentKind, AgentLink, Opening
from broker.messages import AgentEvent, AgentLost, Prompt, TurnFailed
from broker.tasks import spawn

__all__ = ["AgentBridge", "AnswerAgent", "CancelAtAgent", "CloseAgents", "CutAgent", "Dispatch"]


@attrs.define
class Dispatch:
    """A turn for the agent of this session."""

    session: LoopRef[Any]
    prompt: Prompt


@attrs.define
class CancelAtAgent:
    """Ask the session's agent to stop this turn."""

    session_id: str
    turn_id: str


@attrs.define
class AnswerAgent:
    """Answer a question of the session's agent."""

    session_id: str
    turn_id: str
    key: str
    option_id: str | None


@attrs.define
class CutAgent:
    """Cut the session's link and kill what runs behind it; a later turn opens a new one."""

    session_id: str


@attrs.define
class CloseAgents:
    """Cut all links: the broker stops. Answered when nothing of them is left."""


@attrs.define(eq=False)
class _Line:
    """A link, and the session at its other end."""

    session: LoopRef[Any]
    link: AgentLink | None = None


class AgentBridge(LoopActor):
    """The bridge of one agent profile."""

    inbox_limit = 100_000

    def __init__(self, name: str, kind: AgentKind) -> None:
        super().__init__()
        self._name = name
        self._kind = kind
        self._lines: dict[str, _Line] = {}
        self._closing: set[Any] = set()

    @handles(CancelAtAgent)
    def _cancel(self, message: CancelAtAgent) -> None:
        if link := self._link(message.session_id):
            link.cancel_turn(message.turn_id)

    @handles(AnswerAgent)
    def _answer(self, message: AnswerAgent) -> None:
        if link := self._link(message.session_id):
            link.answer_approval(message.turn_id, message.key, message.option_id)

    @handles(CutAgent)
    def _cut_one(self, message: CutAgent) -> None:
        self._cut(message.session_id)

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Tell every session that its agent is lost: the bridge that comes next does not know their links."""
        for session_id in list(self._lines):
            session = self._lines[session_id].session
            self._cut(session_id)
            _tell(session, AgentLost("the agent bridge failed"))

    def _link(self, session_id: str) -> AgentLink | None:
        line = self._lines.get(session_id)
        return None if line is None else line.link

    @handles(Dispatch)
    def _dispatch(self, message: Dispatch) -> None:
        prompt = message.prompt
        try:
            self._link_for(message.session, prompt).start_turn(prompt)
        except Exception as e:  # noqa: BLE001 - an agent kind must not take the other sessions' turns with it
            logger.opt(exception=e).error("agent {} could not be given a turn", self._name)
            self._cut(prompt.session_id)
            _tell(message.session, TurnFailed(prompt.turn_id, "agent_unavailable", "The agent could not be started."))

    def _link_for(self, session: LoopRef[Any], prompt: Prompt) -> AgentLink:
        line = self._lines.get(prompt.session_id)
        if line is not None and line.link is not None and line.session is session:
            return line.link
        self._cut(prompt.session_id)
        line = self._lines[prompt.session_id] = _Line(session)
        opening = Opening(prompt.session_id, prompt.workspace_dir, prompt.memory)
        line.link = self._kind.open(opening, partial(self._say, line))
        return line.link

    @staticmethod
    def _say(line: _Line, event: AgentEvent) -> None:
        """Carry on what an agent says, as it says it; a line that was cut is not heard any more."""
        if line.link is not None:
            _tell(line.session, event)

    def _cut(self, session_id: str) -> None:
        line = self._lines.pop(session_id, None)
        if line is None or line.link is None:
            return
        link, line.link = line.link, None
        task = spawn(link.close(), name=f"close the agent of session {session_id}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @handles(CloseAgents)
    def _close(self, _: CloseAgents) -> Coroutine[Any, Any, None]:
        for session_id in list(self._lines):
            self._cut(session_id)
        return self._closed()

    async def _closed(self) -> None:
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._kind.close()


def _tell(session: LoopRef[Any], event: AgentEvent) -> None:
    try:
        session.tell(event, urgent=True)
    except pykka.ActorDeadError:
        logger.debug("an agent spoke to {} which is gone", session)
