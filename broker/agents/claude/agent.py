"""The agent kind `anthropic`: the Claude Messages API, streamed, with the session's history as context.

It uses no tools, so a reply has no effects beside its words. `broker.agents.claude.api` does the asking, through
the official SDK, which need not be installed unless a turn is given to such an agent.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from broker.agents.claude.context import context_of
from broker.agents.claude.mishaps import MishapError
from broker.agents.claude.reply import Piece, Reply
from broker.agents.port import Configuration, Configured, Emit, Opening
from broker.config.secret import Secret
from broker.errors import BrokerError
from broker.messages import AgentEvent, Prompt, TurnFailed, TurnSettled
from broker.tasks import spawn

if TYPE_CHECKING:
    from broker.agents.claude.api import Api

__all__ = ["AnthropicAgent", "AnthropicLink"]

MISSING: Final = "The Anthropic SDK is not installed; install actor-broker[anthropic]."


@attrs.define(eq=False)
class AnthropicAgent:
    """An agent profile of kind `anthropic` (PROTOCOL section 4).

    Attributes:
        model: the model's id.
        api_key: the key; that, and nothing of the broker's environment.
        base_url: where the API is; its maker's if None.
        system: what the model is told before everything else.
        max_tokens: the longest answer.
        retries: further tries, as long as nothing has been said.
        capacity: turns that may be under way at the same time; None for no limit.
        sleep: lets seconds pass between two tries.
        on_capacity: never called: the capacity does not change.
    """

    model: str
    api_key: Secret
    base_url: str | None = None
    system: str | None = None
    max_tokens: int = 8192
    retries: int = 2
    capacity: int | None = None
    sleep: Callable[[float], Awaitable[None]] = attrs.field(default=asyncio.sleep, kw_only=True, repr=False)
    on_capacity: Callable[[], None] = attrs.field(default=lambda: None, init=False, repr=False)
    _api: "asyncio.Task[Api] | None" = attrs.field(default=None, init=False, repr=False)
    _replies: set[asyncio.Task[None]] = attrs.field(factory=set, init=False, repr=False)

    def open(self, opening: Opening, emit: Emit) -> "AnthropicLink":
        """Return a line; the API is asked anew for each turn."""
        return AnthropicLink(self, emit)

    async def start(self) -> None:
        """Begin to import the SDK, which takes a second: in a thread, so that the first turn finds it there."""
        self._prepare()

    async def close(self) -> None:
        """End what is under way, and close the connections."""
        replies = list(self._replies)
        for reply in replies:
            reply.cancel()
        await asyncio.gather(*replies, return_exceptions=True)
        preparing, self._api = self._api, None
        if preparing is not None:
            (api,) = await asyncio.gather(preparing, return_exceptions=True)
            if not isinstance(api, BaseException):
                await api.close()

    async def ask(self, turn_id: str, question: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """Ask the API.

        Raises:
            MishapError: there is no client to be had.
        """
        api = await asyncio.shield(self._prepare())
        return api.reply(turn_id, question)

    def _prepare(self) -> "asyncio.Task[Api]":
        """Return the making of the profile's client; one that failed is made anew."""
        if self._api is None or (self._api.done() and self._api.exception() is not None):
            self._api = spawn(asyncio.to_thread(self._connect), name=f"connect to the Messages API for {self.model}")
        return self._api

    def _connect(self) -> "Api":
        try:
            from broker.agents.claude.api import Api  # noqa: PLC0415 - optional, and a second of work
        except ImportError as e:
            raise MishapError("agent_unavailable", MISSING, retryable=False) from e
        key = self.api_key.reveal()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise MishapError("agent_unavailable", "What is configured as this agent's key is none.", retryable=False)
        return Api(self.api_key, self.base_url)

    def question(self, prompt: Prompt) -> dict[str, Any]:
        """Return what the API is asked.

        Raises:
            BrokerError: `invalid_message`: the prompt cannot be put into a question.
        """
        question = {"model": self.model, "max_tokens": self.max_tokens, "messages": context_of(prompt)}
        return question | ({} if self.system is None else {"system": self.system})

    def watch(self, reply: asyncio.Task[None]) -> None:
        """Remember a reply that is under way, so that `close` can end it."""
        self._replies.add(reply)
        reply.add_done_callback(self._replies.discard)


class AnthropicLink:
    """One session's line to the API."""

    def __init__(self, agent: AnthropicAgent, emit: Emit) -> None:
        self._agent = agent
        self._emit = emit
        self._reply: Reply | None = None
        self._flow = asyncio.Event()
        self._flow.set()

    def start_turn(self, prompt: Prompt) -> None:
        """Ask the API, with what was said before."""
        if self._reply is not None:
            sentence = "The model is still answering another turn."
            self._emit(TurnFailed(prompt.turn_id, "busy", sentence, retryable=True))
            return
        try:
            question = self._agent.question(prompt)
        except BrokerError as e:
            self._emit(TurnFailed(prompt.turn_id, e.code, e.message))
            return
        agent = self._agent
        reply = Reply(prompt.turn_id, partial(agent.ask, prompt.turn_id, question), agent.retries, agent.sleep)
        reply.begin(partial(self._say, reply), self._flow)
        self._reply = reply
        agent.watch(reply.task)

    def _say(self, reply: Reply, event: AgentEvent) -> None:
        """Hand on what the reply says; one that was cancelled or cut is not heard any more."""
        if reply is self._reply:
            if isinstance(event, TurnSettled | TurnFailed):
                self._reply = None
            self._emit(event)

    def cancel_turn(self, turn_id: str) -> None:
        """Settle as `cancelled`, and close the stream."""
        if (reply := self._reply) is not None and reply.turn_id == turn_id:
            self._say(reply, TurnSettled(turn_id, "cancelled", reply.usage))
            reply.task.cancel()

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Do nothing: without tools there is nothing to ask."""

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Say that there is nothing to choose."""
        configured(BrokerError("not_found", "This agent has no modes and no options."))

    def pause(self) -> None:
        """Take nothing from the stream, so that the API is held up by the transport."""
        self._flow.clear()

    def resume(self) -> None:
        """Take from the stream again."""
        self._flow.set()

    async def close(self) -> None:
        """Close the stream at once and say nothing more."""
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.task.cancel()
            await asyncio.wait([reply.task])
