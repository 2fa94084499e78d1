"""The wire formats there are (PROTOCOL sections 2 and 6)."""

from collections.abc import Mapping

from broker.protocol.dialect import Format
from broker.protocol.native import NATIVE

__all__ = ["make_formats"]


def make_formats(message_timeout: float) -> Mapping[str, Format]:
    """Return all of them by subprotocol, the native one first.

    Args:
        message_timeout: seconds within which a client of `envelope.v1.json` has a reply or an error.
    """
    formats: tuple[Format, ...] = (NATIVE,)
    return {each.name: each for each in formats}
