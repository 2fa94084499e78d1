"""The wire formats there are (PROTOCOL sections 2 and 6)."""

from collections.abc import Callable, Mapping

from broker.protocol.chat import ChatFormat
from broker.protocol.dialect import Format
from broker.protocol.envelope import EnvelopeFormat
from broker.protocol.native import NATIVE
from broker.protocol.project import ProjectFormat
from broker.protocol.session import SessionFormat

__all__ = ["make_formats"]


def make_formats(message_timeout: float, now: Callable[[], int]) -> Mapping[str, Format]:
    """Return all of them by subprotocol, the native one first.

    Args:
        message_timeout: seconds within which a client of `envelope.v1.json` has a reply or an error.
        now: returns milliseconds since the epoch, for formats that date what the broker says.
    """
    envelopes = EnvelopeFormat(message_timeout, now)
    formats: tuple[Format, ...] = (NATIVE, SessionFormat(), ProjectFormat(now), envelopes, ChatFormat(now))
    return {each.name: each for each in formats}
