"""The base class of workers: agents that dial in at the broker and share its load (PROTOCOL section 4)."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from typing import Any, Final, get_args

from broker.client.backoff import Backoff
from broker.client.dial import Dial
from broker.client.tokens import Tokens
from broker.client.worker.faults import TurnFailed
from broker.client.worker.link import WorkerLink
from broker.client.worker.program import run
from broker.client.worker.projects import Feedback, Projects, Update
from broker.client.worker.service import serve
from broker.client.worker.turn import StopReason, Turn
from broker.client.worker.turns import Turns
from broker.client.worker.wire import FRAME_LIMIT, SUBPROTOCOL
from broker.clock import SystemClock
from broker.ids import new_id
from broker.nearby import nearest

__all__ = ["Answer", "Worker"]

Answer = AsyncIterator[str] | Awaitable[StopReason | None]
"""What `Worker.answer` gives: text piece by piece, or, where it has said all by itself, why it is over."""
GetToken = Callable[[], str | Awaitable[str]]
"""Gives a token, at once or awaited."""

_MOST: Final = 10000
"""The largest capacity that the broker takes."""


class Worker:
    """An agent: say which one it is, and how it answers.

    ::

        class Shout(Worker):
            agent = "shout"

            async def answer(self, turn):
                for word in turn.text.split():
                    yield word.upper() + " "

        Shout().run("ws://127.0.0.1:3000/agent")

    The broker's configuration names it too: `agents: {shout: {kind: worker}}`. Start as many as you like,
    on as many machines; each session's turns come one after the other, to whichever has room.

    If the link breaks, turns go on; within the profile's `reattach` the worker is back and sends what is
    missing, and nobody has noticed. It reports what it does to the logger `broker.client`.

    Attributes:
        agent: the profile that it serves.
        version: of your agent, shown to those who run the broker.
        capacity: turns that it takes at the same time; each is its own task.
        pauses: before it tries to reach the broker again it waits anything up to the first of these, in
            seconds; the bound doubles with each failure, up to the second.
    """

    agent: str = ""
    version: str = ""
    capacity: int = 1
    pauses: tuple[float, float] = (0.5, 20.0)
    _projects: Projects | None = None

    def answer(self, turn: Turn) -> Answer:
        """Answer one turn. Write it as `async def`.

        With `yield` every piece of text is shown as it comes. Without, use `turn.say` and the others; what
        you return is why the answer is over (None: `turn.stop_reason`, which is `end_turn`).

        An exception ends the turn as failed, and its name and message are shown to the person; raise
        `TurnFailed` to choose the words. If somebody cancels the turn, `asyncio.CancelledError` is raised
        where your code waits (at a `yield` it is GeneratorExit): clean up and let it go on its way. What
        you say until then is still shown.

        Calls that block, block every other turn and the link: hand them to `asyncio.to_thread`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method: async def answer(self, turn)")

    async def on_feedback(self, feedback: Feedback) -> Any:
        """Answer what a user says of a project; what you return, any JSON, goes to that user alone.

        Called where the broker's `projects.agent` is this worker's profile, for several at the same time. An
        exception is an error to the user; raise `TurnFailed` to choose its code and words.
        """
        raise TurnFailed("agent_unavailable", "This agent answers no feedback.")

    async def on_update(self, update: Update) -> None:
        """Take what somebody else has published in a project, and how projects stand whenever the link is made anew.

        One after the other, in their order. What happens while there is no link is not told.
        """

    async def publish(self, project: str, event: str, data: Any) -> None:
        """Publish an event in a project, for all its members.

        It waits for the link, and may be lost if that breaks at the wrong moment. What the broker refuses is logged.

        Args:
            project: the project's guid.
            event: `agent_message`, `project_stage_update`, `project_status_change` or `project_message`.
            data: any JSON, at most 256 KiB of it.

        Raises:
            RuntimeError: this worker does not serve.
            TypeError, ValueError: a project has no such event, or the data are no JSON.
        """
        if self._projects is None:
            raise RuntimeError("a worker can publish while it serves")
        await self._projects.publish(project, event, data)

    def run(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        get_token: GetToken | None = None,
        grace: float = 10.0,
    ) -> None:
        """Serve until SIGTERM or Ctrl-C; a second one does not wait for the turns that run.

        An answer that goes on though it was cancelled, or blocks a thread, does not keep the process: that
        ends without it a few seconds after the worker has left, by `os._exit`, where this is the main thread.

        Logs to stderr, unless the program has set up logging.

        Args:
            url: the broker's door for agents: ws://host:port/agent, or wss:// behind a proxy that speaks TLS. Left out,
                it is that of the broker which `BROKER_URL` names or `broker dev` runs, else of one at port 3000 of this
                machine, and the token is the one that goes with it.
            token: a token with scope `agent`, sent in the handshake's Authorization header.
            get_token: asked before each handshake instead, for tokens that expire.
            grace: seconds that running turns have at the end.

        Raises:
            Refused: the broker will not have this worker.
            ValueError: an argument or an attribute is wrong.
        """
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        if url is None:
            nearby = nearest()
            url, token = nearby.agent, nearby.token if token is None and get_token is None else token
        run(lambda stop: self.serve(url, token=token, get_token=get_token, grace=grace, stop=stop))

    async def serve(
        self,
        url: str,
        *,
        token: str | None = None,
        get_token: GetToken | None = None,
        grace: float = 10.0,
        stop: asyncio.Event | None = None,
    ) -> None:
        """Serve within a program that has an event loop already; as `run`, which see.

        Args:
            url: the broker's door for agents.
            token: a token with scope `agent`.
            get_token: asked before each handshake instead.
            grace: seconds that running turns have once `stop` is set.
            stop: set it to take no new turns, let the running ones end, and return. To cancel this
                coroutine is to stop at once.

        Raises:
            Refused: the broker will not have this worker.
            ValueError: an argument or an attribute is wrong.
        """
        if not self.agent:
            raise ValueError(f"{type(self).__name__}.agent has to name the profile that it serves")
        if not 1 <= self.capacity <= _MOST:
            raise ValueError(f"{type(self).__name__}.capacity has to be 1 to {_MOST}")
        hello = {"agent": self.agent, "version": self.version, "capacity": self.capacity, "instance": new_id()}
        turns = Turns(self._perform, self.capacity)
        if token is not None and get_token is not None:
            raise ValueError("token and get_token are two ways to say the same; give one")
        dial = Dial(url, Tokens(get_token if token is None else token), SUBPROTOCOL, FRAME_LIMIT)
        self._projects = projects = Projects(self.on_feedback, self.on_update, turns.wake.set)
        link = WorkerLink(dial, hello, turns, Backoff(*self.pauses), SystemClock(), projects)
        try:
            await serve(link, turns, stop or asyncio.Event(), grace)
        finally:
            self._projects = None
            await projects.close()

    async def _perform(self, turn: Turn) -> str:
        answer = self.answer(turn)
        if isinstance(answer, AsyncIterator):
            async with aclosing(answer) if isinstance(answer, AsyncGenerator) else nullcontext():
                async for text in answer:
                    await turn.say(text)
            return turn.stop_reason
        reason = await answer
        if reason is not None and reason not in get_args(StopReason):
            raise TypeError("what answer returns is why it is over, not text: say that with turn.say, or yield it")
        return reason or turn.stop_reason
