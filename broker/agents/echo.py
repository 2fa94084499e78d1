"""The built-in agent: it streams the prompt back, so that the first run needs nothing else."""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

import attrs
import msgspec

from broker.agents.port import Configuration, Configured, Emit, Opening
from broker.errors import BrokerError
from broker.messages import Prompt, TextDelta, TurnFailed, TurnSettled

__all__ = ["EchoAgent", "EchoLink", "chunks_of", "text_of"]

_WORD = re.compile(r"\S+\s*|\s+")


class _Block(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


_CONTENT = msgspec.json.Decoder(str | list[_Block])


class Timer(Protocol):
    """What `asyncio.TimerHandle` is to us."""

    def cancel(self) -> None:
        """Let the callback never come."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Seconds and what to call then, as `asyncio.AbstractEventLoop.call_later`."""


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


@attrs.define(eq=False)
class EchoAgent:
    """An agent profile of kind `echo` (PROTOCOL section 4).

    Attributes:
        delay: seconds between two chunks; 0 streams the whole answer at once, without a task or timer.
        chunk: what comes in one delta.
        call_later: where time comes from; the running loop if left out.
    """

    delay: float = 0.0
    chunk: Literal["word", "char"] = "word"
    call_later: CallLater | None = None

    on_capacity: Callable[[], None] = attrs.field(default=lambda: None, init=False)

    @property
    def capacity(self) -> int | None:
        """Return that there is no limit."""
        return None

    def open(self, opening: Opening, emit: Emit) -> "EchoLink":
        """Return a line that answers with whatever it is asked."""
        return EchoLink(self, emit)

    async def start(self) -> None:
        """Do nothing: there is nothing to start."""

    async def close(self) -> None:
        """Do nothing: links share nothing."""


class EchoLink:
    """One session's line to the echo."""

    def __init__(self, agent: EchoAgent, emit: Emit) -> None:
        self._agent = agent
        self._emit = emit
        self._turn_id: str | None = None
        self._chunks: deque[str] = deque()
        self._timer: Timer | None = None

    def start_turn(self, prompt: Prompt) -> None:
        """Stream the prompt back; without a delay all of it is emitted before this returns."""
        turn_id = prompt.turn_id
        if self._turn_id is not None:
            self._emit(TurnFailed(turn_id, "busy", "The echo is still streaming another turn.", retryable=True))
            return
        try:
            chunks = chunks_of(text_of(prompt.content), self._agent.chunk)
        except (msgspec.MsgspecError, ValueError):
            self._emit(TurnFailed(turn_id, "invalid_message", "The content is neither text nor blocks."))
            return
        if self._agent.delay > 0:
            self._turn_id, self._chunks = turn_id, deque(chunks)
            self._say_next()
            return
        for chunk in chunks:
            self._emit(TextDelta(turn_id, chunk))
        self._emit(TurnSettled(turn_id, "end_turn"))

    def _say_next(self) -> None:
        if self._turn_id is None:
            return
        if self._chunks:
            self._emit(TextDelta(self._turn_id, self._chunks.popleft()))
        if self._chunks:
            later = self._agent.call_later or asyncio.get_running_loop().call_later
            self._timer = later(self._agent.delay, self._say_next)
        else:
            self._settle("end_turn")

    def _settle(self, stop_reason: str) -> None:
        turn_id = self._forget()
        if turn_id is not None:
            self._emit(TurnSettled(turn_id, stop_reason))

    def _forget(self) -> str | None:
        if self._timer is not None:
            self._timer.cancel()
        turn_id, self._turn_id, self._timer = self._turn_id, None, None
        self._chunks.clear()
        return turn_id

    def cancel_turn(self, turn_id: str) -> None:
        """Stop streaming and settle as `cancelled`."""
        if turn_id == self._turn_id:
            self._settle("cancelled")

    def answer_approval(self, turn_id: str, key: str, option_id: str | None) -> None:
        """Do nothing: the echo asks nobody."""

    def configure(self, configuration: Configuration, configured: Configured) -> None:
        """Say that there is nothing to choose."""
        configured(BrokerError("not_found", "The echo has no modes and no options."))

    def pause(self) -> None:
        """Do nothing: there is no pipe between the echo and the broker."""

    def resume(self) -> None:
        """Do nothing, as in `pause`."""

    async def close(self) -> None:
        """Stop at once and say nothing more."""
        self._forget()
