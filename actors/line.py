"""One session's line to its agent, at the bridge: the link, who hears what is said, and who waits for an answer."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pykka
from loguru import logger

from broker.actors.agent_mail import Flooded
from broker.actors.futures import ReplyTo
from broker.actors.ref import LoopRef
from broker.agents.port import AgentLink, Configuration
from broker.clock import Clock, Timer
from broker.errors import BrokerError
from broker.messages import AgentEvent

__all__ = ["CONFIGURATIONS", "CONFIGURE_SECONDS", "FLOOD", "Line", "refuse"]

FLOOD: Final = 256
"""Events that may wait in a session's inbox before nothing more is read from its agent.

Well below `limits.mailbox`, so that a person who wants to cancel a flood still finds room there.
"""
CONFIGURE_SECONDS: Final = 30.0
"""How long an agent may take to say whether it takes a configuration."""
CONFIGURATIONS: Final = 16
"""Configurations that may wait for one agent's answer."""


class Line:
    """A link, and the session at its other end.

    Args:
        session: who hears what the agent says.
        session_id: its id.
        fail: told of this line and of what its link raised.

    Attributes:
        session: as given.
        session_id: as given.
        link: the link; set once, as soon as it is open.
    """

    def __init__(self, session: LoopRef[Any], session_id: str, fail: "Callable[[Line, Exception], None]") -> None:
        self.session = session
        self.session_id = session_id
        self.link: AgentLink | None = None
        self._fail = fail
        self._heard = True
        self._paused = False
        self._asked: dict[ReplyTo, Timer] = {}

    def say(self, event: AgentEvent) -> None:
        """Carry on what the agent says, as it says it; once the line was cut it is not heard any more."""
        if not self._heard:
            return
        session = self.session
        try:
            session.tell(event, urgent=True)
        except pykka.ActorDeadError:
            logger.debug("an agent spoke to {} which is gone", session)
            return
        if len(session.actor_inbox) > FLOOD and not self._paused:
            self.pause()
            session.tell(Flooded(), urgent=True)

    def have(self, do: Callable[[AgentLink], None]) -> None:
        """Have the link do something; it may not be what it promises to be, and raise."""
        if self.link is None:
            return
        try:
            do(self.link)
        except Exception as e:  # noqa: BLE001 - an agent kind must not take the other sessions' turns with it
            self._fail(self, e)

    def pause(self) -> None:
        """Have nothing more read from the agent."""
        self._paused = True
        self.have(lambda link: link.pause())

    def resume(self) -> None:
        """Have the agent read again."""
        self._paused = False
        self.have(lambda link: link.resume())

    def configure(self, configuration: Configuration, reply_to: ReplyTo, clock: Clock) -> None:
        """Ask the agent to work in another way; answered once: by it, by time, or because the line is cut."""
        if len(self._asked) >= CONFIGURATIONS:
            refuse(reply_to, BrokerError("overloaded", "The agent has not answered earlier ones yet."))
            return
        late = BrokerError("timeout", "The agent did not say whether it takes that.")
        self._asked[reply_to] = clock.call_later(CONFIGURE_SECONDS, partial(self._answer, reply_to, late))
        self.have(lambda link: link.configure(configuration, partial(self._answer, reply_to)))

    def _answer(self, reply_to: ReplyTo, error: BrokerError | None) -> None:
        timer = self._asked.pop(reply_to, None)
        if timer is None:
            return  # answered before
        timer.cancel()
        if error is None:
            reply_to.set({})
        else:
            refuse(reply_to, error)

    async def cut(self) -> None:
        """Close the link."""
        if self.link is not None:
            await self.link.close()

    def mute(self) -> None:
        """Hear nothing more from the agent, from now on; whoever waits for its answer is told so."""
        self._heard = False
        for reply_to in list(self._asked):
            self._answer(reply_to, BrokerError("agent_unavailable", "The agent was stopped before it answered."))


def refuse(reply_to: ReplyTo, error: BrokerError) -> None:
    """Answer with an error."""
    reply_to.set_exception((BrokerError, error, None))
