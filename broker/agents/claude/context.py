"""What a model is told of a session: the prompt and what was said before it, as the Messages API wants it."""

from typing import Any, Final

import msgspec

from broker.errors import BrokerError
from broker.messages import Prompt

__all__ = ["context_of"]

ROLES: Final = ("user", "assistant")
IMAGES: Final = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
"""Media types the Messages API takes (https://docs.anthropic.com/en/docs/build-with-claude/vision)."""

Block = dict[str, Any]
Content = str | list[Block]


class _Said(msgspec.Struct):
    role: str
    content: Content


_CONTENT: Final = msgspec.json.Decoder(Content)
_MESSAGES: Final = msgspec.json.Decoder(list[_Said])


def context_of(prompt: Prompt) -> list[dict[str, Any]]:
    """Return the messages of a request: `{role, content: blocks}`, by turns, the user's first and last.

    Neighbours of one role become one message, those that say nothing are left out, and so is what the assistant
    said before the user said anything: the API takes none of these.

    Raises:
        BrokerError: `invalid_message`: the prompt says nothing, or is neither text nor blocks.
    """
    try:
        said = [*_MESSAGES.decode(prompt.messages), _Said("user", _CONTENT.decode(prompt.content))]
    except (msgspec.MsgspecError, ValueError):
        raise BrokerError("invalid_message", "The content is neither text nor blocks.") from None
    if not _blocks_of("user", said[-1].content):
        raise BrokerError("invalid_message", "The prompt says nothing.")
    merged: list[dict[str, Any]] = []
    for message in said:
        blocks = _blocks_of(message.role, message.content)
        if not blocks or message.role not in ROLES or (not merged and message.role != "user"):
            continue
        if merged and merged[-1]["role"] == message.role:
            merged[-1]["content"] += blocks
        else:
            merged.append({"role": message.role, "content": blocks})
    return merged


def _blocks_of(role: str, content: Content) -> list[Block]:
    """Return the blocks as the API takes them; text without a letter to see is refused there, and left out here."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    taken = [_image_of(block) if role == "user" and block.get("type") == "image" else None for block in blocks]
    texts = [image or {"type": "text", "text": _text_of(block)} for image, block in zip(taken, blocks, strict=True)]
    return [block for block in texts if block["type"] != "text" or block["text"].strip()]


def _text_of(block: Block) -> str:
    """Return a block's text; one of another type is named, as the echo does."""
    if block.get("type") == "text":
        text = block.get("text")
        return text if isinstance(text, str) else ""
    return f"[{str(block.get('type'))[:64]}]"


def _image_of(block: Block) -> Block | None:
    """Return an image as the API wants it, None if it cannot be made so.

    Its own form is `{source: {type: base64, media_type, data}}`, that of the Agent Client Protocol `{mimeType, data}`.
    """
    source = block.get("source")
    if source is None:
        source = {"type": "base64", "media_type": block.get("mimeType"), "data": block.get("data")}
    if not isinstance(source, dict) or source.get("type") != "base64":
        return None
    media_type, data = source.get("media_type"), source.get("data")
    if not (isinstance(media_type, str) and media_type in IMAGES and isinstance(data, str) and data):
        return None
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
