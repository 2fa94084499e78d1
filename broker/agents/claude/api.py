"""The Messages API, asked through the official SDK: the one module that needs it, imported when it is needed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import anthropic
import httpx2
import msgspec
from anthropic.types import RawMessageStreamEvent

from broker.agents.claude.mishaps import MishapError, broken, mishap_of, unreachable
from broker.agents.claude.reply import Counted, Piece
from broker.config.secret import HIDDEN, Secret
from broker.messages import TextDelta, TurnSettled, TurnTaken

__all__ = ["Api"]

HOME: Final = "https://api.anthropic.com"
CONNECT_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 1.0
"""How long the end of a stream may take behind its last event, before the connection is given up."""

for _name in ("anthropic", "httpcore2", "httpx2"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # below that they log payloads, or a line for each request


class _Client(anthropic.AsyncAnthropic):
    """The SDK's client with nothing in it that stands in the broker's environment, and without tries of its own."""

    def __init__(self, key: str, base_url: str) -> None:
        super().__init__(
            api_key=key,
            base_url=base_url,
            webhook_key="",
            max_retries=0,
            timeout=anthropic.Timeout(None, connect=CONNECT_SECONDS),
            open_telemetry=False,
        )
        self._custom_headers = {}  # ANTHROPIC_CUSTOM_HEADERS; nothing that is passed in would keep them out


class Api:
    """A client of the Messages API, shared by all turns of a profile.

    Args:
        key: what it is paid with.
        base_url: where it is; its maker's if None.
    """

    def __init__(self, key: Secret, base_url: str | None) -> None:
        self._key = key.reveal()
        self._client = _Client(self._key, base_url or HOME)

    async def reply(self, turn_id: str, question: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """Ask once, and yield the reply as it comes; closing the generator closes the connection.

        Args:
            turn_id: whose reply it is.
            question: what `messages.create` is given, beside `stream`.

        Raises:
            MishapError: it did not come, or not whole.
        """
        try:
            stream = await self._client.messages.create(stream=True, **question)
        except anthropic.APIStatusError as e:
            raise self._mishap(e) from None
        except anthropic.APIConnectionError:
            raise unreachable() from None
        async with stream:
            yield TurnTaken(turn_id)
            reply = _Reply(turn_id)
            try:
                async for event in stream:
                    if (piece := reply.hear(event)) is not None:
                        yield piece
                    if reply.whole:
                        break
            except anthropic.APIStatusError as e:
                raise self._mishap(e) from None
            except (anthropic.APIError, httpx2.HTTPError, AttributeError, TypeError, ValueError):
                raise broken() from None  # the line broke, or the other end does not speak the protocol
            if not reply.whole:
                raise broken()
            await _drain(stream)

    def _mishap(self, error: anthropic.APIStatusError) -> MishapError:
        words = error.api_message.replace(self._key, HIDDEN) if isinstance(error.api_message, str) else None
        return mishap_of(error.type, error.response.status_code, words, error.response.headers)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


async def _drain(stream: anthropic.AsyncStream[RawMessageStreamEvent]) -> None:
    """Read to the end, so that the connection can serve another turn."""
    with contextlib.suppress(TimeoutError, anthropic.APIError, httpx2.HTTPError, ValueError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in stream:
                pass


class _Reply:
    """One reply on its way.

    Attributes:
        whole: whether its last event has come.
    """

    def __init__(self, turn_id: str) -> None:
        self.whole = False
        self._turn_id = turn_id
        self._message_id: str | None = None
        self._usage: dict[str, Any] = {}
        self._stop_reason = "unknown"

    def hear(self, event: RawMessageStreamEvent) -> Piece | None:
        """Return what an event says to a session, if anything; unknown ones say nothing."""
        match event.type:
            case "message_start":
                self._message_id = str(event.message.id)
                self._count(event.message.usage)
                return Counted(self._counted)
            case "content_block_delta":
                return self._said(event.delta)
            case "message_delta":
                self._stop_reason = str(event.delta.stop_reason or self._stop_reason)
                self._count(event.usage)
            case "message_stop":
                self.whole = True
                return TurnSettled(self._turn_id, self._stop_reason, self._counted)
        return None

    def _said(self, delta: Any) -> TextDelta | None:
        thought = delta.type == "thinking_delta"
        text = delta.thinking if thought else delta.text if delta.type == "text_delta" else ""
        if not isinstance(text, str):
            raise TypeError("text that is none")
        return TextDelta(self._turn_id, text, thought, self._message_id) if text else None

    def _count(self, usage: Any) -> None:
        """Take up what the API counted: later numbers take the place of earlier ones."""
        if usage is not None:
            self._usage |= usage.model_dump(mode="json", exclude_none=True, warnings=False)

    @property
    def _counted(self) -> bytes:
        return msgspec.json.encode(self._usage)
