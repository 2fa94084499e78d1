"""What a payload's class cannot say: which names can be shown, and what content is."""

from typing import Any, Final

import msgspec

from broker.errors import BrokerError
from broker.protocol.edge import invalid
from broker.protocol.payloads import Send

__all__ = ["MAX_BLOCKS", "MAX_METADATA", "check_content", "check_metadata", "check_name", "check_recipients"]

MAX_BLOCKS: Final = 1000
"""Blocks that content may have: each is an object wherever it is read, by agents and pages too."""

MAX_METADATA: Final = 16 * 1024
"""Bytes of JSON that may go with a message: kept with it for ever, and told to all who see it."""


def check_name(name: str, field: str) -> None:
    """Refuse a room's or an event's name that cannot be shown: control characters and the like.

    Raises:
        BrokerError: `invalid_message`.
    """
    if not name.isprintable():
        raise BrokerError("invalid_message", "A name consists of printable characters.", field=field)


def check_recipients(send: Send) -> None:
    """Refuse what is sent to nobody.

    Raises:
        BrokerError: `invalid_message`.
    """
    if not send.to.connections and not send.to.users:
        raise BrokerError("invalid_message", "Say whom it is for.", field="$.payload.to", hint="connections or users")


_decode_any: Final = msgspec.json.Decoder(Any).decode


def check_metadata(metadata: bytes) -> None:
    """Refuse what is no object, more than `MAX_METADATA`, and what holds a number that nobody can read.

    It is kept as it came, and read by others for as long as its session lasts: 1e999 is JSON and yet no number that
    a program has, no more than Infinity is (PROTOCOL section 2).

    Raises:
        BrokerError: `invalid_message`, `too_large`.
    """
    if not metadata.startswith(b"{"):
        raise BrokerError("invalid_message", "Metadata is an object.", field="$.payload.metadata")
    if len(metadata) > MAX_METADATA:
        raise BrokerError("too_large", f"Metadata may have {MAX_METADATA} bytes.", field="$.payload.metadata")
    _check_values(metadata, "$.payload.metadata")


class _Block(msgspec.Struct, gc=False):
    """A struct, which is made in half the time of an attrs class: there may be a hundred thousand to be refused."""

    type: str


_decode_content: Final = msgspec.json.Decoder(str | list[_Block]).decode


def check_content(content: bytes) -> None:
    """Refuse what is neither text nor an array of content blocks, what says nothing, and more blocks than `MAX_BLOCKS`.

    Blocks are read once more as a whole, for the sake of their numbers; see `check_metadata`.

    Raises:
        BrokerError: `invalid_message`, `too_large`.
    """
    try:
        value = _decode_content(content)
    except msgspec.ValidationError as e:
        raise invalid(e, "$.payload.content") from None
    if not value:
        raise BrokerError("invalid_message", "The content is empty.", field="$.payload.content")
    if isinstance(value, str):
        return
    if len(value) > MAX_BLOCKS:
        raise BrokerError("too_large", f"Content has at most {MAX_BLOCKS} blocks.", field="$.payload.content")
    _check_values(content, "$.payload.content")


def _check_values(data: bytes, field: str) -> None:
    try:
        _decode_any(data)
    except msgspec.ValidationError as e:
        raise invalid(e, field) from None
